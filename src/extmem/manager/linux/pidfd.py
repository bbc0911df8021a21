"""Pidfds of processes that this process names to its broker."""

from __future__ import annotations

import errno
import os

from extmem.owning import OwnedFd

__all__ = ["pidfd_of"]


def pidfd_of(pid: int) -> OwnedFd | None:
    """Return a pidfd of the process with this pid in this pid namespace; None if there is no such process."""
    try:
        return OwnedFd.of(os.pidfd_open, pid)
    except (ProcessLookupError, ValueError, OverflowError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None  # a thread of a process
        raise
