"""The table of the named arrays in one payload: bytes in a companion page, which its exporter wrote. Pure.

How this works. The page begins with a header; JSON follows it, as in safetensors files::

    0       8       12      16
    +-------+-------+-------+-------------------------------------- - - -+------ - -
    | magic | length| CRC32 | {"align":…,"entries":[[name,type,…],…],…}  | zeros
    +-------+-------+-------+-------------------------------------- - - -+------ - -

`place` computes where new arrays are, and `encode` writes the table. `decode` reads bytes that anybody may have
written: the caller passes a private copy, so nothing changes after the check. What holds afterwards: names are unique;
every type is known; every array is inside the payload; two arrays have either the same bytes (tied weights) or no
byte in common; and between them there is padding only, less than the alignment. So a table cannot make a reader show
bytes that belong to no array. The size is checked first, so a table that claims more than it has is refused before
anything is allocated for it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from extmem.errors import DescriptorError
from extmem.sharing.elements import element_type, nbytes_of
from extmem.sharing.layout import contiguous_strides
from extmem.sharing.limits import AXES_LIMIT, SIZE_LIMIT

__all__ = [
    "ALIGNMENT",
    "ALIGNMENT_LIMIT",
    "ENTRIES_LIMIT",
    "METADATA_LIMIT",
    "REQUIRES_GRAD",
    "TABLE_LIMIT",
    "Entry",
    "Scalar",
    "Spec",
    "Table",
    "Tree",
    "decode",
    "encode",
    "place",
]

TABLE_LIMIT: Final = 64 << 20
"""Most bytes of a table."""
ENTRIES_LIMIT: Final = 1 << 20
"""Most arrays of a payload."""
METADATA_LIMIT: Final = 1 << 20
"""Most bytes of the metadata as JSON."""
ALIGNMENT: Final = 256
"""Bytes that the offset of an array is a multiple of by default. DLPack requires 256."""
ALIGNMENT_LIMIT: Final = 1 << 21
REQUIRES_GRAD: Final = 1
"""Bit of `Entry.flags`: the tensor that was shared had `requires_grad`."""

_HEADER = struct.Struct("<8sII")
_MAGIC = b"EXTMTBL\x01"
_DEPTH_LIMIT = 64
_NAME_LIMIT = 4096
_LARGEST_ELEMENT = 16
"""Bytes of the largest number that is aligned to its size."""

Scalar = str | int | float | bool | None
"""A value in the metadata."""
Tree = Any
"""How the arrays were nested: the index of an entry, or {"d": {key: tree}}, {"l": [tree]}, {"t": [tree]}."""


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One array. Offsets and sizes are in bytes, from the first byte of the payload."""

    name: Annotated[str, Meta(max_length=_NAME_LIMIT)]
    dtype: str
    """The text of its element type (`sharing.elements`)."""
    shape: Annotated[tuple[int, ...], Meta(max_length=AXES_LIMIT)]
    offset: int
    nbytes: int
    """Bytes from the first to the last byte of the array."""
    strides: Annotated[tuple[int, ...], Meta(max_length=AXES_LIMIT)] | None = None
    """Bytes between neighbours, per axis; None in row-major order without gaps."""
    flags: int = 0


class Table(msgspec.Struct, array_like=False, frozen=True):
    """The arrays of a payload, what is said about them, and how they were nested."""

    entries: tuple[Entry, ...]
    align: int = ALIGNMENT
    metadata: dict[str, Scalar] = {}
    tree: Tree = None
    """None for one dictionary with these names."""


class Spec(msgspec.Struct, frozen=True):
    """An array that is to be placed in a new payload."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    alias_of: int | None = None
    """The number of the array that has the same bytes; None if none before it has."""
    flags: int = 0


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    align: int
    entries: tuple[Entry, ...]
    metadata: dict[str, Scalar] = {}
    tree: Any = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Wire).decode


def place(specs: Iterable[Spec], align: int = ALIGNMENT) -> tuple[tuple[Entry, ...], int]:
    """Return the entries of a new payload, and its size in bytes, which is at least 1.

    align: a power of two. Errors: ValueError for another alignment, the same name twice, too many arrays, and for
    more bytes than a signed 64-bit size can count.
    """
    check_alignment(align)
    entries: list[Entry] = []
    names: set[str] = set()
    end = 0
    for spec in specs:
        if spec.name in names:
            raise ValueError(f"{spec.name!r} is the name of two arrays; names, joined with dots, must be unique")
        if len(spec.name) > _NAME_LIMIT:
            raise ValueError(
                f"the name {spec.name[:40]!r}… has {len(spec.name)} characters; {_NAME_LIMIT} is the limit"
            )
        names.add(spec.name)
        size = _extent(spec.dtype, spec.shape, spec.strides)
        if spec.alias_of is not None:
            offset = entries[spec.alias_of].offset
        else:
            step = max(align, _natural_alignment(spec.dtype))
            offset = -(-end // step) * step
            end = offset + size
        entries.append(Entry(spec.name, spec.dtype, spec.shape, offset, size, spec.strides, spec.flags))
    if len(entries) > ENTRIES_LIMIT:
        raise ValueError(
            f"{len(entries)} arrays are to be shared, and a payload has at most {ENTRIES_LIMIT}; use several"
        )
    if end > SIZE_LIMIT:
        raise ValueError(f"the arrays have {end} bytes, more than {SIZE_LIMIT}; share fewer")
    return tuple(entries), max(end, 1)


def _natural_alignment(dtype: str) -> int:
    """Return the alignment that all frameworks accept for the elements, whatever the caller asks for."""
    element = element_type(dtype)
    size = element.itemsize or 1
    return max(element.alignment, size if size <= _LARGEST_ELEMENT and not size & (size - 1) else 1)


def check_alignment(align: int) -> None:
    """Refuse an alignment that is not a power of two. Errors: ValueError."""
    if not 1 <= align <= ALIGNMENT_LIMIT or align & (align - 1):
        raise ValueError(f"align is {align}; give a power of two from 1 to {ALIGNMENT_LIMIT}, such as {ALIGNMENT}")


def encode(table: Table) -> bytes:
    """Return the bytes of a table. Errors: ValueError for more than the limits, and for text that is not Unicode."""
    try:
        metadata = _encode(table.metadata)
        body = _encode(_Wire(table.align, table.entries, table.metadata, table.tree))
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text {error.object[:40]!r} among the names and the metadata contains half a character (a lone "
            f"surrogate) at index {error.start}; use whole characters"
        ) from None
    if len(metadata) > METADATA_LIMIT:
        raise ValueError(
            f"the metadata has {len(metadata)} bytes as JSON, and {METADATA_LIMIT} is the limit; share large values as "
            "arrays"
        )
    if _HEADER.size + len(body) > TABLE_LIMIT:
        raise ValueError(
            f"the names and shapes of {len(table.entries)} arrays take {len(body)} bytes, and {TABLE_LIMIT} is the "
            "limit; use shorter names, or several payloads"
        )
    return _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def decode(data: bytes | memoryview, payload_size: int) -> Table:
    """Return the table in these bytes, whoever wrote them.

    data: a private copy. payload_size: bytes of the payload that it describes. Errors: DescriptorError with the name of
    the entry that is wrong.
    """
    if len(data) < _HEADER.size:
        raise _wrong(f"it has {len(data)} bytes, fewer than its header")
    magic, length, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise _wrong(f"it begins with {magic.hex(' ')}, which is not the mark of a table")
    if length > TABLE_LIMIT - _HEADER.size or _HEADER.size + length > len(data):
        raise _wrong(f"it claims {length} bytes, has {len(data) - _HEADER.size}, and {TABLE_LIMIT} is the limit")
    body = memoryview(data)[_HEADER.size : _HEADER.size + length]
    if zlib.crc32(body) != checksum:
        raise _wrong("its checksum is of other bytes")
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(f"it is not readable: {error}") from None
    if not 1 <= found.align <= ALIGNMENT_LIMIT or found.align & (found.align - 1):
        raise _wrong(f"its alignment is {found.align}, which is not a power of two up to {ALIGNMENT_LIMIT}")
    entries = found.entries
    if len(entries) > ENTRIES_LIMIT:
        raise _wrong(f"it has {len(entries)} entries, and {ENTRIES_LIMIT} is the limit")
    _check_entries(entries, payload_size)
    _check_ranges(entries, found.align, payload_size)
    if found.tree is not None:
        _check_tree(found.tree, len(entries))
    return Table(entries, found.align, found.metadata, found.tree)


def _wrong(problem: str) -> DescriptorError:
    return DescriptorError(
        f"the table of the payload's arrays is wrong: {problem}. Its exporter wrote it: export the payload anew"
    )


def _extent(dtype: str, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> int:
    """Return the bytes from the first to the last byte of an array. ValueError for strides that are not possible.

    Strides are positive, and no two elements share bytes.
    """
    element = element_type(dtype)
    for extent in shape:
        if not 0 <= extent <= SIZE_LIMIT:
            raise ValueError(f"the shape is {shape}, with an extent outside 0 to {SIZE_LIMIT}")
    size = nbytes_of(element, shape)
    if size > SIZE_LIMIT:
        raise ValueError(f"the shape {shape} of {dtype} has more than {SIZE_LIMIT} bytes")
    if strides is None or not size:
        return size
    item = element.itemsize
    if item is None:
        raise ValueError(f"elements of {dtype} are packed, and have no strides; only row-major order is possible")
    if len(strides) != len(shape):
        raise ValueError(f"there are {len(strides)} strides for {len(shape)} axes")
    reach = item
    for stride, extent in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n > 1):
        if stride < reach or stride > SIZE_LIMIT:
            raise ValueError(f"the strides {strides} of the shape {shape} are negative, too large, or overlap")
        if stride % element.alignment:
            raise ValueError(f"the stride {stride} is not a multiple of the {element.alignment} bytes of {dtype}")
        reach += stride * (extent - 1)
    return reach


@lru_cache(maxsize=1_024)
def _measured(dtype: str, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> tuple[int, int]:
    """Return `_extent`, and the alignment of the elements. Models have few shapes, so most calls repeat another one."""
    return _extent(dtype, shape, strides), element_type(dtype).alignment


def _check_entries(entries: Sequence[Entry], payload_size: int) -> None:
    names: set[str] = set()
    for entry in entries:
        name, offset, size = entry.name, entry.offset, entry.nbytes
        if name in names:
            raise _wrong(f"two entries have the name {name!r}")
        names.add(name)
        try:
            expected, alignment = _measured(entry.dtype, entry.shape, entry.strides)
        except ValueError as error:
            raise _wrong(f"entry {name!r}: {error}") from None
        if size != expected:
            raise _wrong(
                f"entry {name!r} has {size} bytes, and its shape {entry.shape} of {entry.dtype} takes {expected}"
            )
        if not 0 <= offset <= payload_size or offset + size > payload_size:
            raise _wrong(f"entry {name!r} is at bytes {offset} to {offset + size} of a payload of {payload_size} bytes")
        if offset % alignment:
            raise _wrong(f"entry {name!r}: its offset {offset} is not a multiple of the {alignment} of {entry.dtype}")


def _check_ranges(entries: Sequence[Entry], align: int, payload_size: int) -> None:
    """Refuse two arrays that have some bytes in common and not all, and bytes between arrays that are not padding."""
    end, last, padding = 0, (0, 0), max(align, _LARGEST_ELEMENT)
    for offset, size, index in sorted((e.offset, e.nbytes, i) for i, e in enumerate(entries) if e.nbytes):
        if (offset, size) == last:
            continue
        if offset < end:
            raise _wrong(
                f"entry {entries[index].name!r} is at bytes {offset} to {offset + size} and shares a part of them with "
                "another entry"
            )
        if offset - end >= padding:
            raise _wrong(
                f"there are {offset - end} bytes before entry {entries[index].name!r} that belong to no entry, and "
                f"padding is shorter than the alignment {align}"
            )
        end, last = offset + size, (offset, size)
    if payload_size - end >= padding:
        raise _wrong(f"the last {payload_size - end} bytes of the payload belong to no entry")


def _check_tree(tree: Tree, count: int) -> None:
    """Refuse a tree with an unknown node, an index of no entry, or too many levels."""
    level: list[Any] = [tree]
    for _ in range(_DEPTH_LIMIT):
        below: list[Any] = []
        for node in level:
            if type(node) is int:
                if not 0 <= node < count:
                    raise _wrong(f"its tree refers to entry {node} of {count}")
                continue
            kind, inner = next(iter(node.items())) if isinstance(node, dict) and len(node) == 1 else ("", None)
            if kind == "d" and isinstance(inner, dict):
                below.extend(inner.values())
            elif kind in ("l", "t") and isinstance(inner, list):
                below.extend(inner)
            else:
                raise _wrong("its tree has a node that is neither an entry, a dictionary, a list nor a tuple")
        if not below:
            return
        level = below
    raise _wrong(f"its tree has more than {_DEPTH_LIMIT} levels")


def by_name(entries: Sequence[Entry]) -> Mapping[str, Entry]:
    """Return the entries by their names, which nobody may change."""
    return MappingProxyType({entry.name: entry for entry in entries})


cached_strides: Final = lru_cache(maxsize=1_024)(contiguous_strides)
"""`contiguous_strides`, for shapes that many arrays have."""


def strides_of(entry: Entry) -> tuple[int, ...]:
    """Return the strides of an array in bytes; in bits for packed types (`ElementType.step`)."""
    if entry.strides is not None:
        return entry.strides
    return cached_strides(entry.shape, element_type(entry.dtype).step)


def fills_range(shape: Sequence[int], strides: Sequence[int], item: int) -> bool:
    """Return whether the elements fill a range of bytes without gaps and overlaps, in any order of the axes."""
    reach = item
    for stride, extent in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if stride != reach:
            return prod(shape) == 0
        reach *= extent
    return True
