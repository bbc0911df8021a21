"""All names that `interop` exports, imported together."""

from extmem.interop import gpu_arrays, transfer
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
from extmem.sharing.layout import ArrayLayout, Axes, axes_of, contiguous_strides, layout_for

__all__ = [
    "ArrayLayout",
    "Axes",
    "CPU_DEVICE",
    "DeviceArray",
    "array_interface",
    "as_requested",
    "axes_of",
    "check_device_layout",
    "contiguous_strides",
    "cupy_array",
    "dlpack_capsule",
    "dtype_name",
    "gpu_arrays",
    "itemsize",
    "jax_array",
    "jax_array_on_host",
    "layout_for",
    "new_octets",
    "numpy_view",
    "octets_to_write",
    "torch_tensor",
    "torch_tensor_on_host",
    "transfer",
    "typed_view",
]
