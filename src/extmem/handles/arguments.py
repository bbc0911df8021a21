"""Checks of arguments: flags, and numbers of handles and file descriptors."""

from __future__ import annotations

import operator
from typing import Final

from extmem.errors import HandleStateError

__all__ = ["check_flag", "fd_number", "handle_number"]

_FD_MAX: Final = (1 << 31) - 1


def check_flag(value: object, what: str) -> None:
    """Raise TypeError for a flag that is not a bool: other values are usually another argument by mistake."""
    if not isinstance(value, bool):
        raise TypeError(f"{what} is {value!r}, a {type(value).__name__}; give True or False")


def handle_number(value: object, what: str) -> int:
    """Return the number of a handle as an int. what: the kind of handle. Errors: TypeError for other types."""
    try:
        return operator.index(value)  # type: ignore[arg-type]  # this is the check of the type
    except TypeError:
        raise TypeError(f"{value!r} is a {type(value).__name__}; give the number of {what} as an int") from None


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
