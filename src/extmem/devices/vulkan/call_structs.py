"""C memory of the calls that every import makes, kept from one call to the next.

Making and filling structs through cffi takes as long as the calls themselves. So each kind of call has a set of
structs, filled once with what never changes; a call takes it, states what differs, and puts it back. A set is in one
thread's hands at a time, since taking and putting back are atomic: who finds none makes another, and the last that is
put back stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from extmem import vk
from extmem.devices.vulkan.handle_types import FD, to_driver
from extmem.vk.abi import ffi

__all__ = ["BufferCreation", "Export", "FdImport", "GetFd", "Spares"]

_S = vk.StructureType
T = TypeVar("T")


class Spares(dict[str, T]):
    """The set that nobody uses: `call = spares.pop("set", None) or spares.make()`; when done, `spares["set"] = call`.

    A dictionary, because its own operations are the only ones in Python that cost less than the calls in question.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        super().__init__()
        self.make = make


class FdImport:
    """vkAllocateMemory with VkImportMemoryFdInfoKHR."""

    __slots__ = ("info", "made", "source")

    def __init__(self) -> None:
        self.source: Any = ffi.new("VkImportMemoryFdInfoKHR *", (int(_S.IMPORT_MEMORY_FD_INFO_KHR), ffi.NULL, 0, -1))
        self.info: Any = ffi.new("VkMemoryAllocateInfo *", (int(_S.MEMORY_ALLOCATE_INFO), self.source, 0, 0))
        self.made: Any = ffi.new("uint64_t *")


class Export:
    """vkAllocateMemory with VkExportMemoryAllocateInfo."""

    __slots__ = ("export", "info", "made")

    def __init__(self) -> None:
        self.export: Any = ffi.new("VkExportMemoryAllocateInfo *", (int(_S.EXPORT_MEMORY_ALLOCATE_INFO), ffi.NULL, 0))
        self.info: Any = ffi.new("VkMemoryAllocateInfo *", (int(_S.MEMORY_ALLOCATE_INFO), self.export, 0, 0))
        self.made: Any = ffi.new("uint64_t *")


class GetFd:
    """vkGetMemoryFdKHR."""

    __slots__ = ("info", "made")

    def __init__(self) -> None:
        self.info: Any = ffi.new("VkMemoryGetFdInfoKHR *", (int(_S.MEMORY_GET_FD_INFO_KHR), ffi.NULL, 0, 0))
        self.made: Any = ffi.new("int *")


class BufferCreation:
    """vkCreateBuffer and vkGetBufferMemoryRequirements2, for buffers with no more than external types chained."""

    __slots__ = ("alone", "ask", "external", "info", "made", "needs")

    def __init__(self) -> None:
        external = int(_S.EXTERNAL_MEMORY_BUFFER_CREATE_INFO)
        self.external: Any = ffi.new("VkExternalMemoryBufferCreateInfo *", (external, ffi.NULL, 0))
        self.info: Any = ffi.new("VkBufferCreateInfo *", (int(_S.BUFFER_CREATE_INFO), self.external))
        self.made: Any = ffi.new("uint64_t *")
        self.ask: Any = ffi.new("VkBufferMemoryRequirementsInfo2 *", (int(_S.BUFFER_MEMORY_REQUIREMENTS_INFO_2),))
        self.alone: Any = ffi.new("VkMemoryDedicatedRequirements *", (int(_S.MEMORY_DEDICATED_REQUIREMENTS),))
        self.needs: Any = ffi.new("VkMemoryRequirements2 *", (int(_S.MEMORY_REQUIREMENTS_2), self.alone))

    def state(self, info: vk.BufferCreateInfo) -> bool:
        """Fill in `info`. False for one that has more than fits here, or what is no number."""
        link = info.p_next
        if info.queue_family_indices or link is None or link.p_next is not None:
            return False
        if not isinstance(link, vk.ExternalMemoryBufferCreateInfo):
            return False
        memory = self.info
        try:
            types = link.handle_types
            self.external.handleTypes = types if types == FD else to_driver(int(types))
            memory.flags, memory.size, memory.usage = info.flags, info.size, info.usage
            memory.sharingMode = info.sharing_mode
        except (TypeError, OverflowError):
            return False
        return True
