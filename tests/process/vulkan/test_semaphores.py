"""Semaphores and fences of Vulkan drivers between two processes: the installed driver's, and a scripted driver's."""

from __future__ import annotations

from dataclasses import replace

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.sync import Batch, FenceSpec, SemaphoreSignal, SemaphoreSpec, SemaphoreWait, SyncBackend
from extmem.errors import PeerGoneError
from extmem.owning import Uses
from extmem.sharing import timeline_page
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.objects import Semaphore
from extmem.vk.handle_types import FENCE_OPAQUE_FD, SEMAPHORE_OPAQUE_FD
from tests.process.vulkan.sync_steps import SECOND, receives

pytestmark = [
    pytest.mark.linux_only("semaphores are shared by fd"),
    pytest.mark.slow("each starts a process that opens a device"),
]

_BOTH = vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE | vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE
REAL = "extmem.open_device(kind='vulkan')"


def _backend(device: Device) -> SyncBackend:
    assert isinstance(device.backend, SyncBackend)
    return device.backend


def test_S3_a_binary_semaphore_of_the_installed_driver(device: Device) -> None:
    backend = _backend(device)
    info = vk.PhysicalDeviceExternalSemaphoreInfo(handle_type=vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD)
    shares = backend.external_semaphore_properties(info).external_semaphore_features & _BOTH == _BOTH
    # Mesa's software driver shares none (S81).
    assert shares or device.name.startswith("llvmpipe")
    if not shares:
        return
    one = backend.create_semaphore(SemaphoreSpec(False, export_types=SEMAPHORE_OPAQUE_FD))
    done = backend.create_fence(FenceSpec())
    with receives(REAL, one) as peer:
        peer("one = backend.create_semaphore(SemaphoreSpec(False))")
        peer("import_into(one, fds, handle_type)", handle_type=1)
        # A binary wait is submitted after its signal: each process tells the other by this call (S47).
        backend.submit_batches([Batch(signals=[SemaphoreSignal(one)])], None, Uses())
        peer("done = backend.create_fence(FenceSpec())\nsubmit(waits=[(one,)], fence=done)")
        assert peer("backend.wait_fences([done], timeout_ns=second)", second=SECOND) is True
        peer("submit(signals=[(one,)])")
        backend.submit_batches([Batch(waits=[SemaphoreWait(one)])], done, Uses())
        assert backend.wait_fences([done], timeout_ns=SECOND)
        peer("one.close()\ndone.close()")
    one.close()
    done.close()


@pytest.mark.parametrize("shared", [fake_vulkan.SHARED_SYNC, fake_vulkan.BINARY_SYNC], ids=["driver", "host"])
def test_a_timeline_orders_the_queues_of_two_processes(shared: tuple[fake_vulkan.ExternalSync, ...]) -> None:
    fake = fake_vulkan.FakeVulkan([replace(fake_vulkan.DISCRETE, sync=shared)])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        backend = _backend(device)
        assert backend.timelines == ("driver" if shared is fake_vulkan.SHARED_SYNC else "host")
        one = backend.create_semaphore(SemaphoreSpec(True, export_types=SEMAPHORE_OPAQUE_FD))
        done = backend.create_fence(FenceSpec())
        with receives(fake_vulkan.elsewhere(fake), one) as peer:
            peer("one = backend.create_semaphore(SemaphoreSpec(True))\nimport_into(one, fds, 1)")
            # Three hops are submitted before the first value is signaled: wait before signal.
            backend.submit_batches([Batch([SemaphoreWait(one, 2)], signals=[SemaphoreSignal(one, 3)])], done, Uses())
            peer("submit([(one, 1)], [(one, 2)])")
            assert not backend.wait_fences([done])
            one.signal(1)
            assert backend.wait_semaphores([(one, 3)], timeout_ns=SECOND)
            assert backend.wait_fences([done], timeout_ns=SECOND)
            assert peer("backend.wait_semaphores([(one, 3)], timeout_ns=second)", second=SECOND) is True
            assert peer("one.counter()") == 3
            peer("one.signal(9)")
            assert backend.wait_semaphores([(one, 9)], timeout_ns=SECOND)
            peer("one.close()")
        one.close()
        done.close()
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()


def test_S10_a_fence_between_two_processes() -> None:
    fake = fake_vulkan.FakeVulkan()
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        backend = _backend(device)
        one = backend.create_fence(FenceSpec(export_types=FENCE_OPAQUE_FD))
        with receives(fake_vulkan.elsewhere(fake), one) as peer:
            peer("one = backend.create_fence(FenceSpec())\nimport_into(one, fds, 1, temporary=True)")
            assert peer("backend.wait_fences([one])") is False
            backend.submit_batches([], one, Uses())
            assert peer("backend.wait_fences([one], timeout_ns=second)", second=SECOND) is True
            peer("one.reset()")
            assert one.status() and peer("one.status()") is False
            peer("one.close()")
        one.close()
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]


def test_S59_a_value_that_the_gpu_reaches_after_its_submitter_has_ended_is_no_error() -> None:
    fake = fake_vulkan.FakeVulkan()
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        backend = _backend(device)
        one = backend.create_semaphore(SemaphoreSpec(True, export_types=SEMAPHORE_OPAQUE_FD))
        # As the object manager marks the page of a signaler that has ended.
        timeline_page.mark_gone(one.word.page._words.cast("B"), 1234, 0)  # type: ignore[attr-defined]
        with pytest.raises(PeerGoneError, match="1234"):
            backend.wait_semaphores([(one, 1)], timeout_ns=SECOND)
        fake.living(Semaphore)[0].page.signal(1)
        assert backend.wait_semaphores([(one, 1)], timeout_ns=SECOND)
        one.close()
