"""The one door for foreign objects: raw handle values and file descriptors that some other code made.

What comes in here is trusted to be what the caller says: nobody else can know whose number it is.
"""

from __future__ import annotations

from extmem import vk
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.manager import manager
from extmem.memory import Descriptor, Device, DeviceMemory
from extmem.memory.allocating import allocate_memory

__all__ = ["fd_handle", "import_payload", "kmt_handle", "nt_handle"]


def nt_handle(value: int) -> NtHandle:
    """Own an NT handle of this process by its value (inherited, or duplicated into here by another process).

    Errors: HandleStateError for a value that cannot be one; InvalidHandleError for one that is not in the table.
    """
    handle = NtHandle(value, manager())
    try:
        _ = handle.info
    except BaseException:
        handle.take()
        raise
    return handle


def kmt_handle(number: int) -> KmtHandle:
    """A KMT handle from its number; HandleStateError if it cannot be one."""
    return KmtHandle(number & 0xFFFF_FFFF if number >= 0 else number)


def fd_handle(fd: int) -> FdHandle:
    """Own a file descriptor. It becomes close-on-exec. OSError (EBADF) if it is not open."""
    return FdHandle(fd)


def import_payload(device: Device, fd: FdHandle | int, descriptor: Descriptor) -> DeviceMemory:
    """Import an fd that carries no descriptor of its own, with the one that the caller states.

    Ownership: consumes the fd on success only. Errors: as `Device.allocate_memory`.
    """
    info = vk.MemoryAllocateInfo(
        descriptor.allocation_size,
        descriptor.memory_type_index,
        vk.ImportMemoryFdInfoKHR(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD, fd),
    )
    return allocate_memory(device, info, stated=descriptor)
