"""Owners of fds close them, once."""

from __future__ import annotations

import os

import pytest

from extmem.errors import HandleStateError
from extmem.owning import OwnedFd
from extmem.sharing.payload import PayloadFd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_an_owner_closes_when_it_is_lost() -> None:
    fd = os.memfd_create("x")
    owner = OwnedFd(fd)
    assert is_open(owner.fd)
    del owner
    assert not is_open(fd)


def test_what_was_taken_stays_open() -> None:
    owner = OwnedFd(os.memfd_create("x"))
    fd = owner.take()
    owner.close()
    del owner
    assert is_open(fd)
    os.close(fd)


def test_the_last_hold_closes() -> None:
    fd = os.memfd_create("x")
    owner = OwnedFd(fd)
    first, second = PayloadFd(owner, True), PayloadFd(owner, True)
    del owner
    first.close()
    first.close()
    assert first.closed and not second.closed and second.fd == second.fileno() == fd and is_open(fd)
    second.close()
    assert not is_open(fd)


def test_a_closed_hold_reports_it() -> None:
    hold = PayloadFd(OwnedFd(os.memfd_create("x")), False)
    assert "read-only" in repr(hold) and not hold.writable
    hold.close()
    assert "closed" in repr(hold)
    with pytest.raises(HandleStateError, match="import the payload again"):
        _ = hold.fd
