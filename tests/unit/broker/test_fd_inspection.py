"""What an fd leads to, whatever a message claims, and which file may be a payload of which kind."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extmem.broker import fd_inspection
from extmem.broker.fd_inspection import ALLOWED, Sort, inspect, is_writable, look
from extmem.objects import Refused, Status
from extmem.sharing.kinds import Backing
from extmem.testing.leaks import descriptors
from extmem.wire import BY_RIGHTS, READ_ONLY, READ_WRITE

SIZE = mmap.PAGESIZE
SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
FUTURE_WRITE = 0x10


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    assert not descriptors().items() - before.items()


def memfd(seals: int = SEALED, size: int = SIZE, flags: int = 0) -> int:
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
    os.ftruncate(fd, size)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def again(flags: int) -> int:
    """Open a sealed memfd again, as another open file description."""
    fd = memfd()
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
    finally:
        os.close(fd)


def unsealed() -> int:
    return memfd(seals=0)


def half_sealed() -> int:
    return memfd(seals=fcntl.F_SEAL_GROW)


def empty() -> int:
    return memfd(size=0)


def huge() -> int:
    return memfd(size=1 << 21, flags=os.MFD_HUGETLB)


def reading() -> int:
    return again(os.O_RDONLY)


def write_only() -> int:
    return again(os.O_WRONLY)


def by_path_alone() -> int:
    return again(os.O_PATH)


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


def a_file_in_shm() -> int:
    path = f"/dev/shm/extmem-test-{os.getpid()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    os.ftruncate(fd, SIZE)
    return fd


def an_event() -> int:
    return os.eventfd(0)


def a_process() -> int:
    return os.pidfd_open(os.getpid())


def a_namespace() -> int:
    return os.open("/proc/self/ns/mnt", os.O_RDONLY)


ALL = (
    memfd, unsealed, half_sealed, empty, huge, reading, write_only, by_path_alone, a_socket, a_pipe, a_directory,
    a_device, a_file, a_file_in_shm, an_event, a_process, a_namespace,
)  # fmt: skip
MEMORY_FILES = (memfd, unsealed, half_sealed, empty, reading, write_only, by_path_alone)
READABLE = (memfd, unsealed, half_sealed, empty, reading)
GOOD = {
    Backing.HOST_FILE: (memfd, reading),
    Backing.DRIVER_FD: (*READABLE, a_device),
    Backing.HOST_EVENT: (an_event,),
}
FILES = (Backing.HOST_FILE, Backing.DRIVER_FD)
REMEDY = {
    Backing.HOST_FILE: "memfd_create",
    Backing.DRIVER_FD: "that the driver returned",
    Backing.HOST_EVENT: "Export an eventfd",
}


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_what_sort_of_file_it_is(make: Callable[[], int]) -> None:
    fd = make()
    known = {a_device: Sort.DEVICE, a_process: Sort.PROCESS, an_event: Sort.EVENT, a_pipe: Sort.PIPE} | dict.fromkeys(
        MEMORY_FILES, Sort.MEMFD
    )
    assert look(fd) is known.get(make, Sort.STRANGE)
    os.close(fd)


@pytest.mark.parametrize("kind", Backing)
@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_what_may_be_a_payload_of_each_kind(make: Callable[[], int], kind: Backing) -> None:
    fd = make()
    try:
        if make in GOOD[kind]:
            assert inspect(kind, [fd], 0, 1000).backing is kind
            return
        with pytest.raises(Refused) as caught:
            inspect(kind, [fd], 0, 1000)
        assert caught.value.status is Status.INVALID_PARAMETER
        assert REMEDY[kind] in caught.value.detail
    finally:
        os.close(fd)


def test_every_kind_states_which_files_it_may_be() -> None:
    assert set(ALLOWED) == set(Backing)
    assert not any(sorts & {Sort.STRANGE, Sort.PROCESS} for sorts in ALLOWED.values())


@pytest.mark.parametrize("kind", FILES)
def test_a_memory_file_is_known_by_its_inode_whatever_kind_and_identity_are_claimed(kind: Backing) -> None:
    fd = memfd()
    found = os.fstat(fd)
    for stated in (0, 77):
        given = inspect(kind, [fd], stated, 1000)
        assert given.identity == ((found.st_dev, found.st_ino),) and given.unique
    os.close(fd)


@pytest.mark.parametrize("kind", FILES)
def test_it_is_worth_what_its_own_open_mode_and_seals_are(kind: Backing) -> None:
    for make, writable in ((memfd, True), (reading, False)):
        fd = make()
        assert inspect(kind, [fd], 0, 1000).writable is writable is is_writable(fd)
        os.close(fd)
    for seal in (fcntl.F_SEAL_WRITE, FUTURE_WRITE):
        fd = memfd(SEALED | seal)
        assert not inspect(kind, [fd], 0, 1000).writable and not is_writable(fd)
        os.close(fd)


def test_the_size_of_a_sealed_file_is_told_and_a_drivers_is_not_known() -> None:
    for make, kind, size in ((memfd, Backing.HOST_FILE, SIZE), (a_device, Backing.DRIVER_FD, 0)):
        fd = make()
        assert inspect(kind, [fd], 0, 1000).capacity == size
        os.close(fd)


def test_a_stated_identity_is_one_users_own() -> None:
    fd = a_device()
    assert inspect(Backing.DRIVER_FD, [fd], 77, 1000).identity == inspect(Backing.DRIVER_FD, [fd], 77, 1000).identity
    assert inspect(Backing.DRIVER_FD, [fd], 77, 1000).identity != inspect(Backing.DRIVER_FD, [fd], 77, 1001).identity
    os.close(fd)


def test_without_one_two_descriptors_of_a_device_are_two_payloads() -> None:
    """All fds of a device node have one inode: an exporter must not be given another's payload."""
    fd, other = a_device(), a_device()
    assert inspect(Backing.DRIVER_FD, [fd], 0, 1000).identity != inspect(Backing.DRIVER_FD, [other], 0, 1001).identity
    assert not inspect(Backing.DRIVER_FD, [fd], 0, 1000).unique
    os.close(fd)
    os.close(other)


def test_S32_an_eventfd_is_known_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = os.eventfd(0), os.eventfd(1, os.EFD_SEMAPHORE)
    again = os.dup(first)
    given = [inspect(Backing.HOST_EVENT, [fd], 77, 1000) for fd in (first, again, second)]
    assert given[0].identity == given[1].identity != given[2].identity
    assert given[0].unique and given[0].writable and not given[0].capacity
    info = fd_inspection._info
    monkeypatch.setattr(fd_inspection, "_info", lambda fd: info(fd).replace(b"eventfd-id", b"none"))  # an old kernel
    old = inspect(Backing.HOST_EVENT, [first], 77, 1000)
    assert not old.unique and old.identity == inspect(Backing.HOST_EVENT, [again], 77, 1000).identity
    for fd in (first, second, again):
        os.close(fd)


def test_a_page_by_rights_decides_the_right_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    event, page, read_only = os.eventfd(0), memfd(), reading()
    assert inspect(Backing.HOST_EVENT, [event, page], 0, 1000, pages=[BY_RIGHTS]).writable
    assert not inspect(Backing.HOST_EVENT, [event, read_only], 0, 1000, pages=[BY_RIGHTS]).writable
    assert inspect(Backing.HOST_EVENT, [event, read_only], 0, 1000, pages=[READ_ONLY]).writable
    for mode in (READ_WRITE, 4):
        with pytest.raises(Refused, match=f"mode {mode}"):
            inspect(Backing.HOST_EVENT, [event, read_only], 0, 1000, pages=[mode])
    for fd in (event, page, read_only):
        os.close(fd)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(Refused, match="backing 99"):
        inspect(99, [0], 0, 1000)


def test_a_device_counts_on_the_senders_mounts_too() -> None:
    fd = a_device()
    assert look(fd, os.getpid()) is Sort.DEVICE and look(fd, 2**22 + 1) is Sort.DEVICE
    os.close(fd)


def test_a_pipe_is_a_companion_page_by_its_write_end_alone() -> None:
    receiving, sending = os.pipe()
    file = memfd()
    try:
        given = inspect(Backing.HOST_FILE, [file, sending], 0, 0, pages=[READ_WRITE])
        assert given.pages == (READ_WRITE,) and given.identity[1] == (
            os.fstat(sending).st_dev,
            os.fstat(sending).st_ino,
        )
        for fd, mode in ((receiving, READ_WRITE), (sending, READ_ONLY), (sending, BY_RIGHTS)):
            with pytest.raises(Refused, match="write end of the pipe"):
                inspect(Backing.HOST_FILE, [file, fd], 0, 0, pages=[mode])
        with pytest.raises(Refused, match="a pipe"):
            inspect(Backing.HOST_FILE, [sending], 0, 0)
    finally:
        for fd in (receiving, sending, file):
            os.close(fd)


def test_the_mounts_are_read_once_for_all_files_of_one_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    before = fd_inspection._type_of

    def type_of(mount: int, mounts: str) -> bytes:
        looked.append(mount)
        return before(mount, mounts)

    monkeypatch.setattr(fd_inspection, "_type_of", type_of)
    fds = [a_device() for _ in range(50)]
    odd = a_file()
    try:
        assert len(inspect(Backing.DRIVER_FD, fds, 5, 1000).identity) == 50
        assert len(looked) == 1
        with pytest.raises(Refused, match="cannot be a payload"):
            inspect(Backing.DRIVER_FD, [*fds, odd, *fds], 5, 1000)
        assert len(looked) == 3
    finally:
        for fd in (*fds, odd):
            os.close(fd)
