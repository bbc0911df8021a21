"""Checks of arguments: numbers of handles and file descriptors."""

from __future__ import annotations

from typing import Final

from extmem.arguments import a_type, integer_of
from extmem.errors import HandleStateError

__all__ = ["fd_number", "handle_number"]

_FD_MAX: Final = (1 << 31) - 1


def handle_number(value: object, what: str) -> int:
    """Return the number of a handle as an int. what: the kind of handle. Errors: TypeError for other types."""
    number = integer_of(value)
    if number is None:
        raise TypeError(f"{value!r} is {a_type(value)}; give the number of {what} as an int")
    return number


def fd_number(fd: object) -> int:
    """Return a file descriptor as an int. Errors: TypeError for other types; HandleStateError out of the range of C."""
    number = handle_number(fd, "a file descriptor")
    if number < 0:
        raise HandleStateError(
            f"{number} is not a file descriptor: those are 0 or greater; the call that made it failed"
        )
    if number > _FD_MAX:
        raise HandleStateError(f"{number} is not a file descriptor: those are at most {_FD_MAX}; pass one that is open")
    return number
