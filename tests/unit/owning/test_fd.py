"""`OwnedFd`: one constructor owns a number, or the first number of an iterator."""

from __future__ import annotations

import errno
import os
from itertools import starmap

import pytest

from extmem.errors import OutOfMemoryError
from extmem.owning import OwnedFd, out_of_descriptors, require_fds

pytestmark = pytest.mark.linux_only("its numbers are file descriptors of memory files")


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_it_owns_the_first_number_of_an_iterator_and_no_other() -> None:
    numbers = iter([os.memfd_create("a"), os.memfd_create("b")])
    first = OwnedFd(numbers=numbers)
    (second,) = numbers
    assert first.owes and is_open(first.fd) and first.fd != second
    number = first.fd
    first.close()
    assert not is_open(number) and is_open(second)
    os.close(second)


def test_it_owns_what_a_call_opens() -> None:
    owned = OwnedFd(numbers=starmap(os.memfd_create, (("a",),)))
    number = owned.fd
    assert is_open(number)
    del owned
    assert not is_open(number)


def test_a_call_that_fails_leaves_nothing_owned() -> None:
    with pytest.raises(FileNotFoundError):
        OwnedFd.of(os.open, "/nowhere/at/all", os.O_RDONLY)
    assert OwnedFd(numbers=()).fd == -1 and not OwnedFd().owes


def test_a_need_beyond_the_limit_is_told_before_anything_is_opened() -> None:
    used, limit = len(os.listdir("/proc/self/fd")) - 1, os.sysconf("SC_OPEN_MAX")
    require_fds(limit - used, "this")
    with pytest.raises(
        OutOfMemoryError, match=rf"^this needs {limit} file .* has {used} open, and its limit is {limit};"
    ):
        require_fds(limit, "this")


@pytest.mark.parametrize(
    ("number", "needed", "told"),
    [
        (errno.EMFILE, 0, "no file descriptor is left .*ulimit -n"),
        (errno.ENFILE, 205, r"205 are needed at once, this process has \d+ open, and its limit is \d+; .*ulimit -n"),
        (errno.ETOOMANYREFS, 205, r"on their way to processes .*at most \d+ may be.*, and 205 are sent; .*ulimit -n"),
    ],
)
def test_an_error_for_too_many_file_descriptors_tells_need_and_limit(number: int, needed: int, told: str) -> None:
    error = out_of_descriptors(OSError(number, os.strerror(number)), "recvmsg", needed)
    assert isinstance(error, OutOfMemoryError) and error.command == "recvmsg"
    with pytest.raises(OutOfMemoryError, match=told):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    other = OSError(errno.EBADF, "bad")
    assert out_of_descriptors(other, "dup", 5) is other
