"""What waits and signals do, by number, by public calls."""

from __future__ import annotations

import threading

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer
from tests.behaviours.test_sync_names import KMT, W32, import_into, semaphore

_STAGE = vk.PipelineStageFlagBits.ALL_COMMANDS


def vuids(raised: pytest.ExceptionInfo[errors.RuleViolation]) -> list[str]:
    return [violation.vuid for violation in raised.value.violations]


def test_B106_S31_an_import_keeps_the_name_of_a_semaphore(device: Device, name: str) -> None:
    made = device.timeline(name=name)
    with extmem.open_timeline(name) as opened:
        made.close()
        with extmem.open_timeline(name) as again:
            opened.signal(3)
            assert again.value == 3
    with pytest.raises(errors.NameNotFoundError):
        extmem.open_timeline(name)


def test_S13_a_semaphore_in_use_takes_no_import() -> None:
    with fake_vulkan.installed(fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])):
        with (
            extmem.open_device(kind="vulkan") as gpu,
            gpu.timeline() as gate,
            semaphore(gpu) as source,
            semaphore(gpu) as used,
            gpu.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(source, W32)) as handle,
        ):
            waits = vk.TimelineSemaphoreSubmitInfo((1,), (0,))
            gpu.queue_submit([vk.SubmitInfo((gate,), (_STAGE,), (), (used,), waits)])
            with pytest.raises(errors.RuleViolation, match="a queue uses the semaphore, and has not finished"):
                import_into(gpu, used, handle)
            gate.signal(1)
            with gpu.fence() as done:
                gpu.queue_submit([vk.SubmitInfo((used,), (_STAGE,))], done)
                done.wait(20)
            import_into(gpu, used, handle)  # its work is done


def test_S28_a_KMT_number_ends_with_the_last_object(device: Device) -> None:
    with semaphore(device) as first, semaphore(device) as second:
        with semaphore(device, types=KMT) as made:
            number = device.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(made, KMT))
            import_into(device, first, number, kind=KMT)
        import_into(device, second, number, kind=KMT)  # the first import has the payload
        first.close()
        second.close()
        with semaphore(device) as third, pytest.raises(errors.InvalidHandleError):
            import_into(device, third, number, kind=KMT)


def test_S33_a_signal_beyond_the_limit_of_the_device_is_refused() -> None:
    with fake_vulkan.installed(fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])):
        with extmem.open_device(kind="vulkan") as gpu, gpu.timeline() as timeline:
            with pytest.raises(errors.RuleViolation) as raised:
                timeline.signal(1 << 31)
            assert vuids(raised) == ["VUID-VkSemaphoreSignalInfo-value-03260"] and timeline.value == 0
            timeline.signal((1 << 31) - 1)
            assert timeline.value == (1 << 31) - 1


def test_S34_a_value_does_not_go_back(device: Device) -> None:
    with device.timeline(5) as timeline:
        for value in (4, 5):
            with pytest.raises(errors.RuleViolation) as raised:
                timeline.signal(value)
            assert vuids(raised) == ["VUID-VkSemaphoreSignalInfo-value-03258"] and timeline.value == 5
        timeline.signal(6)
        assert timeline.value == 6


def test_S37_a_fence_takes_no_fence_of_direct3d(device: Device, name: str) -> None:
    d3d12 = int(vk.ExternalSemaphoreHandleTypeFlagBits.D3D12_FENCE)
    with device.fence() as fence, pytest.raises(errors.RuleViolation) as raised:
        device.import_fence_win32_handle(vk.ImportFenceWin32HandleInfoKHR(fence, 0, d3d12, None, name))
    assert "VUID-VkImportFenceWin32HandleInfoKHR-handleType-01457" in vuids(raised)


def test_S47_a_timeline_is_waited_for_before_its_signal_and_a_binary_semaphore_is_not(device: Device) -> None:
    with device.timeline() as timeline, device.create_semaphore(vk.SemaphoreCreateInfo()) as binary:
        waiter = threading.Thread(target=timeline.wait, args=(1, 20))
        waiter.start()
        timeline.signal(1)
        waiter.join(20)
        assert not waiter.is_alive()
        with pytest.raises(errors.RuleViolation) as raised:
            device.queue_submit([vk.SubmitInfo((binary,), (_STAGE,))])
        assert vuids(raised) == ["VUID-vkQueueSubmit-pWaitSemaphores-03238"]
        device.queue_submit([vk.SubmitInfo(signal_semaphores=(binary,))])
        device.queue_submit([vk.SubmitInfo((binary,), (_STAGE,))])


def test_S49_a_host_wait_takes_a_limit(device: Device) -> None:
    with device.timeline(2) as timeline:
        timeline.wait(2, 0)
        with pytest.raises(TimeoutError, match=r"has value 2, and 3 was not signaled"):
            timeline.wait(3, 0.01)
        assert not device.wait_semaphores(vk.SemaphoreWaitInfo(0, (timeline,), (3,)), 0)
        assert device.wait_semaphores(vk.SemaphoreWaitInfo(0, (timeline,), (2,)), 0)


def test_S50_a_host_signal_frees_who_waits_in_another_process(device: Device, name: str) -> None:
    with device.timeline(name=name) as timeline, Peer() as peer:
        peer("timeline = extmem.open_timeline(name)", name=name)
        peer.start("timeline.wait(7, 60)\ntimeline.value")
        timeline.signal(7)
        assert peer.finish() == 7
        peer("timeline.close()")
        peer.leave()
