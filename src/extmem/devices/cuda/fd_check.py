"""The check of a file descriptor: whether it can be what a driver exports. CUDA refuses others (999) without harm."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from extmem.devices.types import ExaminedFd
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice

__all__ = ["examine"]

_NOT_A_PAYLOAD = {stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe"}
_FILE_TYPES = {stat.S_IFSOCK: "socket", stat.S_IFDIR: "directory", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device"}


def examine(device: LogicalDevice, fd: int, handle_type: MemoryHandleType, *, trusted: bool) -> ExaminedFd:
    """See `Backend.examine_fd`. A descriptor that this library exported only has to be open.

    CUDA imports OPAQUE_FD alone of the fd types.
    """
    found = examine_file(fd, trusted=trusted and handle_type == OPAQUE_FD)
    if found.valid and handle_type != OPAQUE_FD:
        found = msgspec.structs.replace(found, problem=str(device.unsupported_type(handle_type)))
    return msgspec.structs.replace(found, handle_type=handle_type)


def examine_file(fd: int, *, trusted: bool) -> ExaminedFd:
    """Return whether an fd can be what a driver exports. A descriptor that this library exported has to be open."""
    try:
        status = os.fstat(fd) if fd >= 0 else None
    except OSError:
        status = None
    if status is None:
        problem = f"fd {fd} is not an open file descriptor"
        return ExaminedFd(fd, OPAQUE_FD, "closed", problem, self_describing=False)
    mode = stat.S_IFMT(status.st_mode)
    file_type = _FILE_TYPES.get(mode, "other")
    if not trusted and mode in _NOT_A_PAYLOAD:
        problem = f"fd {fd} is {_NOT_A_PAYLOAD[mode]}, and no driver exports one"
        return ExaminedFd(fd, OPAQUE_FD, file_type, problem, self_describing=False)
    return ExaminedFd(
        fd,
        OPAQUE_FD,
        file_type,
        size=status.st_size,
        capacity=None,
        writable=True,
        identity=(status.st_dev, status.st_ino),
        self_describing=False,
        trusted=trusted,
    )
