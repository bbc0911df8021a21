"""`Timeline` on the host device: values, waits, names, rights, handles, and what is refused."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.api.timeline import Timeline
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.testing.leaks import no_leaks

SemaphoreType = vk.ExternalSemaphoreHandleTypeFlagBits
_names = itertools.count(1)


@pytest.fixture
def timeline(device: Device) -> Iterator[Timeline]:
    with device.timeline() as made:
        yield made


@pytest.fixture
def name() -> str:
    return f"timelines {os.getpid()} {next(_names)}"


def test_a_signal_sets_the_value_and_a_wait_for_it_returns(timeline: Timeline) -> None:
    assert timeline.value == 0
    timeline.signal(3)
    timeline.wait(3)
    timeline.wait(2, timeout=0)
    assert timeline.value == 3


def test_a_wait_begins_before_the_signal(timeline: Timeline) -> None:
    done = threading.Event()

    def waiting() -> None:
        timeline.wait(2, timeout=30)
        done.set()

    thread = threading.Thread(target=waiting)
    thread.start()
    timeline.signal(1)
    assert not done.is_set()
    timeline.signal(2)
    thread.join(30)
    assert done.is_set()


def test_a_timeout_tells_the_value_and_who_signals(timeline: Timeline) -> None:
    timeline.signal(1)
    with pytest.raises(TimeoutError, match=f"has value 1, and 5 .*only this one \\({os.getpid()}\\)") as caught:
        timeline.wait(5, timeout=0.001)
    assert isinstance(caught.value, extmem.WaitTimeoutError)
    assert (caught.value.value, caught.value.reached) == (5, 1)
    assert pickle.loads(pickle.dumps(caught.value)).reached == 1


@pytest.mark.parametrize(("first", "then"), [(3, 3), (3, 2), (0, (1 << 64) - 1)])
def test_a_value_that_goes_back_or_too_far_is_refused(timeline: Timeline, first: int, then: int) -> None:
    if first:
        timeline.signal(first)
    with pytest.raises(extmem.RuleViolation) as caught:
        timeline.signal(then)
    wanted = "03260" if then > first else "03258"
    assert caught.value.vuids == (f"VUID-VkSemaphoreSignalInfo-value-{wanted}",)
    assert timeline.value == first
    timeline.signal(first + 1)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (1 << 64, ValueError), ("1", TypeError)])
def test_what_is_not_a_value_is_refused(device: Device, timeline: Timeline, value: int, error: type[Exception]) -> None:
    for call in (timeline.signal, timeline.wait, lambda given: device.timeline(given).close()):
        with pytest.raises(error):
            call(value)


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_what_is_not_a_timeout_is_refused(timeline: Timeline, timeout: float, error: type[Exception]) -> None:
    with pytest.raises(error, match="timeout"):
        timeline.wait(1, timeout=timeout)
    timeline.wait(0, timeout=float("inf"))


def test_a_timeline_begins_with_its_initial_value(device: Device) -> None:
    with device.timeline(7) as made:
        assert made.value == 7 and made.descriptor.initial_value == 7


# Names, rights, handles.


def test_a_name_opens_it_and_both_are_one_timeline(device: Device, name: str) -> None:
    with device.timeline(name=name) as made, extmem.open_timeline(name.upper()) as opened:
        assert opened.name == name
        opened.signal(1)
        made.wait(1, timeout=30)
        with pytest.raises(extmem.NameTakenError):
            device.timeline(name=name)
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open_timeline(name)


def test_S23_the_right_to_wait_alone_does_not_signal(device: Device, name: str) -> None:
    with device.timeline(name=name) as made, extmem.open_timeline(name, access=extmem.Access.READ) as waiting:
        with pytest.raises(extmem.AccessDeniedError, match="0x2"):
            waiting.signal(1)
        made.signal(1)
        waiting.wait(1, timeout=30)
        assert waiting.read_only and not made.read_only
        with extmem.open_timeline(name, access=extmem.Access.READ_WRITE) as both:
            both.signal(2)


def test_others_get_the_rights_of_the_creation(device: Device, name: str) -> None:
    with device.timeline(name=name, access=extmem.Access.READ) as made:
        with extmem.open_timeline(name) as opened:
            assert opened.read_only
        with pytest.raises(extmem.AccessDeniedError):
            extmem.open_timeline(name, access=extmem.Access.READ_WRITE)
        made.signal(1)


def test_S26_memory_and_a_timeline_are_not_taken_for_each_other(device: Device, name: str) -> None:
    with device.timeline(name=name) as made, device.allocate(64, name=f"{name} memory"):
        with pytest.raises(extmem.ObjectTypeError, match="DxgkSharedSyncObject"):
            extmem.open(name)
        with pytest.raises(extmem.ObjectTypeError, match="DxgkSharedResource"):
            extmem.open_timeline(f"{name} memory")
        handle = made.export_handle()
        assert isinstance(handle, extmem.NtHandle)
        with handle, pytest.raises(extmem.ObjectTypeError):
            extmem.open(handle)


def test_a_fence_or_a_binary_semaphore_is_not_opened_as_a_timeline(device: Device) -> None:
    fence = device.create_fence(
        vk.FenceCreateInfo(p_next=vk.ExportFenceCreateInfo(vk.ExternalFenceHandleTypeFlagBits.OPAQUE_WIN32))
    )
    binary = device.create_semaphore(
        vk.SemaphoreCreateInfo(p_next=vk.ExportSemaphoreCreateInfo(SemaphoreType.OPAQUE_WIN32))
    )
    with fence, binary:
        for thing, words in ((fence, "fence"), (binary, "a binary semaphore")):
            handle = thing.export_handle()
            assert isinstance(handle, extmem.NtHandle)
            with handle, pytest.raises(extmem.ObjectTypeError, match=words):
                extmem.open_timeline(handle)


def test_an_nt_handle_stays_the_callers_and_an_fd_is_consumed(device: Device, timeline: Timeline) -> None:
    handle = timeline.export_handle()
    with handle, extmem.open_timeline(handle) as opened:  # type: ignore[arg-type, union-attr]
        opened.signal(1)
        assert int(handle)
    if not timeline.descriptor.handle_types & SemaphoreType.OPAQUE_FD:
        return  # a system without fds
    fd = timeline.export_handle(SemaphoreType.OPAQUE_FD)
    assert isinstance(fd, extmem.FdHandle)
    with extmem.open_timeline(fd, device=device) as opened:
        assert opened.value == 1
    assert fd.closed


@pytest.mark.linux_only("file descriptors")
def test_a_foreign_fd_is_refused_and_stays_the_callers(device: Device) -> None:
    with extmem.raw.fd_handle(os.memfd_create("foreign")) as fd:
        with pytest.raises(extmem.DriverError, match="memfd whose size can still change"):
            extmem.open_timeline(fd)
        assert not fd.closed


@pytest.mark.parametrize("source", [3, None, b"name"])
def test_what_is_no_name_or_handle_is_refused(source: object) -> None:
    with pytest.raises(TypeError, match="give the name of a timeline"):
        extmem.open_timeline(source)  # type: ignore[arg-type]


def test_it_is_pickled_with_its_rights(device: Device, name: str) -> None:
    with device.timeline(name=name) as made, extmem.open_timeline(name, access=extmem.Access.READ) as waiting:
        with pickle.loads(pickle.dumps(made)) as again, pickle.loads(pickle.dumps(waiting)) as reading:
            again.signal(4)
            assert reading.value == 4 and reading.read_only


def test_a_ticket_that_was_claimed_gives_a_closed_timeline(timeline: Timeline) -> None:
    data = pickle.dumps(timeline)
    pickle.loads(data).close()
    lost = pickle.loads(data)
    assert lost.closed and isinstance(lost, Timeline)
    for call in (lambda: lost.value, lambda: lost.signal(1), lambda: lost.wait(1)):
        with pytest.raises(extmem.InvalidHandleError, match="not in flight"):
            call()


# Several at once.


def test_wait_any_and_wait_all(device: Device) -> None:
    with device.timeline() as first, device.timeline() as second:
        pairs = [(first, 1), (second, 1)]
        with pytest.raises(TimeoutError):
            extmem.wait_any(pairs, timeout=0)
        second.signal(1)
        assert extmem.wait_any(pairs, timeout=30) == 1
        with pytest.raises(extmem.WaitTimeoutError) as caught:
            extmem.wait_all(pairs, timeout=0.001)
        assert caught.value.reached == 0
        first.signal(1)
        extmem.wait_all(pairs)
        assert extmem.wait_any(pairs) == 0
        extmem.wait_all([])


def test_bad_lists_of_waits_are_refused(device: Device, timeline: Timeline) -> None:
    with pytest.raises(ValueError, match="could never return"):
        extmem.wait_any([])
    with pytest.raises(TypeError, match="give a pair"):
        extmem.wait_all([timeline])  # type: ignore[list-item]
    with device.fence() as fence, pytest.raises(TypeError, match="has a fence"):
        extmem.wait_all([(fence, 1)])  # type: ignore[list-item]


# asyncio.


def test_a_coroutine_waits_and_a_cancelled_one_leaves_nothing(timeline: Timeline) -> None:
    async def both() -> None:
        waiting = asyncio.create_task(timeline.wait_async(2))
        cancelled = asyncio.create_task(timeline.wait_async(9))
        await asyncio.sleep(0)
        cancelled.cancel()
        timeline.signal(2)
        await waiting
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(extmem.WaitTimeoutError, match="has value 2"):
            await timeline.wait_async(3, timeout=0.001)

    asyncio.run(both())
    timeline.signal(9)  # a wait that had stayed would be completed in a loop that is closed


# Devices.


def test_a_device_with_an_open_timeline_is_not_closed() -> None:
    device = extmem.open_device(kind="host")
    made = device.timeline()
    with pytest.raises(extmem.HandleStateError, match="1 semaphores or fences"):
        device.close()
    made.close()
    device.close()


def test_an_error_in_the_block_of_a_device_is_not_replaced() -> None:
    kept = []
    with pytest.raises(KeyError), extmem.open_device(kind="host") as device:
        kept.append(device.timeline())
        raise KeyError
    kept[0].close()
    kept[0].device.close()


def test_a_timeline_of_another_device_is_refused_with_the_way_to_open_it(timeline: Timeline) -> None:
    with extmem.open_device(kind="host") as other:
        with pytest.raises(extmem.HandleStateError, match="opened separately"):
            other.commands(wait=(timeline, 1))


def test_the_capabilities_say_how_timelines_are_shared(device: Device) -> None:
    found = device.capabilities
    assert (found.timelines, found.bridged) == ("host", False)
    assert "OPAQUE_WIN32" in found.timeline_exports and found.max_timeline_difference >= 2**63 - 1


@pytest.mark.parametrize("waits", [None, 5])
@pytest.mark.parametrize("wait", [extmem.wait_any, extmem.wait_all])
def test_what_has_no_pairs_is_refused(wait: Any, waits: Any) -> None:
    with pytest.raises(TypeError, match=r"waits is (None|5), an? \w+; give a list of pairs \(timeline, value\)"):
        wait(waits)


def test_a_timeout_may_be_any_number_of_seconds(device: Device) -> None:
    with device.timeline(1) as timeline:
        timeline.wait(1, timeout=10**400)
        for wrong in (float("nan"), -(10**400)):
            with pytest.raises(ValueError, match="give 0 or more seconds"):
                timeline.wait(1, timeout=wrong)


def test_a_kept_warning_keeps_no_payload(device: Device) -> None:
    with warnings.catch_warnings(record=True) as kept:
        warnings.simplefilter("always")
        with no_leaks():
            device.create_fence(vk.FenceCreateInfo(p_next=vk.ExportFenceCreateInfo(2)))
            gc.collect()
        assert [one.category for one in kept] == [ResourceWarning]


def test_an_opened_timeline_gives_the_handles_that_this_process_can_give(device: Device, name: str) -> None:
    with device.timeline(name=name) as made, extmem.open_timeline(name) as opened:
        with made.export_handle() as handle, extmem.open_timeline(handle):
            assert isinstance(handle, NtHandle)
        refused = (extmem.UnsupportedError, extmem.RuleViolation)  # a rule refuses it for sections
        with pytest.raises(refused, match="was imported(, and only| as OPAQUE_WIN32)"):
            opened.export_handle(SemaphoreType.OPAQUE_WIN32)
        if opened.descriptor.handle_types & SemaphoreType.OPAQUE_FD:
            with opened.export_handle() as handle, extmem.open_timeline(handle) as again:  # type: ignore[union-attr, arg-type]
                assert isinstance(handle, FdHandle)
                again.signal(1)
            assert made.value == 1


@pytest.mark.linux_only("Windows refuses numbers of timelines")
def test_a_timeline_that_is_shared_by_number_has_one(device: Device) -> None:
    with device.timeline(handle_types=SemaphoreType.OPAQUE_WIN32_KMT) as made:
        number = made.export_handle()
        assert isinstance(number, KmtHandle)
        with extmem.open_timeline(number) as opened:
            opened.signal(2)
            assert opened.export_handle() == number
        assert made.value == 2
