"""Byte-range locks of a file on Linux: locks of an open file description (F_OFD_SETLK), which the kernel keeps.

How this works. A lock belongs to the description that `reopen` made, which nobody else has: it is closed in a child
that executes a program, and is never sent: the object manager has another one. So the kernel releases its locks with
the process, however that ends. A description that is open for reading alone takes shared locks and no exclusive ones
(EBADF); the ranges may be beyond the end of the file, and of sealed files. Releasing and taking the lock of one range
go through one lock of the kernel, which orders the bytes that were written before the release for whoever takes the
lock afterwards.

The description is not a forked child's, although it has a copy of the fd: the child would release locks of its parent.
So the number is that of an empty file in the child (`_LockFd`), until the child's copy of the owner has ended: calls
that were prepared before the fork release nothing there, neither locks of the parent nor those that the child takes.

The structs of the calls are made once for each range, because the calls are in the path of each frame.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from extmem.devices.host import memfd
from extmem.errors import UnsupportedError
from extmem.owning import OwnedFd, late_imports

if sys.platform != "linux":
    raise ImportError("these locks are Linux's; extmem.devices.host.range_lock_system picks what the platform has")

import fcntl

__all__ = ["Range", "RangeLocks", "create", "reopen"]

_GETLK, _SETLK = 36, 37
"""F_OFD_GETLK and F_OFD_SETLK, for which the standard library has names since 3.9 only where its C library has them."""
_FLOCK: Final = struct.Struct("=hhiqqii")
"""struct flock of 64-bit systems: l_type, l_whence, padding, l_start, l_len, l_pid, padding."""
_SHARED, _EXCLUSIVE, _NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
_UNLOCKED: Final = struct.pack("=h", _NONE)
_BUSY: Final = frozenset((errno.EAGAIN, errno.EACCES))

_fcntl = fcntl.fcntl


def create() -> OwnedFd:
    """Create a file for locks alone, and return its fd, which the caller owns. Errors: OutOfMemoryError.

    It is sealed against writing. Its mode permits this user to open it again for exclusive locks, and others for shared
    ones.
    """
    file = memfd.create(1, b"", final=True)
    os.fchmod(file.fd, 0o644)
    return file


def reopen(fd: int, *, writable: bool) -> OwnedFd:
    """Return a new open file description of a file of `create`, which only the caller has. The fd is borrowed.

    writable: whether exclusive locks are to be taken.
    Errors: UnsupportedError where /proc is not mounted; AccessDeniedError for exclusive locks of the file of another
    user; OutOfMemoryError.
    """
    try:
        return _LockFd.open(f"/proc/self/fd/{fd}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UnsupportedError(
            "a channel opens the file of its locks once more through /proc/self/fd, which is not there; mount /proc",
            requires_one_of=["/proc"],
        ) from None
    except PermissionError as error:
        with late_imports():
            from extmem.objects import Status, error_for

        raise error_for(
            Status.ACCESS_DENIED,
            f"The locks of this channel may not be taken by this user ({error.strerror}): they belong to the user that "
            "created it, who alone can be its writer. Open it by extmem.open_channel, to read.",
        ) from None
    except OSError as error:
        raise memfd.out_of_memory(error, "open", "another description of a memory file") from error


class _LockFd(OwnedFd):
    """The fd of a description that has locks. See the module."""

    __slots__ = ()

    def in_forked_child(self) -> None:
        """See `Owner`. The child owns an empty file of this number instead."""
        if not self.owes:
            return
        os.close(self.fd)  # first: the process may have as many files open as it may
        try:
            empty = os.memfd_create("extmem-forked", os.MFD_CLOEXEC)
        except OSError:
            self.forget()  # the number is free
            raise
        if empty != self.fd:
            os.dup2(empty, self.fd, inheritable=False)
            os.close(empty)


class Range:
    """A range of bytes, with the structs that lock and unlock it."""

    __slots__ = ("exclusive", "none", "shared")

    def __init__(self, start: int, length: int = 1) -> None:
        self.shared, self.exclusive, self.none = (
            _FLOCK.pack(kind, os.SEEK_SET, 0, start, length, 0, 0) for kind in (_SHARED, _EXCLUSIVE, _NONE)
        )


class RangeLocks:
    """The locks of one open file description. Ownership: it owns the description until `close`."""

    __slots__ = ("_fd", "hold", "owner")

    call: Callable[..., Any] = staticmethod(_fcntl)
    """The C function that locks and unlocks, with the arguments of `shared`, `exclusive` and `unlocking`: for the path
    of each frame. It raises BlockingIOError if somebody else has the range. The caller keeps `hold` meanwhile."""

    def __init__(self, owner: OwnedFd) -> None:
        """owner: of `reopen`."""
        self.owner = owner
        self.hold: Any = owner.hold()
        """The hold on the description. Whoever keeps it keeps the locks, and may use `call`."""
        self._fd = owner.fd

    def try_shared(self, place: Range) -> bool:
        """Lock the range together with others, unless somebody has it exclusively. Return whether it is locked."""
        try:
            _fcntl(self._fd, _SETLK, place.shared)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
        return True

    def try_exclusive(self, place: Range) -> bool:
        """Lock the range alone, unless another description has a lock there. Return whether it is locked.

        Errors: OSError (EBADF) for a description that is open for reading alone.
        """
        try:
            _fcntl(self._fd, _SETLK, place.exclusive)
        except OSError as error:
            if error.errno not in _BUSY:
                raise
            return False
        return True

    def unlock(self, place: Range) -> None:
        """Release this description's lock of the range, if there is one. Nothing happens after `close`."""
        if self.hold is not None:
            _fcntl(self._fd, _SETLK, place.none)

    def shared(self, place: Range) -> tuple[Any, ...]:
        """Return the arguments of `call` that lock the range together with others."""
        return (self._fd, _SETLK, place.shared)

    def exclusive(self, place: Range) -> tuple[Any, ...]:
        """Return the arguments of `call` that lock the range alone."""
        return (self._fd, _SETLK, place.exclusive)

    def unlocking(self, place: Range) -> tuple[Any, ...]:
        """Return the arguments of `call` that unlock the range."""
        return (self._fd, _SETLK, place.none)

    def has_foreign(self, place: Range) -> bool:
        """Return whether another description has a lock in this range. The path of each frame."""
        answer: bytes = _fcntl(self._fd, _GETLK, place.exclusive)
        return answer[:2] != _UNLOCKED

    def any_foreign(self, start: int, length: int) -> int | None:
        """Return where a lock of another description begins in these bytes (`start` if it begins before); None without.

        Of several, it is any.

        A lock of this description is not seen.
        """
        asked = _FLOCK.pack(_EXCLUSIVE, os.SEEK_SET, 0, start, length, 0, 0)
        kind, _, _, found, _, _, _ = _FLOCK.unpack(_fcntl(self._fd, _GETLK, asked))
        return None if kind == _NONE else max(start, int(found))

    def end_if_closed(self) -> None:
        """Close the description if `close` has left it to a hold that has ended now."""
        if self.owner.closing:
            self.owner.try_to_end()

    def close(self) -> None:
        """End the hold. The description is closed, and its locks end, when nobody else holds it. Safe to call twice."""
        self.hold = None
        self.owner.end()
