"""Whether the process is out of file descriptors. Drivers then report a lack of memory, or return no fd."""

from __future__ import annotations

import errno
import os

from extmem.errors import VK_ERROR_TOO_MANY_OBJECTS, OutOfMemoryError
from extmem.owning import OwnedFd

__all__ = ["is_of_descriptors", "of_descriptors", "refuse"]

_FEW = 4
"""Descriptors that a driver may need at once for one call."""
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


def is_of_descriptors(error: OSError) -> bool:
    """Whether a call of the system failed because no descriptor is left to the process or the machine."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def of_descriptors() -> str:
    """Why a driver's call may lack descriptors now, and what to do; empty if a few can be opened."""
    opened: list[OwnedFd] = []
    try:
        while len(opened) < _FEW:
            opened.append(OwnedFd.open(os.devnull, _FLAGS))
    except OSError as error:
        if is_of_descriptors(error):
            return f"no file descriptor is left ({error.strerror}); close some, or raise `ulimit -n`"
    finally:
        for one in opened:
            one.close()
    return ""


def refuse(what: str) -> None:
    """Raise OutOfMemoryError if the process is out of descriptors. what: words for what failed, in the error."""
    lacking = of_descriptors()
    if lacking:
        raise OutOfMemoryError(f"{what}: {lacking}", result=VK_ERROR_TOO_MANY_OBJECTS, command="open")
