"""What a section says of itself: the frame at its end, and the same bytes in its companion. Pure: bytes in, bytes out.

::

    0       8       12      16
    +-------+-------+-------+---------------------- - - -+------ - -
    | magic | length| CRC32 | msgpack [id, backing,       | zeros
    |       |       |       | strict, name, descriptor, lent]|
    +-------+-------+-------+---------------------- - - -+------ - -

Whoever may write the payload may write its frame too: the checksum finds accidents, not liars, and the descriptor is
parsed as hostile input all the same. The companion of a named payload is a section of its own, which nobody but its
maker can write.
"""

from __future__ import annotations

import struct
import zlib
from typing import Annotated

import msgspec

__all__ = ["FRAME", "Description", "pack", "unpack"]

FRAME = 8192
"""Bytes that a section has for its description: two pages."""
_HEADER = struct.Struct("<8sII")
_MAGIC = b"EXTMEM\x00\x02"


class Description(msgspec.Struct, array_like=True, frozen=True):
    """What travels with a section."""

    object: Annotated[int, msgspec.Meta(ge=1, le=0x7FFF_FFFF_FFFF_FFFF)]
    """Random: tells shared objects apart, in every process."""
    backing: Annotated[int, msgspec.Meta(ge=1, le=0xFF)]
    """What the payload is (`sharing.kinds.Backing`)."""
    strict_kmt: bool
    """Whether its KMT number ends with the exporter."""
    name: Annotated[str, msgspec.Meta(max_length=600)]
    """The full path in the creator's case; empty for what has no name of a program's choosing."""
    descriptor: Annotated[bytes, msgspec.Meta(max_length=4096)]
    """The payload's self-description."""
    lent: tuple[int, int, int] | None = None
    """Where a handle of it is, for an object that has its name from its companion alone: the exporter's pid and
    creation time, and the handle's value there."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Description).decode


def pack(description: Description) -> bytes:
    """The frame, without the zeros behind it. ValueError for one that does not fit."""
    body = _encode(description)
    if _HEADER.size + len(body) > FRAME:
        raise ValueError(f"a description of {len(body)} bytes does not fit; {FRAME - _HEADER.size} is the limit")
    return _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def unpack(frame: bytes) -> Description | None:
    """The description in a frame; None where there is none (a foreign section), or a broken one."""
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
