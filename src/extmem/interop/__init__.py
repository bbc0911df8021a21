"""Arrays over memory, zero copy. Frameworks are imported when asked for, never required.

Knows nothing of memory objects: it takes a memoryview or a device pointer, and a layout; so `memory` can stand on it.
"""

from extmem.interop.device_array import DeviceArray, check_device_layout
from extmem.interop.frameworks import cupy_array, jax_array, jax_array_on_host, torch_tensor, torch_tensor_on_host
from extmem.interop.numpy_views import (
    CPU_DEVICE,
    array_interface,
    as_requested,
    dlpack_capsule,
    new_octets,
    numpy_view,
    typed_view,
)
from extmem.interop.writing import octets_to_write
from extmem.sharing.dtypes import dtype_name, itemsize
from extmem.sharing.layout import ArrayLayout, Axes, axes_of, contiguous_strides, layout_for, whole

__all__ = [
    "CPU_DEVICE",
    "ArrayLayout",
    "Axes",
    "DeviceArray",
    "array_interface",
    "as_requested",
    "axes_of",
    "check_device_layout",
    "contiguous_strides",
    "cupy_array",
    "dlpack_capsule",
    "dtype_name",
    "itemsize",
    "jax_array",
    "jax_array_on_host",
    "layout_for",
    "new_octets",
    "numpy_view",
    "torch_tensor",
    "torch_tensor_on_host",
    "octets_to_write",
    "typed_view",
    "whole",
]
