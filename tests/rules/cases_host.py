"""Cases: host pointers."""

from __future__ import annotations

from extmem import rules, vk
from tests.rules.world import (
    ADDRESS,
    CLOSED,
    EXPORTABLE,
    GPU,
    IMPORTABLE,
    PAGE,
    T,
    alloc,
    ask_host,
    buffer,
    can,
    case,
    for_buffer,
    host,
    memory,
)

IMPORT = "VkImportMemoryHostPointerInfoEXT"
ASK = "vkGetMemoryHostPointerPropertiesEXT"
MAPPED = T.HOST_MAPPED_FOREIGN_MEMORY
IMPORTED = memory(import_handle_type=int(T.HOST_ALLOCATION))
PLACED = vk.MemoryMapInfo(flags=vk.MemoryMapFlagBits.PLACED)
RESERVE = vk.MemoryUnmapInfo(flags=vk.MemoryUnmapFlagBits.RESERVE)

case(
    "VkMemoryAllocateInfo-memoryTypeIndex-01744",
    lambda: alloc(host(), host_memory_type_bits=0b101),
    lambda: alloc(host(), host_memory_type_bits=0b010),
)
case(
    "VkMemoryAllocateInfo-allocationSize-01745",
    lambda: alloc(host(), size=PAGE + 1),
    lambda: alloc(host(), size=PAGE),
)
case(
    "VkMemoryAllocateInfo-pNext-02805",
    lambda: alloc(host(), vk.DedicatedAllocationMemoryAllocateInfoNV(buffer=0xB)),
    lambda: alloc(host(), vk.DedicatedAllocationMemoryAllocateInfoNV()),
)
case(
    "VkMemoryAllocateInfo-pNext-02806",
    lambda: alloc(host(), for_buffer(), dedicated=buffer()),
    lambda: alloc(host(), vk.MemoryDedicatedAllocateInfo()),
)
case(
    "VkMemoryAllocateInfo-pNext-03332",
    lambda: alloc(host(0), vk.MemoryOpaqueCaptureAddressAllocateInfo(0x1000)),
    lambda: alloc(host(0), vk.MemoryOpaqueCaptureAddressAllocateInfo(0)),
)
case(
    f"{IMPORT}-handleType-01747",
    lambda: alloc(host(), capabilities=can(EXPORTABLE, 0, 0, T.HOST_ALLOCATION)),
    lambda: alloc(host(), capabilities=can(IMPORTABLE, 0, 0, T.HOST_ALLOCATION)),
)
case(f"{IMPORT}-handleType-01748", lambda: alloc(host(T.OPAQUE_FD)), lambda: alloc(host(MAPPED)))
case(
    f"{IMPORT}-pHostPointer-01749",
    lambda: alloc(host(pointer=ADDRESS + 64)),
    lambda: alloc(host(pointer=ADDRESS + PAGE)),
)
case(
    f"{IMPORT}-handleType-01750",
    lambda: alloc(host(), host_range_mapped=False),
    lambda: alloc(host(), host_range_mapped=True),
)
case(
    f"{IMPORT}-handleType-01751",
    lambda: alloc(host(MAPPED), host_range_mapped=False),
    lambda: alloc(host(MAPPED), host_range_mapped=True),
)
case(f"{ASK}-handleType-01752", lambda: ask_host(T.DMA_BUF), lambda: ask_host(MAPPED))
case(f"{ASK}-pHostPointer-01753", lambda: ask_host(pointer=ADDRESS + 1), lambda: ask_host(pointer=ADDRESS))
case(f"{ASK}-handleType-01754", lambda: ask_host(mapped=False), lambda: ask_host(mapped=True))
case(f"{ASK}-handleType-01755", lambda: ask_host(MAPPED, mapped=False), lambda: ask_host(MAPPED, mapped=True))
case(
    "VkMemoryMapInfo-flags-09575",
    lambda: rules.check_map_memory(PLACED, IMPORTED),
    lambda: rules.check_map_memory(PLACED, memory()),
)
case(
    "VkMemoryUnmapInfo-flags-09580",
    lambda: rules.check_unmap_memory(RESERVE, IMPORTED),
    lambda: rules.check_unmap_memory(RESERVE, memory()),
)

# What the registry implies.
case(
    f"{IMPORT}-handleType-parameter",
    lambda: alloc(host(T.HOST_ALLOCATION | MAPPED)),
    lambda: alloc(host(0)),
)
case(f"{IMPORT}-pHostPointer-parameter", lambda: alloc(host(pointer=b"page")), lambda: alloc(host(pointer=ADDRESS)))
case(f"{ASK}-device-parameter", lambda: ask_host(device=CLOSED), lambda: ask_host(device=GPU))
case(f"{ASK}-handleType-parameter", lambda: ask_host(0), lambda: ask_host(T.HOST_ALLOCATION))
case(f"{ASK}-pHostPointer-parameter", lambda: ask_host(pointer=-1), lambda: ask_host(pointer=ADDRESS))
