"""The check of a file descriptor of a semaphore or fence: what it is, and whether it can be one of the host's.

A timeline is a sealed memory file of a page, with a self-description; see `fd_check` for what is sealed, and why. A
binary semaphore or a fence is an eventfd that does not block. The descriptor is not changed.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, cast

import msgspec

from extmem.devices.host import fd_check
from extmem.devices.host.memfd import PAGE
from extmem.devices.host.timeline_page import FILE_SIZE
from extmem.devices.types import ExaminedFd
from extmem.errors import DescriptorError
from extmem.owning import late_imports
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType, SyncHandleType

if sys.platform != "linux":
    raise ImportError("an eventfd is Linux's; extmem.devices.host picks what the platform has")

import fcntl

if TYPE_CHECKING:
    from extmem.sharing.descriptor.sync import SyncDescriptor

__all__ = ["examine", "examine_event", "examine_page", "examine_timeline", "identity_of"]

_OPAQUE_FD = 1
"""OPAQUE_FD of semaphores, and of fences."""
_EVENT = "anon_inode:[eventfd]"


def examine(fd: int, handle_type: SyncHandleType, *, fence: bool = False, timeline: bool = False) -> ExaminedFd:
    """See `SyncBackend.examine_sync_fd`."""
    kind = cast("MemoryHandleType", handle_type)
    if handle_type != _OPAQUE_FD:
        problem = (
            f"the host device has no files of the type {handle_type:#x}: it imports OPAQUE_FD, and of SYNC_FD only -1, "
            "which stands for a payload that is signaled"
        )
        return ExaminedFd(fd, kind, "other", problem if fd != -1 else "", self_describing=False)
    found = examine_timeline(fd) if timeline else examine_event(fd, "a fence" if fence else "a binary semaphore")
    return msgspec.structs.replace(found, handle_type=kind)


def examine_page(fd: int) -> ExaminedFd:
    """Return whether an fd is the page of a timeline or a companion page: of the right size, which is sealed."""
    found = fd_check.examine(fd)
    if found.problem:
        return found
    if found.size != FILE_SIZE or found.capacity != FILE_SIZE - PAGE:
        why = f" and {found.descriptor_problem}" if found.size == FILE_SIZE else ""
        return msgspec.structs.replace(
            found,
            problem=f"fd {fd} is a memory file of {found.size} bytes{why}; a timeline of the host has {FILE_SIZE} "
            "bytes, with a self-description: export it from a timeline",
        )
    return found


def examine_timeline(fd: int) -> ExaminedFd:
    """Return whether an fd is the payload of a timeline of the host."""
    found = examine_page(fd)
    if not found.descriptor:
        return found
    try:  # also for a file of another size, because this reason says what it is
        descriptor = _parse(found.descriptor)
    except DescriptorError as error:
        return msgspec.structs.replace(found, problem=f"fd {fd} is not a timeline by its self-description: {error}")
    if not descriptor.timeline or not descriptor.host:
        return msgspec.structs.replace(
            found,
            problem=f"fd {fd} is {descriptor.noun} by its self-description, and not a timeline of the host; import it "
            "as what it is",
        )
    return found


def examine_event(fd: int, what: str = "a binary semaphore or a fence") -> ExaminedFd:
    """Return whether an fd is an eventfd that can be the payload of a binary semaphore or a fence."""
    try:
        status = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except (OSError, ValueError, OverflowError):
        return ExaminedFd(
            fd, OPAQUE_FD, "closed", f"fd {fd} is not open in this process; pass one that is", self_describing=False
        )
    number = identity_of(fd)
    if number is None:
        found = fd_check.examine(fd)
        return msgspec.structs.replace(
            found,
            problem=f"fd {fd} is {_words(found)}, and {what} of the host is an eventfd; import an fd that was exported "
            "from one",
        )
    problem = ""
    if not flags & os.O_NONBLOCK:
        problem = (
            f"fd {fd} is an eventfd that blocks (EFD_NONBLOCK is missing): a wait that another process was faster at "
            "would never return; export it by extmem, or make it with EFD_NONBLOCK"
        )
    return ExaminedFd(
        fd, OPAQUE_FD, "other", problem, writable=True, identity=(status.st_dev, number), self_describing=False
    )


def identity_of(fd: int) -> int | None:
    """Return the number of an eventfd, equal for all duplicates of it; None for another file, or without /proc."""
    try:
        if os.readlink(f"/proc/self/fd/{fd}") != _EVENT:
            return None
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, number = line.partition(":")
                if name == "eventfd-id":
                    return int(number)
    except (OSError, ValueError):
        return None
    return 0  # a kernel before 5.2 has no numbers


def _words(found: ExaminedFd) -> str:
    known = {"memfd": "a memory file", "file": "an ordinary file", "other": "neither file, socket nor pipe"}
    return known.get(found.file_type, f"a {found.file_type}")


def _parse(descriptor: bytes) -> SyncDescriptor:
    with late_imports():
        from extmem.sharing.descriptor.sync import SyncDescriptor
    return SyncDescriptor.parse(descriptor)
