"""Byte-range locks of a file on Windows. Channels do not use them yet: `reopen` refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem.errors import UnsupportedError
from extmem.owning import OwnedFd

__all__ = ["Range", "RangeLocks", "create", "reopen"]


def _refuse() -> UnsupportedError:
    return UnsupportedError(
        "channels need locks of a file's bytes that end with their process, and this release of extmem has them for "
        "Linux alone; share memory and a timeline (extmem.share, Device.timeline) instead",
        requires_one_of=["Linux"],
    )


def create() -> OwnedFd:
    """Raise UnsupportedError."""
    raise _refuse()


def reopen(fd: int, *, writable: bool) -> OwnedFd:
    """Raise UnsupportedError."""
    raise _refuse()


class Range:
    """A range of bytes."""

    __slots__ = ("exclusive", "none", "shared")

    def __init__(self, start: int, length: int = 1) -> None:
        self.shared = self.exclusive = self.none = b""


class RangeLocks:
    """The locks of one open file. None can be made: `reopen` refuses."""

    __slots__ = ("hold", "owner")

    call: Callable[..., Any] = staticmethod(int)
    """The function that locks and unlocks, with the arguments of `shared`, `exclusive` and `unlocking`."""

    def __init__(self, owner: OwnedFd) -> None:
        self.owner = owner
        self.hold: Any = None
        raise _refuse()

    def try_shared(self, place: Range) -> bool:
        """Raise UnsupportedError."""
        raise _refuse()

    def try_exclusive(self, place: Range) -> bool:
        """Raise UnsupportedError."""
        raise _refuse()

    def unlock(self, place: Range) -> None:
        """Raise UnsupportedError."""
        raise _refuse()

    def shared(self, place: Range) -> tuple[Any, ...]:
        """Raise UnsupportedError."""
        raise _refuse()

    def exclusive(self, place: Range) -> tuple[Any, ...]:
        """Raise UnsupportedError."""
        raise _refuse()

    def unlocking(self, place: Range) -> tuple[Any, ...]:
        """Raise UnsupportedError."""
        raise _refuse()

    def has_foreign(self, place: Range) -> bool:
        """Raise UnsupportedError."""
        raise _refuse()

    def any_foreign(self, start: int, length: int) -> int | None:
        """Raise UnsupportedError."""
        raise _refuse()

    def end_if_closed(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
