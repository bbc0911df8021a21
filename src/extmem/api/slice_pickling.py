"""Pickling of parts of memory: the ticket of the memory, and the layout of the part."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from extmem import _pickles
from extmem.api import pickling, unclaimed
from extmem.api.slices import MemorySlice
from extmem.errors import DescriptorError, ExtmemError
from extmem.sharing.layout import ArrayLayout, layout_for

__all__ = ["receive", "reduce"]

_NOTHING = ArrayLayout((0,), "uint8", (1,))
"""The layout of a part that was not received."""
_Sent = tuple[bytes, str, tuple[int, ...], tuple[int, ...], int]
"""The pickle of a part: ticket, element type, shape, strides and offset."""


def reduce(part: MemorySlice) -> tuple[Callable[[bytes], MemorySlice], tuple[bytes]]:
    """Reduce a part of memory for pickling."""
    _, (ticket,) = pickling.reduce_memory(part.memory)
    sent = (ticket, part.dtype, part.shape, part.strides, part.offset)
    return _pickles.receive_slice, (msgspec.msgpack.encode(sent),)


def receive(data: bytes) -> MemorySlice:
    """Return the part. One of a closed object for a ticket that cannot be claimed, or a layout outside the payload."""
    try:
        ticket, dtype, shape, strides, offset = msgspec.msgpack.decode(data, type=_Sent)
    except msgspec.DecodeError as error:
        return _unclaimed(f"the pickle is not one of a part of memory: {error}; pickle the part anew")
    memory = pickling.receive_memory(ticket)
    if isinstance(memory, unclaimed.UnclaimedMemory):
        return MemorySlice(memory, _NOTHING)
    try:
        layout = layout_for(memory.size, None, dtype=dtype, shape=shape, strides=strides, offset=offset)
    except (ValueError, TypeError, ExtmemError) as error:
        memory.close()
        return _unclaimed(f"the pickle is of a part of another payload: {error}; pickle the part anew")
    return MemorySlice(memory, layout)


def _unclaimed(reason: str) -> MemorySlice:
    return MemorySlice(unclaimed.UnclaimedMemory(DescriptorError(reason)), _NOTHING)
