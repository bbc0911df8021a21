"""How many bytes memory has that another binding allocated: by the length of the file that it is exported as.

No call of Vulkan returns the size of a VkDeviceMemory. Software drivers export files that have as many bytes as the
memory, and some more: two allocations of known sizes show how many, and whether each byte counts. Where lengths are
rounded, or files have none, nothing is found out here, and what the driver imports is believed (`proving`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from extmem.devices.vulkan.handle_types import HandleType
from extmem.devices.vulkan.memory import VulkanAllocation
from extmem.errors import DriverError
from extmem.vk import Result

if TYPE_CHECKING:
    from extmem.devices.vulkan.backend import VulkanBackend

__all__ = ["Measuring"]

_FD = int(HandleType.OPAQUE_FD)
_PROBES = (4096, 4097)


class Measuring:
    """The lengths of one device's files."""

    def __init__(self, backend: VulkanBackend) -> None:
        self._backend = backend
        self._more: dict[int, int | None] = {}
        """How many bytes a file has more than its memory, by memory type; None where lengths do not tell."""

    def check(self, adopted: VulkanAllocation) -> None:
        """Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where the stated size is not the memory's."""
        if not adopted.exporting or not adopted.handle_types & _FD:
            return
        fd = adopted.fd
        length = os.fstat(fd).st_size if fd is not None else 0
        more = self._overhead(adopted.memory_type_index) if length else None
        if more is not None and length - more != adopted.size:
            raise DriverError(
                f"the memory is stated to have {adopted.size} bytes, and {self._backend.name} exports it as a file of "
                f"{length} bytes, which is that of {length - more}; state the size that it was allocated with",
                result=int(Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="vkGetMemoryFdKHR",
                devices=[self._backend.name],
            )

    def _overhead(self, memory_type_index: int) -> int | None:
        if memory_type_index not in self._more:
            try:
                first, second = (self._length(size, memory_type_index) - size for size in _PROBES)
            except DriverError:
                return None  # such as one that shares dedicated memory alone
            self._more[memory_type_index] = first if first == second and first >= 0 else None
        return self._more[memory_type_index]

    def _length(self, size: int, memory_type_index: int) -> int:
        made = self._backend.allocate(size, memory_type_index, b"", handle_types=_FD)
        try:
            fd = made.fd
            return os.fstat(fd).st_size if fd is not None else 0
        finally:
            made.close()
