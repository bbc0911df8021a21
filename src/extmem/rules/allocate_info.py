"""VkMemoryAllocateInfo: size, memory type, number of allocations, and the device group of an imported payload."""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import DMA_BUF, size_text, uuid_text
from extmem.rules.facts import PayloadFacts

__all__: list[str] = []

_SIZE = f"{BASE}.allocation_size"
_TYPE = f"{BASE}.memory_type_index"
_DEVICE_MASK_FLAG = int(vk.MemoryAllocateFlagBits.DEVICE_MASK)


@rule("VkMemoryAllocateInfo-allocationSize-07897", on=ALLOCATE, never=Traits.IMPORTS | Traits.EXPORTS)
def plain_allocation_has_a_size(call: Allocation) -> Finding | None:
    """Only imports may have allocationSize 0."""
    if call.info.allocation_size:
        return None
    return _SIZE, "a plain allocation of 0 bytes", "Ask for at least one byte."


@rule("VkMemoryAllocateInfo-allocationSize-07899", on=ALLOCATE, needs=Traits.EXPORTS, never=Traits.SIZE_IGNORED)
def exported_allocation_has_a_size(call: Allocation) -> Finding | None:
    """Imports whose allocationSize is ignored are exempt, although they may also export: their payload has the size."""
    if call.info.allocation_size:
        return None
    return _SIZE, "an allocation for export of 0 bytes", "Ask for at least one byte."


@rule("vkAllocateMemory-pAllocateInfo-01714", on=ALLOCATE)
def memory_type_exists(call: Allocation) -> Finding | None:
    """The index is less than the device's number of memory types."""
    count = len(call.device.memory_types)
    index = call.info.memory_type_index
    if index < count:
        return None
    return (
        _TYPE,
        f"the device {call.device.name!r} has memory types 0 to {count - 1}, not {int(index)}",
        "Use a type from the device's memory properties.",
    )


@rule("vkAllocateMemory-pAllocateInfo-01713", on=ALLOCATE, never=Traits.SIZE_IGNORED)
def allocation_fits_its_heap(call: Allocation) -> Finding | None:
    """Imports whose allocationSize is ignored are exempt."""
    types = call.device.memory_types
    index = call.info.memory_type_index
    if index >= len(types) or call.info.allocation_size <= types[index].heap_size:
        return None
    return (
        _SIZE,
        f"{size_text(call.info.allocation_size)} exceed the heap of memory type {int(index)}, which has "
        f"{size_text(types[index].heap_size)}",
        "Request less, or use a memory type of a larger heap.",
    )


@rule("vkAllocateMemory-maxMemoryAllocationCount-04101", on=ALLOCATE)
def allocations_are_not_too_many(call: Allocation) -> Finding | None:
    """Imports count as allocations."""
    facts = call.facts
    if not facts.max_allocations or facts.live_allocations < facts.max_allocations:
        return None
    return (
        "vkAllocateMemory.device",
        f"{facts.live_allocations} allocations are live already and the device allows {facts.max_allocations}",
        "Free memory first, or place several resources in one allocation.",
    )


def _group_of(payload: PayloadFacts) -> tuple[bytes, ...]:
    if payload.device_group:
        return payload.device_group
    return (payload.device_uuid,) if payload.device_uuid else ()


@rule("VkMemoryAllocateInfo-None-00643", on=ALLOCATE, needs=Traits.OUR_PAYLOAD | Traits.ELSEWHERE)
def device_mask_is_the_exporters(call: Allocation) -> Finding | None:
    """Without VkMemoryAllocateFlagsInfo the mask contains every device of the group. dma-bufs are exempt."""
    payload = call.payload
    if payload is None or call.import_type == DMA_BUF:
        return None
    flags = call.flags
    everyone = (1 << max(len(call.device.device_group), 1)) - 1
    mask = everyone
    if flags is not None and int(flags.flags) & _DEVICE_MASK_FLAG and flags.device_mask:
        mask = int(flags.device_mask)
    theirs = payload.device_mask or (1 << max(len(payload.device_group), 1)) - 1
    if mask == theirs:
        return None
    where = f"{chained(vk.MemoryAllocateFlagsInfo)}.device_mask" if flags is not None else f"{BASE}.pNext"
    return (
        where,
        f"the device mask is {mask:#b}, the payload was allocated with {theirs:#b}",
        f"Chain MemoryAllocateFlagsInfo with DEVICE_MASK and device_mask={theirs:#b}.",
    )


@rule("VkMemoryAllocateInfo-None-00644", on=ALLOCATE, needs=Traits.OUR_PAYLOAD | Traits.ELSEWHERE)
def physical_devices_are_the_exporters(call: Allocation) -> Finding | None:
    """The physical devices are the same, in the same order. dma-bufs are exempt."""
    payload = call.payload
    if payload is None or call.import_type == DMA_BUF:
        return None
    theirs = _group_of(payload)
    device = call.device
    ours = device.device_group or (device.device_uuid,)
    if not theirs or theirs == ours:
        return None
    return (
        "vkAllocateMemory.device",
        f"the device {device.name!r} was created from {_uuids(ours)}, the payload's from {_uuids(theirs)}",
        "Import on a device created from the same physical devices, in the same order.",
    )


def _uuids(group: tuple[bytes, ...]) -> str:
    return ", ".join(uuid_text(uuid) for uuid in group)
