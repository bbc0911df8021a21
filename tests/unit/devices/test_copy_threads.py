"""Copies by several threads: all bytes, none after `drop`, also where no thread can be started."""

from __future__ import annotations

import ctypes
import os
import threading

import pytest

from extmem.devices.copy_threads import Copying, CopyThreads
from extmem.testing.waiting import wait_until

SIZE = (3 << 20) + 5


def place(data: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def copied(threads: CopyThreads, size: int = SIZE) -> None:
    source, target = bytearray(os.urandom(size)), bytearray(size)
    threads.begin(place(target), place(source), size, (source, target)).finish()
    assert target == source


@pytest.mark.parametrize("size", [1, 4096, 1 << 19, SIZE])
def test_every_byte_is_copied(size: int) -> None:
    threads = CopyThreads()
    copied(threads, size)
    copied(threads, size)
    threads.stop()


def test_one_processor_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    threads = CopyThreads()
    copied(threads)
    assert not threads._threads


def test_a_process_that_cannot_start_threads_copies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    copied(CopyThreads())


def test_nothing_is_written_after_a_copy_was_dropped() -> None:
    source, target = bytearray(os.urandom(SIZE)), bytearray(SIZE)
    parts = [(place(target) + at, place(source) + at, 4096) for at in range(0, 1 << 20, 4096)]
    copying = Copying(parts, (source, target))
    worker = threading.Thread(target=copying.take_part)
    worker.start()
    copying.drop()
    before = bytes(target)
    worker.join()
    assert target == before and not parts


def test_idle_threads_end_and_the_last_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    threads, told = CopyThreads(), []
    threads.idle_s = 0.01
    threads.when_idle["a"] = lambda: told.append(threading.current_thread().name)
    copied(threads)
    wait_until(lambda: bool(told), lambda: "the last thread to end")
    assert told == ["extmem-copy"] and not threads._threads
    copied(threads)  # they start again


def test_a_copy_that_has_ended_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may be late: the program's bytearray can be resized at once."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    threads = CopyThreads()
    monkeypatch.setattr(threads, "_start", lambda count: None)  # none takes anything from the queue
    source, target = bytearray(os.urandom(SIZE)), bytearray(SIZE)
    view = memoryview(target)
    copying = threads.begin(place(target), place(source), SIZE, view)
    del view
    with pytest.raises(BufferError):
        target.append(1)
    copying.finish()
    target.append(1)
    assert target[:-1] == source


@pytest.mark.parametrize("cpus", [1, 4])
def test_a_function_brings_the_bytes(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cpus)), raising=False)
    threads = CopyThreads()
    source, target = os.urandom(SIZE), bytearray(SIZE)
    start = place(target)

    def bring(address: int, at: int, size: int) -> None:
        target[address - start : address - start + size] = source[at - 5 : at - 5 + size]

    threads.begin(start, 5, SIZE, target, bring).finish()
    assert target == source
    threads.stop()


def test_an_error_in_another_thread_is_raised_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    threads, target = CopyThreads(), bytearray(SIZE)
    caller, failed = threading.current_thread(), threading.Event()

    def fails(address: int, at: int, size: int) -> None:
        if threading.current_thread() is caller:
            assert failed.wait(30)
            return
        failed.set()
        raise OSError("planted")

    copying = threads.begin(place(target), 0, SIZE, target, fails)
    with pytest.raises(OSError, match="planted"):
        copying.finish()
    copying.drop()
    copied(threads)  # the threads have survived it
    threads.stop()
