"""Locks of ranges on Windows: shared and exclusive, of several openings, released by the kernel with their process."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Iterator

import pytest

from extmem.devices.host import windows_range_locks
from extmem.devices.host.windows_range_locks import Range, RangeLocks, create, reopen, take_name
from extmem.errors import NameNotFoundError
from extmem.handles._win32 import calls, directories
from extmem.handles._win32.tables import HANDLE, ntdll
from extmem.testing.children import Peer
from extmem.testing.leaks import descriptors
from extmem.testing.waiting import wait_until

PLACE = Range(1 << 40)

HOLDER = """
from extmem.devices.host.windows_range_locks import Range, RangeLocks, create, reopen
locks = RangeLocks(create(identity, None) if alone else reopen(identity))
locks.try_exclusive(Range(1 << 40)) if alone else locks.try_shared(Range(1 << 40))
"""


@pytest.fixture
def identity() -> bytes:
    return secrets.token_bytes(16)


@pytest.fixture
def writer(identity: bytes) -> Iterator[RangeLocks]:
    locks = RangeLocks(create(identity, None))
    yield locks
    locks.close()


@pytest.fixture
def reader(writer: RangeLocks, identity: bytes) -> Iterator[RangeLocks]:
    locks = RangeLocks(reopen(identity))
    yield locks
    locks.close()


def test_shared_locks_exclude_an_exclusive_one_and_the_reverse(
    writer: RangeLocks, reader: RangeLocks, identity: bytes
) -> None:
    other = RangeLocks(reopen(identity))
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
    other.close()


def test_the_calls_of_a_frame_do_the_same(writer: RangeLocks, reader: RangeLocks) -> None:
    mine, alone = reader.shared(PLACE), writer.exclusive(PLACE)
    reader.call(*mine)
    with pytest.raises(BlockingIOError):
        writer.call(*alone)
    unlocking = reader.unlocking(PLACE)
    reader.call(*unlocking)
    reader.call(*unlocking)  # nothing is left to release
    writer.call(*alone)
    with pytest.raises(BlockingIOError):
        reader.call(*mine)


def test_the_locks_of_others_are_found_and_the_own_are_not(writer: RangeLocks, reader: RangeLocks) -> None:
    places = Range(1 << 50, 16)
    assert writer.any_foreign(1 << 50, 16) is None and not writer.has_foreign(places)
    assert reader.try_shared(Range((1 << 50) + 3))
    assert writer.any_foreign(1 << 50, 16) == (1 << 50) + 3 and writer.has_foreign(places)
    assert writer.any_foreign((1 << 50) + 4, 12) is None
    assert reader.any_foreign(1 << 50, 16) is None and not reader.has_foreign(places)
    assert writer.try_exclusive(Range((1 << 50) + 9))
    assert reader.any_foreign(1 << 50, 16) == (1 << 50) + 9


@pytest.mark.parametrize("alone", [False, True])
def test_the_locks_of_a_killed_process_end_with_it(
    writer: RangeLocks, peer: Peer, identity: bytes, alone: bool
) -> None:
    peer(HOLDER, identity=identity, alone=alone)
    assert not writer.try_exclusive(PLACE)
    peer.kill()
    wait_until(lambda: writer.try_exclusive(PLACE), "the lock of the killed process to end")


def test_closing_releases_the_locks_and_the_handles(writer: RangeLocks, identity: bytes) -> None:
    gc.collect()
    before = descriptors()
    holder = RangeLocks(reopen(identity))
    assert holder.try_shared(PLACE) and not writer.try_exclusive(PLACE)
    holder.close()
    holder.close()
    assert writer.try_exclusive(PLACE)
    writer.unlock(PLACE)
    assert descriptors() == before


def test_locks_that_are_lost_end(writer: RangeLocks, identity: bytes) -> None:
    holder = RangeLocks(reopen(identity))
    assert holder.try_shared(PLACE) and not writer.try_exclusive(PLACE)
    del holder
    gc.collect()
    assert writer.try_exclusive(PLACE)


def test_whoever_keeps_the_hold_keeps_the_locks(writer: RangeLocks, identity: bytes) -> None:
    reader = RangeLocks(reopen(identity))
    keep = reader.hold
    assert reader.try_shared(PLACE)
    reader.close()
    assert not writer.try_exclusive(PLACE)
    reader.end_if_closed()
    assert not writer.try_exclusive(PLACE)
    del keep
    reader.end_if_closed()
    assert writer.try_exclusive(PLACE)


def test_many_ranges_leave_nothing_in_memory(reader: RangeLocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_range_locks, "_MOST_PINNED", 8)
    kept = Range(7)
    assert reader.try_shared(kept)
    for number in range(100, 150):
        reader.try_shared(Range(number))
        reader.unlock(Range(number))
    assert len(reader._pinned) <= 9 and len(reader._locks) <= 9
    assert reader._pinned[7].owners


def test_the_directory_outlives_its_creator_and_ends_with_the_last_opening(identity: bytes) -> None:
    first = RangeLocks(create(identity, None))
    reader = RangeLocks(reopen(identity))
    assert reader.try_shared(PLACE)
    first.close()
    late, second = RangeLocks(reopen(identity)), RangeLocks(create(identity, None))
    assert not second.try_exclusive(PLACE) and late.try_shared(PLACE)
    for locks in (reader, late, second):
        locks.close()
    with pytest.raises(NameNotFoundError, match="start the writer"):
        reopen(identity)


def test_a_name_has_one_taker_until_that_has_ended(identity: bytes, peer: Peer) -> None:
    first = take_name(identity, "writer", None)
    assert first is not None and take_name(identity, "writer", None) is None
    first.close()
    peer(
        "from extmem.devices.host.windows_range_locks import take_name\n"
        "taken = take_name(identity, 'writer', None)\ntaken is not None",
        identity=identity,
    )
    assert take_name(identity, "writer", None) is None
    peer.kill()
    wait_until(lambda: (found := take_name(identity, "writer", None)) and not found.close(), "the name to be free")


def test_an_object_of_another_type_in_the_name_counts_as_a_lock(writer: RangeLocks, reader: RangeLocks) -> None:
    made = (HANDLE * 1)()
    how = directories.inside(reader.owner.fd, f"{1 << 40:x}")
    assert ntdll.NtCreateSemaphore(made, 1, how, 0, 1) == 0
    try:
        assert not writer.try_exclusive(PLACE) and not reader.try_shared(PLACE)
        assert writer.any_foreign(1 << 40, 1) == 1 << 40
    finally:
        calls.close_handle(made[0])
    assert writer.try_exclusive(PLACE)
