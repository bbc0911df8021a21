"""Byte-range locks: shared and exclusive, of descriptions of their own, released by the kernel with their process."""

from __future__ import annotations

import os
import signal

import pytest

from extmem.devices.host import range_locks
from extmem.devices.host.range_locks import Range, RangeLocks, reopen
from extmem.errors import UnsupportedError
from extmem.testing.children import Peer
from extmem.testing.leaks import descriptors
from extmem.testing.waiting import wait_until

PLACE = Range(1 << 40)

HOLDER = """
import os
from extmem.devices.host.range_locks import Range, RangeLocks
from extmem.owning import OwnedFd
locks = RangeLocks(OwnedFd.open(path, os.O_RDWR if alone else os.O_RDONLY))
locks.try_exclusive(Range(1 << 40)) if alone else locks.try_shared(Range(1 << 40))
"""


def pair() -> tuple[RangeLocks, RangeLocks, object]:
    """A description for writing, one for reading, of one file."""
    file = range_locks.create()
    return RangeLocks(reopen(file.fd, writable=True)), RangeLocks(reopen(file.fd, writable=False)), file


def test_shared_locks_exclude_an_exclusive_one_and_the_reverse() -> None:
    writer, reader, file = pair()
    other = RangeLocks(reopen(file.fd, writable=False))  # type: ignore[attr-defined]
    assert reader.try_shared(PLACE) and other.try_shared(PLACE)
    assert not writer.try_exclusive(PLACE)
    reader.unlock(PLACE)
    assert not writer.try_exclusive(PLACE)
    other.unlock(PLACE)
    assert writer.try_exclusive(PLACE)
    assert not reader.try_shared(PLACE)
    assert reader.try_shared(Range((1 << 40) + 1))
    writer.unlock(PLACE)
    assert reader.try_shared(PLACE)
    for one in (writer, reader, other):
        one.close()


def test_the_calls_of_a_frame_do_the_same() -> None:
    writer, reader, _ = pair()
    reader.call(*reader.shared(PLACE))
    with pytest.raises(BlockingIOError):
        writer.call(*writer.exclusive(PLACE))
    reader.call(*reader.unlocking(PLACE))
    writer.call(*writer.exclusive(PLACE))
    with pytest.raises(BlockingIOError):
        reader.call(*reader.shared(PLACE))
    writer.close()
    reader.close()


def test_a_description_for_reading_takes_no_exclusive_lock() -> None:
    writer, reader, _ = pair()
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.try_exclusive(PLACE)
    assert writer.try_exclusive(PLACE)
    writer.close()
    reader.close()


def test_the_locks_of_others_are_found_and_the_own_are_not() -> None:
    writer, reader, _ = pair()
    places = Range(1 << 50, 16)
    assert writer.any_foreign(1 << 50, 16) is None and not writer.has_foreign(places)
    reader.try_shared(Range((1 << 50) + 3))
    assert writer.any_foreign(1 << 50, 16) == (1 << 50) + 3 and writer.has_foreign(places)
    assert writer.any_foreign((1 << 50) + 4, 12) is None
    assert reader.any_foreign(1 << 50, 16) is None and not reader.has_foreign(places)
    writer.close()
    reader.close()


@pytest.mark.parametrize("alone", [False, True])
def test_the_locks_of_a_killed_process_end_with_it(peer: Peer, alone: bool) -> None:
    writer, _, file = pair()
    number = file.fd  # type: ignore[attr-defined]
    peer(HOLDER, path=f"/proc/{os.getpid()}/fd/{number}", alone=alone)
    assert not writer.try_exclusive(PLACE)
    os.kill(peer.pid, signal.SIGKILL)
    peer.process.wait()
    wait_until(lambda: writer.try_exclusive(PLACE), "the lock of the killed process to end")
    writer.close()


def test_closing_releases_the_locks_and_the_descriptor() -> None:
    file = range_locks.create()
    before = descriptors()
    holder, other = (RangeLocks(reopen(file.fd, writable=True)) for _ in range(2))
    assert holder.try_exclusive(PLACE) and not other.try_exclusive(PLACE)
    holder.close()
    holder.close()
    assert other.try_exclusive(PLACE)
    other.close()
    assert descriptors() == before
    file.close()


def test_whoever_keeps_the_hold_keeps_the_locks() -> None:
    writer, reader, _ = pair()
    keep = reader.hold
    reader.try_shared(PLACE)
    reader.close()
    assert not writer.try_exclusive(PLACE)
    del keep
    reader.owner.try_to_end()
    assert writer.try_exclusive(PLACE)
    writer.close()


def test_nobody_writes_to_a_file_of_locks() -> None:
    file = range_locks.create()
    again = reopen(file.fd, writable=True)
    with pytest.raises(PermissionError):
        os.pwrite(again.fd, b"x", 0)
    again.close()
    file.close()


def test_without_proc_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/self/fd/3")

    monkeypatch.setattr(range_locks.OwnedFd, "open", missing)
    with pytest.raises(UnsupportedError, match="mount /proc"):
        reopen(3, writable=False)
