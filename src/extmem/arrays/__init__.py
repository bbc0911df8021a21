"""Arrays over plain buffers, zero copy: NumPy and CPU DLPack. Frameworks are imported when asked for, never required.

Knows nothing of memory objects: it takes a memoryview and a layout, so that `memory` can stand on it.
"""

from extmem.arrays.dtypes import dtype_name, itemsize
from extmem.arrays.layout import ArrayLayout, contiguous_strides, layout_for
from extmem.arrays.views import (
    CPU_DEVICE,
    as_requested,
    dlpack_capsule,
    new_octets,
    numpy_view,
    octets_of,
    typed_view,
)

__all__ = [
    "CPU_DEVICE",
    "ArrayLayout",
    "as_requested",
    "contiguous_strides",
    "dlpack_capsule",
    "dtype_name",
    "itemsize",
    "layout_for",
    "new_octets",
    "numpy_view",
    "octets_of",
    "typed_view",
]
