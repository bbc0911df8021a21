"""Arrays over payloads, zero copy: NumPy, DLPack, PyTorch, CuPy, JAX. A framework is imported on its first use.

The modules of this package are imported when their names are first used, because opening a device needs none of them,
and a program uses few.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.interop import gpu_arrays as gpu_arrays
    from extmem.interop import transfer as transfer
    from extmem.interop.device_array import DeviceArray as DeviceArray
    from extmem.interop.device_array import check_device_layout as check_device_layout
    from extmem.interop.element_types import element_of as element_of
    from extmem.interop.element_types import numpy_dtype as numpy_dtype
    from extmem.interop.frameworks import cupy_array as cupy_array
    from extmem.interop.frameworks import jax_array as jax_array
    from extmem.interop.frameworks import jax_array_on_host as jax_array_on_host
    from extmem.interop.frameworks import torch_tensor as torch_tensor
    from extmem.interop.frameworks import torch_tensor_on_host as torch_tensor_on_host
    from extmem.interop.numpy_views import CPU_DEVICE as CPU_DEVICE
    from extmem.interop.numpy_views import array_interface as array_interface
    from extmem.interop.numpy_views import as_requested as as_requested
    from extmem.interop.numpy_views import dlpack_capsule as dlpack_capsule
    from extmem.interop.numpy_views import new_octets as new_octets
    from extmem.interop.numpy_views import numpy_view as numpy_view
    from extmem.interop.numpy_views import typed_view as typed_view
    from extmem.interop.writing import octets_to_write as octets_to_write
    from extmem.sharing.elements import ElementType as ElementType
    from extmem.sharing.elements import element_type as element_type
    from extmem.sharing.elements import nbytes_of as nbytes_of
    from extmem.sharing.layout import ArrayLayout as ArrayLayout
    from extmem.sharing.layout import Axes as Axes
    from extmem.sharing.layout import axes_of as axes_of
    from extmem.sharing.layout import contiguous_strides as contiguous_strides
    from extmem.sharing.layout import layout_for as layout_for
else:
    from extmem.owning import late_names

    __getattr__ = late_names(
        globals(),
        {
            "extmem.interop.device_array": ("DeviceArray", "check_device_layout"),
            "extmem.interop.element_types": ("element_of", "numpy_dtype"),
            "extmem.interop.frameworks": (
                "cupy_array",
                "jax_array",
                "jax_array_on_host",
                "torch_tensor",
                "torch_tensor_on_host",
            ),
            "extmem.interop.numpy_views": (
                "CPU_DEVICE",
                "array_interface",
                "as_requested",
                "dlpack_capsule",
                "new_octets",
                "numpy_view",
                "typed_view",
            ),
            "extmem.interop.writing": ("octets_to_write",),
            "extmem.sharing.elements": ("ElementType", "element_type", "nbytes_of"),
            "extmem.sharing.layout": ("ArrayLayout", "Axes", "axes_of", "contiguous_strides", "layout_for"),
        },
        modules=("extmem.interop.gpu_arrays", "extmem.interop.transfer"),
    )
