"""Arrays over memory, zero copy. Frameworks are imported when asked for, never required.

Knows nothing of memory objects: it takes a memoryview or a device pointer, and a layout; so `memory` can stand on it.
"""

from extmem.arrays.device import DeviceArray, check_device_layout
from extmem.arrays.dtypes import dtype_name, itemsize
from extmem.arrays.frameworks import cupy_array, jax_array, torch_tensor, torch_tensor_on_host
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
    "DeviceArray",
    "as_requested",
    "check_device_layout",
    "contiguous_strides",
    "cupy_array",
    "dlpack_capsule",
    "dtype_name",
    "itemsize",
    "jax_array",
    "layout_for",
    "new_octets",
    "numpy_view",
    "octets_of",
    "torch_tensor",
    "torch_tensor_on_host",
    "typed_view",
]
