"""VkMemoryAllocateInfo: size, memory type, number of allocations, and the device group of an imported payload."""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._conditions import is_zero
from extmem.rules._engine import Demand, demand
from extmem.rules._text import DMA_BUF, size_text, uuid_text

__all__: list[str] = []

_SIZE = f"{BASE}.allocation_size"
_DEVICE_MASK_FLAG = int(vk.MemoryAllocateFlagBits.DEVICE_MASK)


def _lacks_memory_type(call: Allocation) -> tuple[int] | None:
    """Return the last memory type of the device, if the given one is greater."""
    count = len(call.device.memory_types)
    return (count - 1,) if call.info.memory_type_index >= count else None


def _beyond_its_heap(call: Allocation) -> str:
    """Return the size of the memory type's heap, if the allocation is larger."""
    types, index = call.device.memory_types, call.info.memory_type_index
    if index >= len(types) or call.info.allocation_size <= types[index].heap_size:
        return ""
    return size_text(types[index].heap_size)


def _too_many_allocations(call: Allocation) -> bool:
    """Imports count as allocations."""
    return 0 < call.facts.max_allocations <= call.facts.live_allocations


def _other_device_mask(call: Allocation) -> tuple[int, int] | None:
    """Without VkMemoryAllocateFlagsInfo the mask contains every device of the group. dma-bufs are exempt."""
    payload = call.payload
    if payload is None or call.import_type == DMA_BUF:
        return None
    flags = call.flags
    mask = (1 << max(len(call.device.device_group), 1)) - 1
    if flags is not None and int(flags.flags) & _DEVICE_MASK_FLAG and flags.device_mask:
        mask = int(flags.device_mask)
    theirs = payload.device_mask or (1 << max(len(payload.device_group), 1)) - 1
    return (mask, theirs) if mask != theirs else None


def _other_devices(call: Allocation) -> tuple[str, str] | None:
    """The physical devices are the same, in the same order. dma-bufs are exempt."""
    payload, device = call.payload, call.device
    if payload is None or call.import_type == DMA_BUF:
        return None
    theirs = payload.device_group or ((payload.device_uuid,) if payload.device_uuid else ())
    ours = device.device_group or (device.device_uuid,)
    return (_uuids(ours), _uuids(theirs)) if theirs and theirs != ours else None


def _uuids(group: tuple[bytes, ...]) -> str:
    return ", ".join(uuid_text(uuid) for uuid in group)


def _same_device_mask(where: str, *, needs: int = 0, never: int = 0) -> Demand:
    return Demand(
        "VkMemoryAllocateInfo-None-00643",
        _other_device_mask,
        where,
        "the device mask is {found[0]:#b}, the payload was allocated with {found[1]:#b}",
        "Chain MemoryAllocateFlagsInfo with DEVICE_MASK and device_mask={found[1]:#b}.",
        needs,
        never,
    )


demand(
    ALLOCATE,
    Demand(
        "VkMemoryAllocateInfo-allocationSize-07897",
        is_zero("info.allocation_size"),
        _SIZE,
        "a plain allocation of 0 bytes",
        "Ask for at least one byte.",
        never=Traits.IMPORTS | Traits.EXPORTS,
    ),
    Demand(  # imports that also export may have size 0 if it is ignored: their payload has the size
        "VkMemoryAllocateInfo-allocationSize-07899",
        is_zero("info.allocation_size"),
        _SIZE,
        "an allocation for export of 0 bytes",
        "Ask for at least one byte.",
        needs=Traits.EXPORTS,
        never=Traits.SIZE_IGNORED,
    ),
    Demand(
        "vkAllocateMemory-pAllocateInfo-01714",
        _lacks_memory_type,
        f"{BASE}.memory_type_index",
        "the device {call.device.name!r} has memory types 0 to {found[0]}, not {call.info.memory_type_index:d}",
        "Use a type from the device's memory properties.",
    ),
    Demand(
        "vkAllocateMemory-pAllocateInfo-01713",
        _beyond_its_heap,
        _SIZE,
        "{call.info.allocation_size:d} bytes exceed the heap of memory type {call.info.memory_type_index:d}, which has "
        "{found}",
        "Request less, or use a memory type of a larger heap.",
        never=Traits.SIZE_IGNORED,
    ),
    Demand(
        "vkAllocateMemory-maxMemoryAllocationCount-04101",
        _too_many_allocations,
        "vkAllocateMemory.device",
        "{call.facts.live_allocations} allocations are live already and the device allows {call.facts.max_allocations}",
        "Free memory first, or place several resources in one allocation.",
    ),
    _same_device_mask(
        f"{chained(vk.MemoryAllocateFlagsInfo)}.device_mask",
        needs=Traits.OUR_PAYLOAD | Traits.ELSEWHERE | Traits.HAS_FLAGS,
    ),
    _same_device_mask(f"{BASE}.pNext", needs=Traits.OUR_PAYLOAD | Traits.ELSEWHERE, never=Traits.HAS_FLAGS),
    Demand(
        "VkMemoryAllocateInfo-None-00644",
        _other_devices,
        "vkAllocateMemory.device",
        "the device {call.device.name!r} was created from {found[0]}, the payload's from {found[1]}",
        "Import on a device created from the same physical devices, in the same order.",
        needs=Traits.OUR_PAYLOAD | Traits.ELSEWHERE,
    ),
)
