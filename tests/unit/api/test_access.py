"""`DeviceMemory.access`: which queue or stream owns the memory in the block, and what is waited for at its edges."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.devices.cuda.stream_order import finish_all
from extmem.interop import DeviceArray
from extmem.testing import fake_cuda, fake_vulkan, leaks
from tests import cuda_bed
from tests.gpu.streams import new_stream

Both = tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]


@pytest.fixture
def fakes() -> Iterator[Both]:
    with leaks.no_leaks(), cuda_bed.both() as made:
        yield made


@pytest.fixture
def vulkan(fakes: Both) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


def test_a_stream_begins_after_the_queue_and_is_waited_for(fakes: Both, vulkan: Device) -> None:
    fake, queue = fakes
    with vulkan.allocate((4,)) as memory:
        memory.device_array()  # so that it is imported
        memory.fill(1)
        queue.calls.clear()
        fake.calls.clear()
        with memory.access(stream=64) as array:
            assert "vkQueueSubmit" in queue.calls and "vkWaitForFences" in queue.calls
            assert isinstance(array, DeviceArray) and array.shape == (4,)
            assert "cuStreamSynchronize" not in fake.calls
        assert fake.calls[-2:] == ["cuStreamSynchronize", "cuCtxPopCurrent"]
        del array
        memory.fill(2)  # it is acquired again automatically


def test_the_stream_is_waited_for_after_an_error_too(fakes: Both, vulkan: Device) -> None:
    with vulkan.allocate((4,)) as memory:
        with pytest.raises(KeyError), memory.access():
            raise KeyError
        assert "cuStreamSynchronize" in fakes[0].calls


def test_the_queue_owns_the_buffer_in_the_block(fakes: Both, vulkan: Device) -> None:
    with vulkan.allocate((1024,)) as memory, memory.access(stream=None):
        pass
    with vulkan.allocate((1024,)) as memory:
        memory.fill(0)
        with memory.access(queue=True) as buffer, vulkan.commands() as commands:
            assert isinstance(buffer, extmem.Buffer)
            commands.fill_buffer(buffer, 0x05050505)
        assert set(memory.read_bytes()) == {5}


def test_a_device_without_queues_is_refused(fakes: Both) -> None:
    with extmem.open_device(kind="cuda") as cuda, cuda.allocate((4,)) as memory:
        with pytest.raises(extmem.UnsupportedError, match="has no queues"), memory.access(queue=True):
            pass
        with memory.access() as array:
            assert array.shape == (4,)
        del array
        with pytest.raises(ValueError, match="takes either a stream or the queue"):
            memory.access(stream=1, queue=True)


def test_a_stream_with_timelines_waits_for_no_queue_and_holds_the_memory(fakes: Both, vulkan: Device) -> None:
    fake, queue = fakes
    with (
        vulkan.timeline() as order,
        extmem.open_device(kind="cuda") as cuda,
        cuda.timeline() as done,
        new_stream(cuda) as stream,
    ):
        memory = vulkan.allocate((4,))
        memory.fill(1)  # it is released at the end
        memory.device_array()
        queue.calls.clear()
        fake.calls.clear()
        with memory.access(stream=stream, wait=(order, 1), signal=(done, 1)):
            assert not {"vkQueueSubmit", "vkWaitForFences"} & set(queue.calls)
        assert "cuStreamSynchronize" not in fake.calls
        memory.close()
        assert "cuDestroyExternalMemory" not in fake.calls, "the stream has not reached the end of the block"
        order.signal(1)
        done.wait(1, 10)
        finish_all()
        assert "cuDestroyExternalMemory" in fake.calls
