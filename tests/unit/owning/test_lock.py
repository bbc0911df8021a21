"""`Lock`: one thread at a time, and no exception of a signal handler leaves it held."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from extmem.owning import Lock
from tests.interrupts import points


def free(lock: Any) -> bool:
    """Return whether another thread can acquire it."""
    found: list[bool] = []

    def take() -> None:
        inner = getattr(lock, "_lock", lock)
        found.append(inner.acquire(blocking=False))
        if found[0]:
            inner.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


class Careless:
    """A lock with the fault that `Lock` avoids: a call of C code between acquiring the lock and the block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def left_held(make: Callable[[], Any]) -> tuple[int, int]:
    """Interrupt a `with` at each of its points. Return their number, and after how many of them the lock is held."""

    def use(lock: Any) -> Callable[[], None]:
        def block() -> None:
            with lock:
                pass

        return block

    interrupts = held = 0
    for number in points.points(use(make())):
        lock = make()
        block = use(lock)
        try:
            with points.signal_before(number):
                block()
        except points.Interrupted:
            interrupts += 1
        held += not free(lock)
    return interrupts, held


@pytest.mark.parametrize("reentrant", [False, True])
def test_one_thread_holds_it_for_the_time_of_a_block(reentrant: bool) -> None:
    lock = Lock(reentrant=reentrant)
    with lock:
        assert not free(lock)
    assert free(lock)
    with pytest.raises(KeyError), lock:
        raise KeyError
    assert free(lock)


def test_its_thread_takes_a_reentrant_one_again() -> None:
    lock = Lock(reentrant=True)
    with lock:
        with lock:
            assert not free(lock)
        assert not free(lock)
    assert free(lock)


@pytest.mark.linux_only("Windows has only Ctrl-C, and no signal that a process can send to itself")
@pytest.mark.skipif(points.compiler() is None, reason="no C compiler")
@pytest.mark.parametrize("reentrant", [False, True])
def test_no_exception_of_a_signal_handler_leaves_it_held(reentrant: bool) -> None:
    interrupts, held = left_held(lambda: Lock(reentrant=reentrant))
    assert interrupts > 3 and not held


@pytest.mark.linux_only("Windows has only Ctrl-C, and no signal that a process can send to itself")
@pytest.mark.skipif(points.compiler() is None, reason="no C compiler")
def test_one_that_is_left_held_is_found_out() -> None:
    assert left_held(Careless)[1]
