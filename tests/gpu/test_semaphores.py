"""NVIDIA's semaphores in CUDA on a real GPU: types, bad fds, rights, lifetimes, and killed processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.gpu.streams import new_stream, record_fill, synchronize

FD = vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD
S = 30.0


@pytest.fixture
def stream(cuda: Device) -> Iterator[int]:
    with new_stream(cuda) as made:
        yield made


def binary(vulkan: Device) -> Any:
    return vulkan.create_semaphore(vk.SemaphoreCreateInfo(p_next=vk.ExportSemaphoreCreateInfo(FD)))


def test_a_binary_semaphore_orders_a_stream_after_the_queue(cuda: Device, vulkan: Device, stream: int) -> None:
    with binary(vulkan) as made, cuda.create_semaphore(vk.SemaphoreCreateInfo()) as mine, cuda.timeline() as done:
        handle = vulkan.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(made, FD))
        cuda.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(mine, 0, FD, handle))
        with vulkan.allocate(4096) as memory:
            with vulkan.commands(signal=made) as commands:
                record_fill(commands, memory, 0)
            backend: Any = cuda.backend
            backend.stream_wait(stream, [(mine.record.native, 0)])
            backend.stream_signal(stream, [(done.record.native, 1)])
            done.wait(1, S)
        synchronize(cuda, stream)


def test_the_opposite_direction(cuda: Device, vulkan: Device, stream: int) -> None:
    with binary(vulkan) as made, cuda.create_semaphore(vk.SemaphoreCreateInfo()) as mine, vulkan.timeline() as done:
        handle = vulkan.get_semaphore_fd(vk.SemaphoreGetFdInfoKHR(made, FD))
        cuda.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(mine, 0, FD, handle))
        backend: Any = cuda.backend
        backend.stream_signal(stream, [(mine.record.native, 0)])
        with vulkan.allocate(4096) as memory:
            with vulkan.commands(wait=made, signal=(done, 1)) as commands:
                record_fill(commands, memory, 0)
            done.wait(1, S)
        synchronize(cuda, stream)


def test_a_bad_fd_is_refused_and_harms_nothing(cuda: Device, vulkan: Device, stream: int) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with cuda.create_semaphore(vk.SemaphoreCreateInfo()) as mine:
        with pytest.raises(extmem.DriverError, match=r"CUDA_ERROR_UNKNOWN \(999\)"):
            cuda.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(mine, 0, FD, fd))
    os.close(fd)
    test_a_binary_semaphore_orders_a_stream_after_the_queue(cuda, vulkan, stream)


def test_a_page_without_the_right_to_signal(cuda: Device, host: Device, stream: int, name: str) -> None:
    backend: Any = cuda.backend
    with (
        host.timeline(name=name) as owner,
        extmem.open_timeline(name, device=cuda, access=extmem.Access.READ) as reader,
        cuda.timeline() as done,
    ):
        if not backend.device.gpu.can["registers_read_only"]:
            with pytest.raises(extmem.UnsupportedError, match="reading and writing alone"):
                backend.stream_wait(stream, [(reader.record.native, 1)])
            return
        backend.stream_wait(stream, [(reader.record.native, 1)])
        backend.stream_signal(stream, [(done.record.native, 1)])
        with pytest.raises(extmem.AccessDeniedError):
            backend.stream_signal(stream, [(reader.record.native, 2)])
        assert done.value == 0
        owner.signal(1)
        done.wait(1, S)


def test_what_a_stream_uses_outlives_its_close(cuda: Device, vulkan: Device, stream: int, name: str) -> None:
    backend: Any = cuda.backend
    with vulkan.timeline(name=name) as owner, cuda.timeline() as done:
        mine = extmem.open_timeline(name, device=cuda)
        backend.stream_wait(stream, [(mine.record.native, 1)])
        backend.stream_signal(stream, [(done.record.native, 1)])
        mine.close()
        backend.finish_submitted()
        assert backend.sync.streams._busy, "the stream still waits for it"
        owner.signal(1)
        done.wait(1, S)
        synchronize(cuda, stream)
        wait_until(lambda: not _busy(backend), lambda: "what the stream used to be released")


def _busy(backend: Any) -> bool:
    backend.finish_submitted()
    return bool(backend.sync.streams._busy)


def test_many_imports_leave_nothing(cuda: Device, vulkan: Device, stream: int, name: str) -> None:
    backend: Any = cuda.backend
    fds = len(os.listdir("/proc/self/fd"))
    with vulkan.timeline(name=name) as owner:
        for value in range(1, 257):
            with extmem.open_timeline(name, device=cuda) as mine:
                backend.stream_signal(stream, [(mine.record.native, value)])
        owner.wait(256, S)
    synchronize(cuda, stream)
    wait_until(lambda: not _busy(backend), lambda: "what the stream used to be released")
    assert len(os.listdir("/proc/self/fd")) <= fds + 2


KILLED = """
import extmem
cuda = extmem.open_device(kind="cuda", uuid=uuid)
timeline = extmem.open_timeline(name, device=cuda)
native, backend = timeline.record.native, cuda.backend
backend.stream_wait(0, [(native, 1)])
backend.stream_signal(0, [(native, 2)])
None
"""


@pytest.mark.parametrize("kind", ["host", "vulkan"])
def test_a_killed_process_owes_its_value(
    kind: str, cuda: Device, vulkan: Device, host: Device, stream: int, name: str
) -> None:
    maker = {"host": host, "vulkan": vulkan}[kind]
    with maker.timeline(name=name) as timeline, Peer() as peer:
        peer(KILLED, name=name, uuid=cuda.uuid.hex())
        peer.kill()
        with pytest.raises(extmem.PeerGoneError):
            timeline.wait(2, S)
        timeline.signal(3)
        timeline.wait(3, S)
        with extmem.open_timeline(name, device=cuda) as mine, cuda.timeline() as done:
            backend: Any = cuda.backend
            backend.stream_wait(stream, [(mine.record.native, 3)])
            backend.stream_signal(stream, [(done.record.native, 1)])
            done.wait(1, S)
            synchronize(cuda, stream)


def test_a_semaphore_by_cudas_name_of_its_type(cuda: Device, vulkan: Device, stream: int) -> None:
    with vulkan.timeline() as timeline, timeline.export_handle(FD) as handle:
        with raw.cuda_semaphore(cuda, "TIMELINE_SEMAPHORE_FD", int(handle), uuid=vulkan.uuid) as mine:
            mine.signal(stream, 5)
            synchronize(cuda, stream)
        backend: Any = vulkan.backend
        wait_until(lambda: timeline.record.native.counter() >= 5, lambda: "the value of the driver's timeline")
        assert backend.timelines == "driver"
