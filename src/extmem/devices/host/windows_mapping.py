"""Mappings on Windows: views of a section. As in `mapping`, a view ends when nothing holds it."""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("views are Windows's; extmem.devices.host picks what the platform has")

from extmem.handles._win32 import sections
from extmem.handles._win32.calls import StatusError
from extmem.handles._win32.tables import CURRENT_PROCESS
from extmem.manager.windows.status_errors import other, out_of_memory
from extmem.owning import Owner, late_imports

__all__ = ["FileMapping", "map_file", "range_is_mapped"]

_WRITABLE = 0x04 | 0x08 | 0x40 | 0x80  # PAGE_READWRITE, _WRITECOPY, _EXECUTE_READWRITE, _EXECUTE_WRITECOPY
_GUARD = 0x100


class FileMapping(Owner):
    """`size` bytes of a section, mapped; see `Mapping`. Made by `map_file`; its users hold it."""

    __slots__ = ("address", "size", "writable")

    def __init__(self, address: int, size: int, writable: bool) -> None:
        super().__init__()
        self.address = address
        self.size = size
        self.writable = writable
        self.owe([(sections.unmap_from, CURRENT_PROCESS, address)])


def map_file(fd: int, size: int, writable: bool) -> FileMapping:
    """Map the first `size` bytes of a section. The handle is borrowed for the call.

    Errors: AccessDeniedError for a writable mapping through a handle without that right; OutOfMemoryError.
    """
    try:
        return FileMapping(sections.map_view(fd, size, writable), size, writable)
    except StatusError as error:
        with late_imports():
            from extmem.objects import Status, error_for

        if error.status == Status.ACCESS_DENIED and writable:
            raise error_for(
                Status.ACCESS_DENIED,
                f"a writable mapping of {size} bytes is refused: the payload was opened or imported for reading only; "
                "ask its owner for write access, or read it, which `map` and `read` allow",
            ) from None
        raise out_of_memory(error, "vkMapMemory", f"a mapping of {size} bytes") or other(
            error, f"A view of {size} bytes cannot be mapped."
        ) from None


def range_is_mapped(address: int, size: int) -> bool:
    """Whether every byte of [address, address + size) is mapped here, readable and writable (VirtualQuery)."""
    if address <= 0 or size <= 0:
        return False
    reached, end = address, address + size
    while reached < end:
        found = sections.region(reached)
        if found is None or not found.protect & _WRITABLE or found.protect & _GUARD:
            return False
        reached = found.base + found.size
    return True
