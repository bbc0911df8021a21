"""Sleeping on words of shared memory: values, deadlines, signals, and kernels without futex_waitv."""

from __future__ import annotations

import mmap
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from extmem.devices.host import futex
from extmem.devices.host._libc import ffi
from extmem.testing.waiting import DEADLINE

FAR = int(DEADLINE * 1e9)


class Memory:
    """A page of this process: words, and their addresses."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, mmap.PAGESIZE)
        self.words = memoryview(self.map).cast("I")
        self.base = int(ffi.cast("uintptr_t", ffi.from_buffer(self.map)))

    def at(self, index: int) -> int:
        return self.base + 4 * index


@pytest.fixture
def memory() -> Iterator[Memory]:
    yield Memory()


@pytest.fixture(params=["waitv", "no waitv"])
def waitv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no waitv":
        monkeypatch.setattr(futex, "_has_waitv", lambda: False)


def deadline(nanoseconds: int = FAR) -> int:
    return time.monotonic_ns() + nanoseconds


def test_a_wake_adds_one_and_ends_a_sleep(memory: Memory) -> None:
    done: list[bool] = []

    def sleeper() -> None:
        end = deadline()
        while memory.words[0] == 0 and futex.sleep(memory.at(0), 0, end):
            pass
        done.append(memory.words[0] == 1)

    thread = threading.Thread(target=sleeper)
    thread.start()
    futex.add_and_wake(memory.at(0))
    thread.join(DEADLINE)
    assert done == [True]


def test_the_word_wraps(memory: Memory) -> None:
    memory.words[0] = 0xFFFF_FFFF
    futex.add_and_wake(memory.at(0))
    assert memory.words[0] == 0


def test_another_value_does_not_sleep_and_the_deadline_ends_a_sleep(memory: Memory) -> None:
    memory.words[0] = 7
    assert futex.sleep(memory.at(0), 6)
    end = deadline(2_000_000)
    while futex.sleep(memory.at(0), 7, end):
        pass
    assert time.monotonic_ns() >= end
    assert not futex.sleep(memory.at(0), 7, end)


def test_wake_tells_how_many_and_changes_nothing(memory: Memory) -> None:
    assert futex.wake(memory.at(0)) == 0
    assert memory.words[0] == 0


def test_a_signal_handler_ends_a_sleep_without_limit(memory: Memory) -> None:
    class Over(Exception):
        pass

    def handler(*_: object) -> None:
        raise Over

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Over):
            while True:
                futex.sleep(memory.at(0), 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="FUTEX_WAKE_OP: Bad address"):
        futex.add_and_wake(4)
    with pytest.raises(OSError, match="FUTEX_WAIT: Bad address"):
        futex.sleep(4, 0)
    with pytest.raises(OSError, match="futex_waitv: Bad address"):
        futex.Words([4, 8]).sleep(deadline())


@pytest.mark.usefixtures("waitv")
@pytest.mark.parametrize("count", [1, 2, futex.MOST_WORDS + 2])
def test_any_of_several_words_ends_a_sleep(memory: Memory, count: int) -> None:
    words = futex.Words([memory.at(index) for index in range(count)])
    woken = threading.Event()

    def sleeper() -> None:
        end = deadline()
        while not any(memory.words[:count]) and words.sleep(end):
            pass
        woken.set()

    thread = threading.Thread(target=sleeper)
    thread.start()
    futex.add_and_wake(memory.at(count - 1))
    assert woken.wait(DEADLINE)
    thread.join(DEADLINE)


@pytest.mark.usefixtures("waitv")
def test_several_words_have_a_deadline(memory: Memory) -> None:
    words = futex.Words([memory.at(0), memory.at(1)])
    end = deadline(2_000_000)
    while words.sleep(end):
        pass
    assert time.monotonic_ns() >= end
    words.expected = [0, 9]
    assert words.sleep(deadline())  # the second word has another value
