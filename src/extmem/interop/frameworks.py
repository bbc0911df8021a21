"""PyTorch, CuPy and JAX arrays over memory, no copy. Each is imported when asked for, and a clear error where absent.

PyTorch has no tensors that are read-only: `ReadOnlyTensor` is one whose writing operations are refused. JAX writes to
no array but those that a program donates, and has no word for read-only memory: it is given none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import optional
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy

    from extmem.interop.device_array import DeviceArray

__all__ = ["cupy_array", "jax_array", "jax_array_on_host", "torch_tensor", "torch_tensor_on_host"]


def _failed(what: str, array: DeviceArray, error: Exception, reason: str = "") -> UnsupportedError:
    return UnsupportedError(
        f"{what} did not take {array.dtype}{list(array.shape)} on CUDA device {array.ordinal}: {reason or error}",
        requires_one_of=[f"a build of {what} for CUDA that suits the driver"],
    )


def _torch(advice: str) -> Any:
    return optional.load("torch", what="PyTorch", advice=advice)


def torch_tensor(array: DeviceArray) -> Any:
    """A tensor on the GPU. Errors: UnsupportedError without PyTorch, or for a build that cannot use this GPU."""
    torch = _torch("install it as its site says, in a build for CUDA")
    try:
        if not array.read_only:
            return _unguarded(torch, array)
        return _guarded(torch, _unguarded(torch, array.said_writable()))
    except (RuntimeError, BufferError, AssertionError, TypeError, ValueError) as error:
        raise _failed("PyTorch", array, error, _why_not(torch)) from error


def _unguarded(torch: Any, array: DeviceArray) -> Any:
    if array.hosted:  # whose DLPack device PyTorch does not know
        return torch.as_tensor(array, device=f"cuda:{array.ordinal}")
    # The capsule itself: PyTorch need not ask for its current stream first, since there is nothing to wait for.
    if not torch.cuda.is_initialized():
        torch.cuda.init()
    return torch.from_dlpack(array.capsule())


def _why_not(torch: Any) -> str:
    """Why this PyTorch has no GPU; empty where it has some."""
    if torch.version.cuda is None:
        return f"this build ({torch.__version__}) is without CUDA; install one with it, or use memory.read()"
    if not torch.cuda.is_available():
        return (
            f"this build is for CUDA {torch.version.cuda} and finds no GPU that it can use: the driver may be too old "
            "for it (`nvidia-smi` shows its CUDA version)"
        )
    return ""


def torch_tensor_on_host(array: numpy.ndarray[Any, Any]) -> Any:
    """A tensor over host memory, which NumPy has seen already."""
    torch = _torch("install it as its site says; a build for the CPU will do")
    if array.flags.writeable:
        return torch.from_numpy(array)
    import ctypes

    # Over the same bytes, said to be writable, for a tensor that keeps the rule by itself.
    first, last = optional.load("numpy.lib.array_utils", what="NumPy", advice="reinstall it").byte_bounds(array)
    octets = (ctypes.c_ubyte * (last - first)).from_address(first)
    octets.keep = array
    loose = array.__class__(
        array.shape, array.dtype, memoryview(octets).cast("B"), array.ctypes.data - first, array.strides
    )
    return _guarded(torch, torch.from_numpy(loose))


def _guarded(torch: Any, tensor: Any) -> Any:
    module = optional.load("extmem.interop.read_only_tensor", what="PyTorch", advice="reinstall it")
    return torch.Tensor._make_subclass(module.ReadOnlyTensor, tensor)


def cupy_array(array: DeviceArray) -> Any:
    """A CuPy array on the GPU. Errors: UnsupportedError without CuPy, or for a build that cannot use this GPU."""
    advice = "pip install cupy-cuda13x (or the one for the driver's CUDA version)"
    cupy = optional.load("cupy", what="CuPy", advice=advice)
    try:
        with cupy.cuda.Device(array.ordinal):
            return cupy.asarray(array)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _failed("CuPy", array, error) from error


def jax_array(array: DeviceArray) -> Any:
    """A JAX array on the GPU; JAX takes row-major arrays alone. Errors: UnsupportedError."""
    dlpack = _jax_dlpack("pip install 'jax[cuda13]' (or the one for the driver's CUDA version)")
    try:
        return _as_wide(dlpack.from_dlpack(array), array.dtype)
    except (RuntimeError, ValueError, TypeError, BufferError) as error:
        raise _failed("JAX", array, error) from error


def jax_array_on_host(array: numpy.ndarray[Any, Any]) -> Any:
    """A JAX array over host memory, which NumPy has seen already. Errors: UnsupportedError where JAX would copy."""
    dlpack = _jax_dlpack("pip install jax")
    if not array.flags.writeable:
        raise UnsupportedError(
            "JAX takes no read-only memory without a copy; jax.numpy.array(memory.numpy()) makes one",
            requires_one_of=["Access.READ_WRITE", "a copy"],
        )
    try:
        return _as_wide(dlpack.from_dlpack(array, copy=False), array.dtype.name)
    except (RuntimeError, ValueError, TypeError, BufferError) as error:
        raise UnsupportedError(
            f"JAX did not take {array.dtype}{list(array.shape)} of host memory without a copy: {error}",
            requires_one_of=["a copy: jax.numpy.array(memory.numpy())"],
        ) from error


def _jax_dlpack(advice: str) -> Any:
    optional.load("jax", what="JAX", advice=advice)
    return optional.load("jax.dlpack", what="JAX", advice=advice)


def _as_wide(made: Any, dtype: str) -> Any:
    """Refuse what JAX has halved, which is another array then. Errors: UnsupportedError."""
    if str(made.dtype) != dtype:
        raise UnsupportedError(
            f"JAX made {made.dtype} of {dtype}, which is a copy: it has 64-bit types after "
            'jax.config.update("jax_enable_x64", True) alone',
            requires_one_of=["jax_enable_x64"],
        )
    return made
