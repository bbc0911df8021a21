"""`SlotFormat`: what a frame of a channel holds: one array, or several by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extmem import interop
from extmem.api.slices import MemorySlice
from extmem.arguments import a_type, integer_of
from extmem.errors import UnsupportedError
from extmem.interop import array_sources
from extmem.interop.array_sources import ArraySource
from extmem.sharing import table
from extmem.sharing.channel_page import ARRAYS_LIMIT
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.dtypes import element_of
from extmem.sharing.elements import nbytes_of
from extmem.sharing.layout import ArrayLayout, axes_of, contiguous_strides
from extmem.sharing.table import Entry, Spec, Table, strides_of

if TYPE_CHECKING:
    from extmem.api.device import Device, DeviceMemory

__all__ = ["SlotFormat"]


class SlotFormat:
    """What each slot of an epoch holds."""

    __slots__ = ("dtype", "encoded", "entries", "shape", "size")

    def __init__(
        self, shape: tuple[int, ...], dtype: str, entries: Mapping[str, Entry] | None, size: int, encoded: bytes
    ) -> None:
        self.shape = shape
        """The shape of the one array; that of the bytes of several."""
        self.dtype = dtype
        self.entries = entries
        """The arrays by their names; None for one array."""
        self.size = size
        """Bytes of a slot; 0 if that is not known."""
        self.encoded = encoded
        """The table of the arrays, as the control page has it; empty for one array."""

    @classmethod
    def of(cls, shape: Any, dtype: Any) -> SlotFormat:
        """Return the format of frames of one array of this shape and element type, or of a dictionary of such arrays.

        A dictionary has a shape, or a pair of a shape and an element type, for each name. Errors: as `Device.allocate`;
        ValueError for more arrays than the table of the control page has room for.
        """
        if not isinstance(shape, Mapping):
            return cls(_shape(shape), element_of(dtype).text, None, 0, b"")
        if not shape:
            raise ValueError("a frame is to hold no arrays; give at least one name and its shape")
        specs = []
        for name, given in shape.items():
            if not isinstance(name, str):
                raise TypeError(f"the name {name!r} of an array is {a_type(name)}; give a str")
            one, kind = given if _has_type(given) else (given, dtype)
            specs.append(Spec(name, element_of(kind).text, _shape(one)))
        entries, size = table.place(specs)
        encoded = table.encode(Table(entries))
        if len(encoded) > ARRAYS_LIMIT:
            raise ValueError(
                f"a frame is to hold {len(specs)} arrays, whose names, shapes and types take {len(encoded)} bytes, and "
                f"{ARRAYS_LIMIT} is the limit; put arrays of the same shape together, into one with another axis"
            )
        return cls((size,), "uint8", table.by_name(entries), size, encoded)

    @classmethod
    def read(cls, encoded: bytes, memory: DeviceMemory) -> SlotFormat:
        """Return the format of a slot that was opened. encoded: of the control page, whoever wrote it.

        Errors: DescriptorError for a table that cannot be true.
        """
        if not encoded:
            return cls(memory.shape, memory.dtype, None, memory.size, b"")
        found = table.decode(encoded, memory.size)
        return cls((memory.size,), "uint8", table.by_name(found.entries), memory.size, encoded)

    def changed(self, shape: Any, dtype: Any) -> SlotFormat:
        """Return the format with another shape or element type. None: as in this one.

        Errors: as `of`; ValueError if that does not tell the element type of each array.
        """
        if shape is None and dtype is None:
            return self
        if self.entries is None:
            return self.of(self.shape if shape is None else shape, self.dtype if dtype is None else dtype)
        if shape is None:
            raise ValueError(
                f"dtype is {dtype!r}, and a frame holds several arrays, each of a type of its own: {self}; give the "
                'dictionary of them, too: {"name": (shape, dtype), …}'
            )
        if dtype is not None:
            return self.of(shape, dtype)
        if not isinstance(shape, Mapping):
            raise ValueError(
                f"shape is {shape!r}, and a frame holds several arrays, each of a type of its own: {self}; give the "
                "dtype of the one array, too"
            )
        return self.of({name: self._with_type(name, given) for name, given in shape.items()}, None)

    def _with_type(self, name: object, given: Any) -> Any:
        """Return the pair of a shape and an element type of an array: of the one that has this name now."""
        entry = (self.entries or {}).get(name) if isinstance(name, str) else None
        if _has_type(given) or not isinstance(name, str):
            return given
        if entry is None:
            raise ValueError(
                f"the array {name!r} is new, and its element type is not given; give a pair for it: "
                f'{{{name!r}: ({given!r}, "float32")}}'
            )
        return given, entry.dtype

    def allocate(self, device: Device, name: str | None, security: str | None) -> DeviceMemory:
        """Return new memory for a slot. Errors: as `Device.allocate`."""
        return device.allocate(self.shape, self.dtype, name=name, security=security)

    def fits(self, memory: DeviceMemory) -> bool:
        """Return whether memory that was opened is a slot of this format."""
        return memory.shape == self.shape and memory.dtype == self.dtype

    def part(self, memory: DeviceMemory, name: str) -> MemorySlice:
        """Return an array of a frame. Errors: KeyError with the names that there are."""
        entries = self.entries
        entry = entries.get(name) if entries is not None else None
        if entry is None:
            names = ", ".join(sorted(entries or ())) or "one array, without a name: frame.numpy()"
            raise KeyError(f"there is no array {name!r} in this frame; it holds {names}")
        return MemorySlice(memory, ArrayLayout(entry.shape, entry.dtype, strides_of(entry), entry.offset), entry.name)

    def contents_of(self, channel: str, array: Any, arrays: Mapping[str, Any]) -> memoryview | dict[str, ArraySource]:
        """Return what `put` was given, checked: the bytes of the one array, or the arrays by their names.

        channel: its name, for messages. Errors: TypeError, ValueError for others than those of a frame;
        UnsupportedError for arrays of a GPU.
        """
        if self.entries is None:
            if arrays or array is None or isinstance(array, dict):
                raise TypeError(
                    f"put() got {_names(array, arrays)}, and a frame of {channel!r} is one array without a name: "
                    f"{self}; give it by position, and metadata by meta="
                )
            return self._octets_of(channel, array)
        if array is not None and not isinstance(array, dict):
            raise TypeError(
                f"put() got {a_type(array)}, and a frame of {channel!r} holds several arrays: {self}; give a "
                "dictionary of them, or keywords"
            )
        given = {**(array or {}), **arrays}
        if given.keys() != self.entries.keys() or len(given) != len(array or ()) + len(arrays):
            raise ValueError(
                f"put() got {_names(array, arrays)}, and a frame of {channel!r} holds {sorted(self.entries)}; give "
                "each of them once"
            )
        return {name: self._source_of(name, value) for name, value in given.items()}

    def fill(self, memory: DeviceMemory, contents: memoryview | dict[str, ArraySource]) -> None:
        """Copy what `contents_of` has returned into a slot: onto a GPU by one copy, of bytes that are joined here.

        Errors: OutOfMemoryError; DriverError.
        """
        if isinstance(contents, memoryview):
            memory.write(contents)
        elif memory.host_visible:
            self._fill_parts(memory.map(), contents)
        else:
            whole = bytearray(self.size)
            self._fill_parts(memoryview(whole), contents)
            memory.write(whole)

    def _fill_parts(self, target: memoryview, sources: dict[str, ArraySource]) -> None:
        """Copy arrays to their places in the bytes of a frame."""
        for name, source in sources.items():
            entry = (self.entries or {})[name]
            if source.nbytes:
                source.copy_to(target[entry.offset : entry.offset + entry.nbytes], source)

    def _octets_of(self, channel: str, array: Any) -> memoryview:
        """Return the bytes of the one array. Bytes without a shape have to be as many as those of a frame."""
        wanted = element_of(self.dtype)
        if hasattr(array, "dtype") and hasattr(array, "shape"):
            shape = tuple(array.shape)
            if shape != self.shape:
                raise ValueError(
                    f"put() got {a_type(array)} of the shape {shape}, and a frame of {channel!r} is {self}; reshape "
                    "it, or write a part of a frame by channel.write()"
                )
            try:
                found = element_of(array.dtype)
            except ValueError:  # a type of its own, whose elements may become an array of another one
                found = wanted
            if found != wanted:
                raise TypeError(
                    f"put() got {a_type(array)} of {found.text}, and a frame of {channel!r} is {self}; convert it first"
                )
        described = ArrayInfo(self.shape, self.dtype, contiguous_strides(self.shape, wanted.step))
        octets = interop.octets_to_write(array, described, offset=None, cast=False)
        size = nbytes_of(wanted, self.shape)
        if octets.nbytes != size:
            raise ValueError(
                f"put() got {octets.nbytes} bytes, and a frame of {channel!r} has {size}: {self}; give all of them, or "
                "write a part of a frame by channel.write()"
            )
        return octets

    def _source_of(self, name: str, value: Any) -> ArraySource:
        """Return one of several arrays, checked. Errors: as `contents_of`."""
        entry = (self.entries or {})[name]
        source = array_sources.source_of(value, name)
        if (source.element.text, source.shape) != (entry.dtype, entry.shape):
            raise ValueError(
                f"{source.what} has the shape {source.shape} of {source.element.text}, and the array {name!r} of a "
                f"frame has {entry.shape} of {entry.dtype}; convert it first"
            )
        if source.device != array_sources.HOST:
            raise UnsupportedError(
                f"{source.what} is on {source.device}, and put() copies arrays of the host; copy it first "
                "(tensor.cpu()), or write it to the frame of a GPU by frame.on(stream)",
                requires_one_of=["an array of the host"],
            )
        return source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotFormat) and (self.shape, self.dtype, self.encoded) == (
            other.shape,
            other.dtype,
            other.encoded,
        )

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        if self.entries is None:
            return f"{self.shape} of {self.dtype}"
        return ", ".join(f"{name}: {entry.shape} of {entry.dtype}" for name, entry in self.entries.items())


def _names(array: Any, arrays: Mapping[str, Any]) -> str:
    """Return what `put` was given, for messages."""
    found = [f"the arrays {sorted(map(str, array))}"] if isinstance(array, dict) else []
    if array is not None and not isinstance(array, dict):
        found = [a_type(array)]
    if arrays:
        found.append(f"the keywords {sorted(arrays)}")
    return " and ".join(found) or "no array"


def _shape(given: Any) -> tuple[int, ...]:
    return axes_of(given, "shape")


def _has_type(given: Any) -> bool:
    """Return whether it is a pair of a shape and an element type."""
    return isinstance(given, tuple) and len(given) == 2 and integer_of(given[1]) is None
