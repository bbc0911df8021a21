"""The parts of a channel that its writer makes, or takes over from a writer that has ended."""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from extmem.api.sync_functions import open_timeline
from extmem.channel import control, names, reclaiming
from extmem.channel.slots import Slot, make_slot, open_slot
from extmem.channel.system import WriterLock
from extmem.errors import ChannelTakenError, NameNotFoundError
from extmem.handles import Access
from extmem.objects import WINERROR, Status
from extmem.owning import late_imports
from extmem.sharing.channel_page import Header, Words

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage
    from extmem.channel.format import SlotFormat
    from extmem.channel.gpu_writing import WriterOrder

__all__ = ["close_all", "fresh", "taken_over"]

_RETRY: Final = 0.002
_PATIENCE: Final = 1.0
_READ_WRITE: Final = int(Access.READ_WRITE)

Parts: TypeAlias = "tuple[ControlPage, Timeline, WriterLock, list[Slot], WriterOrder | None]"


def fresh(
    undo: contextlib.ExitStack,
    name: str,
    form: SlotFormat,
    slots: int,
    limits: tuple[int, int, int],
    refuses: bool,
    host: Device,
    device: Device,
    security: str | None,
) -> Parts:
    """Create the parts of a new channel, and then its name."""
    identity, size = secrets.token_bytes(16), len(form.encoded)
    header = Header(*limits, identity=identity, slots=slots, arrays_size=size, refuses=refuses, **_self(host))
    lock = WriterLock.taken(header.identity, security)
    if lock is None:
        raise _taken(name, 0)
    undo.callback(lock.close)
    frames = host.timeline(name=names.frames(header.identity), security=security)
    undo.callback(frames.close)
    ring: list[Slot] = []
    where = (header.identity, header.epoch)
    for index in range(slots):
        slot = make_slot(where, index, device, form, control.slot_range(header.capacity, header.epoch, index), security)
        undo.callback(slot.close)
        ring.append(slot)
    gpu = _gpu_order(undo, name, where, device, 0, security)
    page = control.publish(name, header, form.encoded, security)
    undo.callback(page.close)
    return page, frames, lock, ring, gpu


def taken_over(
    undo: contextlib.ExitStack,
    page: ControlPage,
    form: SlotFormat,
    slots: int,
    host: Device,
    device: Device,
    security: str | None,
) -> Parts:
    """Take over the parts of a channel whose writer has ended. Errors: ChannelTakenError; ValueError for more slots
    than it has room for.

    Slots of a GPU are replaced: work of the writer before may still write to them, and nobody tells when it ends.
    """
    lock = _lock_left(page, host, security)
    if lock is None:
        raise _taken(page.name, page.words64[Words.WRITER])
    undo.callback(lock.close)
    header = page.refreshed()
    if slots > header.capacity:
        raise ValueError(
            f"slots is {slots}, and the channel {page.name!r}, which its readers keep, has room for {header.capacity}; "
            "give at most as many, or close the readers, and create it anew"
        )
    name = names.frames(page.identity)
    try:
        frames = open_timeline(name, access=Access.READ_WRITE)
    except NameNotFoundError:  # no reader has kept it
        frames = host.timeline(page.words64[Words.COUNT], name=name, security=security)
    undo.callback(frames.close)
    for word, value in enumerate(_self(host).values()):
        page.words64[Words.WRITER + word] = value
    page.words[Words.WAITING] = 0
    ring: list[Slot] = []
    encoded = page.arrays()
    if device.kind != "host" or _is_on_gpu(page):
        ring = reclaiming.make_slots(page, device, form, slots, security)
        for made in ring:
            undo.callback(made.close)
        count = page.words64[Words.COUNT]
        gpu = _gpu_order(undo, page.name, (page.identity, header.epoch + 1), device, count, security)
        reclaiming.begin_epoch(page, form.encoded, slots)
        return page, frames, lock, ring, gpu
    for index in range(header.slots):
        slot = open_slot(page, header.epoch, index, device, encoded, access=_READ_WRITE)
        if slot is None:  # no reader has kept it
            page.numbers[index] = 0
            place = page.slot_range(header.epoch, index)
            like = ring[0].format if ring else form
            slot = make_slot((page.identity, header.epoch), index, device, like, place, security)
        undo.callback(slot.close)
        ring.append(slot)
    return page, frames, lock, ring, None


def _gpu_order(
    undo: contextlib.ExitStack, name: str, where: tuple[bytes, int], device: Device, count: int, security: str | None
) -> WriterOrder | None:
    """Return what orders the frames of slots on a GPU; None for the host. where: the identity, and the epoch."""
    if device.kind == "host":
        return None
    with late_imports():
        from extmem.channel.gpu_writing import WriterOrder

    made = WriterOrder(name, *where, device, count, security)
    undo.callback(made.close)
    return made


def close_all(slots: list[Slot]) -> None:
    """Close the slots that are in the list now. Safe to call twice."""
    for slot in slots:
        slot.close()


def _is_on_gpu(page: ControlPage) -> bool:
    """Return whether the slots of this epoch are memory of a GPU, as far as somebody keeps them."""
    try:
        open_timeline(names.alive(page.identity, page.epoch), access=Access.READ).close()
    except NameNotFoundError:
        return False
    return True


def _lock_left(page: ControlPage, host: Device, security: str | None) -> WriterLock | None:
    """Return the lock of the writer, once the last one has ended; None if there is one.

    A process can be seen to have ended just before the kernel has released all that it had.
    """
    deadline = time.monotonic() + _PATIENCE
    while (lock := WriterLock.taken(page.identity, security)) is None and time.monotonic() < deadline:
        with host.timeline() as probe, probe.use() as record:
            words = page.words64[Words.WRITER : Words.WRITER + 3]
            if not record.page.has_ended(*words):
                break
        time.sleep(_RETRY)
    return lock


def _self(host: Device) -> dict[str, int]:
    """Return pid, start time and pid namespace of this process, as the header has them."""
    with host.timeline() as probe, probe.use() as record:
        pid, start, namespace = record.page.own_facts()
    return {"pid": pid, "start": start, "namespace": namespace}


def _taken(name: str, pid: int) -> ChannelTakenError:
    return ChannelTakenError(
        f"the channel {name!r} has a writer: process {pid}; a channel has one at a time. Read it by "
        f"extmem.open_channel, end that process, or create a channel with another name",
        ntstatus=int(Status.OBJECT_NAME_COLLISION),
        winerror=WINERROR[Status.OBJECT_NAME_COLLISION],
    )
