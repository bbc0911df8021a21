"""`FdHandle`: a POSIX file descriptor that refers to a payload and owns a reference to it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from extmem.errors import HandleStateError
from extmem.handles._owned import CLOSED, OPEN, TAKEN, OwnedHandle
from extmem.handles.arguments import fd_number
from extmem.handles.process_id import current_process
from extmem.owning import OwnedFd, Use, Uses, copy_fd, late_imports, out_of_descriptors

if TYPE_CHECKING:
    from extmem.handles.fd_payload import FdPayload

__all__ = ["FdHandle"]


class FdHandle(OwnedHandle):
    """A file descriptor (OPAQUE_FD, DMA_BUF) that this process owns.

    Ownership: owns a reference to the payload. A successful import consumes it (the handle is then taken); a failed one
    leaves it open. Always close-on-exec: pass it with `multiprocessing`, SCM_RIGHTS or `pass_fds`.
    """

    __slots__ = ("_owner", "payload")
    _type_text = "fd handle"

    def __init__(self, fd: int | OwnedFd, payload: FdPayload | None = None) -> None:
        """payload: extmem's description of the payload, for a file that does not contain one."""
        self.payload = payload
        if not isinstance(fd, OwnedFd):
            fd = fd_number(fd)
            os.set_inheritable(fd, False)  # if this raises, the fd is not owned
            fd = OwnedFd(fd)
        fd.passed_on = True
        self._owner = fd
        super().__init__(fd.fd)

    def use(self) -> Use[OwnedFd]:
        """Return a block in which the fd stays open, even if another thread closes the handle (for the library itself).

        Errors: HandleStateError if the handle is not open.
        """
        self.check_open()
        return self._owner.use()

    def use_in(self, uses: Uses) -> OwnedFd:
        """Return the fd's owner, which stays open until `uses` end (for the library itself). Errors: as `use`."""
        if self._state is not OPEN or self._pid != current_process.pid:
            self.check_open()
        return uses.add(self._owner)

    def fileno(self) -> int:
        """Return the fd number, so that select, socket.send_fds and os functions accept the handle itself."""
        if self._state is not OPEN or self._pid != current_process.pid:
            self.check_open()
        return self._value

    def duplicate(self) -> FdHandle:
        """Return a second owner of the same open file: dup(2), close-on-exec.

        Errors: OutOfMemoryError with VK_ERROR_TOO_MANY_OBJECTS if the process has no file descriptor left.
        """
        with self.use() as owned:
            try:
                copy = copy_fd(owned.fd)
            except OSError as error:
                raise out_of_descriptors(error, "dup") from None
            return FdHandle(copy, self.payload)

    def same_object(self, other: FdHandle) -> bool:
        """Return whether both refer to one payload: by its identity, else by file for memfds, else by open file."""
        with self.use() as first, other.use() as second:
            if self.payload is not None and other.payload is not None and self.payload.identity:
                return self.payload.identity == other.payload.identity
            mine, theirs = os.fstat(first.fd), os.fstat(second.fd)
            if (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino):
                return False
            if stat.S_ISREG(mine.st_mode):
                return True
            with late_imports():
                from extmem.handles._kcmp import same_open_file

            return same_open_file(first.fd, second.fd)

    def take(self) -> int:
        """Stop owning, and return an fd of the file, which the caller must close.

        It is the handle's fd, or a copy if another thread uses that at this moment. Errors: OutOfMemoryError with
        VK_ERROR_TOO_MANY_OBJECTS if the process has no file descriptor left for a copy; then the handle stays open.
        """
        self.check_open()
        owner = self._owner
        try:
            owner.reserve()
        except BufferError:
            with owner.use():
                try:
                    copy = copy_fd(owner.fd)
                except OSError as error:
                    raise out_of_descriptors(error, "dup") from None
                owner.closing = True
        else:
            copy = owner
        fd = copy.take()
        if fd < 0:  # another thread took or closed it first
            raise HandleStateError(f"this {self._type_text} ({self._value:#x}) was taken or closed by another thread")
        self._state = TAKEN
        return fd

    def consume(self) -> None:
        """Mark the handle as taken after a successful import (for the library itself).

        The fd is closed when no other thread uses it.

        No signal handler can run between its effect and its return.
        """
        self._state = TAKEN
        self._owner.closing = True
        self._owner = _NOTHING

    @property
    def _origin(self) -> object:
        return self._owner.origin

    def _close(self) -> None:
        if self._state is OPEN:
            self._state = CLOSED
        if self._state is CLOSED:
            self._owner.end()


_NOTHING = OwnedFd()
"""Owner of handles whose fd was consumed."""
