"""PyTorch, CuPy and JAX arrays over memory, zero copy. Each framework is imported on its first use.

PyTorch has no read-only tensors; `ReadOnlyTensor` refuses the operations that write. JAX assumes that
nobody changes the elements of an array, so read-only memory on the host is refused for JAX unless it is frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from extmem import optional
from extmem.errors import UnsupportedError
from extmem.interop.element_types import carried, in_numpy, jax_name, not_in, numpy_dtype, torch_dtype
from extmem.interop.numpy_views import CPU_DEVICE, dlpack_capsule, numpy_view
from extmem.owning import late_imports
from extmem.sharing.layout import ArrayLayout, without_odd_strides

if TYPE_CHECKING:
    from extmem.interop.device_array import DeviceArray

__all__ = [
    "cupy_array",
    "guard_of",
    "guarded",
    "jax_array",
    "jax_array_on_host",
    "torch_tensor",
    "torch_tensor_on_host",
]


def _not_taken(what: str, array: DeviceArray, error: Exception, reason: str = "") -> UnsupportedError:
    return UnsupportedError(
        f"{what} did not accept {array.dtype}{list(array.shape)} on CUDA device {array.ordinal}: {reason or error}",
        requires_one_of=[f"a build of {what} for a CUDA version that the driver supports"],
    )


def torch_tensor(array: DeviceArray) -> Any:
    """Return a tensor on the GPU.

    Errors: UnsupportedError without PyTorch, for a build that cannot use this GPU, and for an element type that PyTorch
    lacks.
    """
    torch = optional.load("torch", what="PyTorch", advice="install a build for CUDA, as described on pytorch.org")
    dtype = torch_dtype(array.layout.element, torch)
    try:
        writable = array.as_writable() if array.read_only else array
        tensor = _typed(torch, _plain_tensor(torch, writable), dtype)
        return guarded(torch, tensor) if array.read_only else tensor
    except (RuntimeError, BufferError, AssertionError, TypeError, ValueError) as error:
        raise _not_taken("PyTorch", array, error, _missing_gpu_reason(torch)) from error


def _plain_tensor(torch: Any, array: DeviceArray) -> Any:
    if array.hosted:  # PyTorch does not support the DLPack device type of such memory
        return torch.as_tensor(array.carrier, device=f"cuda:{array.ordinal}")
    # Pass the capsule itself, so that PyTorch does not query its current stream: there is no work to wait for.
    if not torch.cuda.is_initialized():
        torch.cuda.init()
    return torch.from_dlpack(array.carrier.capsule())


def _typed(torch: Any, tensor: Any, dtype: Any) -> Any:
    """Return the tensor of carriers as its own type; PyTorch makes no conversion."""
    return tensor if tensor.dtype is dtype else tensor.view(dtype)


def _missing_gpu_reason(torch: Any) -> str:
    """Return the reason why this PyTorch cannot use a GPU; an empty string if it can."""
    if torch.version.cuda is None:
        return f"this build ({torch.__version__}) is without CUDA; install a build with CUDA, or use memory.read()"
    if not torch.cuda.is_available():
        return (
            f"this build is for CUDA {torch.version.cuda} and finds no GPU that it can use: the driver may be too old "
            "for it (`nvidia-smi` shows the CUDA version of the driver)"
        )
    return ""


def torch_tensor_on_host(buffer: memoryview, layout: ArrayLayout) -> Any:
    """Return a tensor over host memory. buffer: the memory.

    Errors: UnsupportedError without PyTorch or NumPy, for an element type that PyTorch lacks, and for elements that are
    not at multiples of their size; ValueError for negative strides, and for packed elements that do not fill their
    bytes.
    """
    torch = optional.load(
        "torch", what="PyTorch", advice="install it as described on pytorch.org; a build for the CPU is sufficient"
    )
    dtype = torch_dtype(layout.element, torch)
    layout = without_odd_strides(layout)
    if any(stride < 0 for stride in layout.strides):
        raise ValueError(
            f"PyTorch has no negative strides ({layout.strides}); give positive ones, and flip the tensor "
            "afterwards: memory.torch(…).flip(0)"
        )
    item = layout.element.itemsize or 1
    if layout.offset % item or (not layout.element.packed and any(stride % item for stride in layout.strides)):
        raise UnsupportedError(
            f"the offset {layout.offset} or the strides {layout.strides} are not multiples of the {item} bytes of "
            f"{layout.dtype}, as PyTorch requires; use memory.numpy(), or torch.tensor(memory.read()), which copies",
            requires_one_of=["offsets and strides of whole elements", "numpy()"],
        )
    array = numpy_view(buffer, carried(layout))
    if array.flags.writeable:
        return _typed(torch, torch.from_numpy(array), dtype)
    with late_imports():
        import ctypes

    # A writable array over the same bytes, for a tensor that refuses writes by itself.
    first, last = optional.load("numpy.lib.array_utils", what="NumPy", advice="reinstall it").byte_bounds(array)
    octets = (ctypes.c_ubyte * (last - first)).from_address(first)
    octets.keep = array
    loose = array.__class__(
        array.shape, array.dtype, memoryview(octets).cast("B"), array.ctypes.data - first, array.strides
    )
    return guarded(torch, _typed(torch, torch.from_numpy(loose), dtype))


def guarded(torch: Any, tensor: Any) -> Any:
    """Return a tensor over the same memory that refuses writes."""
    return guard_of(torch)(tensor)


def guard_of(torch: Any) -> Callable[[Any], Any]:
    """Return what makes a tensor over the same memory that refuses writes."""
    module = optional.load("extmem.interop.read_only_tensor", what="PyTorch", advice="reinstall it")
    return partial(torch.Tensor._make_subclass, module.ReadOnlyTensor)


def cupy_array(array: DeviceArray) -> Any:
    """Return a CuPy array on the GPU.

    Errors: UnsupportedError without CuPy, or for a build that cannot use this GPU.
    """
    cupy = optional.load(
        "cupy", what="CuPy", advice="pip install cupy-cuda13x (or the package for the CUDA version of the driver)"
    )
    element, view = array.layout.element, None
    if not in_numpy(element):
        # Earlier versions take it for uninterpreted bytes, and end the process in some operations on them.
        if element.text != "bfloat16" or int(cupy.__version__.partition(".")[0]) < 15:
            raise not_in(f"CuPy {cupy.__version__}", element, "cupy")
        view = numpy_dtype(element)
    try:
        with cupy.cuda.Device(array.ordinal):
            made = cupy.asarray(array.carrier)
            return made if view is None else made.view(view)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _not_taken("CuPy", array, error) from error


def jax_array(array: DeviceArray) -> Any:
    """Return a JAX array on the GPU; JAX accepts only row-major arrays. Errors: UnsupportedError."""
    dlpack = _jax_dlpack("pip install 'jax[cuda13]' (or the extra for the CUDA version of the driver)")
    name = jax_name(array.layout.element)
    try:
        return _same_width(dlpack.from_dlpack(array), name)
    except (RuntimeError, ValueError, TypeError, BufferError) as error:
        raise _not_taken("JAX", array, error) from error


class _HostArray:
    """What JAX takes: an object with the DLPack protocol, over host memory."""

    def __init__(self, buffer: memoryview, layout: ArrayLayout) -> None:
        self._buffer, self._layout = buffer, layout

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU_DEVICE

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        return dlpack_capsule(
            self._buffer, self._layout, stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )


def jax_array_on_host(buffer: memoryview, layout: ArrayLayout, *, constant: bool = False) -> Any:
    """Return a JAX array over host memory. buffer: the memory. constant: nobody writes to it any more.

    Errors: UnsupportedError for read-only memory that is not constant, for an element type that JAX lacks, and where
    JAX would copy.
    """
    dlpack = _jax_dlpack("pip install jax")
    name, layout = jax_name(layout.element), without_odd_strides(layout)
    if buffer.readonly and not constant:
        raise UnsupportedError(
            "JAX assumes that nobody changes the elements of an array, and others may change this memory, which is "
            "read-only here; freeze it where it is written (memory.freeze()), or make a copy with "
            "jax.numpy.array(memory.numpy())",
            requires_one_of=["memory.freeze()", "Access.READ_WRITE", "a copy"],
        )
    if buffer.readonly:
        buffer = _unmarked(buffer)
    try:
        return _same_width(dlpack.from_dlpack(_HostArray(buffer, layout), copy=False), name)
    except (RuntimeError, ValueError, TypeError, BufferError) as error:
        raise UnsupportedError(
            f"JAX did not accept {name}{list(layout.shape)} of host memory without a copy: {error}",
            requires_one_of=["a copy: jax.numpy.array(memory.numpy())"],
        ) from error


def _unmarked(buffer: memoryview) -> memoryview:
    """Return read-only bytes without that mark, for JAX, which accepts no marked ones and never writes to an array that
    came by DLPack: donated ones are copied, too.
    """
    numpy: Any = optional.load("numpy", what="NumPy", advice="pip install numpy")
    with late_imports():
        import ctypes

    octets: Any = (ctypes.c_ubyte * buffer.nbytes).from_address(numpy.frombuffer(buffer, "u1").ctypes.data)
    octets.keeper = buffer  # as long as the memoryview is alive
    return memoryview(octets).cast("B")


def _jax_dlpack(advice: str) -> Any:
    optional.load("jax", what="JAX", advice=advice)
    return optional.load("jax.dlpack", what="JAX", advice=advice)


def _same_width(array: Any, dtype: str) -> Any:
    """Return the JAX array if it has this type, and refuse it if JAX converted 64-bit elements to 32 bits, in a copy.

    Errors: UnsupportedError.
    """
    if str(array.dtype) != dtype:
        raise UnsupportedError(
            f"JAX converted {dtype} to {array.dtype} in a copy: it supports 64-bit types only after "
            'jax.config.update("jax_enable_x64", True)',
            requires_one_of=["jax_enable_x64"],
        )
    return array
