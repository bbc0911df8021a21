"""The channels among the payloads of a look: what their control pages say, opened for reading and closed again.

A channel is not joined: this process takes no place of a reader, and holds no frame.
"""

from __future__ import annotations

from collections.abc import Sequence

from extmem.channel import info as channel_info
from extmem.cli._channels import channel_names, look_at, mode_of
from extmem.cli._top.channels import ChannelFacts, ReaderFacts
from extmem.errors import ExtmemError, PeerGoneError
from extmem.objects import PayloadRow

__all__ = ["channels_of", "facts_of"]


def channels_of(rows: Sequence[PayloadRow]) -> list[ChannelFacts]:
    """Return the channels among the payloads that this user may open. One that ends meanwhile is left out.

    Errors: PeerGoneError.
    """
    found = []
    for name in channel_names(rows):
        try:
            look = look_at(name, rows)
        except PeerGoneError:
            raise  # no answer: the next channel would not have one either
        except (ExtmemError, OSError):
            continue
        found.append(facts_of(look.info, look.parts))
    return found


def facts_of(info: channel_info.ChannelInfo, parts: str = "") -> ChannelFacts:
    """Return what the view shows of a channel. parts: with this begin the names of its parts."""
    return ChannelFacts(
        info.name,
        info.writer if info.state == "alive" else 0,
        info.count,
        info.age,
        info.slots,
        info.epoch,
        info.dropped,
        tuple(map(_reader_facts, info.readers)),
        parts,
    )


def _reader_facts(reader: channel_info.ReaderInfo) -> ReaderFacts:
    held_for = max((frame.seconds for frame in reader.held), default=None)
    return ReaderFacts(reader.pid, mode_of(reader), reader.cursor, len(reader.held), held_for, reader.lost)
