"""`ReadOnlyTensor`: a PyTorch tensor over memory that may only be read. Imports PyTorch; `frameworks` loads it late.

How this works. PyTorch has no read-only tensors: a write to one over a read-only mapping ends the process. This
subclass sees every operation before it is done (`__torch_dispatch__`), and the operation's own schema declares what
it writes and which of its results are views. Some of PyTorch's methods do not work on subclasses of this kind, and some
reach the bytes beside the operations: printing, `tolist`, `numpy`, pickling, storages, DLPack. Those are defined here.
They look through a plain tensor over the same bytes (`_plain`), which never leaves this module.

Not seen: `torch.utils.dlpack.to_dlpack`, `data_ptr`, `as_subclass(torch.Tensor)`, and operators of other libraries
whose schema does not declare what they write.
"""

from __future__ import annotations

from typing import Any, NoReturn

import torch

from extmem.errors import UnsupportedError
from extmem.interop.numpy_views import as_requested, dlpack_capsule

__all__ = ["ReadOnlyTensor"]

_DO = "ask for Access.READ_WRITE when opening it (its owner has to grant it), or write to a copy: tensor.clone()"


class ReadOnlyTensor(torch.Tensor):  # type: ignore[misc]
    """A tensor of memory that may only be read: operations that write to it raise PermissionError.

    Its views are such tensors too; what is computed from it is a plain tensor, and so are its deep copies and what is
    unpickled of it, which have bytes of their own. `numpy()` and `numpy.asarray` give read-only arrays over the memory.
    """

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        schema = func._schema
        for position, argument in enumerate(schema.arguments):
            value = args[position] if position < len(args) else given.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write and _holds(value):
                _refuse(schema.name)
        with torch._C._DisableTorchDispatch():
            made = func(*args, **given)
        if any(answer.alias_info is not None for answer in schema.returns):
            return _again(made)
        return made

    def _plain(self) -> Any:
        with torch._C._DisableTorchDispatch():
            return torch.ops.aten.alias(self)

    # Reading.

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        text: str = self._plain().detach().__repr__(tensor_contents=tensor_contents)
        return f"{text[:-1]}, read_only=True)" if text.endswith(")") else text

    def __format__(self, specification: str) -> str:
        text: str = self._plain().__format__(specification)
        return text if specification else repr(self)

    def tolist(self) -> Any:
        """The elements as nested lists."""
        return self._plain().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """A read-only NumPy array over the same memory; with `force`, a copy of a GPU's. Errors: as `Tensor.numpy`."""
        array = self._plain().numpy(force=force)
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return as_requested(self.numpy(), dtype, copy)

    def new(self, *args: Any, **kwargs: Any) -> Any:
        """A plain tensor, as `Tensor.new`."""
        return self._plain().new(*args, **kwargs)

    def _typed_storage(self) -> Any:
        # PyTorch's own, from which a data loader's worker makes others of the type.
        return self._plain()._typed_storage()

    @property
    def data(self) -> Any:
        """The tensor without its gradients; read-only too, and not to be set."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> NoReturn:
        _refuse("data")

    def is_shared(self) -> bool:
        """False: it is not in memory of PyTorch's own."""
        return False

    # Copies.

    def __copy__(self) -> ReadOnlyTensor:
        alias: ReadOnlyTensor = self.detach()
        return alias

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self)] = copied = self.detach().clone().requires_grad_(self.requires_grad)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        # PyTorch passes a storage to a child that is being started by a descriptor, and does not keep it open until the
        # child has it: whoever has this tensor then has its copy, too.
        self._pickled = self.__deepcopy__({})
        return self._pickled.__reduce_ex__(protocol)

    # Ways to the bytes that do not keep the rule.

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        if self.device.type != "cpu":
            raise BufferError(f"this tensor is read-only, and PyTorch's capsules have no flag for that; {_DO}")
        # PyTorch's own default for `stream` is -1, which means no stream.
        asked = None if stream == -1 else stream
        return dlpack_capsule(self.numpy(), stream=asked, max_version=max_version, dl_device=dl_device, copy=copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface = dict(self._plain().__cuda_array_interface__)
        return {**interface, "data": (interface["data"][0], True)}

    def untyped_storage(self) -> NoReturn:
        """PermissionError: a storage would be written without a question."""
        raise PermissionError(f"a storage of this memory, which is read-only here, would not keep the rule; {_DO}")

    def storage(self) -> NoReturn:
        """As `untyped_storage`."""
        self.untyped_storage()

    def apply_(self, function: Any) -> NoReturn:
        """PermissionError: it writes."""
        _refuse("apply_")

    def map_(self, tensor: Any, function: Any) -> NoReturn:
        """PermissionError: it writes."""
        _refuse("map_")

    def map2_(self, x: Any, y: Any, function: Any) -> NoReturn:
        """PermissionError: it writes."""
        _refuse("map2_")

    def share_memory_(self) -> NoReturn:
        """UnsupportedError: it would move the elements to memory of PyTorch's own."""
        raise UnsupportedError(
            "share_memory_() moves a tensor to memory of PyTorch's own, where nobody sees what extmem shares; send the "
            "memory object (it pickles), or its name, and call torch() there",
            requires_one_of=["the memory object"],
        )


def _refuse(name: str) -> NoReturn:
    raise PermissionError(f"{name} would write to memory that is read-only here; {_DO}")


def _holds(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(isinstance(one, ReadOnlyTensor) for one in value)
    return isinstance(value, ReadOnlyTensor)


def _again(made: Any) -> Any:
    if isinstance(made, (list, tuple)):
        return type(made)(_again(one) for one in made)
    return torch.Tensor._make_subclass(ReadOnlyTensor, made) if isinstance(made, torch.Tensor) else made
