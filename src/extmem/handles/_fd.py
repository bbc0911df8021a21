"""`FdHandle`: a POSIX file descriptor that refers to a payload and owns a reference to it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from extmem.errors import HandleStateError
from extmem.handles._linux import same_open_file
from extmem.handles._owned import CLOSED, OPEN, TAKEN, OwnedHandle
from extmem.handles.process_id import current_process
from extmem.owning import OwnedFd, Use, Uses, copy_fd, out_of_descriptors

if TYPE_CHECKING:
    from extmem.handles._payload import FdPayload

__all__ = ["FdHandle"]


class FdHandle(OwnedHandle):
    """A file descriptor (OPAQUE_FD, DMA_BUF) that this process owns.

    Ownership: owns a reference to the payload. A successful import consumes it (the handle is then taken); a failed one
    leaves it open. Always close-on-exec: pass it with `multiprocessing`, SCM_RIGHTS or `pass_fds`.
    """

    __slots__ = ("_owner", "payload")
    _word = "fd handle"

    def __init__(self, fd: int | OwnedFd, payload: FdPayload | None = None) -> None:
        """payload: what extmem itself knows of it, where the file does not describe itself."""
        self.payload = payload
        if not isinstance(fd, OwnedFd):
            if fd < 0:
                raise HandleStateError(
                    f"{fd} is not a file descriptor: those are 0 or greater; the call that made it failed"
                )
            os.set_inheritable(fd, False)  # where this fails, nothing was taken over
            fd = OwnedFd(fd)
        fd.passed_on = True
        self._owner = fd
        super().__init__(fd.fd)

    def use(self) -> Use[OwnedFd]:
        """A block in which the descriptor is open, whoever closes the handle meanwhile (for the library itself).

        Errors: HandleStateError for a handle that is not open.
        """
        self.check_open()
        return self._owner.use()

    def use_in(self, uses: Uses) -> OwnedFd:
        """The descriptor's owner, open until `uses` end (for the library itself). Errors: as `use`."""
        self.check_open()
        return uses.add(self._owner)

    def fileno(self) -> int:
        """The descriptor, so that select, socket.send_fds and os functions take the handle itself."""
        if self._state is not OPEN or self._pid != current_process.pid:
            self.check_open()
        return self._value

    def duplicate(self) -> FdHandle:
        """dup(2), close-on-exec: a second owner of the same open file.

        Errors: OutOfMemoryError with VK_ERROR_TOO_MANY_OBJECTS where the process has no descriptor left.
        """
        with self.use() as owned:
            try:
                copy = copy_fd(owned.fd)
            except OSError as error:
                raise out_of_descriptors(error, "dup") from None
            return FdHandle(copy, self.payload)

    def same_object(self, other: FdHandle) -> bool:
        """Whether both refer to one payload: as exported, or the same file for memfds, else the same open file."""
        with self.use() as first, other.use() as second:
            if self.payload is not None and other.payload is not None and self.payload.identity:
                return self.payload.identity == other.payload.identity
            mine, theirs = os.fstat(first.fd), os.fstat(second.fd)
            if (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino):
                return False
            if stat.S_ISREG(mine.st_mode):
                return True
            return same_open_file(first.fd, second.fd)

    def take(self) -> int:
        """Stop owning and return a descriptor of the file that the caller closes from now on.

        It is the handle's own, or a copy where another thread uses that at this moment. Errors: OutOfMemoryError with
        VK_ERROR_TOO_MANY_OBJECTS where there is no descriptor left for a copy; the handle stays open then.
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
        if fd < 0:  # another thread was faster
            raise HandleStateError(f"this {self._word} ({self._value:#x}) was taken or closed by another thread")
        self._state = TAKEN
        return fd

    def consume(self) -> None:
        """A successful import has taken the handle over (for the library itself).

        It is taken, and closed when no other thread uses it.

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
"""In place of a descriptor that was consumed."""
