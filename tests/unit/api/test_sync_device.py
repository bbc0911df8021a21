"""The specification's calls on semaphores and fences, on the host device."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.api.timeline import Timeline
from extmem.devices.host.event_semaphore import HostBinarySemaphore
from extmem.errors import DriverError, PeerGoneError

SemaphoreType = vk.ExternalSemaphoreHandleTypeFlagBits
FenceType = vk.ExternalFenceHandleTypeFlagBits
ALL = vk.PipelineStageFlagBits.ALL_COMMANDS
TEMPORARY = vk.SemaphoreImportFlagBits.TEMPORARY
pytestmark = pytest.mark.linux_only("semaphores and fences are moved by fd")


def binary(device: Device, types: SemaphoreType = SemaphoreType.OPAQUE_FD) -> Semaphore:
    return device.create_semaphore(vk.SemaphoreCreateInfo(p_next=vk.ExportSemaphoreCreateInfo(types)))


def fence_of(device: Device, *, signaled: bool = False, types: FenceType = FenceType.OPAQUE_FD) -> Fence:
    flags = vk.FenceCreateFlagBits.SIGNALED if signaled else vk.FenceCreateFlagBits(0)
    return device.create_fence(vk.FenceCreateInfo(flags, vk.ExportFenceCreateInfo(types)))


def signal(device: Device, semaphore: Semaphore, fence: Fence | None = None) -> None:
    device.queue_submit([vk.SubmitInfo(signal_semaphores=[semaphore])], fence)


def wait(device: Device, semaphore: Semaphore, fence: Fence | None = None) -> None:
    device.queue_submit([vk.SubmitInfo(wait_semaphores=[semaphore], wait_dst_stage_mask=[ALL])], fence)


def fd_of(device: Device, semaphore: Semaphore, handle_type: SemaphoreType = SemaphoreType.OPAQUE_FD) -> object:
    return device.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(semaphore, handle_type))


@pytest.fixture
def pair(device: Device) -> Iterator[tuple[Semaphore, Semaphore]]:
    with binary(device) as first, binary(device) as second:
        yield first, second


def moved(device: Device, source: Semaphore, target: Semaphore, *, temporary: bool = False) -> None:
    flags = TEMPORARY if temporary else vk.SemaphoreImportFlagBits(0)
    handle = fd_of(device, source)
    device.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(target, flags, SemaphoreType.OPAQUE_FD, handle))  # type: ignore[arg-type]


def test_the_create_info_decides_the_class(device: Device) -> None:
    kind = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, 3)
    with device.create_semaphore(vk.SemaphoreCreateInfo(p_next=kind)) as made:
        assert isinstance(made, Timeline) and made.semaphore_type is vk.SemaphoreType.TIMELINE
        assert device.get_semaphore_counter_value(made) == 3
        device.signal_semaphore(vk.SemaphoreSignalInfo(made, 4))
        assert device.wait_semaphores(vk.SemaphoreWaitInfo(semaphores=[made], values=[4]), 0)
        assert not device.wait_semaphores(vk.SemaphoreWaitInfo(semaphores=[made], values=[5]), 1_000_000)
    with device.create_semaphore(vk.SemaphoreCreateInfo()) as made:
        assert type(made) is Semaphore and made.semaphore_type is vk.SemaphoreType.BINARY
        with pytest.raises(extmem.RuleViolation, match="03255"):
            device.get_semaphore_counter_value(made)


def test_S3_all_objects_of_a_payload_are_one(device: Device, pair: tuple[Semaphore, Semaphore]) -> None:
    first, second = pair
    moved(device, first, second)
    with device.fence() as fence:
        signal(device, first)
        wait(device, second, fence)
        assert fence.signaled
    signal(device, second)
    wait(device, first)


def test_S7_a_temporary_payload_ends_with_the_wait(device: Device, pair: tuple[Semaphore, Semaphore]) -> None:
    """A36: after the wait the permanent payload is back, which was never signaled."""
    first, second = pair
    moved(device, first, second, temporary=True)
    signal(device, first)
    wait(device, second)
    signal(device, first)
    with pytest.raises(extmem.RuleViolation, match="03238"):
        wait(device, second)


def test_S10_a_reset_restores_the_permanent_payload_of_a_fence(device: Device) -> None:
    with fence_of(device, signaled=True) as source, fence_of(device) as target:
        handle = device.get_fence_fd(vk.FenceGetFdInfoKHR(source, FenceType.OPAQUE_FD))
        flags = vk.FenceImportFlagBits.TEMPORARY
        device.import_fence_fd(vk.ImportFenceFdInfoKHR(target, flags, FenceType.OPAQUE_FD, handle))
        assert target.signaled
        device.reset_fences([target])
        assert source.signaled and not target.signaled


def test_S18_fd_minus_1_is_a_signaled_payload(device: Device) -> None:
    with binary(device, SemaphoreType.SYNC_FD) as made:
        info = vk.ImportSemaphoreFdInfoKHR(made, TEMPORARY, SemaphoreType.SYNC_FD, -1)
        device.import_semaphore_fd(info)
        wait(device, made)
        signal(device, made)
        assert fd_of(device, made, SemaphoreType.SYNC_FD) == -1
        signal(device, made)  # the export has consumed the first signal (S5)


def test_S21_a_failed_import_leaves_the_fd_open(device: Device, pair: tuple[Semaphore, Semaphore]) -> None:
    with device.timeline() as timeline:
        handle = timeline.export_handle(SemaphoreType.OPAQUE_FD)
        assert isinstance(handle, extmem.FdHandle)
        with handle:
            with pytest.raises(extmem.ExtmemError, match="timeline"):
                device.import_semaphore_fd(
                    vk.ImportSemaphoreFdInfoKHR(pair[0], handle_type=SemaphoreType.OPAQUE_FD, fd=handle)
                )
            assert not handle.closed
    signal(device, pair[0])  # its payload is as it was


def test_S26_the_handle_of_a_fence_is_not_a_semaphores(device: Device, pair: tuple[Semaphore, Semaphore]) -> None:
    with fence_of(device, types=FenceType.OPAQUE_WIN32) as fence:
        handle = device.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR(fence, FenceType.OPAQUE_WIN32))
        with handle, pytest.raises(extmem.ObjectTypeError):
            device.import_semaphore_win32_handle(
                vk.ImportSemaphoreWin32HandleInfoKHR(pair[0], handle_type=SemaphoreType.OPAQUE_WIN32, handle=handle)
            )


def test_a_name_of_the_specification_imports_a_semaphore(device: Device) -> None:
    named = vk.ExportSemaphoreWin32HandleInfoKHR(name="sync device test", access=0xC0000000)
    export = vk.ExportSemaphoreCreateInfo(SemaphoreType.OPAQUE_WIN32, named)
    with device.create_semaphore(vk.SemaphoreCreateInfo(p_next=export)) as source, binary(device) as target:
        device.import_semaphore_win32_handle(
            vk.ImportSemaphoreWin32HandleInfoKHR(
                target, handle_type=SemaphoreType.OPAQUE_WIN32, name="sync device test"
            )
        )
        assert target.name == "sync device test"
        signal(device, source)
        wait(device, target)
    with binary(device) as target, pytest.raises(extmem.NameNotFoundError) as caught:
        device.import_semaphore_win32_handle(
            vk.ImportSemaphoreWin32HandleInfoKHR(
                target, handle_type=SemaphoreType.OPAQUE_WIN32, name="sync device test"
            )
        )
    assert [one.vuid for one in caught.value.violations] == [
        "VUID-VkImportSemaphoreWin32HandleInfoKHR-handleType-01467"
    ]


def test_01127_an_nt_handle_is_given_once_and_duplicates_are_free(device: Device) -> None:
    info = vk.SemaphoreCreateInfo(p_next=vk.ExportSemaphoreCreateInfo(SemaphoreType.OPAQUE_WIN32))
    with device.create_semaphore(info) as made:
        ask = vk.SemaphoreGetWin32HandleInfoKHR(made, SemaphoreType.OPAQUE_WIN32)
        with device.get_semaphore_win32_handle(ask):
            with pytest.raises(extmem.RuleViolation, match="01127"):
                device.get_semaphore_win32_handle(ask)
            with made.export_handle() as again:  # type: ignore[union-attr]
                assert again


def test_a_submission_signals_its_fence_and_its_timeline(device: Device) -> None:
    everything = vk.PipelineStageFlagBits2.ALL_COMMANDS
    with device.timeline() as timeline, device.fence() as fence:
        timeline.signal(1)
        waited = [vk.SemaphoreSubmitInfo(timeline, 1, everything)]
        signaled = [vk.SemaphoreSubmitInfo(timeline, 2, everything)]
        device.queue_submit2([vk.SubmitInfo2(wait_semaphore_infos=waited, signal_semaphore_infos=signaled)], fence)
        assert timeline.value == 2 and device.get_fence_status(fence)
        with pytest.raises(extmem.RuleViolation, match="fence-04894"):
            device.queue_submit2([], fence)
        fence.reset()
        device.queue_submit2([], fence)
        assert device.wait_for_fences([fence], 0)


def test_a_fence_that_is_not_signaled_times_out(device: Device) -> None:
    with device.fence() as fence, device.fence(signaled=True) as done:
        with pytest.raises(extmem.WaitTimeoutError, match="not signaled within"):
            fence.wait(timeout=0.001)
        assert not device.wait_for_fences([fence, done], 0)
        assert device.wait_for_fences([fence, done], 0, wait_all=False)
        done.wait()
        for wrong in (-1, 2**64):
            with pytest.raises(ValueError, match=rf"timeout_ns is {wrong}; give nanoseconds"):
                device.wait_for_fences([done], wrong)
        with pytest.raises(TypeError, match="wait_all is 1, an int; give True or False"):
            device.wait_for_fences([done], 0, wait_all=1)  # type: ignore[arg-type]


def test_the_advice_of_a_timeout_depends_on_the_right_to_signal(device: Device) -> None:
    name = f"advice {os.getpid()}"
    with (
        device.timeline(name=name) as timeline,
        extmem.open_timeline(name, device=device, access=extmem.Access.READ) as waiter,
    ):
        with pytest.raises(
            extmem.WaitTimeoutError, match=rf"only this one \({os.getpid()}\) is left; .* call signal\(1\)"
        ):
            timeline.wait(1, timeout=0)
        with pytest.raises(extmem.WaitTimeoutError, match="wait longer; this process opened it without the right"):
            waiter.wait(1, timeout=0)


def test_command_buffers_of_other_code_are_refused_without_a_queue(device: Device) -> None:
    with pytest.raises(extmem.UnsupportedError, match="command buffers"):
        device.queue_submit([vk.SubmitInfo(command_buffers=[0x1234])])
    with pytest.raises(extmem.RuleViolation, match="command_buffers"):
        device.queue_submit([vk.SubmitInfo(command_buffers=["1"])])  # type: ignore[list-item]


def test_numbers_and_other_objects_are_no_semaphores(device: Device) -> None:
    with device.fence() as fence:
        for wrong in (0x1234, "semaphore", fence):
            with pytest.raises((TypeError, extmem.RuleViolation)):
                device.queue_submit([vk.SubmitInfo(signal_semaphores=[wrong])])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="not a Fence"), device.timeline() as timeline:
            device.queue_submit([], timeline)  # type: ignore[arg-type]


def test_commands_wait_and_signal_on_the_host_device(device: Device) -> None:
    with device.timeline() as timeline, device.fence() as fence, device.allocate(64) as memory:
        timeline.signal(1)
        with device.commands(wait=(timeline, 1), signal=[(timeline, 2)], fence=fence) as commands:
            commands.fill_buffer(memory.buffer(), 0x07070707)
        assert timeline.value == 2 and fence.signaled
        assert set(memory.read_bytes()) == {7}
        with device.commands(wait=(timeline, 2), signal=(timeline, 3)):
            pass  # an empty batch waits and signals, too
        assert timeline.value == 3
        with pytest.raises(extmem.RuleViolation, match="03242"), device.commands(signal=(timeline, 3)):
            pass


@pytest.mark.parametrize("wrong", [3, "t", [3], [(1, 2)], (1, 2)])
def test_what_is_no_pair_is_refused(device: Device, wrong: object) -> None:
    with pytest.raises(TypeError, match="pair"):
        device.commands(wait=wrong)  # type: ignore[arg-type]


def test_a_pair_without_or_with_a_bad_value_is_refused(device: Device) -> None:
    with device.timeline() as timeline:
        with pytest.raises(TypeError, match="without a value"):
            device.commands(signal=timeline)
        with pytest.raises(ValueError, match="64 bits"):
            device.commands(signal=(timeline, -1))


def test_a_destroyed_semaphore_is_closed_and_stays_so(device: Device) -> None:
    made = binary(device)
    device.destroy_semaphore(made)
    device.destroy_semaphore(made)
    assert made.closed
    fence = device.fence()
    device.destroy_fence(fence)
    assert fence.closed
    with pytest.raises(extmem.HandleStateError, match="closed"):
        fence.wait(0)


# Submissions that fail after their first wait.


@pytest.mark.parametrize("error", [KeyboardInterrupt, PeerGoneError])
def test_a_temporary_payload_ends_with_its_wait_though_the_submission_fails(
    device: Device, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    with binary(device) as source, binary(device) as target, binary(device) as other:
        permanent = target.record.payload
        moved(device, source, target, temporary=True)
        signal(device, source)
        signal(device, other)
        take, failing = HostBinarySemaphore.submit_wait, other.record.native

        def submit_wait(native: HostBinarySemaphore, deadline: int | None = None) -> bool:
            if native is failing:
                raise error("the second wait")
            return take(native, deadline)

        with monkeypatch.context() as patch, pytest.raises(error, match="the second wait"):
            patch.setattr(HostBinarySemaphore, "submit_wait", submit_wait)
            device.queue_submit([vk.SubmitInfo(wait_semaphores=[target, other], wait_dst_stage_mask=[ALL, ALL])])
        assert target.record.payload is permanent
        signal(device, target)  # the permanent payload is not signaled
        wait(device, target)


@pytest.mark.parametrize("fails_first", [False, True])
def test_a_temporary_payload_whose_wait_is_not_done_stays(device: Device, fails_first: bool) -> None:
    with binary(device) as source, binary(device) as target, binary(device) as other, binary(device) as same:
        moved(device, source, target, temporary=True)
        moved(device, other, same)
        temporary = target.record.payload
        for each in (source, other):
            signal(device, each)
        refused = vk.SubmitInfo(signal_semaphores=[same])  # the rules do not know that it is signaled
        waiting = vk.SubmitInfo(wait_semaphores=[target], wait_dst_stage_mask=[ALL])
        with pytest.raises(DriverError, match="signaled already"):
            device.queue_submit([refused, waiting] if fails_first else [waiting, refused])
        assert (target.record.payload is temporary) == fails_first
        if fails_first:
            wait(device, target)
