"""The functions `create_channel` and `open_channel` of the package `extmem`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from extmem.api.device import Device
from extmem.api.sync_functions import open_timeline
from extmem.arguments import a_type, check_flag
from extmem.channel import control, names, system, writer_parts
from extmem.channel.format import SlotFormat
from extmem.channel.reader import ChannelReader, Start
from extmem.channel.source import ReadSource
from extmem.channel.writer import ChannelWriter, WhenFull
from extmem.core import name_waits, operations, shared_devices
from extmem.errors import (
    NameNotFoundError,
    NameTakenError,
    ObjectTypeError,
    UnsupportedError,
)
from extmem.handles import Access
from extmem.manager import Reference, manager
from extmem.objects import WINERROR, Status, error_for
from extmem.owning import unsettled, work_off
from extmem.sharing.channel_page import CAPACITY_LIMIT, READERS_LIMIT, Words
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.reader_page import HELD_LIMIT

if TYPE_CHECKING:
    from extmem.api.timeline import Timeline
    from extmem.channel.control import ControlPage

__all__ = ["create_channel", "open_channel"]

_POLICIES = ("drop", "wait", "raise", "grow")
_STARTS = ("newest", "next", "oldest")
_HEADROOM = 64
_RETRY = 0.002
_READ = int(Access.READ)


def create_channel(
    name: str,
    shape: int | tuple[int, ...] | Mapping[str, Any],
    dtype: object = "uint8",
    *,
    slots: int = 4,
    max_slots: int | None = None,
    when_full: WhenFull = "drop",
    timeout: float | None = None,
    reliable: str = "allow",
    max_reliable: int = 8,
    max_readers: int = 64,
    device: Device | None = None,
    security: str | None = None,
    resume: bool = True,
) -> ChannelWriter:
    """Create a channel, of which this process is the writer. The caller closes it.

    If the name is that of a channel whose writer has ended, and which readers keep, this process goes on as its writer:
    with the next frame number, and with the frames that are in the ring.

    name: the name by which `extmem.open_channel` opens it.
    shape, dtype: of the array in each frame, as for `Device.allocate`. A dictionary is for several arrays in a frame:
        `{"color": ((1080, 1920, 4), "uint8"), "depth": ((1080, 1920), "float32")}`.
    slots: the frames that the ring has room for, at first. With 2, and those that readers hold (`max_held`), a slot is
        free whenever the readers read the newest frames alone. Their memory is reserved now.
    max_slots: the most slots, for `when_full="grow"` and `reconfigure`; None for 4 times the slots, at least 64.
    when_full: what `write` does if no slot is free. "drop": the frame is not published, and `dropped` counts it.
        "wait": it waits, for `timeout` seconds at most. "raise": ChannelFullError. "grow": one more slot, up to
        `max_slots`; then, and without memory, as "drop".
    timeout: seconds of `when_full="wait"`; None for no limit.
    reliable: "allow" or "refuse" readers that the writer waits for; at most `max_reliable` at once. A writer that takes
        over and refuses them does not wait for those that are there, either: they count what they lose.
    max_readers: the most readers at once, reliable ones included. A channel that is taken over keeps the limits for
        readers, and the room for slots, with which it was created.
    device: where the slots are: a host, Vulkan or CUDA device; None for the memory of the host. Frames of a GPU are
        ordered by `Frame.on`. A writer that takes over such a channel replaces its slots.
    security: SDDL for the channel. By default this user alone has access. Others who may read can wait, map and hold,
        and the kernel refuses them everything else. Only this user can be the writer. A channel that is taken over
        keeps its own; the parts that this writer makes anew (slots) get these rights: give the same.
    resume: whether to go on with the slots of a writer that has ended, if they have this shape and type. Fewer slots
        than asked for get more; more of them are replaced, except those up to `max_slots` with `when_full="grow"`.
        False replaces them in any case (`ChannelWriter.reconfigure`).
    Errors: ChannelTakenError if the channel has a live writer; NameTakenError if the name is that of something else;
    NameInvalidError, AccessDeniedError, SecurityDescriptorError; OutOfMemoryError; those of `Device.allocate` for shape
    and dtype; ValueError for more slots than a channel that is taken over has room for; UnsupportedError, on Windows,
    for slots of a GPU, and for names of other sessions (`Global\\`).
    """
    if unsettled:
        work_off()
    checked = names.checked(name)
    form = SlotFormat.of(shape, dtype)
    _check_choice(when_full, _POLICIES, "when_full")
    _check_choice(reliable, ("allow", "refuse"), "reliable")
    check_flag(resume, "resume")
    if security is not None and not isinstance(security, str):
        raise TypeError(f"security is {security!r}, {a_type(security)}; give SDDL as a str, or None")
    if timeout is not None:
        name_waits.checked_timeout(timeout)
    slots = _checked_count(slots, 1, CAPACITY_LIMIT, "slots")
    if max_slots is not None:
        max_slots = _checked_count(max_slots, slots, CAPACITY_LIMIT, "max_slots")
    max_readers = _checked_count(max_readers, 1, READERS_LIMIT, "max_readers")
    max_reliable = _checked_count(max_reliable, 0, READERS_LIMIT, "max_reliable")
    host = cast("Device", shared_devices.device_for(None))
    place = _device(device) or host
    most = max_slots if max_slots is not None else min(CAPACITY_LIMIT, max(_HEADROOM, 4 * slots))
    limits = (most, max_readers, min(max_reliable, max_readers))
    refuses = reliable == "refuse"
    while True:
        try:
            page = control.find(checked, writable=True, security=security)
        except NameNotFoundError:
            page = None
        except ObjectTypeError as error:
            raise NameTakenError(
                f"the channel {checked!r} cannot be created: {error}",
                ntstatus=int(Status.OBJECT_NAME_COLLISION),
                winerror=WINERROR[Status.OBJECT_NAME_COLLISION],
            ) from None
        with contextlib.ExitStack() as undo:
            if page is None:
                try:
                    made = writer_parts.fresh(undo, checked, form, slots, limits, refuses, host, place, security)
                except NameTakenError:
                    if _is_channel(checked):
                        continue  # another process was faster
                    raise
            else:
                undo.callback(page.close)
                made = writer_parts.taken_over(undo, page, form, slots, host, place, security)
            page, frames, lock, ring, gpu = made
            writer = ChannelWriter(
                checked,
                page,
                frames,
                lock,
                ring,
                form=ring[0].format,
                device=place,
                gpu=gpu,
                when_full=when_full,
                timeout=timeout,
                refuses=refuses,
                max_slots=min(most, page.layout.capacity),
                security=security,
            )
            kept = most if when_full == "grow" else slots
            if resume and ring[0].format == form and len(ring) <= kept:
                undo.callback(writer_parts.close_all, ring)  # the writer adds slots to this list
                writer.add_slots(slots)
            else:
                writer.replace_slots(form, slots)
            undo.pop_all()
            return writer


def open_channel(
    name: str,
    *,
    timeout: float | None = None,
    every: bool = False,
    reliable: bool = False,
    start: Start = "newest",
    max_held: int = 1,
    strict: bool = False,
    reconnect: bool = False,
    device: Device | None = None,
) -> ChannelReader:
    """Open a channel to read its frames. The caller closes it.

    timeout: seconds for which a name that does not exist is waited for; math.inf for no limit, None for not waiting.
    every: whether to read each frame in order; else the newest one at each read. What was overwritten before it was
        read is told: `Frame.skipped`, `ChannelReader.lost`.
    reliable: whether the writer must not overwrite a frame before this reader has read it. It needs `every=True`, and
        the writer's leave.
    start: the first frame: "newest" that there is, the "next" one that comes, or the "oldest" that there is.
        That one, and all after it, are counted if they are overwritten before the first read. For a reliable reader,
        the writer keeps the newest frame that there is now, and later ones, and none that is older.
    max_held: the most frames that this reader keeps at once, the one of its loop included. At most 32. With 1, the
        frame of a loop can be kept (`Frame.hold`), and has to be released before the next read.
    strict: whether frames that were lost are an error (FramesLostError).
    reconnect: whether to wait for another writer when the writer has ended.
    device: the device that the slots are opened on; None for the one that they are on. Slots of a Vulkan or CUDA device
        open on the devices of the same GPU; slots of the host on CUDA devices, too.
    Errors: NameNotFoundError; NameTimeoutError; ObjectTypeError for the name of something else (it names the call that
    opens that); AccessDeniedError, also for `reliable=True` if the writer refuses it; QuotaError if there are as many
    readers as the channel allows; ChannelCorruptError; UnsupportedError, on Windows, for a GPU.
    """
    if unsettled:
        work_off()
    checked = names.checked(name)
    deadline = time.monotonic() + (0 if timeout is None else name_waits.checked_timeout(timeout))
    options = _checked_options(
        every=every, reliable=reliable, start=start, max_held=max_held, strict=strict, reconnect=reconnect
    )
    _device(device)
    owner = manager()
    while True:
        if timeout is None:
            page = control.find(checked, writable=False)
        else:
            page = control.adopt(checked, _await(owner, checked, deadline))
        try:
            return read_page(checked, page, device, options)
        except NameNotFoundError:
            # Its writer has just ended, and nobody else has kept the slots: the name ends, too.
            if timeout is None or time.monotonic() >= deadline:
                raise
        time.sleep(_RETRY)


def read_page(name: str, page: ControlPage, device: Device | None, options: dict[str, Any]) -> ChannelReader:
    """Return a reader of a channel whose page was opened, which it owns. options: checked arguments of `open_channel`.

    Errors: as `open_channel`; NameNotFoundError if the slots do not exist any more.
    """
    with contextlib.ExitStack() as undo:
        undo.callback(page.close)
        frames = open_timeline(names.frames(page.identity), access=Access.READ)
        undo.callback(frames.close)
        with frames.use() as record:
            source = ReadSource.opened(page, record.page, device)
        undo.callback(source.close)
        own, place = _own_page(page, name, reliable=options["reliable"])
        undo.callback(own.close)
        reader = ChannelReader(name, page, frames, own, place, source, device=device, **options)
        undo.pop_all()
        return reader


def _own_page(page: ControlPage, name: str, *, reliable: bool) -> tuple[Timeline, int]:
    """Return a new timeline of a reader, and the place that it has. Errors: QuotaError; AccessDeniedError."""
    host = cast("Device", shared_devices.device_for(None))
    most, first = page.header.max_readers, page.header.max_reliable
    if reliable and (not first or page.words[Words.REFUSES]):
        raise error_for(
            Status.ACCESS_DENIED,
            f"The writer of the channel {name!r} refuses reliable readers: no frame is kept for this reader. Open it "
            'without reliable=True, or have the writer create it with reliable="allow".',
        )
    taken = set(page.readers())
    places = range(first) if reliable else [*range(first, most), *reversed(range(first))]
    for place in places:
        if place in taken:
            continue
        with contextlib.suppress(NameTakenError):
            return host.timeline(name=names.reader(page.identity, place)), place
    what, limit = ("reliable readers", first) if reliable else ("readers", most)
    why = f"The channel {name!r} has {limit} {what}, "
    if limit >= READERS_LIMIT:
        why += "as many as a channel can have. Close one."
    else:
        more = "max_reliable" if reliable else "max_readers"
        why += f"and its writer allows no more. Close one, or create the channel with a greater {more}."
    raise error_for(Status.QUOTA_EXCEEDED, why)


def _await(owner: Any, name: str, deadline: float) -> Any:
    left = max(0.0, deadline - time.monotonic())
    return name_waits.import_named(owner, name, _READ, math.inf if left > 1e9 else left, object_kind=ObjectKind.CHANNEL)


def _is_channel(name: str) -> bool:
    """Return whether the name is that of a channel now."""
    owner = manager()
    reference = Reference(owner)
    try:
        owner.import_by_name(name, _READ, reference, object_kind=ObjectKind.CHANNEL).give_back()
    except (NameNotFoundError, ObjectTypeError):
        return False
    return True


def _checked_options(**options: Any) -> dict[str, Any]:
    for flag in ("every", "reliable", "strict", "reconnect"):
        check_flag(options[flag], flag)
    _check_choice(options["start"], _STARTS, "start")
    options["max_held"] = _checked_count(options["max_held"], 1, HELD_LIMIT, "max_held")
    if options["reliable"] and not options["every"]:
        raise ValueError("reliable=True is for readers of each frame; give every=True, too, or omit it")
    return options


def _check_choice(value: object, choices: tuple[str, ...], what: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is {value!r}, {a_type(value)}; give one of {', '.join(map(repr, choices))}")
    if value not in choices:
        raise ValueError(f"{what} is {value!r}; give one of {', '.join(map(repr, choices))}")


def _checked_count(value: object, least: int, most: int, what: str) -> int:
    number = operations.arguments.whole_number(value, what)
    if not least <= number <= most:
        raise ValueError(f"{what} is {number}, outside {least} to {most}")
    return number


def _device(device: object) -> Device | None:
    if device is None:
        return None
    if not isinstance(device, Device):
        raise TypeError(f"device is {device!r}, {a_type(device)}; give a Device, or None")
    device.check_open()
    if device.kind != "host" and not system.HAS_GPU_FRAMES:
        raise UnsupportedError(
            f"frames of a channel are memory of the host on Windows, and {device.name} is of the kind {device.kind!r}; "
            "omit device=, and copy the arrays to the GPU",
            requires_one_of=["the host device", "Linux"],
        )
    return device
