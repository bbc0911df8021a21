"""The check of a file descriptor that is to be imported as a semaphore: the host's page, or what a driver may export.

CUDA refuses other files (CUDA_ERROR_UNKNOWN) without harm, so nothing is tried here.
"""

from __future__ import annotations

from typing import cast

import msgspec

from extmem.devices.cuda import fd_check
from extmem.devices.host import sync as host
from extmem.devices.types import ExaminedFd
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD, MemoryHandleType, SyncHandleType

__all__ = ["examine"]


def examine(
    fd: int, handle_type: SyncHandleType, *, fence: bool = False, timeline: bool = False, trusted: bool = False
) -> ExaminedFd:
    """See `SyncBackend.examine_sync_fd`. A timeline of the host describes itself; a driver's semaphore does not."""
    hosts = host.examine(fd, handle_type, fence=fence, timeline=timeline)
    if fence or hosts.valid or handle_type != SEMAPHORE_OPAQUE_FD or hosts.file_type == "closed":
        return hosts
    found = fd_check.examine_file(fd, trusted=trusted)
    return msgspec.structs.replace(found, handle_type=cast("MemoryHandleType", handle_type)) if found.valid else found
