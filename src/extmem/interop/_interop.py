"""All names that `interop` exports, imported together."""

from extmem.interop import gpu_arrays, transfer
from extmem.interop.device_array import DeviceArray, check_device_layout
from extmem.interop.element_types import element_of, numpy_dtype
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
from extmem.sharing.elements import ElementType, element_type, nbytes_of
from extmem.sharing.layout import ArrayLayout, Axes, axes_of, contiguous_strides, layout_for

__all__ = [
    "ArrayLayout",
    "Axes",
    "CPU_DEVICE",
    "DeviceArray",
    "ElementType",
    "array_interface",
    "as_requested",
    "axes_of",
    "check_device_layout",
    "contiguous_strides",
    "cupy_array",
    "dlpack_capsule",
    "element_of",
    "element_type",
    "gpu_arrays",
    "jax_array",
    "jax_array_on_host",
    "layout_for",
    "nbytes_of",
    "new_octets",
    "numpy_dtype",
    "numpy_view",
    "octets_to_write",
    "torch_tensor",
    "torch_tensor_on_host",
    "transfer",
    "typed_view",
]
