"""The channels among the payloads of a look: what their control pages say, opened for reading and closed again.

A channel is not joined: this process takes no place of a reader, and holds no frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from extmem.api.sync_functions import open_timeline
from extmem.channel import control, names
from extmem.channel import info as channel_info
from extmem.cli._top.channels import ChannelFacts, ReaderFacts
from extmem.core.naming import CHANNEL_PARTS, short_name
from extmem.errors import ExtmemError, PeerGoneError
from extmem.handles import Access
from extmem.objects import ObjectKind, PayloadRow

__all__ = ["channels_of", "facts_of"]


def channels_of(rows: Sequence[PayloadRow]) -> list[ChannelFacts]:
    """Return the channels among the payloads that this user may open. One that ends meanwhile is left out.

    Errors: PeerGoneError.
    """
    found = []
    for name in _channel_names(rows):
        try:
            found.append(_look_at(name, rows))
        except PeerGoneError:
            raise  # no answer: the next channel would not have one either
        except (ExtmemError, OSError):
            continue
    return found


def _channel_names(rows: Sequence[PayloadRow]) -> Iterator[str]:
    for row in rows:
        if row.object_kind is ObjectKind.CHANNEL:
            for path in row.names:
                name = short_name(path)
                if not name.startswith(CHANNEL_PARTS):
                    yield name


def _look_at(name: str, rows: Sequence[PayloadRow]) -> ChannelFacts:
    with (
        closing(control.find(name, writable=False)) as page,
        open_timeline(names.frames(page.identity), access=Access.READ) as frames,
        frames.use() as record,
    ):
        return facts_of(channel_info.of(page, record.page, rows=rows), names.parts(page.identity))


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
    mode = "reliable" if reader.reliable else "every" if reader.every else "newest"
    held_for = max((frame.seconds for frame in reader.held), default=None)
    return ReaderFacts(reader.pid, mode, reader.cursor, len(reader.held), held_for, reader.lost)
