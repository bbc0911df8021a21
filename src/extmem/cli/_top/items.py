"""What the view shows: items made from the object manager's rows and from channels. Pure, apart from the names of
processes, which a function tells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final

import msgspec

from extmem.cli._out import clean
from extmem.cli._payloads import describe_kind, describe_sync, kind_in_words, short_name
from extmem.cli._top.channels import ChannelFacts
from extmem.core.naming import CHANNEL_PARTS
from extmem.errors import DescriptorError
from extmem.objects import ObjectKind, PayloadRow
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.descriptor.sync import SyncDescriptor

__all__ = ["Described", "is_of_channel", "Item", "Subject", "channel_item", "describe", "payload_item", "subject_of"]


class Subject(Enum):
    """What one table lists. The value is its title."""

    PAYLOADS = "Payloads"
    TIMELINES = "Timelines"
    """Timelines of the host and of drivers, binary semaphores and fences: all that orders work."""
    CHANNELS = "Channels"


_ORDER: Final = (ObjectKind.SEMAPHORE, ObjectKind.FENCE)


class Described(msgspec.Struct, frozen=True):
    """What a descriptor says, as the view shows it."""

    kind: str
    size: int | None
    """Bytes of the contents; None for what has none, and for a descriptor that cannot be read."""
    owner: int
    """The pid of the exporter; 0 if it is not known."""


class Item(msgspec.Struct, frozen=True):
    """What a row of a table is about."""

    key: str
    """Distinguishes it from all other items, as long as it lives."""
    name: str
    """Its names in one line, safe to print; `(unnamed)` without one."""
    kind: str
    size: int | None
    number: int | None
    """What only grows: the generation of memory, the value of a timeline, the number of the newest frame of a channel.
    None where it is not known."""
    holders: tuple[int, ...]
    """The pids of the processes that hold it; 0 for a child that is starting. Of a channel: its writer and readers."""
    held_by: str
    """The first holder in words, and the number of the others."""
    text: str
    """What a filter is compared with: names, kind and holders, in small letters."""
    payload: PayloadRow | None = None
    channel: ChannelFacts | None = None


def subject_of(row: PayloadRow) -> Subject:
    """Return the table that a payload belongs to."""
    return Subject.TIMELINES if row.object_kind in _ORDER else Subject.PAYLOADS


def is_of_channel(row: PayloadRow, channels: Iterable[ChannelFacts]) -> bool:
    """Return whether a payload is one of these channels, or a part of one: its row is that of the channel.

    Parts of other channels are payloads like others, so that no name hides one.
    """
    names = list(map(short_name, row.names))
    if row.object_kind is ObjectKind.CHANNEL and any(one.name in names for one in channels):
        return True
    return any(one.parts and name.startswith(one.parts) for name in names if CHANNEL_PARTS in name for one in channels)


def describe(row: PayloadRow) -> Described:
    """Return what the descriptor of a payload says, whoever wrote it."""
    if row.object_kind is ObjectKind.CHANNEL:
        return Described("channel", None, 0)
    with contextlib.suppress(DescriptorError):
        if row.object_kind is ObjectKind.MEMORY:
            memory = Descriptor.parse(row.descriptor)
            kind = kind_in_words(describe_kind(memory)).replace("\n", " ")
            return Described(kind, memory.payload_size, memory.owner_pid)
        sync = SyncDescriptor.parse(row.descriptor)
        return Described(kind_in_words(describe_sync(sync, None)), None, sync.owner_pid)
    return Described("?", None, 0)


def payload_item(row: PayloadRow, described: Described, processes: Callable[[int], str]) -> Item:
    """Return the item of a payload. processes: returns the name of a process by its pid."""
    names = ", ".join(clean(short_name(path)) for path in row.names)
    if not names:
        names = "(superseded)" if any(shared.superseded for shared in row.objects) else "(unnamed)"
    pids = tuple(holder.pid for holder in row.holders)
    kept = any(shared.kept for shared in row.objects)
    # The exporter comes first: it is what people look for.
    first = sorted(pids, key=lambda pid: (pid != described.owner, pid))
    held_by = _held_by(first, processes) or ("the broker" if kept else "in flight" if row.in_flight else "no process")
    text = "\n".join((names, described.kind, *_process_words(pids, processes), "kept" * kept)).lower()
    return Item(
        f"payload {row.payload}",
        names,
        described.kind,
        described.size,
        row.counter,
        pids,
        held_by,
        text,
        payload=row,
    )


def channel_item(channel: ChannelFacts, processes: Callable[[int], str]) -> Item:
    """Return the item of a channel."""
    pids = tuple(filter(None, (channel.writer, *(reader.pid for reader in channel.readers))))
    held_by = _held_by([channel.writer], processes) if channel.writer else "no writer"
    name = clean(channel.name)
    text = "\n".join((name, "channel", *_process_words(pids, processes))).lower()
    return Item(f"channel {channel.name}", name, "channel", None, channel.frames, pids, held_by, text, channel=channel)


def _process_words(pids: Iterable[int], processes: Callable[[int], str]) -> list[str]:
    return [f"{pid} {clean(processes(pid))}" for pid in pids]


def _held_by(pids: list[int], processes: Callable[[int], str]) -> str:
    if not pids:
        return ""
    first = f"{pids[0]} {clean(processes(pids[0]))}".strip() if pids[0] else "a child that is starting"
    return first + f" and {len(pids) - 1} more" * (len(pids) > 1)
