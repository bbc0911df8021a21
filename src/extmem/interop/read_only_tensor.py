"""`ReadOnlyTensor`: a PyTorch tensor over read-only memory. Imports PyTorch, so `frameworks` imports it on demand.

How this works. PyTorch has no read-only tensors: a write to a tensor over a read-only mapping ends the process. This
subclass intercepts every operation before it runs (`__torch_dispatch__`). The schema of the operation declares which
arguments it writes to and which of its results are views. Some methods of PyTorch do not work on such subclasses, and
some access the bytes without an operation: printing, `tolist`, `numpy`, pickling, storages, DLPack. This class
defines those. They read through a plain tensor over the same bytes (`_plain`), which is never returned to the program.

Operations are intercepted below autograd, which takes 10 µs or more for each, and a function has several. So functions
are intercepted before that (`__torch_function__`), which takes 4 µs, of which PyTorch needs more than 2. One of which
`torch_operations` knows that it cannot write is run without intercepting its operations; results over the same memory
are recognized by their storage. All other functions are run as if they had not been intercepted, and so is what needs
more than one plain tensor's operations: views that autograd records, modes, transforms of `torch.func`, and arguments
of other classes.

Not intercepted, because PyTorch does not ask: `torch.utils.dlpack.to_dlpack`, `data_ptr`, `as_subclass(torch.Tensor)`,
assigning this tensor to the `data` of another, `other.set_(tensor, offset, …)`, and operators of other libraries whose
schema does not declare what they write.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

import torch

from extmem.errors import UnsupportedError
from extmem.interop.element_types import element_of, in_numpy
from extmem.interop.numpy_views import array_capsule, as_requested
from extmem.interop.torch_operations import (
    REACHES,
    Effects,
    Reach,
    effects_of,
    prepare_dispatch,
    reach_of,
)

__all__ = ["ReadOnlyTensor"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""The carriers of element types that NumPy lacks."""
_REMEDY = (
    "open it with Access.READ_WRITE (its owner has to grant that), or write to a copy: tensor.clone(), or, for what a "
    "model writes to, torch(private=…) of named arrays"
)
# Names of this module are found faster than attributes of others.
_UNKNOWN, _NOTHING, _RESULTS = Reach.UNKNOWN, Reach.NOTHING, Reach.RESULTS
_known = REACHES.get
_is_compiling = torch.compiler.is_dynamo_compiling
_Tensor, _make, _is_alias_of = torch.Tensor, torch.Tensor._make_subclass, torch._C._is_alias_of
_NoFunctions, _NoDispatch = torch._C.DisableTorchFunctionSubclass, torch._C._DisableTorchDispatch
_modes, _transforms = torch._C._len_torch_dispatch_stack, torch._C._functorch.peek_interpreter_stack
_alias = torch.ops.aten.alias.default


class ReadOnlyTensor(torch.Tensor):  # type: ignore[misc]
    """A tensor over read-only memory: operations that write to it raise PermissionError.

    Views of it are ReadOnlyTensors too. Results that are computed from it are plain tensors, and so are deep copies and
    unpickled copies, which have their own bytes. `numpy()` and `numpy.asarray` return read-only arrays over the memory.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _is_compiling():  # the compiler cannot trace the rest; what it makes calls the functions again
            with _NoFunctions():
                return func(*args, **kwargs) if kwargs else func(*args)
        if len(types) > 1 and not _OWN.issuperset(types):
            return _with_others(func, types, args, kwargs)
        reach = _known(func) or reach_of(func)
        if reach is _NOTHING:
            with _NoFunctions():
                return func(*args, **kwargs) if kwargs else func(*args)
        if reach is _UNKNOWN or _modes() or _transforms():
            return _by_operations(func, args, kwargs)
        for one in args:
            if type(one) not in _PLAIN and not _is_plain(one):
                return _by_operations(func, args, kwargs)
        if kwargs and not _are_plain(kwargs):
            return _by_operations(func, args, kwargs)
        with _NoFunctions(), _NoDispatch():
            result = func(*args, **kwargs) if kwargs else func(*args)
            if reach is _RESULTS:
                if type(result) is _Tensor and result.requires_grad:
                    prepare_dispatch(ReadOnlyTensor)  # the way back may read this tensor
                return result
            source = args[0] if args else None
            if type(source) is ReadOnlyTensor:
                if type(result) is not _Tensor:
                    if not _differentiable(result):
                        return _as_read_only(result, source)
                elif not result.requires_grad:
                    return _make(ReadOnlyTensor, result) if _is_alias_of(result, source) else result
        return _by_operations(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        effects = effects_of(func)
        if effects.written:
            _check_arguments(func, effects, args, given)
        with _NoDispatch():
            result = func(*args, **given)
        return _as_read_only(result) if effects.views else result

    def _plain(self) -> Any:
        with _NoFunctions(), _NoDispatch():
            return _alias(self)

    # Reading.

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        text: str = self._plain().detach().__repr__(tensor_contents=tensor_contents)
        return f"{text[:-1]}, read_only=True)" if text.endswith(")") else text

    def __format__(self, specification: str) -> str:
        return cast("str", self._plain().__format__(specification)) if specification else repr(self)

    def tolist(self) -> Any:
        """Return the elements as nested lists."""
        return self._plain().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Return a read-only NumPy array over the same memory; a copy for GPU memory with `force`.

        Errors: as `Tensor.numpy`.
        """
        array = self._plain().numpy(force=force)
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return as_requested(self.numpy(), dtype, copy)

    def new(self, *args: Any, **kwargs: Any) -> Any:
        """Return a plain tensor, as `Tensor.new` does."""
        return self._plain().new(*args, **kwargs)

    def _typed_storage(self) -> Any:
        # The workers of a PyTorch data loader make storages of the same type from this one.
        return self._plain()._typed_storage()

    @property
    def data(self) -> Any:
        """The tensor without its gradients. It is read-only too, and the attribute cannot be set."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> NoReturn:
        _refuse("data")

    def is_shared(self) -> bool:
        """Return False: PyTorch did not allocate the memory."""
        return False

    # Copies.

    def __copy__(self) -> ReadOnlyTensor:
        return cast("ReadOnlyTensor", self.detach())

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = copied = self.detach().clone().requires_grad_(self.requires_grad)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        # PyTorch passes a storage by fd to a child that is being started, and does not keep the fd open until the child
        # has received it. So this tensor keeps the copy, and with it the fd.
        self._pickled = self.__deepcopy__({})
        return self._pickled.__reduce_ex__(protocol)

    # Methods that access the bytes without an operation.

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        if self.device.type != "cpu":
            raise BufferError(f"this tensor is read-only, and the capsules of PyTorch have no flag for that; {_REMEDY}")
        element = element_of(self.dtype)
        integers = self if in_numpy(element) else self.view(_INTEGERS[element.itemsize or 1])
        return array_capsule(
            integers.numpy(),
            element,
            tuple(self.shape),
            stream=None if stream == -1 else stream,  # PyTorch's default, -1, means no stream
            max_version=max_version,
            dl_device=dl_device,
            copy=copy,
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = dict(self._plain().__cuda_array_interface__)
        return {**interface, "data": (interface["data"][0], True)}

    def untyped_storage(self) -> NoReturn:
        """Raise PermissionError: writes to a storage cannot be intercepted."""
        raise PermissionError(f"this memory is read-only in this process, and its storage allows writes; {_REMEDY}")

    def storage(self) -> NoReturn:
        """Raise PermissionError, as `untyped_storage` does."""
        self.untyped_storage()

    def apply_(self, function: Any) -> NoReturn:
        """Raise PermissionError, because it writes."""
        _refuse("apply_")

    def map_(self, tensor: Any, function: Any) -> NoReturn:
        """Raise PermissionError, because it writes."""
        _refuse("map_")

    def map2_(self, x: Any, y: Any, function: Any) -> NoReturn:
        """Raise PermissionError, because it writes."""
        _refuse("map2_")

    def share_memory_(self) -> NoReturn:
        """Raise UnsupportedError: it would copy the elements to memory that PyTorch allocates."""
        raise UnsupportedError(
            "share_memory_() copies a tensor to memory that PyTorch allocates, which extmem does not share; send the "
            "memory object (it can be pickled) or its name to the other process, and call torch() there",
            requires_one_of=["the memory object"],
        )


def _refuse(name: str) -> NoReturn:
    raise PermissionError(f"{name} would write to memory that is read-only in this process; {_REMEDY}")


def _contains_read_only(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(one, ReadOnlyTensor) for one in value)
    return isinstance(value, ReadOnlyTensor)


def _check_arguments(func: Any, effects: Effects, args: Any, given: dict[str, Any]) -> None:
    """Refuse an operation that would write to read-only memory."""
    if effects.only_if is not None:
        position, name = effects.only_if
        if not (args[position] if position < len(args) else given.get(name)):
            return
    for position, name in effects.written:
        if _contains_read_only(args[position] if position < len(args) else given.get(name)):
            _refuse(func._schema.name)


def _with_others(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """Leave the function to the other classes that intercept it, as if this class did not intercept functions."""
    others = tuple(one for one in types if one not in _OWN and not issubclass(one, ReadOnlyTensor))
    for one in others:
        result = one.__torch_function__(func, others, args, kwargs or {})
        if result is not NotImplemented:
            return result
    if others:
        return NotImplemented
    return _by_operations(func, args, kwargs)


def _by_operations(func: Any, args: Any, kwargs: Any) -> Any:
    """Call the function; each operation that it consists of is intercepted."""
    prepare_dispatch(ReadOnlyTensor)
    with _NoFunctions():
        return func(*args, **kwargs) if kwargs else func(*args)


_OWN = frozenset({torch.Tensor, torch.nn.Parameter, ReadOnlyTensor})
"""PyTorch passes its own class too, for functions that are written in Python."""
_VALUES = frozenset({bool, complex, float, int, type(None), torch.Size, torch.device, torch.dtype, torch.layout})
_PLAIN = _VALUES | {
    *(torch.Tensor, torch.nn.Parameter, ReadOnlyTensor, slice, type(...)),
    *(torch.memory_format, torch.Generator),
}


def _is_plain(value: Any) -> bool:
    """Return whether a value, or all values of a list, are numbers and tensors whose operations nobody else intercepts.

    A string could be the name of a dimension.
    """
    if type(value) is list or type(value) is tuple:
        return all(type(each) in _PLAIN for each in value)
    return type(value) in _PLAIN


def _are_plain(given: dict[str, Any]) -> bool:
    return "out" not in given and all(map(_is_plain, given.values()))


def _differentiable(result: Any) -> bool:
    """Return whether autograd recorded how the result was made."""
    if isinstance(result, (list, tuple)):
        return any(_differentiable(one) for one in result)
    return isinstance(result, torch.Tensor) and bool(result.requires_grad)


def _as_read_only(result: Any, source: Any = None) -> Any:
    """Return the result with its tensors guarded: all, or those over the memory of a source."""
    kind = type(result)
    if kind is torch.Tensor:
        return result if source is not None and not _is_alias_of(result, source) else _make(ReadOnlyTensor, result)
    if isinstance(result, (list, tuple)):
        return kind(_as_read_only(one, source) for one in result)
    return result


def _leave_uncompiled(*methods: Any) -> None:
    """Keep torch.compile from compiling these methods, and what they call, by themselves.

    What it makes of a method intercepts no functions during the whole call, but would pass them on after it: to the
    method again.
    """
    frames: Any = getattr(torch._C._dynamo, "eval_frame", None)
    for method in methods:
        if hasattr(frames, "set_code_exec_strategy"):
            skipped = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)
            frames.set_code_exec_strategy(method.__func__.__code__, skipped)
        elif hasattr(frames, "skip_code"):  # PyTorch 2.6 and earlier
            frames.skip_code(method.__func__.__code__)


_leave_uncompiled(ReadOnlyTensor.__torch_function__, ReadOnlyTensor.__torch_dispatch__)
