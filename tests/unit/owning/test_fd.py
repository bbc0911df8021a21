"""`OwnedFd`: one constructor owns a number, or the first number of an iterator."""

from __future__ import annotations

import os
from itertools import starmap

import pytest

from extmem.owning import OwnedFd

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
