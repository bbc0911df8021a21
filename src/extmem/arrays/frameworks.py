"""PyTorch, CuPy and JAX arrays over memory, no copy. Each is imported when asked for, and a clear error where absent.

PyTorch has no tensors that are read-only: `ReadOnlyTensor` is one whose writing operations are refused.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    import numpy

    from extmem.arrays.device import DeviceArray

__all__ = ["cupy_array", "jax_array", "torch_tensor", "torch_tensor_on_host"]


def _framework(module: str, what: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(what, error, install) from error


def _missing(what: str, error: ImportError, install: str) -> UnsupportedError:
    return UnsupportedError(f"{what} is not installed ({error}); {install}", requires_one_of=[what])


def _failed(what: str, array: DeviceArray, error: Exception, reason: str = "") -> UnsupportedError:
    return UnsupportedError(
        f"{what} did not take {array.dtype}{list(array.shape)} on CUDA device {array.ordinal}: {reason or error}",
        requires_one_of=[f"a build of {what} for CUDA that suits the driver"],
    )


def torch_tensor(array: DeviceArray) -> Any:
    """A tensor on the GPU. Errors: UnsupportedError without PyTorch, or for a build that cannot use this GPU."""
    try:
        import torch
    except ImportError as error:
        raise _missing("PyTorch", error, "install it as its site says, in a build for CUDA") from error
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
    torch = _framework("torch", "PyTorch", "install it as its site says; a build for the CPU will do")
    if array.flags.writeable:
        return torch.from_numpy(array)
    import ctypes

    # Over the same bytes, said to be writable, for a tensor that keeps the rule by itself.
    octets = (ctypes.c_ubyte * array.nbytes).from_address(array.ctypes.data)
    octets.keep = array  # type: ignore[attr-defined]
    loose = array.__class__(array.shape, array.dtype, memoryview(octets).cast("B"), 0, array.strides)
    return _guarded(torch, torch.from_numpy(loose))


def _guarded(torch: Any, tensor: Any) -> Any:
    return torch.Tensor._make_subclass(_read_only_tensor(), tensor)


@cache
def _read_only_tensor() -> Any:
    """The class of tensors that refuse to be written."""
    import torch

    class ReadOnlyTensor(torch.Tensor):  # type: ignore[misc]
        """A tensor of memory that may only be read: operations that write to it raise PermissionError.

        Its views are such tensors too; what is computed from it is a plain tensor. The operations' own schemas say
        what they write and what is a view.
        """

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            schema = func._schema
            for position, argument in enumerate(schema.arguments):
                value = args[position] if position < len(args) else given.get(argument.name)
                if argument.alias_info is not None and argument.alias_info.is_write and _holds(value, cls):
                    raise PermissionError(
                        f"{schema.name} would write to memory that is read-only here; ask for Access.READ_WRITE when "
                        "opening it (its owner has to grant it), or write to a copy: tensor.clone()"
                    )
            with torch._C._DisableTorchDispatch():
                made = func(*args, **given)
            if any(answer.alias_info is not None for answer in schema.returns):
                return _again(made, cls, torch)
            return made

    return ReadOnlyTensor


def _holds(value: Any, cls: type) -> bool:
    return isinstance(value, cls) or (isinstance(value, (list, tuple)) and any(isinstance(v, cls) for v in value))


def _again(made: Any, cls: Any, torch: Any) -> Any:
    if isinstance(made, (list, tuple)):
        return type(made)(_again(one, cls, torch) for one in made)
    return torch.Tensor._make_subclass(cls, made) if isinstance(made, torch.Tensor) else made


def cupy_array(array: DeviceArray) -> Any:
    """A CuPy array on the GPU. Errors: UnsupportedError without CuPy, or for a build that cannot use this GPU."""
    cupy = _framework("cupy", "CuPy", "pip install cupy-cuda13x (or the one for the driver's CUDA version)")
    try:
        with cupy.cuda.Device(array.ordinal):
            return cupy.asarray(array)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _failed("CuPy", array, error) from error


def jax_array(array: DeviceArray) -> Any:
    """A JAX array on the GPU; JAX takes row-major arrays alone. Errors: UnsupportedError."""
    _framework("jax", "JAX", "pip install 'jax[cuda13]' (or the one for the driver's CUDA version)")
    dlpack = importlib.import_module("jax.dlpack")
    try:
        return dlpack.from_dlpack(array)
    except (RuntimeError, ValueError, TypeError, BufferError) as error:
        raise _failed("JAX", array, error) from error
