"""Work of queues and streams that waits for timelines and signals them, on scripted drivers: no wait of the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.api.timeline import Timeline
from extmem.testing import fake_cuda, fake_vulkan, leaks
from tests import cuda_bed

Both = tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
HOST_WAITS = ("vkWaitForFences", "vkWaitSemaphores", "cuStreamSynchronize")


@pytest.fixture
def fakes() -> Iterator[Both]:
    with leaks.no_leaks(), cuda_bed.both() as made:
        yield made


@pytest.fixture
def vulkan(fakes: Both) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


@pytest.fixture
def timeline(vulkan: Device) -> Iterator[Timeline]:
    with vulkan.timeline() as made:
        yield made


def test_the_block_of_commands_returns_before_they_run(fakes: Both, vulkan: Device, timeline: Timeline) -> None:
    with vulkan.allocate((64,)) as memory:
        fakes[1].calls.clear()
        with vulkan.commands(wait=(timeline, 1), signal=(timeline, 2)) as commands:
            commands.acquire(memory.buffer())
            commands.fill_buffer(memory.buffer(), 0x01010101)
            commands.release(memory.buffer())
        assert not set(HOST_WAITS) & set(fakes[1].calls)
        assert timeline.value == 0
        timeline.signal(1)
        timeline.wait(2, timeout=30)
        assert set(memory.read_bytes()) == {1}


def test_a_wait_alone_lasts_until_the_commands_are_done(vulkan: Device, timeline: Timeline) -> None:
    timeline.signal(1)
    with vulkan.allocate((64,)) as memory:
        with vulkan.commands(wait=(timeline, 1)) as commands:
            commands.acquire(memory.buffer())
            commands.fill_buffer(memory.buffer(), 0x02020202)
            commands.release(memory.buffer())
        assert set(memory.read_bytes()) == {2}


def test_a_stream_waits_and_signals_without_the_host(fakes: Both, vulkan: Device, timeline: Timeline) -> None:
    cuda, queue = fakes
    with vulkan.allocate((64,)) as memory:
        memory.device_array()  # so that it is imported
        timeline.signal(1)
        cuda.calls.clear()
        queue.calls.clear()
        with memory.access(stream=64, wait=(timeline, 1), signal=(timeline, 2)) as array:
            assert "cuWaitExternalSemaphoresAsync" in cuda.calls
            assert "cuSignalExternalSemaphoresAsync" not in cuda.calls
        del array
        assert "cuSignalExternalSemaphoresAsync" in cuda.calls
        assert not set(HOST_WAITS) & set(cuda.calls)
        timeline.wait(2, timeout=30)
        imports = cuda.calls.count("cuImportExternalSemaphore")
        with memory.access(stream=64, wait=(timeline, 2), signal=(timeline, 3)) as array:
            pass
        del array
        assert cuda.calls.count("cuImportExternalSemaphore") == imports <= 1  # it is imported once
        timeline.wait(3, timeout=30)


def test_the_queue_owns_the_buffer_between_its_wait_and_its_signal(vulkan: Device, timeline: Timeline) -> None:
    with vulkan.allocate((64,)) as memory:
        with memory.access(queue=True, wait=(timeline, 1), signal=[(timeline, 3)]) as buffer:
            assert isinstance(buffer, extmem.Buffer)
            with vulkan.commands(signal=(timeline, 2)) as commands:
                commands.fill_buffer(buffer, 0x03030303)
            timeline.signal(1)
            timeline.wait(2, timeout=30)
        timeline.wait(3, timeout=30)
        assert set(memory.read_bytes()) == {3}


def test_an_error_in_the_block_signals_nothing(fakes: Both, vulkan: Device, timeline: Timeline) -> None:
    with vulkan.allocate((64,)) as memory:
        with pytest.raises(KeyError), memory.access(stream=64, signal=(timeline, 1)):
            raise KeyError
        with pytest.raises(KeyError), memory.access(queue=True, signal=(timeline, 1)):
            raise KeyError
        assert timeline.value == 0


def test_bad_pairs_are_refused_before_the_block(vulkan: Device, timeline: Timeline) -> None:
    with vulkan.allocate((64,)) as memory:
        for options in ({"stream": 64}, {"queue": True}):
            with pytest.raises(TypeError, match="pair"), memory.access(**options, signal=3):  # type: ignore[arg-type]
                pytest.fail("the block was entered")
        with extmem.open_device(kind="host") as host, host.timeline() as foreign:
            with pytest.raises(extmem.HandleStateError, match="opened separately"):
                vulkan.commands(wait=(foreign, 1))


def test_05149_a_semaphore_in_use_is_destroyed_after_the_work(vulkan: Device) -> None:
    timeline = vulkan.timeline()
    with vulkan.timeline() as gate:
        with vulkan.commands(wait=(gate, 1), signal=(timeline, 1)):
            pass
        with pytest.raises(extmem.RuleViolation, match="05149"):
            vulkan.destroy_semaphore(timeline)
        with pytest.raises(extmem.RuleViolation, match="03259"):
            timeline.signal(2)  # above a value that submitted work is to signal
        with pytest.raises(extmem.WaitTimeoutError, match="this process has submitted is to signal it"):
            timeline.wait(1, timeout=0.001)
        timeline.close()  # the work keeps it
        gate.signal(1)


def test_03238_a_binary_semaphore_orders_two_submissions(vulkan: Device) -> None:
    with vulkan.create_semaphore(vk.SemaphoreCreateInfo()) as semaphore, vulkan.fence() as fence:
        with pytest.raises(extmem.RuleViolation, match="03238"), vulkan.commands(wait=semaphore):
            pass
        with vulkan.commands(signal=semaphore, fence=fence):
            pass
        with vulkan.commands(wait=semaphore):
            pass
        fence.wait(30)


def test_a_submission_is_one_call_of_the_driver_unless_it_has_a_fence(
    fakes: Both, vulkan: Device, timeline: Timeline
) -> None:
    submits = ("vkQueueSubmit", "vkQueueSubmit2")
    with vulkan.fence() as fence:
        for given, calls in ((None, 1), (fence, 2)):
            fakes[1].calls.clear()
            with vulkan.commands(signal=(timeline, timeline.value + 1), fence=given):
                pass
            assert sum(call in submits for call in fakes[1].calls) == calls
            timeline.wait(calls, timeout=30)
        fence.wait(timeout=30)
