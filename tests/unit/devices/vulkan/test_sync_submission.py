"""Submissions that wait for and signal semaphores: they return at once, and hold what they use until they are done."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from extmem import vk
from extmem.devices.host import late
from extmem.devices.sync import Batch, SemaphoreSignal, SemaphoreWait
from extmem.devices.vulkan import logical
from extmem.devices.vulkan.semaphores import VulkanSemaphore
from extmem.errors import DriverError, PeerGoneError
from extmem.owning import Uses
from extmem.sharing import timeline_page
from extmem.testing import fake_vulkan
from extmem.testing.waiting import wait_until
from tests.unit.devices.vulkan.sync_steps import SECOND, fake_backend, fence, semaphore, sharing, signal, wait_for

PLAIN = dataclasses.replace(
    fake_vulkan.DISCRETE,
    extensions=tuple(name for name in fake_vulkan.DISCRETE.extensions if name != "VK_KHR_synchronization2"),
)
HOST = sharing(*fake_vulkan.BINARY_SYNC)
"""A GPU whose timelines are the host's if they are shared."""


@pytest.mark.parametrize("name", ["vkQueueSubmit2", "vkQueueSubmit"])
def test_a_submission_returns_before_its_wait_is_satisfied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "vkQueueSubmit2":  # as on an adopted device with synchronization2
        monkeypatch.setattr(logical, "LEFT_OUT", frozenset())
    with fake_backend() as (fake, backend):
        gate, after, binary, done = (
            semaphore(backend, timeline=True),
            semaphore(backend, timeline=True),
            semaphore(backend),
            fence(backend),
        )
        batches = [
            Batch(waits=[SemaphoreWait(gate, 2)], signals=[SemaphoreSignal(after, 7), SemaphoreSignal(binary)]),
            Batch(waits=[SemaphoreWait(after, 7, int(vk.PipelineStageFlagBits2.COPY))]),
        ]
        backend.submit_batches(batches, done, Uses())
        assert not backend.wait_fences([done]) and after.counter() == 0
        gate.signal(2)
        assert backend.wait_fences([done], timeout_ns=SECOND) and after.counter() == 7
        assert name in fake.calls
        for one in (gate, after, binary, done):
            one.close()


def test_what_a_submission_uses_is_held_until_it_is_done() -> None:
    with fake_backend() as (fake, backend):
        gate, binary = semaphore(backend, timeline=True), semaphore(backend)
        backend.submit_batches([Batch(waits=[SemaphoreWait(gate, 1)], signals=[SemaphoreSignal(binary)])], None, Uses())
        binary.close()
        assert fake.alive()["semaphores"] == 2
        gate.signal(1)
        wait_until(lambda: fake.alive()["semaphores"] == 1, "the end of the hold")
        gate.close()


def test_commands_are_recorded_at_once_and_run_in_order() -> None:
    with fake_backend() as (fake, backend):
        gate = semaphore(backend, timeline=True)
        recorded = []
        for value in range(2):
            wait = [SemaphoreWait(gate, 1)] if value == 0 else []
            backend.submit_batches(
                [Batch(waits=wait, record=lambda recorder, value=value: recorded.append(value))], None, Uses()
            )
        assert recorded == [0, 1] and fake.alive()["command buffers"] == 2
        gate.signal(1)
        backend.finish_submitted()
        backend.submit_batches([Batch(record=lambda recorder: None)], None, Uses(), wait=True)
        assert fake.alive()["command buffers"] == 2  # one was used again
        gate.close()


def test_an_exception_of_the_commands_submits_nothing() -> None:
    with fake_backend() as (fake, backend):
        after = semaphore(backend, timeline=True)

        def fail(recorder: object) -> None:
            raise ValueError("planted")

        with pytest.raises(ValueError, match="planted"):
            backend.submit_batches([Batch(record=fail, signals=[SemaphoreSignal(after, 1)])], None, Uses())
        assert after.counter() == 0
        signal(backend, after, 1)
        assert backend.wait_semaphores([(after, 1)], timeout_ns=SECOND)
        after.close()
        assert fake.alive()["command buffers"] == 0


@pytest.mark.parametrize("at", [1, 2])
def test_a_submission_that_fails_is_an_error_and_leaves_the_queue_usable(at: int) -> None:
    with fake_backend(PLAIN) as (fake, backend):
        after = semaphore(backend, timeline=True)
        fake.fail(at, vk.Result.ERROR_OUT_OF_DEVICE_MEMORY, command="vkQueueSubmit")
        if at == 1:
            with pytest.raises(DriverError, match="vkQueueSubmit"):
                signal(backend, after, 1)
            assert after.counter() == 0
            signal(backend, after, 1)
        else:  # the second call only asks for the end; it is made again
            signal(backend, after, 1)
        assert backend.wait_semaphores([(after, 1)], timeout_ns=SECOND)
        backend.finish_submitted()
        after.close()


def test_a_lost_device_ends_the_work() -> None:
    with fake_backend() as (fake, backend):
        gate, done = semaphore(backend, timeline=True), fence(backend)
        wait_for(backend, gate, 1, done)
        fake.lose_device()
        with pytest.raises(DriverError, match="DEVICE_LOST"):
            backend.wait_fences([done], timeout_ns=SECOND)
        backend.finish_submitted()
        gate.close()
        done.close()


def test_work_that_does_not_end_is_an_error_and_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_backend() as (_, backend):
        monkeypatch.setattr(backend.sync.batches, "_patience", 0.0)
        gate = semaphore(backend, timeline=True)
        wait_for(backend, gate, 1)
        with pytest.raises(DriverError, match="nobody has signaled"):
            backend.finish_submitted()
        gate.signal(1)
        wait_until(lambda: backend.sync.batches.idle, "the end of the work")
        backend.finish_submitted()
        gate.close()


def test_a_bridged_queue_waits_for_a_timeline_of_the_host_and_signals_one() -> None:
    with fake_backend(HOST) as (_, backend):
        gate, after = (semaphore(backend, timeline=True, shared=True) for _ in range(2))
        done, order = fence(backend), semaphore(backend, timeline=True)
        backend.submit_batches(
            [
                Batch(signals=[SemaphoreSignal(after, 1)]),
                Batch(waits=[SemaphoreWait(gate, 1)], signals=[SemaphoreSignal(after, 2)]),
            ],
            done,
            Uses(),
        )
        signal(backend, order, 1)  # submitted later, it runs later
        assert order.counter() == 0 and not done.status()
        gate.signal(1)
        assert backend.wait_semaphores([(after, 2), (order, 1)], timeout_ns=SECOND)
        assert backend.wait_fences([done], timeout_ns=SECOND)
        for one in (gate, after, done, order):
            one.close()


def test_a_value_that_is_reached_defers_nothing() -> None:
    with fake_backend(HOST) as (_, backend):
        gate, after = (semaphore(backend, timeline=True, shared=True) for _ in range(2))
        gate.signal(1)
        batch = Batch(waits=[SemaphoreWait(gate, 1)], signals=[SemaphoreSignal(after, 1)])
        backend.submit_batches([batch], None, Uses(), wait=True)
        assert after.counter() == 1
        assert backend.sync.batches._deferred._thread is None and backend.sync.batches._running._thread is not None
        gate.close()
        after.close()


def test_a_deferred_submission_that_fails_is_an_error_of_the_next_call() -> None:
    with fake_backend(dataclasses.replace(HOST, extensions=PLAIN.extensions)) as (fake, backend):
        gate, done = semaphore(backend, timeline=True, shared=True), fence(backend)
        wait_for(backend, gate, 1, done)
        fake.fail(1, vk.Result.ERROR_OUT_OF_DEVICE_MEMORY, command="vkQueueSubmit")
        gate.signal(1)
        wait_until(lambda: backend.sync.batches.idle, "the end of the work")
        with pytest.raises(DriverError, match="OUT_OF_DEVICE_MEMORY"):
            wait_for(backend, gate, 1, done)
        wait_for(backend, gate, 1, done)
        assert backend.wait_fences([done], timeout_ns=SECOND)
        gate.close()
        done.close()


def lose(gate: VulkanSemaphore) -> None:
    """Mark a timeline of the host as the object manager does when its signaler has ended."""
    page = gate.host.page  # type: ignore[union-attr]
    timeline_page.mark_gone(page._words.cast("B"), 1234, 0)
    page._ring(page._bell)


def test_fences_and_binary_semaphores_of_abandoned_work_are_not_waited_for() -> None:
    with fake_backend(HOST) as (fake, backend):
        gate, after = (semaphore(backend, timeline=True, shared=True) for _ in range(2))
        binary, done, last = semaphore(backend), fence(backend), fence(backend)
        first = Batch(waits=[SemaphoreWait(gate, 1)], signals=[SemaphoreSignal(binary)])
        second = Batch(waits=[SemaphoreWait(binary)], signals=[SemaphoreSignal(after, 1)])
        backend.submit_batches([first], done, Uses())
        backend.submit_batches([second], last, Uses())
        lose(gate)
        wait_until(lambda: backend.sync.batches.idle, "the end of the work")
        for one in (done, last):
            with pytest.raises(PeerGoneError, match=r"was not made \(process 1234.*submit it again"):
                backend.wait_fences([one], timeout_ns=10 * SECOND)
            with pytest.raises(PeerGoneError, match="was not made"):
                backend.wait_fences([done, last], any_of=True, timeout_ns=10 * SECOND)
        assert first.abandoned and second.abandoned and "vkQueueSubmit" not in fake.calls
        with pytest.raises(PeerGoneError, match="was not done"):
            backend.wait_semaphores([(after, 1)], timeout_ns=10 * SECOND)
        with pytest.raises(PeerGoneError) as caught:
            backend.submit_batches([third := Batch()], done, Uses())
        assert third.abandoned and "repeat it" in caught.value.__notes__[0]
        last.reset()
        assert not backend.wait_fences([last], timeout_ns=0)  # nothing is known of its next signal
        gate.signal(1)
        backend.submit_batches([replace(first, abandoned=False), replace(second, abandoned=False)], done, Uses())
        assert backend.wait_fences([done, last], any_of=True, timeout_ns=SECOND)
        assert backend.wait_semaphores([(after, 1)], timeout_ns=SECOND)
        for each in (gate, after, binary, done, last):
            each.close()


def test_who_waits_is_told_that_submitted_work_is_going_to_repair() -> None:
    with fake_backend(HOST) as (_, backend):
        gate, after = (semaphore(backend, timeline=True, shared=True) for _ in range(2))
        lose(after)
        with pytest.raises(PeerGoneError):
            backend.wait_semaphores([(after, 1)], timeout_ns=0)
        work = Batch(waits=[SemaphoreWait(gate, 1)], signals=[SemaphoreSignal(after, 1)])
        backend.submit_batches([work], None, Uses())
        assert not backend.wait_semaphores([(after, 1)], timeout_ns=0)
        gate.signal(1)
        assert backend.wait_semaphores([(after, 1)], timeout_ns=SECOND)
        gate.close()
        after.close()


def test_who_waits_is_told_that_a_repair_was_refused() -> None:
    with fake_backend(dataclasses.replace(HOST, extensions=PLAIN.extensions)) as (fake, backend):
        after = semaphore(backend, timeline=True, shared=True)
        lose(after)
        fake.fail(1, vk.Result.ERROR_OUT_OF_DEVICE_MEMORY, command="vkQueueSubmit")
        with pytest.raises(DriverError, match="OUT_OF_DEVICE_MEMORY"):
            signal(backend, after, 1)

        def is_told() -> bool:
            try:
                backend.wait_semaphores([(after, 1)], timeout_ns=0)
            except PeerGoneError:
                return True
            return False

        wait_until(is_told, "an error for those who wait")
        after.close()


def test_a_host_that_waits_between_two_batches_is_woken() -> None:
    with fake_backend() as (_, backend):
        first, second = (semaphore(backend, timeline=True, shared=True) for _ in range(2))
        backend.submit_batches(
            [Batch(signals=[SemaphoreSignal(first, 1)]), Batch(waits=[SemaphoreWait(second, 1)])], None, Uses()
        )
        assert backend.wait_semaphores([(first, 1)], timeout_ns=SECOND)
        second.signal(1)
        backend.finish_submitted()
        first.close()
        second.close()


@pytest.mark.parametrize("gpu", [fake_vulkan.DISCRETE, HOST], ids=["driver", "host"])
def test_S59_a_value_that_a_lost_device_owes_is_an_error_of_those_who_wait_for_it(gpu: fake_vulkan.Gpu) -> None:
    with fake_backend(gpu) as (fake, backend):
        gate, owed = (semaphore(backend, timeline=True, shared=True) for _ in range(2))
        backend.submit_batches([Batch([SemaphoreWait(gate, 1)], signals=[SemaphoreSignal(owed, 1)])], None, Uses())
        fake.lose_device()
        if gpu is HOST:
            gate.signal(1)
        word = owed.host_word
        assert word is not None
        with pytest.raises(PeerGoneError, match="declared the timeline invalid"):
            late.sync.wait_semaphores([(word, 1)], any_of=False, timeout_ns=SECOND)
        gate.close()
        owed.close()
