"""`ReadOnlyTensor`: a PyTorch tensor over read-only memory. Imports PyTorch, so `frameworks` imports it on demand.

How this works. PyTorch has no read-only tensors: a write to a tensor over a read-only mapping ends the process. This
subclass intercepts every operation before it runs (`__torch_dispatch__`). The schema of the operation declares which
arguments it writes to and which of its results are views. Some methods of PyTorch do not work on such subclasses, and
some access the bytes without an operation: printing, `tolist`, `numpy`, pickling, storages, DLPack. This class
defines those. They read through a plain tensor over the same bytes (`_plain`), which is never returned to the program.

Not intercepted: `torch.utils.dlpack.to_dlpack`, `data_ptr`, `as_subclass(torch.Tensor)`, and operators of other
libraries whose schema does not declare what they write.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

import torch

from extmem.errors import UnsupportedError
from extmem.interop.element_types import element_of, in_numpy
from extmem.interop.numpy_views import array_capsule, as_requested

__all__ = ["ReadOnlyTensor"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""The carriers of element types that NumPy lacks."""
_REMEDY = (
    "open it with Access.READ_WRITE (its owner has to grant that), or write to a copy: tensor.clone(), or, for what a "
    "model writes to, torch(private=…) of named arrays"
)


class ReadOnlyTensor(torch.Tensor):  # type: ignore[misc]
    """A tensor over read-only memory: operations that write to it raise PermissionError.

    Views of it are ReadOnlyTensors too. Results that are computed from it are plain tensors, and so are deep copies and
    unpickled copies, which have their own bytes. `numpy()` and `numpy.asarray` return read-only arrays over the memory.
    """

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        schema = func._schema
        for position, argument in enumerate(schema.arguments):
            value = args[position] if position < len(args) else given.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write and _contains_read_only(value):
                _refuse(schema.name)
        with torch._C._DisableTorchDispatch():
            result = func(*args, **given)
        if any(output.alias_info is not None for output in schema.returns):
            return _as_read_only(result)
        return result

    def _plain(self) -> Any:
        with torch._C._DisableTorchDispatch():
            return torch.ops.aten.alias(self)

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


def _as_read_only(result: Any) -> Any:
    if isinstance(result, (list, tuple)):
        return type(result)(_as_read_only(one) for one in result)
    return torch.Tensor._make_subclass(ReadOnlyTensor, result) if isinstance(result, torch.Tensor) else result
