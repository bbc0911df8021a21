"""The broker's descriptors: what may be a payload, who gets which, and that read-only means it."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extmem.broker import payloads as module
from extmem.broker.payloads import Payloads, inspect, is_writable
from extmem.broker.wire import READ_ONLY, READ_WRITE, Kind
from extmem.objects import Refused, Status
from extmem.testing.leaks import descriptors

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
    assert not descriptors().items() - before.items()


@pytest.fixture
def kept() -> Iterator[Payloads]:
    payloads = Payloads()
    yield payloads
    payloads.close()


def test_a_sealed_memfd_is_a_payload_known_by_its_inode() -> None:
    fd = memfd()
    found = os.fstat(fd)
    assert inspect(1, fd, 0, 1000) == (Kind.HOST, (found.st_dev, found.st_ino))
    os.close(fd)


def unsealed() -> int:
    return memfd(seals=0)


def half_sealed() -> int:
    return memfd(seals=fcntl.F_SEAL_GROW)


def empty() -> int:
    return memfd(size=0)


def a_socket() -> int:
    return socket.socket(socket.AF_UNIX).detach()


def a_pipe() -> int:
    ours, theirs = os.pipe()
    os.close(theirs)
    return ours


def a_directory() -> int:
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


def a_device() -> int:
    return os.open("/dev/zero", os.O_RDWR)


def a_file() -> int:
    return os.open(Path(__file__), os.O_RDONLY)


@pytest.mark.parametrize("make", [unsealed, half_sealed, empty, a_socket, a_pipe, a_directory, a_device, a_file])
def test_nothing_else_is(make: Callable[[], int]) -> None:
    fd = make()
    try:
        with pytest.raises(Refused) as caught:
            inspect(1, fd, 0, 1000)
        assert caught.value.status is Status.INVALID_PARAMETER and "memfd_create" in caught.value.detail
    finally:
        os.close(fd)


def test_a_drivers_descriptor_may_be_a_device_or_a_memfd_but_no_socket() -> None:
    for make in (a_device, memfd, a_file):
        fd = make()
        found = os.fstat(fd)
        assert inspect(Kind.OPAQUE, fd, 0, 1000) == (Kind.OPAQUE, (found.st_dev, found.st_ino))
        os.close(fd)
    for make in (a_socket, a_directory, a_pipe):
        fd = make()
        with pytest.raises(Refused):
            inspect(Kind.OPAQUE, fd, 0, 1000)
        os.close(fd)


def test_a_stated_identity_is_one_users_own() -> None:
    fd = a_device()
    assert inspect(Kind.OPAQUE, fd, 77, 1000) == inspect(Kind.OPAQUE, fd, 77, 1000)
    assert inspect(Kind.OPAQUE, fd, 77, 1000)[1] != inspect(Kind.OPAQUE, fd, 77, 1001)[1]
    os.close(fd)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Refused, match="kind 99"):
        inspect(99, 0, 0, 1000)


def test_readers_get_a_descriptor_that_the_kernel_lets_nobody_write_through(kept: Payloads) -> None:
    kept.add(1, Kind.HOST, memfd())
    fd = kept.fd_for(1, kept.mode_for(1, False))
    assert not is_writable(Kind.HOST, fd)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, SIZE)
    with pytest.raises(OSError):
        os.pwrite(fd, b"x", 0)
    with mmap.mmap(fd, SIZE, prot=mmap.PROT_READ) as reading, pytest.raises(TypeError):
        reading[0] = 1


def test_readers_cannot_open_it_again_for_writing(kept: Payloads) -> None:
    kept.add(1, Kind.HOST, memfd())
    fd = kept.fd_for(1, READ_ONLY)
    assert os.fstat(fd).st_mode & 0o777 == 0o400
    with pytest.raises(PermissionError):
        os.open(f"/proc/self/fd/{fd}", os.O_RDWR)


def test_writers_still_can_write_and_map(kept: Payloads) -> None:
    kept.add(1, Kind.HOST, memfd())
    fd = kept.fd_for(1, kept.mode_for(1, True))
    with mmap.mmap(fd, SIZE) as writing:
        writing[:2] = b"ok"
    assert os.pread(kept.fd_for(1, READ_ONLY), 2, 0) == b"ok"


def test_a_drivers_descriptor_goes_out_as_it_came(kept: Payloads) -> None:
    fd = a_device()
    kept.add(1, Kind.OPAQUE, fd)
    assert kept.mode_for(1, False) == READ_WRITE and kept.fd_for(1, READ_ONLY) == fd


def test_the_size_of_a_sealed_file_is_told_and_a_drivers_is_not_known(kept: Payloads) -> None:
    kept.add(1, Kind.HOST, memfd())
    kept.add(2, Kind.OPAQUE, a_device())
    assert (kept.capacity(1), kept.capacity(2)) == (SIZE, 0)


def test_the_second_descriptor_of_a_payload_is_closed(kept: Payloads) -> None:
    first = memfd()
    kept.add(1, Kind.HOST, first)
    kept.add(1, Kind.HOST, os.dup(first))
    assert len(kept) == 1 and kept.fds == 1 and kept.fd_for(1, READ_WRITE) == first


def test_a_writable_one_replaces_a_read_only_one(kept: Payloads) -> None:
    writing = memfd()
    kept.add(1, Kind.HOST, os.open(f"/proc/self/fd/{writing}", os.O_RDONLY))
    assert not kept.writable(1) and kept.mode_for(1, True) == READ_ONLY
    kept.add(1, Kind.HOST, writing)
    assert kept.writable(1) and kept.mode_for(1, True) == READ_WRITE


def test_the_owner_of_the_file_can_bring_a_writable_one_back(kept: Payloads) -> None:
    writing = memfd()
    kept.add(1, Kind.HOST, os.open(f"/proc/self/fd/{writing}", os.O_RDONLY))
    os.close(writing)
    kept.upgrade(1, os.geteuid() + 1)
    assert not kept.writable(1)
    kept.upgrade(1, os.geteuid())
    assert kept.writable(1) and os.fstat(kept.fd_for(1, READ_WRITE)).st_mode & 0o777 == 0o400


def test_read_only_descriptors_are_kept_up_to_a_number(kept: Payloads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_ONLY_CACHE", 2)
    for payload in (1, 2, 3):
        kept.add(payload, Kind.HOST, memfd())
    first = kept.fd_for(1, READ_ONLY)
    kept.fd_for(2, READ_ONLY)
    assert kept.fd_for(1, READ_ONLY) == first
    kept.fd_for(3, READ_ONLY)  # now the one of 2, which was not asked for as lately, goes
    assert kept.fds == 5 and kept.fd_for(1, READ_ONLY) == first


def test_what_is_released_is_closed(kept: Payloads) -> None:
    kept.add(1, Kind.HOST, memfd())
    kept.fd_for(1, READ_ONLY)
    kept.drop([1, 2])
    assert len(kept) == 0 and kept.fds == 0 and 1 not in kept
