"""Access rights that a program requests (dwAccess of an export, DuplicateHandle, opens by name)."""

from __future__ import annotations

from enum import IntFlag

__all__ = ["Access"]


class Access(IntFlag):
    """Rights to a shared payload. Any Win32 access mask may be passed as an int where an `Access` is taken.

    READ is DXGI_SHARED_RESOURCE_READ (that is, GENERIC_READ), WRITE is DXGI_SHARED_RESOURCE_WRITE; the object manager
    maps generic bits to specific ones and does not keep them, so a handle opened with READ_WRITE reports 0x20001.

    Without WRITE, arrays, tensors and commands refuse to write (PermissionError). What gets past them is refused by the
    kernel for memory of the host (the process ends), and by the GPU for memory of a CUDA device that another process
    shared: a fault that ends the CUDA context of the process that wrote. Memory of a Vulkan device is written.
    """

    NONE = 0
    WRITE = 0x0000_0001
    READ_CONTROL = 0x0002_0000
    MAXIMUM_ALLOWED = 0x0200_0000
    ALL = 0x1000_0000
    READ = 0x8000_0000
    READ_WRITE = 0x8000_0001
