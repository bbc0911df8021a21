"""Copies of a payload on another device: `extmem.open(…, copy=True)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from extmem.api.device import Device, DeviceMemory
from extmem.errors import UnsupportedError
from extmem.interop import new_octets

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord

__all__ = ["copied_to"]

_PIECE: Final = 64 << 20
"""Bytes that are copied at once between two GPUs, through memory of the host."""


def copied_to(device: Device, source: DeviceMemory) -> DeviceMemory:
    """Return new memory of that device with a copy of the payload, in the same layout. The caller owns it.

    Errors: UnsupportedError for named arrays, and for memory of an image; OutOfMemoryError; DriverError. Nothing is
    left then.
    """
    described = source.descriptor.array
    if described is None and source.descriptor.pages:
        raise UnsupportedError(
            f"this payload ({source.what()}) holds named arrays, whose table a copy would not have; copy them with "
            "extmem.share(dict(memory.numpy()), copy=True), or one of them with memory[name].read()",
            requires_one_of=["extmem.share"],
        )
    if described is None:
        made = device.allocate(source.size)
    else:
        made = device.allocate(described.shape, described.dtype, strides=described.strides)
    try:
        with source.use() as theirs, made.use() as ours:
            _copy(theirs, ours, min(source.size, made.size))
            ours.copied = f"copy=True was given; it is a copy of the payload on {source.device.name}"
    except BaseException:
        made.close()
        raise
    return made


def _copy(source: MemoryRecord, target: MemoryRecord, size: int) -> None:
    """Copy the first bytes of one payload to another, through memory of the host that is used again for each piece."""
    read, write = source.device.backend.read, target.device.backend.write
    start, to = source.descriptor.payload_offset, target.descriptor.payload_offset
    octets = new_octets(min(size, _PIECE))
    for at in range(0, size, _PIECE):
        piece = octets[: min(_PIECE, size - at)]
        read(source.allocation, start + at, piece)
        write(target.allocation, to + at, piece)
