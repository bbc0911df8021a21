"""Looks that `extmem top` might have: payloads, timelines and channels, made without an object manager."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from extmem.cli._top.channels import ChannelFacts, ReaderFacts
from extmem.cli._top.model import Broker, Look
from extmem.objects import HandleRow, HolderRow, ObjectRow, PayloadRow, Share
from extmem.sharing.descriptor import ArrayInfo, Descriptor
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import ObjectKind

__all__ = ["CHANNEL", "WALL", "holder", "look", "memory", "process", "timeline"]

WALL = 1_700_000_000.0
READ, READ_WRITE, WAIT, SIGNAL = 0x2_0000, 0x2_0001, 0x2_0001, 0x2_0003
PATH = "\\Sessions\\1\\BaseNamedObjects\\"
_PROCESSES = {100: "camera", 200: "viewer", 300: "recorder"}


def process(pid: int) -> str:
    """Return the name of a process."""
    return _PROCESSES.get(pid, "")


def holder(pid: int, rights: int = READ_WRITE, handles: Sequence[int] = (), references: int = 1) -> HolderRow:
    """Return what a process holds."""
    return HolderRow(pid, references, tuple(HandleRow(value, READ, 1) for value in handles), 0, rights)


def memory(number: int, name: str | None = None, *holders: HolderRow, columns: int = 3, **changes: Any) -> PayloadRow:
    """Return memory with an array of 2 rows. Process 100 has exported it."""
    array = ArrayInfo((2, columns), "float32", (4 * columns, 4))
    said = Descriptor(
        handle_types=2, allocation_size=8 * columns, array=array, owner_pid=100, device_name="some device"
    )
    path = None if name is None else PATH + name
    objects = (ObjectRow(number, path, "D:(A;;GA;;;OW)", 1, 1),)
    options: dict[str, Any] = {"counter": 0, **changes}
    return PayloadRow(number, Share.NT, None, said.encode(), objects, holders or (holder(100),), **options)


def timeline(number: int, name: str, value: int | None, *holders: HolderRow) -> PayloadRow:
    """Return a timeline."""
    said = SyncDescriptor(object_kind=2, handle_types=2, timeline=True, host=True, owner_pid=100)
    objects = (ObjectRow(number, PATH + name, "D:(A;;GA;;;OW)", 1, 1),)
    held = holders or (holder(100, SIGNAL),)
    return PayloadRow(
        number, Share.NT, None, said.encode(), objects, held, object_kind=ObjectKind.SEMAPHORE, counter=value
    )


CHANNEL = ChannelFacts(
    "feed",
    writer=100,
    frames=50,
    age=0.02,
    slots=4,
    epoch=2,
    dropped=3,
    readers=(
        ReaderFacts(200, "newest", 49, held=1, held_for=0.5, skipped=7),
        ReaderFacts(300, "every", 41, skipped=1),
    ),
)


def look(at: float, *rows: PayloadRow, broker: int | None = 7, **changes: Any) -> Look:
    """Return what a look has found, so many seconds after the first one."""
    known = None if broker is None else Broker(broker, at + 10, 2)
    return Look(at, WALL + at, rows, broker=known, **changes)
