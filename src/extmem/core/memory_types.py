"""The choice of a memory type for arrays."""

from __future__ import annotations

from extmem import vk
from extmem.core.device_state import DeviceState

__all__ = ["choose"]


def choose(device: DeviceState, bits: int) -> int:
    """Return a memory type: device-local if there is one, and if possible host-visible in the largest of these heaps.

    A host-visible type in a smaller heap is a small window of the device's memory, and is not used.
    """
    types = device.facts.memory_types
    allowed = [index for index in range(len(types)) if bits >> index & 1]
    local = [i for i in allowed if types[i].property_flags & vk.MemoryPropertyFlagBits.DEVICE_LOCAL] or allowed
    largest = max([types[i].heap_size for i in local])
    visible = [
        i
        for i in local
        if types[i].property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE and types[i].heap_size == largest
    ]
    return (visible or local)[0]
