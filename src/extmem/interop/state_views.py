"""Arrays of a table, made when they are asked for: `ArrayViews`, and how each framework makes one.

How this works. The arrays of one payload share one base, an array or tensor of all its bytes, which is made once; each
entry is a view of it. So 300 tensors cost 300 views and one import, and all of them keep the memory open together. In
PyTorch a read-only base would pass every step of a view through Python; the views are made from a plain tensor, and
each result is a `ReadOnlyTensor`. Tensors that can be written have a storage each, a slice of the one of the base:
`torch.save` and the library safetensors look at storages, and refuse several types in one, or write all of it for one
tensor. (Read-only tensors are saved as copies, so they need none.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from extmem import optional
from extmem.arguments import a_type
from extmem.errors import UnsupportedError
from extmem.interop import frameworks
from extmem.interop.element_types import carried, numpy_dtype, torch_dtype
from extmem.interop.numpy_views import numpy_module
from extmem.sharing.elements import element_type
from extmem.sharing.layout import ArrayLayout
from extmem.sharing.table import Entry, cached_strides, strides_of

__all__ = ["ArrayViews", "Patterns", "check_patterns", "is_private", "near", "numpy_maker", "torch_base", "torch_maker"]

Patterns: TypeAlias = "bool | str | Sequence[str]"
"""Which arrays are private: all, none, or those whose names match one of these patterns (`encoder.*`)."""


def check_patterns(patterns: Iterable[object], what: str) -> None:
    """Raise TypeError for a pattern of names that is not text. what: the name of the argument."""
    for one in patterns:
        if not isinstance(one, str):
            raise TypeError(f"{what} has {one!r}, {a_type(one)}; give patterns of names as text, such as 'encoder.*'")


def _check_private(private: object) -> None:
    if isinstance(private, (bool, str)):
        return
    if not isinstance(private, Collection):
        raise TypeError(f"private is {private!r}, {a_type(private)}; give a pattern of names, several, or True for all")
    check_patterns(private, "private")


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
            entry = self._entries.get(name)
            if entry is None:
                raise KeyError(f"there is no array {name!r} in this mapping{near(name, self._entries)}")
            found = self._made.setdefault(name, self._make(entry))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __reduce__(self) -> tuple[Any, ...]:
        """As an OrderedDict, so that `torch.save`, pickle and `copy.deepcopy` copy the bytes of each array.

        PyTorch's state dictionaries are of this type, and `torch.load` takes no other one by default but plain dict,
        which pickle makes of dict itself only.
        """
        return OrderedDict, (), None, None, iter(self.items())

    def __repr__(self) -> str:
        return f"<ArrayViews of {len(self)} arrays: {', '.join(list(self._entries)[:4])}{', …' * (len(self) > 4)}>"


def near(name: object, names: Iterable[str]) -> str:
    """Return the end of a message about a name that is not there: names that are like it."""
    like = [one for one in names if isinstance(name, str) and (name in one or one in name)][:3]
    return f"; there is {', '.join(map(repr, like))}" if like else "; keys() lists the names"


def numpy_maker(octets: memoryview, private: Patterns) -> Callable[[Entry], Any]:
    """Return what makes the NumPy array of an entry. octets: the bytes of the payload, read-only if the memory is."""
    numpy = numpy_module()
    _check_private(private)
    base = numpy.frombuffer(octets, "uint8")
    copied: dict[tuple[int, int], Any] = {}

    def make(entry: Entry) -> Any:
        dtype = numpy_dtype(element_type(entry.dtype))
        buffer, offset = base, entry.offset
        if is_private(entry.name, private):
            buffer, offset = _private_bytes(base, entry, copied, lambda part: part.copy()), 0
        return numpy.ndarray(entry.shape, dtype, buffer=buffer, offset=offset, strides=entry.strides)

    return make


def _private_bytes(base: Any, entry: Entry, copied: dict[tuple[int, int], Any], copy_of: Callable[[Any], Any]) -> Any:
    """Return a copy of the bytes of an entry. Private arrays of the same bytes (tied weights) get the same copy."""
    place = entry.offset, entry.nbytes
    found = copied.get(place)
    return copied.setdefault(place, copy_of(base[place[0] : sum(place)])) if found is None else found


def torch_maker(base: Any, private: Patterns) -> Callable[[Entry], Any]:
    """Return what makes the tensor of an entry.

    base: the bytes of the payload as a tensor, read-only if the memory is.
    """
    torch = optional.load("torch", what="PyTorch", advice="install it as described on pytorch.org")
    _check_private(private)
    read_only = type(base) is not torch.Tensor
    plain = base._plain() if read_only else base
    guard = frameworks.guard_of(torch) if read_only else None
    typed: dict[str, tuple[Any, int, int, bool]] = {}
    whole_storage, start = plain.untyped_storage(), int(plain.storage_offset())
    storages: dict[tuple[int, int], Any] = {}
    copied: dict[tuple[int, int], Any] = {}

    def storage_of(entry: Entry) -> Any:
        """Return the storage of an entry. Tied tensors have the same one, as in the model that was shared."""
        place = (start + entry.offset, entry.nbytes)
        found = storages.get(place)
        if found is None:
            found = storages.setdefault(place, whole_storage[place[0] : place[0] + place[1]])
        return found

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
        strides = entry.strides
        if packed:
            carrier = carried(ArrayLayout(shape, text, strides_of(entry)))
            shape, strides = carrier.shape, carrier.strides
        steps = cached_strides(shape, 1) if strides is None else tuple(step // item for step in strides)
        if not entry.nbytes:
            made = torch.empty(shape, dtype=whole.dtype, device=plain.device)
        elif offset % item:
            raise UnsupportedError(
                f"{entry.name!r} begins at byte {offset}, which is not a multiple of the {item} bytes of "
                f"{text}, as PyTorch requires; share it with align={max(16, item)}, or use numpy()",
                requires_one_of=["an aligned array", "numpy()"],
            )
        elif strides is not None and any(step % item for step, n in zip(strides, shape, strict=True) if n > 1):
            raise UnsupportedError(
                f"{entry.name!r} has the strides {strides}, which are not multiples of the {item} bytes of {text}, as "
                "PyTorch requires; use numpy(), or share a copy in row-major order: numpy.ascontiguousarray(array)",
                requires_one_of=["strides of whole elements", "numpy()"],
            )
        elif private is not False and is_private(entry.name, private):
            own = _private_bytes(plain, entry, copied, lambda part: part.clone())
            return own.view(whole.dtype).as_strided(shape, steps, 0)
        elif guard is None:
            made = whole.new_empty(0).set_(storage_of(entry), 0, shape, steps)
        else:
            made = whole.as_strided(shape, steps, first + offset // item)
        if private is not False and is_private(entry.name, private):
            return made
        return made if guard is None else guard(made)

    return make


def torch_base(memory: Any) -> Any:
    """Return all bytes of the payload as a tensor: on the GPU if CUDA can use the memory, else on the host."""
    return memory.torch("uint8", (memory.size,))
