"""The frame around a payload's self-description, which is in its file. Pure: bytes in, bytes out.

::

    0       8       12      16
    +-------+-------+-------+------------------ - - -+------ - -
    | magic | length| CRC32 | descriptor             | zeros
    +-------+-------+-------+------------------ - - -+------ - -

It begins one page before the end of the file. The magic tells whether the page before it is the payload's control page
(`sharing.control_page`), which belongs to neither the allocation nor the frame. A process that may write the payload
may write here too: the checksum finds accidents, not forgeries, and the descriptor is parsed as hostile input in any
case.
"""

from __future__ import annotations

import struct
import zlib

from extmem.sharing.limits import DESCRIPTOR_LIMIT, FRAME_AFTER_CONTROL_PAGE

__all__ = ["MAGIC_SIZE", "TRAILER_SIZE", "has_control_page", "pack", "unpack"]

_HEADER = struct.Struct("<8sII")
_MAGIC = b"EXTMEM\x00\x01"
MAGIC_SIZE = len(_MAGIC)
"""Bytes at its beginning that `has_control_page` needs."""
TRAILER_SIZE = 4096
"""Bytes of the frame, zeros included. A page may be larger; the rest of it is unused."""


def pack(descriptor: bytes, *, control_page: bool = False) -> bytes:
    """Return the frame around a descriptor. control_page: whether one is before the frame.

    Errors: ValueError for a descriptor that is too long.
    """
    if len(descriptor) > DESCRIPTOR_LIMIT:
        raise ValueError(f"a descriptor of {len(descriptor)} bytes does not fit; {DESCRIPTOR_LIMIT} is the limit")
    magic = FRAME_AFTER_CONTROL_PAGE if control_page else _MAGIC
    return _HEADER.pack(magic, len(descriptor), zlib.crc32(descriptor)) + descriptor


def has_control_page(frame: bytes) -> bool:
    """Return whether a frame, or its first bytes, says that the page before it is a control page."""
    return frame.startswith(FRAME_AFTER_CONTROL_PAGE)


def unpack(frame: bytes) -> tuple[bytes, str]:
    """Return the descriptor in a frame and "", or b"" and the reason why there is none."""
    if len(frame) < _HEADER.size:
        return b"", f"the last page holds {len(frame)} bytes, less than the {_HEADER.size} of a frame"
    magic, length, checksum = _HEADER.unpack_from(frame)
    if magic not in (_MAGIC, FRAME_AFTER_CONTROL_PAGE):
        return b"", f"the last page does not begin with the mark of a payload (it begins {magic.hex(' ')})"
    if length > DESCRIPTOR_LIMIT or _HEADER.size + length > len(frame):
        return b"", f"the frame claims a descriptor of {length} bytes; at most {DESCRIPTOR_LIMIT} fit"
    descriptor = frame[_HEADER.size : _HEADER.size + length]
    found = zlib.crc32(descriptor)
    if found != checksum:
        return b"", f"the descriptor's checksum is {found:#010x} and the frame has {checksum:#010x}"
    return descriptor, ""
