"""Sleeps on futexes by io_uring, where the kernel has them and allows them."""

from __future__ import annotations

import errno
import mmap
import select
from collections.abc import Iterator

import pytest

from extmem.devices.host import io_ring
from extmem.devices.host._libc import ffi
from extmem.devices.host.futex import add_and_wake
from extmem.devices.host.io_ring import IoRing
from extmem.testing.leaks import no_leaks
from extmem.testing.waiting import DEADLINE


@pytest.fixture
def ring() -> Iterator[IoRing]:
    if not io_ring.usable():
        pytest.skip("this machine has no io_uring with futexes")
    yield IoRing()


def word() -> tuple[memoryview, int]:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    return memoryview(memory).cast("I"), int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))


def readable(ring: IoRing, seconds: float) -> bool:
    return bool(select.select([ring.fd], [], [], seconds)[0])


def test_a_wake_completes_a_sleep(ring: IoRing) -> None:
    words, address = word()
    ring.sleep_on(address, 0, 5)
    ring.sleep_on(address, 9, 2**63)  # the word has another value
    assert readable(ring, DEADLINE)
    assert ring.completed() == [(2**63, -errno.EAGAIN)]
    assert not readable(ring, 0)
    add_and_wake(address)
    assert readable(ring, DEADLINE)
    assert ring.completed() == [(5, 0)]
    assert words[0] == 1


def test_the_queues_wrap(ring: IoRing) -> None:
    _, address = word()
    for tag in range(500):
        ring.sleep_on(address, 1, tag)
        assert ring.completed() == [(tag, -errno.EAGAIN)]


def test_as_many_as_it_takes_complete_at_once(ring: IoRing) -> None:
    _, address = word()
    for tag in range(io_ring.MOST):
        ring.sleep_on(address, 0, tag)
    add_and_wake(address)
    found: set[int] = set()
    while len(found) < io_ring.MOST:
        assert readable(ring, DEADLINE)
        found.update(tag for tag, _ in ring.completed())
    assert found == set(range(io_ring.MOST))


def test_a_lost_ring_leaves_nothing(ring: IoRing) -> None:
    _, address = word()
    with no_leaks(objects=False):
        other = IoRing()
        other.sleep_on(address, 0, 1)
        del other
    assert ring.fd >= 3


def test_a_system_that_refuses_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        return -1

    monkeypatch.setattr(io_ring, "_syscall", refuse)
    with pytest.raises(OSError, match="io_uring_setup"):
        IoRing()
    assert not io_ring.usable.__wrapped__()
