"""The description of a section: the frame at its end, and the same bytes in its companion. Pure: bytes in, bytes out.

::

    0       8       12      16
    +-------+-------+-------+---------------------- - - -+------ - -
    | magic | length| CRC32 | msgpack [id, backing,       | zeros
    |       |       |       | strict, name, descriptor, …]|
    +-------+-------+-------+---------------------- - - -+------ - -

A process that may write the payload may write its frame too. So the checksum detects accidents only, and the descriptor
is parsed as hostile input. The companion of a named payload is a separate section, which only its creator can write.
"""

from __future__ import annotations

import struct
import zlib
from typing import Annotated

import msgspec

__all__ = ["FRAME", "Description", "pack", "unpack"]

FRAME = 8192
"""Bytes of a section for its description: two pages."""
_HEADER = struct.Struct("<8sII")
_MAGIC = b"EXTMEM\x00\x02"


class Description(msgspec.Struct, array_like=True, frozen=True):
    """The description of a section."""

    object: Annotated[int, msgspec.Meta(ge=1, le=0x7FFF_FFFF_FFFF_FFFF)]
    """A random number, which distinguishes shared objects in every process."""
    backing: Annotated[int, msgspec.Meta(ge=1, le=0xFF)]
    """What its handle is (`sharing.kinds.Backing`)."""
    strict_kmt: bool
    """Whether its KMT number ends with the exporter."""
    name: Annotated[str, msgspec.Meta(max_length=600)]
    """The full path as the creator spelled it; empty if the program did not state a name."""
    descriptor: Annotated[bytes, msgspec.Meta(max_length=4096)]
    """The payload's self-description."""
    exporter_handle: tuple[int, int, int] | None = None
    """For an object of which only the companion has the name (`exporter_names`): the exporter's pid and creation time,
    and the value of the exporter's handle."""
    kind: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1
    """What the object is (`sharing.kinds.ObjectKind`)."""
    pages: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=200)], ...], msgspec.Meta(max_length=4)] = ()
    """The full paths of the sections of its companion pages."""
    pending: bool = False
    """Whether its exporter has not shared it yet: it is still writing the contents."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Description).decode


def pack(description: Description) -> bytes:
    """Return the frame without the zeros after it. ValueError for one that does not fit."""
    body = _encode(description)
    if _HEADER.size + len(body) > FRAME:
        raise ValueError(f"a description of {len(body)} bytes does not fit; {FRAME - _HEADER.size} is the limit")
    return _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def unpack(frame: bytes) -> Description | None:
    """Return the description in a frame; None if there is none (a foreign section) or a broken one."""
    if len(frame) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack_from(frame)
    body = frame[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(body) != length or zlib.crc32(body) != checksum:
        return None
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
