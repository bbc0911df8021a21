"""Waits for CUDA's streams: work of extmem's own has a limit, work of the program has none, and signals end both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.cuda import submission
from extmem.testing import fake_cuda

NOT_READY, DONE = (600,), (0,)
LOOK_S = 20.0
"""The time that one query of a stream takes, by the clock of these tests."""


@pytest.fixture
def stream(
    cuda: Device, fake: fake_cuda.FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[int], Any]], list[int]]]:
    """Set the result of cuStreamQuery, by the number of the call. Return the list of queried streams."""
    now = [0.0]

    def clock() -> float:
        now[0] += LOOK_S
        return now[0]

    def answer(by_number: Callable[[int], Any]) -> list[int]:
        asked: list[int] = []

        def query(of: Any) -> Any:
            asked.append(int(of))
            return by_number(len(asked))

        monkeypatch.setattr(submission, "time", SimpleNamespace(monotonic=clock, sleep=lambda seconds: None))
        monkeypatch.setattr(fake.module, "cuStreamQuery", query)
        return asked

    yield answer


def end(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the work: the driver's own results apply again."""
    monkeypatch.undo()


VERBS = {
    "fill": lambda device, memory: memory.fill(3),
    "write": lambda device, memory: memory.write(bytes(4096)),
    "read": lambda device, memory: memory.read_bytes(),
    "commands": lambda device, memory: run(device, memory),
}


def run(device: Device, memory: extmem.DeviceMemory) -> None:
    with device.commands() as commands:
        commands.fill_buffer(memory.buffer(), 7)


@pytest.mark.parametrize("verb", VERBS)
def test_work_that_does_not_end_is_an_error_after_a_minute(
    verb: str, cuda: Device, stream: Any, fake: fake_cuda.FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the work uses is kept meanwhile, though it is closed, and released once the work has ended."""
    memory = cuda.allocate(4096)
    asked = stream(lambda number: DONE if number == 1 else NOT_READY)
    with pytest.raises(extmem.DriverError, match="60 seconds.*held until") as error:
        VERBS[verb](cuda, memory)
    assert error.value.result == vk.Result.TIMEOUT
    assert 60 / LOOK_S <= len(asked) <= 60 / LOOK_S + 3
    before = fake.alive()
    memory.close()
    assert fake.alive() == before, "the work uses it"
    with pytest.raises(extmem.DriverError, match="held until"), cuda.allocate(64) as another:
        another.fill(1)  # one query, not another minute
    end(monkeypatch)
    with cuda.allocate(4096) as another:
        another.fill(5)
        assert set(another.read_bytes()) == {5}
        assert fake.alive() == before, "one was given back, one is new"


def test_the_programs_own_work_may_take_as_long_as_it_takes(
    cuda: Device, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cuda.allocate(4096) as memory:
        asked = stream(lambda number: NOT_READY if number < 50 else DONE)
        memory.fill(3)  # the program's kernels on the default stream run first
        assert len(asked) > 50
        asked = stream(lambda number: NOT_READY if number < 50 else DONE)
        cuda.backend.wait(7)  # type: ignore[attr-defined]  # a stream of the program, which it names
        assert set(asked) == {7} and len(asked) == 50
        end(monkeypatch)
        assert set(memory.read_bytes()) == {3}


@pytest.mark.parametrize("at", [1, 2, 40])
def test_a_signal_handlers_exception_ends_the_wait(
    at: int, cuda: Device, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(number: int) -> Any:
        if number == at:
            raise KeyboardInterrupt
        return NOT_READY if number > 1 or at == 1 else DONE

    monkeypatch.setattr(submission, "_PATIENCE_S", 1e9)
    with cuda.allocate(4096) as memory:
        cuda.backend.transfers.submissions._patience = 1e9  # type: ignore[attr-defined]
        stream(interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.fill(3)
        assert cuda.backend.transfers.submissions.unfinished == (at > 1)  # type: ignore[attr-defined]  # stated, or not yet
        end(monkeypatch)
        assert set(memory.read_bytes()) == ({3} if at > 1 else {0})
        assert not cuda.backend.transfers.submissions.unfinished  # type: ignore[attr-defined]
