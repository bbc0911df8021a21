"""`FdHandle`: a POSIX file descriptor that refers to a payload and owns a reference to it."""

from __future__ import annotations

import os
import stat

import msgspec

from extmem.errors import HandleStateError
from extmem.handles._linux import same_open_file
from extmem.handles._owned import OPEN, OwnedHandle
from extmem.handles.fds import duplicate
from extmem.handles.here import HERE

__all__ = ["FdHandle", "FdPayload"]


class FdPayload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What travels with an fd whose file cannot carry its own description: a GPU driver's.

    (A Struct because it is made in C: every export and every import makes one.)
    """

    descriptor: bytes
    """The payload's self-description."""
    kind: int
    """What the file is to the object manager (`broker.limits.Kind`)."""
    identity: int
    """What tells the payload from others of the driver."""
    writable: bool
    trusted: bool = True
    """Whether this user's own processes say so. Anybody else's fd is proven before a device in use gets it."""


_bare = object.__new__


class FdHandle(OwnedHandle):
    """A file descriptor (OPAQUE_FD, DMA_BUF) that this process owns.

    Ownership: owns a reference to the payload. A successful import consumes it (the handle is then taken); a failed one
    leaves it open. Always close-on-exec: pass it with `multiprocessing`, SCM_RIGHTS or `pass_fds`.
    """

    __slots__ = ("payload",)
    _word = "fd handle"

    def __init__(self, fd: int, payload: FdPayload | None = None) -> None:
        """payload: what extmem itself knows of it, where the file does not say."""
        self.payload = payload
        if fd < 0:
            raise HandleStateError(f"{fd} is no file descriptor: those are 0 or greater; the call that made it failed")
        os.set_inheritable(fd, False)  # where this fails, nothing was taken over
        super().__init__(fd)

    @staticmethod
    def adopt(fd: int, payload: FdPayload | None = None) -> FdHandle:
        """Own a descriptor of this library's making, which is close-on-exec from the start."""
        handle = _bare(FdHandle)
        handle._value, handle._state, handle._pid, handle.payload = fd, OPEN, HERE.pid, payload
        return handle

    def fileno(self) -> int:
        """The descriptor, so that select, socket.send_fds and os functions take the handle itself."""
        if self._state is not OPEN or self._pid != HERE.pid:
            int(self)  # says which of the two
        return self._value

    def duplicate(self) -> FdHandle:
        """dup(2), close-on-exec: a second owner of the same open file."""
        return FdHandle.adopt(duplicate(self.fileno()), self.payload)

    def same_object(self, other: FdHandle) -> bool:
        """Whether both refer to one payload: as exported, or the same file for memfds, else the same open file."""
        if self.payload is not None and other.payload is not None and self.payload.identity:
            return self.payload.identity == other.payload.identity
        mine, theirs = os.fstat(int(self)), os.fstat(int(other))
        if (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino):
            return False
        if stat.S_ISREG(mine.st_mode):
            return True
        return same_open_file(int(self), int(other))

    def _close(self, value: int) -> None:
        os.close(value)
