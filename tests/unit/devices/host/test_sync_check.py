"""What an fd of a semaphore or fence is, and what it is refused for."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator

import pytest

from extmem.devices.host import memfd, sync_check
from extmem.devices.host.timeline_page import FILE_SIZE, create_page
from extmem.owning import OwnedFd
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import ObjectKind
from extmem.vk.handle_types import FENCE_SYNC_FD, SEMAPHORE_OPAQUE_FD, SEMAPHORE_SYNC_FD

EVENT = os.EFD_NONBLOCK | os.EFD_CLOEXEC
BINARY = "a binary semaphore of the host is an eventfd"


def described(*, timeline: bool, host: bool, object_kind: int = ObjectKind.SEMAPHORE) -> SyncDescriptor:
    return SyncDescriptor(object_kind=object_kind, handle_types=1, timeline=timeline, host=host)


def pipe() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


@pytest.fixture
def made() -> Iterator[Callable[[Callable[[], int]], int]]:
    """Make an fd, and close it at the end."""
    fds: list[int] = []

    def make(how: Callable[[], int]) -> int:
        fds.append(how())
        return fds[-1]

    yield make
    for fd in fds:
        os.close(fd)


def test_an_eventfd_is_found_and_identified(made: Callable[..., int]) -> None:
    fd, other = (made(lambda: os.eventfd(0, EVENT)) for _ in range(2))
    copy = made(lambda: os.dup(fd))
    found = sync_check.examine(fd, SEMAPHORE_OPAQUE_FD)
    assert (found.valid, found.writable, found.handle_type, found.self_describing) == (True, True, 1, False)
    assert found.identity == sync_check.examine(copy, SEMAPHORE_OPAQUE_FD, fence=True).identity
    assert found.identity != sync_check.examine(other, SEMAPHORE_OPAQUE_FD).identity


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (pipe, f"is a pipe, and {BINARY}"),
        (lambda: os.open("/dev/null", os.O_RDWR), f"is a device, and {BINARY}"),
        (lambda: os.open("/proc/self/stat", os.O_RDONLY), f"is an ordinary file, and {BINARY}"),
        (lambda: create_page().take(), f"is a memory file, and {BINARY}"),
        (lambda: os.pidfd_open(os.getpid()), f"is .*, and {BINARY}"),
        (lambda: os.eventfd(0), r"is an eventfd that blocks \(EFD_NONBLOCK is missing\)"),
    ],
)
def test_S60_another_file_is_no_event(how: Callable[[], int], problem: str, made: Callable[..., int]) -> None:
    assert_problem(sync_check.examine(made(how), SEMAPHORE_OPAQUE_FD).problem, problem)


def assert_problem(problem: str, expected: str) -> None:
    assert re.search(expected, problem), problem


def test_a_closed_fd_is_told() -> None:
    assert "is not open in this process" in sync_check.examine(9999, SEMAPHORE_OPAQUE_FD).problem
    assert "is not open in this process" in sync_check.examine(9999, SEMAPHORE_OPAQUE_FD, timeline=True).problem
    assert "is not open in this process" in sync_check.examine(-1, SEMAPHORE_OPAQUE_FD).problem


def test_S18_a_file_of_the_type_SYNC_FD_does_not_exist_here(made: Callable[..., int]) -> None:
    fd = made(lambda: os.eventfd(0, EVENT))
    for handle_type in (SEMAPHORE_SYNC_FD, FENCE_SYNC_FD):
        assert "of SYNC_FD only -1" in sync_check.examine(fd, handle_type).problem
        assert sync_check.examine(-1, handle_type).valid


def test_a_timeline_describes_itself() -> None:
    descriptor = described(timeline=True, host=True).encode()
    file = create_page(0, descriptor)
    found = sync_check.examine(file.fd, SEMAPHORE_OPAQUE_FD, timeline=True)
    assert (found.problem, found.descriptor, found.writable, found.size) == ("", descriptor, True, FILE_SIZE)
    reading = OwnedFd.open(f"/proc/self/fd/{file.fd}", os.O_RDONLY)
    assert not sync_check.examine(reading.fd, SEMAPHORE_OPAQUE_FD, timeline=True).writable
    file = create_page()
    assert sync_check.examine(file.fd, SEMAPHORE_OPAQUE_FD, timeline=True).valid


def of_another_kind() -> list[tuple[SyncDescriptor, str]]:
    return [
        (described(timeline=False, host=True), "a binary semaphore by its self-description"),
        (described(object_kind=ObjectKind.FENCE, timeline=False, host=True), "a fence by its self-description"),
        (described(timeline=True, host=False), "not a timeline of the host"),
    ]


@pytest.mark.parametrize(("descriptor", "problem"), of_another_kind())
def test_S61_what_says_to_be_another_kind_is_no_timeline(descriptor: SyncDescriptor, problem: str) -> None:
    file = create_page(0, descriptor.encode())
    assert_problem(sync_check.examine(file.fd, SEMAPHORE_OPAQUE_FD, timeline=True).problem, problem)


def test_S26_memory_is_no_timeline(made: Callable[..., int]) -> None:
    def problem(fd: int) -> str:
        return sync_check.examine(fd, SEMAPHORE_OPAQUE_FD, timeline=True).problem

    memory, larger = memfd.create(memfd.PAGE, b"of memory"), memfd.create(2 * memfd.PAGE, b"")
    assert_problem(problem(memory.fd), "not a timeline by its self-description")
    assert_problem(problem(larger.fd), f"of {3 * memfd.PAGE} bytes; a timeline of the host")

    def bare() -> int:
        fd = os.memfd_create("bare", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, FILE_SIZE)
        return fd

    fd = made(bare)
    assert_problem(problem(fd), "whose size can still change")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, memfd.SEALS)
    assert_problem(problem(fd), "the last page does not begin with the mark of a payload")
    assert_problem(problem(made(lambda: os.eventfd(0, EVENT))), "a payload is a sealed memory file")
