"""The broker's fds: which client gets which, and that a read-only one does not allow writing."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator

import pytest

from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_inspection import inspect, is_writable
from extmem.broker.fd_quota import FdQuota
from extmem.broker.payload_fds import PayloadFds
from extmem.sharing.kinds import Backing
from extmem.testing.leaks import descriptors
from extmem.testing.waiting import wait_until
from extmem.wire import BY_RIGHTS, READ_ONLY, READ_WRITE

SIZE = mmap.PAGESIZE


def memfd(seals: int = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW, size: int = SIZE) -> int:
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    wait_until(lambda: not descriptors().items() - before.items(), "all descriptors to be closed")


@pytest.fixture
def kept() -> Iterator[PayloadFds]:
    quota = FdQuota(10_000, "here")
    payloads = PayloadFds(FdCloser(), quota)
    yield payloads
    payloads.close()
    assert quota.used == 0


def add(kept: PayloadFds, payload: int, fd: int, kind: Backing = Backing.HOST_FILE) -> None:
    if payload not in kept:
        kept._quota.take(1000, 1)
    kept.add(payload, inspect(kind, [fd], 0, 1000), [fd], 1000, 1)


def test_readers_get_a_descriptor_that_the_kernel_lets_nobody_write_through(kept: PayloadFds) -> None:
    add(kept, 1, memfd())
    fd = kept.fds_for(1, kept.mode_for(1, False))[0]
    assert not is_writable(fd)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, SIZE)
    with pytest.raises(OSError):
        os.pwrite(fd, b"x", 0)
    with mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as reading, pytest.raises(TypeError):
        reading[0] = 1


def test_a_file_sealed_against_writing_can_be_opened_again_and_not_be_changed(kept: PayloadFds) -> None:
    add(kept, 1, memfd(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE))
    fd = os.open(f"/proc/self/fd/{kept.fds_for(1, READ_ONLY)[0]}", os.O_RDWR)
    try:
        for change in (
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 0),
            lambda: os.ftruncate(fd, 2 * SIZE),
            lambda: os.posix_fallocate(fd, 0, 2 * SIZE),
            lambda: mmap.mmap(fd, SIZE),
        ):
            with pytest.raises(PermissionError):
                change()
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which is what channels need
    finally:
        os.close(fd)


def test_readers_cannot_open_it_again_for_writing(kept: PayloadFds) -> None:
    add(kept, 1, memfd())
    fd = kept.fds_for(1, READ_ONLY)[0]
    assert os.fstat(fd).st_mode & 0o777 == 0o400
    with pytest.raises(PermissionError):
        os.open(f"/proc/self/fd/{fd}", os.O_RDWR)


def test_writers_still_can_write_and_map(kept: PayloadFds) -> None:
    add(kept, 1, memfd())
    fd = kept.fds_for(1, kept.mode_for(1, True))[0]
    with mmap.mmap(fd, SIZE) as writing:
        writing[:2] = b"ok"
    assert os.pread(kept.fds_for(1, READ_ONLY)[0], 2, 0) == b"ok"


def test_a_drivers_descriptor_goes_out_as_it_came(kept: PayloadFds) -> None:
    fd = os.open("/dev/zero", os.O_RDWR)
    add(kept, 1, fd, Backing.DRIVER_FD)
    assert kept.mode_for(1, False) == READ_WRITE and kept.fds_for(1, READ_ONLY)[0] == fd


def test_the_size_of_a_sealed_file_is_told_and_a_drivers_is_not_known(kept: PayloadFds) -> None:
    add(kept, 1, memfd())
    add(kept, 2, os.open("/dev/zero", os.O_RDWR), Backing.DRIVER_FD)
    assert (kept.given(1).capacity, kept.given(2).capacity) == (SIZE, 0)


def test_the_second_descriptor_of_a_payload_is_closed(kept: PayloadFds) -> None:
    first = memfd()
    add(kept, 1, first)
    add(kept, 1, os.dup(first))
    assert len(kept) == 1 and kept.fds == 1 and kept.fds_for(1, READ_WRITE)[0] == first


def test_a_writable_one_replaces_a_read_only_one(kept: PayloadFds) -> None:
    writing = memfd()
    add(kept, 1, os.open(f"/proc/self/fd/{writing}", os.O_RDONLY))
    assert not kept.given(1).writable and kept.mode_for(1, True) == READ_ONLY
    add(kept, 1, writing)
    assert kept.given(1).writable and kept.mode_for(1, True) == READ_WRITE


def test_the_owner_of_the_file_can_bring_a_writable_one_back(kept: PayloadFds) -> None:
    writing = memfd()
    add(kept, 1, os.open(f"/proc/self/fd/{writing}", os.O_RDONLY))
    os.close(writing)
    kept.upgrade(1, os.geteuid() + 1)
    assert not kept.given(1).writable
    kept.upgrade(1, os.geteuid())
    assert kept.given(1).writable and os.fstat(kept.fds_for(1, READ_WRITE)[0]).st_mode & 0o777 == 0o400


def test_read_only_descriptors_are_kept_up_to_a_number(kept: PayloadFds, monkeypatch: pytest.MonkeyPatch) -> None:
    kept._most_read_only = 2
    for payload in (1, 2, 3):
        add(kept, payload, memfd())
    first = kept.fds_for(1, READ_ONLY)[0]
    kept.fds_for(2, READ_ONLY)[0]
    assert kept.fds_for(1, READ_ONLY)[0] == first
    kept.fds_for(3, READ_ONLY)[0]
    assert kept.fds_for(1, READ_ONLY)[0] == first
    assert kept.fds == 5, "the one of 2, which was used least recently, is closed at the next use"


def test_read_only_pages_are_kept_too_and_end_with_their_payload(kept: PayloadFds) -> None:
    add_event(kept, 1, os.eventfd(0), memfd())
    first = kept.fds_for(1, READ_ONLY)
    assert kept.fds_for(1, READ_ONLY) == first and not is_writable(first[1]) and kept.fds == 3
    kept.drop([1])
    assert kept.fds == 0


def test_what_is_released_is_closed(kept: PayloadFds) -> None:
    add(kept, 1, memfd())
    kept.fds_for(1, READ_ONLY)[0]
    kept.drop([1, 2])
    assert len(kept) == 0 and kept.fds == 0 and 1 not in kept


def add_event(kept: PayloadFds, payload: int, event: int, page: int) -> None:
    """Add an eventfd with a page by rights."""
    if payload not in kept:
        kept._quota.take(1000, 1, 2)
    fds = [event, page]
    kept.add(payload, inspect(Backing.HOST_EVENT, fds, 0, 1000, pages=[BY_RIGHTS]), fds, 1000, 1)


def test_a_page_by_rights_is_writable_only_for_importers_that_may_change_the_payload(kept: PayloadFds) -> None:
    add_event(kept, 1, os.eventfd(0), memfd())
    assert (kept.mode_for(1, False), kept.mode_for(1, True)) == (READ_ONLY, READ_WRITE)
    assert (kept.page_modes(1, READ_ONLY), kept.page_modes(1, READ_WRITE)) == ((READ_ONLY,), (READ_WRITE,))
    event, page = kept.fds_for(1, READ_ONLY)
    assert not is_writable(page) and os.stat(page).st_ino == os.stat(kept.page(1) or -1).st_ino
    assert kept.fds_for(1, READ_WRITE) == [event, kept.page(1)] and is_writable(kept.page(1) or -1)


def test_a_page_that_was_announced_read_only_becomes_writable_again(kept: PayloadFds) -> None:
    page = memfd()
    reading = os.open(f"/proc/self/fd/{page}", os.O_RDONLY | os.O_CLOEXEC)
    event = os.eventfd(0)
    add_event(kept, 1, event, reading)
    assert kept.mode_for(1, True) == READ_ONLY
    kept.upgrade(1, os.geteuid())
    assert kept.mode_for(1, True) == READ_WRITE and is_writable(kept.page(1) or -1)
    other = os.open(f"/proc/self/fd/{page}", os.O_RDONLY | os.O_CLOEXEC)
    add_event(kept, 2, os.dup(event), other)
    add_event(kept, 2, os.dup(event), page)  # another client announces a writable one
    assert kept.page(2) == page and kept.mode_for(2, True) == READ_WRITE


def test_the_page_is_the_payload_itself_or_its_first_companion_page(kept: PayloadFds) -> None:
    add(kept, 1, memfd())
    add(kept, 2, os.eventfd(0), Backing.HOST_EVENT)
    assert kept.page(1) == kept.fds_for(1, READ_WRITE)[0] and kept.page(2) is None
