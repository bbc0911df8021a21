"""Operations of the host on semaphores and fences: values, signals and waits.

How this works. A wait is made in slices, between which signal handlers run (Ctrl-C), and each of which ends early when
the value is reached: nothing polls. The device decides how it sleeps; a timeline of the host, or of a driver with a
companion page, sleeps on the page, so that a signal of another API or process wakes it at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extmem import rules, vk
from extmem.arguments import a_type, check_flag, whole_number
from extmem.core import sync_facts
from extmem.core.order_pairs import checked_value
from extmem.core.slices import SLICE_NS, deadline_after, in_slices, wait_for_devices
from extmem.core.sync_arguments import check_struct, record_of, sequence_of
from extmem.core.sync_object import SyncObject
from extmem.core.sync_record import FenceRecord, SemaphoreRecord
from extmem.core.sync_state import sync_states
from extmem.core.wait_errors import check_reached, several_timed_out
from extmem.devices.host.page_waits import wait_pages
from extmem.errors import UnsupportedError, WaitTimeoutError
from extmem.owning import Uses
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState

__all__ = [
    "check_destroy_fence",
    "check_destroy_semaphore",
    "counter",
    "counter_value",
    "deadline_after",
    "fence_status",
    "nanoseconds",
    "peer_gone",
    "reset_fences",
    "signal",
    "signal_semaphore",
    "status_of",
    "wait",
    "wait_fence",
    "wait_for_fences",
    "wait_many",
    "wait_semaphores",
]

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_FAR = 0x7FFF_FFFF
"""Above this, a value can be further from the current one than maxTimelineSemaphoreValueDifference of a driver."""
_ANY = int(vk.SemaphoreWaitFlagBits.ANY)
_REPAIRED = 2
"""`sharing.timeline_page.Flags.REPAIRED`."""


# Time.


def nanoseconds(timeout: float | None) -> int | None:
    """Return a timeout in nanoseconds; None for none. Errors: TypeError; ValueError for a negative one, and NaN."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is {timeout!r}, {a_type(timeout)}; give seconds, or None for no limit")
    if timeout != timeout or timeout < 0:  # an int may be too large for math.isnan
        raise ValueError(f"timeout is {timeout}; give 0 or more seconds, or None for no limit")
    return None if timeout >= 9e9 else int(timeout * 1e9)


def _limit_of(timeout_ns: object) -> int | None:
    """Return a timeout of the specification's commands; None for 2**64 - 1. Errors: TypeError; ValueError."""
    limit = whole_number(timeout_ns, "timeout_ns", "give nanoseconds as a whole number")
    if not 0 <= limit <= _U64:
        raise ValueError(f"timeout_ns is {limit}; give nanoseconds from 0 to {_U64}, which is no limit")
    return None if limit == _U64 else limit


# Timelines, one at a time: the high-level API.


def counter(record: SemaphoreRecord) -> int:
    """Return the value of a timeline that is in use."""
    return record.native.counter()


def signal(record: SemaphoreRecord, value: int) -> None:
    """Set the value of a timeline that is in use: `Timeline.signal`."""
    if type(value) is not int or not 0 <= value <= _U64:
        value = checked_value(value, "value")
    if not record.permanent.writable:
        record.check_writable()
    native = record.native
    if (record.pending or value > _FAR or value <= native.counter()) and record.device.check != "off":
        info = vk.SemaphoreSignalInfo(native.raw or 1, value)
        _check_signal(record, info)
    native.signal(value)
    if record.pending:  # what is submitted may wait for this value
        sync_states().reached(record.state, value)


def _check_signal(record: SemaphoreRecord, info: vk.SemaphoreSignalInfo) -> None:
    device = record.device
    violations = rules.check_signal_semaphore(info, sync_facts.sync_facts(device), record.facts())
    device.report(violations, "vkSignalSemaphore")


def wait(record: SemaphoreRecord, value: int, timeout: float | None) -> None:
    """Wait until a timeline that is in use has the value: `Timeline.wait`."""
    if type(value) is not int or not 0 <= value <= _U64:
        value = checked_value(value, "value")
    native = record.native
    limit = nanoseconds(timeout)
    if native.counter() >= value:
        return
    if record.page is not None:
        if not record.page.wait(value, deadline_after(limit)):
            check_reached(record, value, timeout)
        return
    backend: Any = record.device.backend
    waits = ((native, value),)
    if limit is None:
        while not backend.wait_semaphores(waits, timeout_ns=SLICE_NS):
            pass
        return
    if limit <= SLICE_NS:
        reached = backend.wait_semaphores(waits, timeout_ns=limit)
    else:
        reached = in_slices(lambda slice_ns: backend.wait_semaphores(waits, timeout_ns=slice_ns), limit)
    if not reached:
        check_reached(record, value, timeout)


# Several timelines.


def wait_many(waits: Sequence[tuple[SemaphoreRecord, int]], timeout: float | None, *, any_of: bool) -> list[int]:
    """Wait for any or all of several timelines, of one or several devices; the caller holds them.

    Return the indexes of those that are reached, at least one of several: a value that another process lowers after it
    ended a wait does not count.
    Errors: WaitTimeoutError; PeerGoneError if nobody signals one of the values any more (any: each of them).
    """
    limit = nanoseconds(timeout)
    if not waits:
        return []
    everything = list(range(len(waits)))
    deadline = deadline_after(limit)
    while True:
        ended = _sleep_for(waits, deadline, any_of=any_of)
        if ended and not any_of:
            return everything
        values = [record.native.counter() for record, _ in waits]
        reached = [index for index, (_, value) in enumerate(waits) if values[index] >= value]
        if (reached and any_of) or reached == everything:
            return reached
        if not ended:
            raise several_timed_out(waits, values, timeout, any_of=any_of)


def _sleep_for(waits: Sequence[tuple[SemaphoreRecord, int]], deadline: int | None, *, any_of: bool) -> bool:
    """Wait for any or all of the timelines. Return whether the values were reached before the deadline."""
    if all(record.page is not None for record, _ in waits):
        return wait_pages([(record.page, value) for record, value in waits], any_of=any_of, deadline=deadline)
    by_device: dict[Any, list[tuple[Any, int]]] = {}
    for record, value in waits:
        by_device.setdefault(record.device, []).append((record.native, value))
    left = None if deadline is None else max(0, deadline - time.monotonic_ns())
    return wait_for_devices(by_device, left, any_of=any_of)


# The commands of the specification.


def wait_semaphores(device: DeviceState, given: vk.SemaphoreWaitInfo, timeout_ns: int) -> bool:
    """`Device.wait_semaphores`."""
    info = copy_struct(given)
    check_struct(device, info, vk.SemaphoreWaitInfo, "vkWaitSemaphores", rules.check_wait_semaphores, None, ())
    limit = _limit_of(timeout_ns)
    with Uses(device) as uses:
        records = [
            uses.add(record_of(device, one, SemaphoreRecord, f"semaphores[{index}]"))
            for index, one in enumerate(sequence_of(info.semaphores, "semaphores"))
        ]
        facts = [record.facts() for record in records]
        device.report(rules.check_wait_semaphores(info, sync_facts.sync_facts(device), facts), "vkWaitSemaphores")
        waits = [(one.native, int(value)) for one, value in zip(records, info.values, strict=False) if one.timeline]
        if not waits:
            return True
        backend = sync_facts.sync_backend(device)
        any_of = bool(int(info.flags) & _ANY)
        return in_slices(
            lambda slice_ns: backend.wait_semaphores(waits, any_of=any_of, timeout_ns=slice_ns),
            limit,
        )


def signal_semaphore(device: DeviceState, given: vk.SemaphoreSignalInfo) -> None:
    """`Device.signal_semaphore`."""
    info = copy_struct(given)
    command = "vkSignalSemaphore"
    check_struct(device, info, vk.SemaphoreSignalInfo, command, rules.check_signal_semaphore, None, None)
    with device.use(), record_of(device, info.semaphore, SemaphoreRecord).use() as record:
        record.check_writable()
        _check_signal(record, info)
        _check_timeline(record, "vkSignalSemaphore")
        value = checked_value(info.value, "value")
        record.native.signal(value)
        sync_states().reached(record.state, value)


def counter_value(device: DeviceState, semaphore: object) -> int:
    """`Device.get_semaphore_counter_value`."""
    with device.use(), record_of(device, semaphore, SemaphoreRecord).use() as record:
        violations = rules.check_get_semaphore_counter_value(sync_facts.sync_facts(device), record.facts())
        device.report(violations, "vkGetSemaphoreCounterValue")
        _check_timeline(record, "vkGetSemaphoreCounterValue")
        return record.native.counter()


def _check_timeline(record: SemaphoreRecord, command: str) -> None:
    """Refuse a binary semaphore, whatever the `check` of the device is. Errors: UnsupportedError."""
    if not record.timeline:
        raise UnsupportedError(
            f"{command}: this semaphore ({record.what()}) is binary, and the host reads and signals timelines alone; "
            "create it with vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE)",
            requires_one_of=["a timeline semaphore"],
        )


# Fences.


def fence_status(device: DeviceState, fence: object) -> bool:
    """`Device.get_fence_status`."""
    with device.use(), record_of(device, fence, FenceRecord).use() as record:
        device.report(rules.check_get_fence_status(sync_facts.sync_facts(device), record.facts()), "vkGetFenceStatus")
        return _status(record)


def _status(record: FenceRecord) -> bool:
    signaled = record.native.status()
    if signaled:
        sync_states().signaled(record.state)
    return signaled


def wait_for_fences(device: DeviceState, fences: Sequence[object], timeout_ns: int, *, wait_all: bool) -> bool:
    """`Device.wait_for_fences`."""
    limit = _limit_of(timeout_ns)
    check_flag(wait_all, "wait_all")
    with Uses(device) as uses:
        records = [
            uses.add(record_of(device, one, FenceRecord, f"fences[{index}]"))
            for index, one in enumerate(sequence_of(fences, "fences"))
        ]
        facts = [record.facts() for record in records]
        device.report(rules.check_wait_for_fences(fences, sync_facts.sync_facts(device), facts), "vkWaitForFences")
        if not records:
            return True
        return _wait_fences(device, records, limit, any_of=not wait_all)


def _wait_fences(device: DeviceState, records: Sequence[FenceRecord], limit: int | None, *, any_of: bool) -> bool:
    backend = sync_facts.sync_backend(device)
    natives = [record.native for record in records]
    done = in_slices(lambda slice_ns: backend.wait_fences(natives, any_of=any_of, timeout_ns=slice_ns), limit)
    if done:
        for record in records:
            if not any_of or record.native.status():
                sync_states().signaled(record.state)
    return done


def wait_fence(record: FenceRecord, timeout: float | None) -> None:
    """Wait until a fence that is in use is signaled: `Fence.wait`."""
    if not _wait_fences(record.device, [record], nanoseconds(timeout), any_of=False):
        raise WaitTimeoutError(
            f"the fence ({record.what()}) was not signaled within {timeout} s; submit work that signals it, or wait "
            "longer"
        )


def reset_fences(device: DeviceState, fences: Sequence[object]) -> None:
    """`Device.reset_fences`."""
    with Uses(device) as uses:
        records = [
            uses.add(record_of(device, one, FenceRecord, f"fences[{index}]"))
            for index, one in enumerate(sequence_of(fences, "fences"))
        ]
        facts = [record.facts() for record in records]
        device.report(rules.check_reset_fences(fences, sync_facts.sync_facts(device), facts), "vkResetFences")
        for record in records:
            record.native.reset()
            record.restore_payload()
            sync_states().reset([record.state])


def status_of(record: FenceRecord) -> bool:
    """Return whether a fence that is in use is signaled: `Fence.signaled`."""
    return _status(record)


# What is known of signalers, and the end of objects.


def peer_gone(record: SemaphoreRecord) -> tuple[int, float, int, bool, bool] | None:
    """Return the process, seconds, value reached, and whether it closed and was repaired: `Timeline.peer_gone`."""
    page = record.told_page
    if page is None:
        return None
    facts = page.facts
    if not facts.marked:
        return None
    seconds = max(0, time.monotonic_ns() - facts.since) / 1e9
    return facts.pid, seconds, facts.reached, facts.closed, bool(facts.flags & _REPAIRED)


def check_destroy_semaphore(device: DeviceState, semaphore: Any) -> None:
    """The check of `Device.destroy_semaphore`. Nothing is checked once it is closed."""
    if isinstance(semaphore, SyncObject) and semaphore.closed:
        return
    with device.use(), record_of(device, semaphore, SemaphoreRecord).use() as record:
        facts = record.facts()
        device.report(rules.check_destroy_semaphore(facts), "vkDestroySemaphore")


def check_destroy_fence(device: DeviceState, fence: Any) -> None:
    """The check of `Device.destroy_fence`. Nothing is checked once it is closed."""
    if isinstance(fence, SyncObject) and fence.closed:
        return
    with device.use(), record_of(device, fence, FenceRecord).use() as record:
        device.report(rules.check_destroy_fence(record.facts()), "vkDestroyFence")
