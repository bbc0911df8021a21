"""The Vulkan driver's own semaphores and fences on a GPU, shared by fd; no bad fd harms the driver."""

from __future__ import annotations

import os

import pytest

from extmem.api import Device
from extmem.devices.sync import Batch, FenceSpec, SemaphoreSignal, SemaphoreSpec, SemaphoreWait, SyncBackend, SyncSource
from extmem.errors import DriverError
from extmem.owning import Uses
from extmem.vk.handle_types import FENCE_OPAQUE_FD, SEMAPHORE_OPAQUE_FD
from tests.process.vulkan.sync_steps import SECOND, receives
from tests.unit.devices.vulkan.sync_steps import payload_of


def _backend(device: Device) -> SyncBackend:
    assert isinstance(device.backend, SyncBackend)
    return device.backend


def _opening(device: Device) -> str:
    return f"extmem.open_device(kind='vulkan', uuid={device.uuid!r})"


def test_a_timeline_orders_the_queues_of_two_processes(vulkan: Device) -> None:
    backend = _backend(vulkan)
    assert backend.timelines == "driver"
    one = backend.create_semaphore(SemaphoreSpec(True, export_types=SEMAPHORE_OPAQUE_FD))
    done = backend.create_fence(FenceSpec())
    with receives(_opening(vulkan), one) as peer:
        peer("one = backend.create_semaphore(SemaphoreSpec(True))\nimport_into(one, fds, 1)")
        backend.submit_batches([Batch([SemaphoreWait(one, 2)], signals=[SemaphoreSignal(one, 3)])], done, Uses())
        peer("submit([(one, 1)], [(one, 2)])")
        assert not backend.wait_fences([done])
        one.signal(1)
        assert backend.wait_semaphores([(one, 3)], timeout_ns=SECOND)
        assert backend.wait_fences([done], timeout_ns=SECOND)
        assert peer("backend.wait_semaphores([(one, 3)], timeout_ns=second)", second=SECOND) is True
        peer("one.close()")
    one.close()
    done.close()


def test_S3_a_binary_semaphore_and_a_fence_between_two_processes(vulkan: Device) -> None:
    backend = _backend(vulkan)
    one = backend.create_semaphore(SemaphoreSpec(False, export_types=SEMAPHORE_OPAQUE_FD))
    shared = backend.create_fence(FenceSpec(export_types=FENCE_OPAQUE_FD))
    with receives(_opening(vulkan), one) as peer, receives(_opening(vulkan), shared) as other:
        other("shared = backend.create_fence(FenceSpec())\nimport_into(shared, fds, 1)")
        peer("one = backend.create_semaphore(SemaphoreSpec(False))\nimport_into(one, fds, 1)")
        backend.submit_batches([Batch(signals=[SemaphoreSignal(one)])], None, Uses())
        peer("done = backend.create_fence(FenceSpec())\nsubmit(waits=[(one,)], signals=[], fence=done)")
        assert peer("backend.wait_fences([done], timeout_ns=second)", second=SECOND) is True
        peer("submit(signals=[(one,)])")
        backend.submit_batches([Batch(waits=[SemaphoreWait(one)])], shared, Uses())
        assert other("backend.wait_fences([shared], timeout_ns=second)", second=SECOND) is True
        assert backend.wait_fences([shared], timeout_ns=SECOND)
        peer("one.close()\ndone.close()")
        other("shared.close()")
    one.close()
    shared.close()


@pytest.mark.parametrize("timeline", [False, True])
def test_S60_a_bad_fd_is_refused_and_harms_nothing(vulkan: Device, timeline: bool) -> None:
    backend = _backend(vulkan)
    target = backend.create_semaphore(SemaphoreSpec(timeline))
    other = os.open("/dev/nvidiactl", os.O_RDWR)  # of the kind that the driver exports, and no payload: it is proved
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (null, other, -1):
        examined = backend.examine_sync_fd(fd, SEMAPHORE_OPAQUE_FD, timeline=timeline)
        with pytest.raises(DriverError):
            target.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=timeline, fd=examined))
    backend.create_semaphore(SemaphoreSpec(timeline, export_types=SEMAPHORE_OPAQUE_FD)).close()
    target.close()
    os.close(other)
    os.close(null)


def test_S20_one_payload_is_imported_often(vulkan: Device) -> None:
    backend = _backend(vulkan)
    source = backend.create_semaphore(SemaphoreSpec(True, export_types=SEMAPHORE_OPAQUE_FD))
    made = []
    for _ in range(128):  # NVIDIA's driver has room for some 250 at a time
        one = backend.create_semaphore(SemaphoreSpec(True))
        one.import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, payload=payload_of(source)))
        made.append(one)
    source.signal(7)
    assert all(one.counter() == 7 for one in made)
    fd = source.export_fd(SEMAPHORE_OPAQUE_FD)
    assert fd is not None
    examined = backend.examine_sync_fd(fd.fd, SEMAPHORE_OPAQUE_FD, timeline=True)
    made[0].import_payload(SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, fd=examined))  # proved on another device
    assert made[0].counter() == 7
    fd.close()
    for one in (source, *made):
        one.close()


def test_the_queue_copies_between_two_values(vulkan: Device) -> None:
    backend = _backend(vulkan)
    order = backend.create_semaphore(SemaphoreSpec(True, export_types=SEMAPHORE_OPAQUE_FD))
    for value in range(0, 64, 2):
        batch = Batch([SemaphoreWait(order, value)], lambda recorder: None, (), [SemaphoreSignal(order, value + 1)])
        backend.submit_batches([batch], None, Uses())
        backend.submit_batches(
            [Batch([SemaphoreWait(order, value + 1)], signals=[SemaphoreSignal(order, value + 2)])], None, Uses()
        )
    assert backend.wait_semaphores([(order, 64)], timeout_ns=SECOND)
    order.close()
