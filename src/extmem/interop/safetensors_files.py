"""The format of safetensors files: headers, which are checked, and written.

How this works. A file is eight bytes with the length of the header, the header (JSON), and the data. `read_header`
checks that the tensors cover the data, in order, without gaps: the bytes of a file may be from anybody. `placed_reads`
reads the data.

The files have little-endian elements. Packed types (F4, F6) are counted in elements, and stored without gaps.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec

from extmem.arguments import a_type
from extmem.errors import UnsupportedError
from extmem.interop import positioned_reads
from extmem.interop.positioned_reads import OPENING
from extmem.sharing.elements import ElementType, element_type, nbytes_of
from extmem.sharing.limits import AXES_LIMIT, SIZE_LIMIT
from extmem.sharing.table import ENTRIES_LIMIT

__all__ = ["Header", "OpenFile", "StoredTensor", "encode_header", "read_header", "stored_name"]

HEADER_LIMIT: Final = 100_000_000
"""Most bytes of a header, as in the library `safetensors`."""
_METADATA = "__metadata__"
_TYPES: Final = {
    "BOOL": "bool",
    **{f"{code}{bits}": f"{word}{bits}" for code, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_packed",
    "F6_E2M3": "float6_e2m3fn_packed",
    "F6_E3M2": "float6_e3m2fn_packed",
}
_NAMES = {text: name for name, text in _TYPES.items()} | {"float4_e2m1fn_x2": "F4"}


class StoredTensor(msgspec.Struct, frozen=True):
    """A tensor in a file."""

    name: str
    element: ElementType
    shape: tuple[int, ...]
    begin: int
    """Offset of its first byte in the file."""
    nbytes: int


class Header(msgspec.Struct, frozen=True):
    """What a file contains. `data`: the offset of the first byte of the tensors."""

    tensors: tuple[StoredTensor, ...]
    metadata: dict[str, str]
    data: int


class OpenFile:
    """A safetensors file that is being read. It is closed by `close`, or as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Errors: OSError; ValueError for what is not a regular file."""
        self.path = os.fsdecode(path)
        self._file = open(path, "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | OPENING))
        try:
            found = os.fstat(self._file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{self.path!r} is not a regular file, which a safetensors file is")
        except BaseException:
            self._file.close()
            raise
        self.size = found.st_size
        self._state = _state_of(found)

    @property
    def fd(self) -> int:
        """Its file descriptor, borrowed."""
        return self._file.fileno()

    def check_unchanged(self) -> None:
        """Raise ValueError if the file has been changed since it was opened."""
        if _state_of(os.fstat(self.fd)) != self._state:
            raise ValueError(f"{self.path!r} was changed while it was read; load it again once it is complete")

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self._file.close()

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _state_of(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_header(file: OpenFile) -> Header:
    """Return the checked header of a file. Errors: ValueError with the tensor that is wrong; OSError."""
    path = file.path
    start = _read_exactly(file, 8, 0)
    length = int.from_bytes(start, "little")
    if length > HEADER_LIMIT:
        raise ValueError(
            f"{path!r} claims a header of {length} bytes, and {HEADER_LIMIT} is the limit of safetensors; the file is "
            "of another format, or damaged"
        )
    if 8 + length > file.size:
        raise ValueError(f"{path!r} has {file.size} bytes, and its header alone has {8 + length}; the file is cut off")
    text = _read_exactly(file, length, 8)
    try:
        found = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path!r} is not a safetensors file: its header is not readable: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path!r} is not a safetensors file: its header is {a_type(found)}")
    metadata = found.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise ValueError(f"{path!r} has metadata that are not text by names")
    if len(found) > ENTRIES_LIMIT:
        raise ValueError(
            f"{path!r} has {len(found)} tensors, and a payload has at most {ENTRIES_LIMIT}; divide the file"
        )
    data = 8 + length
    # A tensor without elements is at the place of the next one, and before it.
    tensors = [_tensor(path, name, fields, data) for name, fields in found.items()]
    tensors.sort(key=lambda one: (one.begin, one.nbytes))
    end = data
    for one in tensors:
        if one.begin != end:
            raise ValueError(
                f"{path!r}: tensor {one.name!r} begins at byte {one.begin - data} of the data, and the tensors before "
                f"it end at {end - data}; tensors have no gaps and no common bytes"
            )
        end += one.nbytes
    if end != file.size:
        raise ValueError(f"{path!r} has {file.size} bytes, and its header describes {end}; the file is not complete")
    return Header(tuple(tensors), metadata, data)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} occurs twice")
    return found


def _tensor(path: str, name: str, fields: Any, data: int) -> StoredTensor:
    """Return a tensor of the header, checked. A header has up to 2^20 of them, so texts are made for errors only."""
    try:
        dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError):
        raise ValueError(f"{path!r}: tensor {name!r} has no dtype, shape and data_offsets") from None
    element = _elements().get(dtype) if isinstance(dtype, str) else None
    if element is None:
        raise ValueError(f"{path!r}: tensor {name!r} has the unknown type {dtype!r}; known are {', '.join(_TYPES)}")
    if not _are_sizes(shape) or len(shape) > AXES_LIMIT or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"{path!r}: tensor {name!r} has the shape {shape!r} and offsets {offsets!r}; both are lists of sizes"
        )
    size = nbytes_of(element, shape)
    begin, end = offsets
    if end - begin != size:
        raise ValueError(
            f"{path!r}: tensor {name!r} has {end - begin} bytes, and its shape {shape} of {dtype} takes {size}"
        )
    return StoredTensor(name, element, tuple(shape), data + begin, size)


@cache
def _elements() -> dict[str, ElementType]:
    found = {name: element_type(text) for name, text in _TYPES.items()}
    return found if sys.byteorder == "little" else {name: element.swapped() for name, element in found.items()}


def _are_sizes(values: Any) -> bool:
    if not isinstance(values, list):
        return False
    return not values or ({*map(type, values)} == {int} and min(values) >= 0 and max(values) <= SIZE_LIMIT)


def _read_exactly(file: OpenFile, size: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        part = positioned_reads.read(file.fd, file.path, size, offset)
        if not part:
            raise ValueError(f"{file.path!r} ends at byte {offset}, where {size} more were expected; it is cut off")
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


# -- writing ----------------------------------------------------------------------------------------------------------


def stored_name(text: str, name: str) -> str:
    """Return the name of an element type in the format. name: of the array, for the message.

    Errors: UnsupportedError for a type that the format lacks.
    """
    found = _NAMES.get(text)
    if found is None:
        raise UnsupportedError(
            f"array {name!r} is {text}, and safetensors files have {', '.join(_TYPES)}; save it as one of them, for "
            "example a view as integers",
            requires_one_of=["an element type of safetensors"],
        )
    return found


def encode_header(
    arrays: Sequence[tuple[str, str, Sequence[int], int]], metadata: Mapping[str, str]
) -> tuple[bytes, list[int]]:
    """Return the beginning of a file, up to the data, and the order in which the arrays are stored.

    arrays: name, element type, shape and bytes of each. The largest elements come first, as the library `safetensors`
    does it, and the data begins at a multiple of 8 bytes, so that each array is aligned to its elements.
    """
    fields: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    order = sorted(range(len(arrays)), key=lambda n: (-element_type(arrays[n][1]).storage_bits, arrays[n][0]))
    end = 0
    for number in order:
        name, text, shape, nbytes = arrays[number]
        if name == _METADATA:
            raise ValueError(f"{name!r} is the name of the metadata in the file; share the array under another name")
        extents = list(shape)
        if text == "float4_e2m1fn_x2" and extents:
            extents[-1] *= 2  # the format counts numbers, of which an element of PyTorch has two
        fields[name] = {"dtype": stored_name(text, name), "shape": extents, "data_offsets": [end, end + nbytes]}
        end += nbytes
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    try:
        body = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the names or the metadata contain half a character (a lone surrogate): {text[error.start :][:20]!r}; use "
            "whole characters"
        ) from None
    body += b" " * (-len(body) % 8)
    if len(body) > HEADER_LIMIT:
        raise ValueError(f"the header of the file would have {len(body)} bytes, and {HEADER_LIMIT} is the limit")
    return len(body).to_bytes(8, "little") + body, order
