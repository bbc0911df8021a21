"""Semaphores and fences of the installed driver, which the validation layer may check."""

from __future__ import annotations

from extmem import vk
from extmem.devices.sync import Batch, FenceSpec, SemaphoreSignal, SemaphoreSpec, SemaphoreWait
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.owning import Uses
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD
from tests.unit.devices.vulkan.steps import SIZE, buffer_info, lowest
from tests.unit.devices.vulkan.sync_steps import SECOND


def test_a_chain_of_batches_with_commands(backend: VulkanBackend) -> None:
    order = backend.create_semaphore(SemaphoreSpec(True))
    binary, done = backend.create_semaphore(SemaphoreSpec(False)), backend.create_fence(FenceSpec())
    buffer = backend.create_buffer(buffer_info())
    memory = backend.allocate(buffer.requirements.size, lowest(buffer.requirements), b"")
    backend.bind(memory, 0, buffer)
    with Uses() as uses:
        uses.add(memory.keeper)
        uses.add(buffer.keeper)
        backend.submit_batches(
            [
                Batch(
                    waits=[SemaphoreWait(order, 1)],
                    record=lambda recorder: recorder.fill_buffer(buffer, 0, SIZE, 0x01010101),
                    signals=[SemaphoreSignal(order, 2)],
                ),
                Batch(
                    waits=[SemaphoreWait(order, 2, int(vk.PipelineStageFlagBits.TRANSFER))],
                    record=lambda recorder: recorder.fill_buffer(buffer, 4, 4, 0x02020202),
                ),
            ],
            None,
            uses,
        )
        backend.submit_batches(
            [Batch(record=lambda recorder: recorder.fill_buffer(buffer, 8, 4, 0x03030303))], done, uses
        )
    assert not backend.wait_fences([done])
    order.signal(1)
    assert backend.wait_fences([done], timeout_ns=SECOND)
    assert order.counter() == 2
    # A binary wait is submitted once everything that its signal depends on has been submitted (03238).
    backend.submit_batches(
        [Batch(signals=[SemaphoreSignal(binary)]), Batch(waits=[SemaphoreWait(binary)])], None, Uses(), wait=True
    )
    read = bytearray(16)
    backend.read(memory, 0, memoryview(read))
    assert bytes(read) == b"\1" * 4 + b"\2" * 4 + b"\3" * 4 + b"\1" * 4
    for one in (order, binary, done):
        one.close()
    buffer.destroy()
    memory.close()


def test_a_shared_timeline_is_waited_for_and_signaled_by_the_queue(backend: VulkanBackend) -> None:
    first, second = (backend.create_semaphore(SemaphoreSpec(True, 0, SEMAPHORE_OPAQUE_FD)) for _ in range(2))
    batch = Batch(waits=[SemaphoreWait(first, 1)], signals=[SemaphoreSignal(second, 5)])
    backend.submit_batches([batch], None, Uses())
    assert not backend.wait_semaphores([(second, 5)])
    first.signal(1)
    assert backend.wait_semaphores([(first, 1), (second, 5)], timeout_ns=SECOND)
    assert backend.wait_semaphores([(first, 2), (second, 5)], any_of=True)
    backend.finish_submitted()
    first.close()
    second.close()


def test_mixed_timelines_are_waited_for_together(backend: VulkanBackend) -> None:
    shared, plain = (backend.create_semaphore(SemaphoreSpec(True, 0, types)) for types in (SEMAPHORE_OPAQUE_FD, 0))
    both = [(shared, 1), (plain, 1)]
    assert not backend.wait_semaphores(both, any_of=True, timeout_ns=2_000_000)
    plain.signal(1)
    assert backend.wait_semaphores(both, any_of=True, timeout_ns=SECOND)
    assert not backend.wait_semaphores(both, timeout_ns=2_000_000)
    shared.signal(1)
    assert backend.wait_semaphores(both, timeout_ns=SECOND)
    shared.close()
    plain.close()
