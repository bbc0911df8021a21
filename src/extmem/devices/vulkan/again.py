"""`KnownImports`: imports of fds of our own that differ in nothing but the fd, one after the other.

How this works. What such imports share is looked up once: the device's command, what its fds look like, and C memory
that says everything but the fd. An import is then a look at the file, a copy of the fd, and vkAllocateMemory.

The look is `Prover.recognise`. A driver whose payloads are regular files gets a shorter one first, since fstat tells
much and takes twice as long: if the last byte of as many can be read as the last such file had, the fd is open, a file,
and long enough; its seals, and its bytes before the payload, must be the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from extmem.devices.fd_copies import copy_of, copy_to_read
from extmem.devices.vulkan.call_structs import FdImport, Spares
from extmem.devices.vulkan.fd_check import seals_of
from extmem.devices.vulkan.memory import VulkanAllocation
from extmem.devices.vulkan.owners import VkObject
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.vulkan.imports import Imports

__all__ = ["KnownImports"]

_NULL = ffi.NULL
_read_at: Any = getattr(os, "pread", None)  # Windows has none, and no fds to import


class KnownImports:
    """vkAllocateMemory with VkImportMemoryFdInfoKHR, of this size, memory type and handle type (a driver's own)."""

    def __init__(self, imports: Imports, size: int, memory_type_index: int, handle_type: int) -> None:
        """Errors: as `Prover.in_files`."""
        self._imports, self._backend, self._prover = imports, imports.backend, imports.prover
        self._size, self._memory_type_index, self._handle_type = size, memory_type_index, handle_type
        commands = self._backend.commands
        self._allocate, self._free, self._device = (
            commands.vkAllocateMemory,
            commands.vkFreeMemory,
            self._backend.handle,
        )
        self._in_files = self._prover.in_files(handle_type)
        self._last: tuple[int, bytes, int | None] | None = None
        """Of the last file that was looked at: where its last byte is, the bytes before the payload, the seals."""
        self._calls = Spares(self._call)

    def _call(self) -> FdImport:
        call = FdImport()
        call.info.allocationSize, call.info.memoryTypeIndex = self._size, self._memory_type_index
        call.source.handleType = self._handle_type
        return call

    def import_fd(self, fd: int) -> VulkanAllocation:
        """See `Backend.import_fd`. The fd is borrowed."""
        backend, size = self._backend, self._size
        if backend.closed:
            backend.alive()  # says so
        if self._last is None or not _is_like(fd, *self._last):
            self._look(fd)
        copy = copy_to_read(fd) if self._in_files else copy_of(fd)
        call = self._calls.pop("set", None) or self._calls.make()
        call.source.fd, call.made[0] = copy.fd, 0
        memory = VkObject(backend.owner)
        making = memory.make(
            self._allocate, (self._device, call.info, _NULL, call.made), call.made, self._free, consumes=copy
        )
        if not memory.raw:
            self._imports.failed(making, copy, fd, size, self._memory_type_index)
        self._calls["set"] = call
        return VulkanAllocation(
            backend, memory, size, self._memory_type_index, self._handle_type, owner="external", exporting=False
        )

    def _look(self, fd: int) -> None:
        """The whole look. Errors: as `Prover.recognise`."""
        length, head = self._prover.recognise(fd, self._size, self._handle_type, self._memory_type_index)
        form = self._prover.form(self._handle_type, self._memory_type_index) if self._in_files else None
        if form and not form.tail.size:
            self._last = length - 1, head, seals_of(fd)


def _is_like(fd: int, last: int, head: bytes, seals: int | None) -> bool:
    """Whether the fd is a memory file with that byte, those bytes before the payload, and those seals."""
    try:
        read = _read_at(fd, 1, last) and (not head or _read_at(fd, len(head), 0) == head)
        return bool(read) and seals_of(fd) == seals
    except OSError:
        return False
