"""What the processes of the demo tell each other: the metadata of a frame, and what happened to it when.

Times are nanoseconds of `time.perf_counter_ns`, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Any, NamedTuple

__all__ = ["HALF", "Read", "Written", "digest_of", "pack", "unpack"]

_META = struct.Struct("<QQ16s")
HALF = "half"
"""A writer says this when it has written half a frame."""


class Written(NamedTuple):
    """A frame that a writer has published, or half written."""

    number: int
    writer: int
    """The pid."""
    began: int
    ended: int
    """When it was published; for one that is half written, when it was that."""


class Read(NamedTuple):
    """A frame that a reader has read."""

    number: int
    writer: int
    skipped: int
    """How many frames before it the reader has not seen."""
    got: int
    released: int
    whole: bool
    """Whether the frame has the checksum that its writer computed."""


def digest_of(pixels: Any) -> bytes:
    """Return the checksum of a contiguous array."""
    return blake2b(pixels.data, digest_size=16).digest()


def pack(index: int, writer: int, digest: bytes) -> bytes:
    """Return the metadata of a frame."""
    return _META.pack(index, writer, digest)


def unpack(meta: bytes) -> tuple[int, int, bytes]:
    """Return index, pid of the writer and checksum. Errors: struct.error for metadata of something else."""
    index, writer, digest = _META.unpack(meta)
    return index, writer, digest
