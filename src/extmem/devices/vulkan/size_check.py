"""The size of memory that another binding allocated, by the length of the file that it is exported as.

No command of Vulkan returns the size of a VkDeviceMemory. Software drivers export files that have as many bytes as the
memory, and some more: two allocations of known sizes show how many, and whether each byte counts. Where lengths are
rounded, or files have none, the size is not found out, and what the driver imports is trusted (`fd_check`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from extmem.errors import DriverError
from extmem.vk import Result
from extmem.vk.handle_types import OPAQUE_FD

if TYPE_CHECKING:
    from extmem.devices.vulkan.memory import Memories, VulkanAllocation

__all__ = ["SizeCheck"]

_SAMPLES = (4096, 4097)
"""Bytes of the allocations whose files are measured."""


class SizeCheck:
    """The lengths of the files that one device exports."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories
        self._overheads: dict[int, int | None] = {}
        """How many bytes a file has more than its memory, by memory type; None where lengths do not show that."""

    def check(self, adopted: VulkanAllocation) -> None:
        """Raise DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where the stated size is not the memory's."""
        if not adopted.exporting or not adopted.handle_types & OPAQUE_FD:
            return
        fd = adopted.fd
        length = os.fstat(fd).st_size if fd is not None else 0
        overhead = self._overhead(adopted.memory_type_index) if length else None
        if overhead is not None and length - overhead != adopted.size:
            name = self._memories.device.name
            raise DriverError(
                f"the memory is stated to have {adopted.size} bytes, and {name} exports it as a file of {length} "
                f"bytes, which is that of {length - overhead}; state the size that it was allocated with",
                result=int(Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="vkGetMemoryFdKHR",
                devices=[name],
            )

    def _overhead(self, memory_type: int) -> int | None:
        if memory_type not in self._overheads:
            try:
                first, second = (self._length(size, memory_type) - size for size in _SAMPLES)
            except DriverError:
                return None  # such as a driver that shares only dedicated memory
            self._overheads[memory_type] = first if first == second and first >= 0 else None
        return self._overheads[memory_type]

    def _length(self, size: int, memory_type: int) -> int:
        """Bytes of the file of an allocation, which is freed again."""
        sample = self._memories.allocate(size, memory_type, b"", handle_types=OPAQUE_FD)
        try:
            fd = sample.fd
            return os.fstat(fd).st_size if fd is not None else 0
        finally:
            sample.close()
