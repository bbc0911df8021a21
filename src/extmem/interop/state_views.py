"""Arrays of a table, made when they are asked for: `ArrayViews`, and how each framework makes one.

How this works. The arrays of one payload share one base, an array or tensor of all its bytes, which is made once; each
entry is a view of it. So 300 tensors cost 300 views and one import, and all of them keep the memory open together. In
PyTorch a read-only base would pass every step of a view through Python; the views are made from a plain tensor, and
each result is a `ReadOnlyTensor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from extmem import optional
from extmem.errors import UnsupportedError
from extmem.interop import frameworks
from extmem.interop.element_types import carried, numpy_dtype, torch_dtype
from extmem.interop.numpy_views import numpy_module
from extmem.sharing.elements import element_type
from extmem.sharing.layout import ArrayLayout
from extmem.sharing.table import Entry, cached_strides, strides_of

__all__ = ["ArrayViews", "Patterns", "is_private", "numpy_maker", "torch_base", "torch_maker"]

Patterns: TypeAlias = "bool | str | Sequence[str]"
"""Which arrays are private: all, none, or those whose names match one of these patterns (`encoder.*`)."""


def is_private(name: str, private: Patterns) -> bool:
    """Return whether a name matches the patterns."""
    if isinstance(private, bool):
        return private
    return any(fnmatchcase(name, one) for one in ([private] if isinstance(private, str) else private))


class ArrayViews(Mapping[str, Any]):
    """A read-only mapping from names to arrays of one framework, as a state dictionary is.

    An array is made when it is first asked for, and kept. Each keeps the memory open. `dict(views)` makes all of them.
    Threads: as a dictionary; two threads that ask for the same array at the same time may get two views of it.
    """

    def __init__(self, entries: Mapping[str, Entry], make: Callable[[Entry], Any]) -> None:
        self._entries = entries
        self._make = make
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        found = self._made.get(name)
        if found is None:
            found = self._made.setdefault(name, self._make(self._entries[name]))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"<ArrayViews of {len(self)} arrays: {', '.join(list(self._entries)[:4])}{', …' * (len(self) > 4)}>"


def numpy_maker(octets: memoryview, private: Patterns) -> Callable[[Entry], Any]:
    """Return what makes the NumPy array of an entry. octets: the bytes of the payload, read-only if the memory is."""
    numpy = numpy_module()
    base = numpy.frombuffer(octets, "uint8")

    def make(entry: Entry) -> Any:
        dtype = numpy_dtype(element_type(entry.dtype))
        array = numpy.ndarray(entry.shape, dtype, buffer=base, offset=entry.offset, strides=entry.strides)
        return array.copy(order="K") if is_private(entry.name, private) else array

    return make


def torch_maker(base: Any, private: Patterns) -> Callable[[Entry], Any]:
    """Return what makes the tensor of an entry.

    base: the bytes of the payload as a tensor, read-only if the memory is.
    """
    torch = optional.load("torch", what="PyTorch", advice="install it as described on pytorch.org")
    read_only = type(base) is not torch.Tensor
    plain = base._plain() if read_only else base
    guard = frameworks.guard_of(torch) if read_only else None
    typed: dict[str, tuple[Any, int, int, bool]] = {}

    def typed_as(text: str) -> tuple[Any, int, int, bool]:
        """Return the whole payload as elements of this type, their size, the number of the first one, and whether they
        are packed.
        """
        element = element_type(text)
        dtype = torch_dtype(element, torch)
        item = int(dtype.itemsize)
        whole = plain[: plain.numel() // item * item].view(dtype)
        return typed.setdefault(text, (whole, item, int(whole.storage_offset()), element.packed))

    def make(entry: Entry) -> Any:
        text, shape, offset = entry.dtype, entry.shape, entry.offset
        whole, item, first, packed = typed.get(text) or typed_as(text)
        if packed:
            carrier = carried(ArrayLayout(shape, text, strides_of(entry)))
            shape, steps = carrier.shape, tuple(step // item for step in carrier.strides)
        elif entry.strides is None:
            steps = cached_strides(shape, 1)
        else:
            steps = tuple(step // item for step in entry.strides)
        if not entry.nbytes:
            made = torch.empty(shape, dtype=whole.dtype, device=plain.device)
        elif offset % item:
            raise UnsupportedError(
                f"{entry.name!r} begins at byte {offset}, which is not a multiple of the {item} bytes of "
                f"{text}, as PyTorch requires; share it with align={max(16, item)}, or use numpy()",
                requires_one_of=["an aligned array", "numpy()"],
            )
        else:
            made = whole.as_strided(shape, steps, first + offset // item)
        if private is not False and is_private(entry.name, private):
            return made.clone()
        return made if guard is None else guard(made)

    return make


def torch_base(memory: Any) -> Any:
    """Return all bytes of the payload as a tensor: on the GPU if CUDA can use the memory, else on the host."""
    return memory.torch("uint8", (memory.size,))
