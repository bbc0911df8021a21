"""Pickling of channels, so that they can be sent through `multiprocessing`: who receives one gets a reader.

How this works. As for memory (`api.pickling`): the pickle contains a ticket of the control page, and how the reader
reads. A writer is received as a reader of the newest frames. Unpickling does not raise if the ticket cannot be claimed:
it returns a closed reader, which tells the reason when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from extmem import _pickles
from extmem.api.pickling import bound_ticket, claimed_import
from extmem.channel import control, functions
from extmem.channel.base import Channel
from extmem.channel.reader import ChannelReader, Start
from extmem.errors import ExtmemError, HandleStateError
from extmem.sharing.kinds import ObjectKind

__all__ = ["receive", "reduce"]


class _Data(msgspec.Struct, array_like=True):
    """The contents of a pickle."""

    ticket: bytes
    name: str
    every: bool = False
    reliable: bool = False
    start: Start = "newest"
    max_held: int = 1
    strict: bool = False
    reconnect: bool = False


def reduce(channel: Channel) -> tuple[Callable[[bytes], ChannelReader], tuple[bytes]]:
    """Return what pickles contain of a channel."""
    owner, ticket = channel.control.ticket()
    options = channel.options() if isinstance(channel, ChannelReader) else {}
    data = _Data(bound_ticket(owner, ticket), channel.name, **options)
    return _pickles.receive_channel, (msgspec.msgpack.encode(data),)


def receive(data: bytes) -> ChannelReader:
    """Return a reader: see `extmem._pickles`, by which pickles call this."""
    found = msgspec.msgpack.decode(data, type=_Data)
    try:
        imported = claimed_import(found.ticket)
        if imported.object_kind != ObjectKind.CHANNEL:
            imported.give_back()
            raise HandleStateError("the ticket is not that of a channel; unpickle it as the sender pickled it")
        options: dict[str, Any] = {
            field: getattr(found, field) for field in _Data.__struct_fields__ if field not in ("ticket", "name")
        }
        return functions.read_page(found.name, control.adopt(found.name, imported), None, options)
    except (ExtmemError, OSError) as reason:
        return _unclaimed(found.name, reason)


def _unclaimed(name: str, reason: Exception) -> ChannelReader:
    reader = object.__new__(ChannelReader)
    reader.set_closed(name, f": it could not be received: {str(reason).rstrip('.')}")
    return reader
