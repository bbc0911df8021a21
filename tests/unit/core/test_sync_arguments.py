"""Arguments of calls on semaphores and fences, and what they mean: times, pairs, rights, shares."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.core import host_waits, sync_publishing
from extmem.handles import Access
from extmem.objects import Share
from extmem.sharing.kinds import Backing, ObjectKind
from extmem.vk.handle_types import FenceHandleType, SemaphoreHandleType


@pytest.mark.parametrize(
    ("seconds", "nanoseconds"), [(None, None), (0, 0), (1, 10**9), (0.5, 5 * 10**8), (1e30, None), (float("inf"), None)]
)
def test_timeouts_are_seconds(seconds: float | None, nanoseconds: int | None) -> None:
    assert host_waits.nanoseconds(seconds) == nanoseconds


@pytest.mark.parametrize("wrong", [True, "1", b"", [1]])
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="give seconds"):
        host_waits.nanoseconds(wrong)


def test_S23_the_rights_of_the_high_level_api_are_to_wait_and_to_signal() -> None:
    """READ_WRITE as an access mask would be the right to wait alone: GENERIC_READ, and 0x1."""
    assert sync_publishing.everyday_access(int(Access.READ_WRITE)) == 0xC0000000
    for mask in (None, int(Access.READ), int(Access.ALL), 0x1, 0x2):
        assert sync_publishing.everyday_access(mask) == mask


@pytest.mark.parametrize(
    ("kind", "types", "share"),
    [
        (ObjectKind.SEMAPHORE, 0x1, Share(0)),
        (ObjectKind.SEMAPHORE, 0x2, Share.NT),
        (ObjectKind.SEMAPHORE, 0x8, Share.NT),
        (ObjectKind.SEMAPHORE, 0x10, Share(0)),
        (ObjectKind.SEMAPHORE, 0x5, Share.KMT),
        (ObjectKind.FENCE, 0x2, Share.NT),
        (ObjectKind.FENCE, 0x8, Share(0)),
        (ObjectKind.FENCE, 0x6, Share.NT | Share.KMT),
    ],
)
def test_the_bit_8_is_a_direct3d_fence_of_semaphores_and_a_sync_fd_of_fences(
    kind: ObjectKind, types: int, share: Share
) -> None:
    typed = FenceHandleType(types) if kind is ObjectKind.FENCE else SemaphoreHandleType(types)
    assert sync_publishing.share_for(kind, typed) == share


def test_the_backing_follows_the_descriptor(device: Device) -> None:
    with device.timeline() as timeline, device.fence() as fence:
        assert sync_publishing.backing_of(timeline.descriptor) is Backing.HOST_FILE
        assert sync_publishing.backing_of(fence.descriptor) is Backing.HOST_EVENT


@pytest.mark.parametrize(
    "call",
    [
        lambda d, t: d.queue_submit(None),
        lambda d, t: d.queue_submit([None]),
        lambda d, t: d.queue_submit("ab"),
        lambda d, t: d.wait_semaphores(vk.SemaphoreWaitInfo(semaphores=3, values=[1]), 0),
        lambda d, t: d.reset_fences(3),
        lambda d, t: d.reset_fences([t]),
        lambda d, t: d.get_fence_status(None),
        lambda d, t: d.destroy_semaphore(None),
        lambda d, t: d.timeline(None),
        lambda d, t: d.timeline(name=3),
        lambda d, t: d.timeline(access="r"),
        lambda d, t: d.timeline(security=3),
        lambda d, t: d.fence(3),
    ],
)
def test_values_of_a_wrong_type_are_refused(device: Device, call: Callable[[Any, Any], object]) -> None:
    with device.timeline() as timeline, pytest.raises(TypeError):
        call(device, timeline)


@pytest.mark.parametrize(
    "options",
    [{"name": "x", "access": 0}, {"handle_types": -1}, {"name": "x", "handle_types": 1}, {"initial": -1}, {"name": ""}],
)
def test_values_that_make_no_timeline_are_refused(device: Device, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        device.timeline(**options)


def expected(check: str) -> contextlib.AbstractContextManager[Any]:
    """Expect the warning of a device that warns."""
    return pytest.warns(extmem.RuleWarning) if check == "warn" else contextlib.nullcontext()


@pytest.mark.parametrize("check", ["warn", "off"])
def test_without_rules_a_wrong_call_is_still_an_error(check: Any) -> None:
    with extmem.open_device(kind="host", check=check) as device, device.timeline(3) as timeline:
        with expected(check), pytest.raises(TypeError, match=r"SemaphoreCreateInfo"):
            device.create_semaphore("x")  # type: ignore[arg-type]
        with device.create_semaphore(vk.SemaphoreCreateInfo()) as binary:
            with expected(check), pytest.raises(extmem.UnsupportedError, match="timeline"):
                device.get_semaphore_counter_value(binary)
        with expected(check), pytest.raises(extmem.DriverError, match="greater"):
            timeline.signal(2)
        assert timeline.value == 3


MALFORMED = {
    "wait_dst_stage_mask": lambda d, t: d.queue_submit([vk.SubmitInfo([t], 1)]),
    "command_buffers": lambda d, t: d.queue_submit([vk.SubmitInfo(command_buffers=7)]),
    "signal_semaphores": lambda d, t: d.queue_submit([vk.SubmitInfo(signal_semaphores=None)]),
    "wait_semaphore_values": lambda d, t: d.queue_submit(
        [vk.SubmitInfo([t], [1], p_next=vk.TimelineSemaphoreSubmitInfo(wait_semaphore_values=3))]
    ),
    "signal_semaphore_values": lambda d, t: d.queue_submit(
        [vk.SubmitInfo(p_next=vk.D3D12FenceSubmitInfoKHR(signal_semaphore_values=["x"]))]
    ),
    "acquire_syncs": lambda d, t: d.queue_submit(
        [vk.SubmitInfo(p_next=vk.Win32KeyedMutexAcquireReleaseInfoKHR(acquire_syncs=None))]
    ),
    "stage_mask": lambda d, t: d.queue_submit2(
        [vk.SubmitInfo2(wait_semaphore_infos=[vk.SemaphoreSubmitInfo(t, 0, float("inf"))])]
    ),
    "command_buffer": lambda d, t: d.queue_submit2(
        [vk.SubmitInfo2(command_buffer_infos=[vk.CommandBufferSubmitInfo(float("nan"))])]
    ),
    "signal_semaphore_infos": lambda d, t: d.queue_submit2([vk.SubmitInfo2(signal_semaphore_infos=[3])]),
    "command_buffer_infos": lambda d, t: d.queue_submit2([vk.SubmitInfo2(command_buffer_infos=[3])]),
}
"""By the field that has a wrong type: submissions."""


@pytest.mark.parametrize("field", MALFORMED)
def test_fields_of_a_submission_with_wrong_types_are_reported(field: str, device: Device) -> None:
    with device.timeline() as timeline, pytest.raises(extmem.RuleViolation, match=field):
        MALFORMED[field](device, timeline)
    for check in ("warn", "off"):
        with extmem.open_device(kind="host", check=check) as other, other.timeline() as timeline:  # type: ignore[call-overload]
            with expected(check), pytest.raises(TypeError, match=rf"{field}.*; "):
                MALFORMED[field](other, timeline)


def test_fields_of_a_submission_with_right_types_are_accepted(device: Device) -> None:
    with device.timeline() as timeline:
        values = vk.TimelineSemaphoreSubmitInfo(wait_semaphore_values=[0], signal_semaphore_values=[1])
        device.queue_submit([vk.SubmitInfo([timeline], [1], [], [timeline], p_next=values)])
        device.queue_submit2([vk.SubmitInfo2(signal_semaphore_infos=[vk.SemaphoreSubmitInfo(timeline, 2, 0x10000)])])
        assert timeline.value == 2
