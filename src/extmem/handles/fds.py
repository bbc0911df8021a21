"""Descriptors of 3 and more: what this library opens never takes the place of stdin, stdout or stderr.

A process that was started with one of those closed (a daemon, a cron job, `2>&-`) gets the numbers 0, 1 and 2 for the
next files that it opens, and whatever prints or logs writes there. A payload with such a number would be overwritten.
On Windows the system's handles are not numbered like that, and nothing has to be done.
"""

from __future__ import annotations

import os
import socket
import sys

__all__ = ["LOWEST", "duplicate", "open_file", "pipe", "raised", "raised_socket"]

LOWEST = 3
"""The lowest number of a descriptor that this library keeps."""


if sys.platform == "win32":

    def duplicate(fd: int) -> int:
        """dup(2), not inheritable, owned by the caller. Errors: OSError."""
        return os.dup(fd)

    def raised(fd: int) -> int:
        """The descriptor itself."""
        return fd

else:
    import fcntl

    def duplicate(fd: int) -> int:
        """dup(2) to a number of 3 or more, close-on-exec, owned by the caller. Errors: OSError."""
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST)

    def raised(fd: int) -> int:
        """A descriptor that was just opened, under a number of 3 or more, close-on-exec.

        Ownership: takes `fd` over, and closes it where it returns another one or raises. Errors: OSError (EMFILE).
        """
        if fd >= LOWEST:
            return fd
        try:
            return duplicate(fd)
        finally:
            os.close(fd)

    def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """os.open, `raised`. Errors: OSError."""
        return raised(os.open(path, flags, mode, dir_fd=dir_fd))

    def pipe(flags: int) -> tuple[int, int]:
        """os.pipe2, both ends `raised`: for reading, for writing. Errors: OSError; no end is left open then."""
        receiving, sending = os.pipe2(flags)
        try:
            receiving = raised(receiving)
        except BaseException:
            os.close(sending)
            raise
        try:
            return receiving, raised(sending)
        except BaseException:
            os.close(receiving)
            raise


def raised_socket(made: socket.socket) -> socket.socket:
    """`raised` for a socket; the argument is closed where another one is returned, or this raises."""
    if made.fileno() >= LOWEST:
        return made
    with made:
        return socket.socket(fileno=duplicate(made.fileno()))
