"""How the batches of one call become several submissions."""

from __future__ import annotations

from extmem.devices.sync import Batch, SemaphoreSignal
from extmem.devices.vulkan import batch_groups
from tests.unit.devices.vulkan.sync_steps import fake_backend, semaphore


def test_batches_are_divided_behind_each_signal_of_a_host_word() -> None:
    with fake_backend() as (_, backend):
        shared, plain = semaphore(backend, timeline=True, shared=True), semaphore(backend, timeline=True)
        first, second = Batch(signals=[SemaphoreSignal(shared, 1)]), Batch(signals=[SemaphoreSignal(plain, 1)])
        divided = batch_groups.divided([second, second, first, second], has_fence=False)
        assert [len(group) for group in divided] == [3, 1]
        assert batch_groups.divided([], has_fence=True) == [[]]
        assert batch_groups.divided([], has_fence=False) == []
        shared.close()
        plain.close()
