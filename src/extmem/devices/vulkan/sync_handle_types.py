"""Translation of handle types of semaphores and fences for a driver and back; `handle_types` does that for memory.

A driver of Linux has no Win32 handles: there an NT or KMT handle is a reference in the object manager to the driver's
opaque fd. The bits of these three types are the same for semaphores and fences.
"""

from __future__ import annotations

from extmem import vk
from extmem.devices.vulkan.handle_types import WIN32_IS_NATIVE
from extmem.vk.handle_types import SyncHandleType

__all__ = ["OPAQUE_FD", "OPAQUE_TYPES", "OPAQUE_WIN32", "SHARED_TYPES", "as_driver_gets", "sync_fd_of", "widened"]

_Semaphore = vk.ExternalSemaphoreHandleTypeFlagBits
_Fence = vk.ExternalFenceHandleTypeFlagBits
OPAQUE_FD = int(_Semaphore.OPAQUE_FD)
OPAQUE_WIN32 = int(_Semaphore.OPAQUE_WIN32)
_KMT = int(_Semaphore.OPAQUE_WIN32_KMT)
_WIN32 = OPAQUE_WIN32 | _KMT
OPAQUE_TYPES = OPAQUE_FD | _WIN32
SHARED_TYPES = OPAQUE_TYPES | int(_Semaphore.D3D12_FENCE) if WIN32_IS_NATIVE else OPAQUE_FD
"""Types whose handles the object manager keeps, as the driver has them. 0x8 is SYNC_FD of a fence, on Linux alone."""


def sync_fd_of(*, fence: bool) -> int:
    """Return the bit of SYNC_FD, which is another one for fences."""
    return int(_Fence.SYNC_FD if fence else _Semaphore.SYNC_FD)


def as_driver_gets(handle_types: SyncHandleType | int) -> int:
    """Return the types that the driver gets for these."""
    if WIN32_IS_NATIVE or not handle_types & _WIN32:
        return int(handle_types)
    return int(handle_types) & ~_WIN32 | OPAQUE_FD


def widened(handle_types: SyncHandleType | int, asked: int) -> int:
    """Return the types that these types in a driver's answer for the type `asked` stand for.

    A payload has NT handles or a KMT number, never both: neither type lists the other.
    """
    if WIN32_IS_NATIVE or not handle_types & OPAQUE_FD:
        return int(handle_types)
    return int(handle_types) | (_WIN32 & asked if asked & _WIN32 else _WIN32)
