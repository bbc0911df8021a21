"""The values that a program may state for an fd without a descriptor: `extmem.raw.fd_choices`."""

from __future__ import annotations

from typing import NamedTuple

from extmem import vk
from extmem.core.device_state import DeviceState
from extmem.core.rule_facts import TRANSFER
from extmem.errors import DriverError
from extmem.vk.handle_types import DMA_BUF, MemoryHandleType
from extmem.vk.value_text import bits_of

__all__ = ["FdChoices", "fd_choices"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits


class FdChoices(NamedTuple):
    """The values that a `Descriptor` of an fd may have."""

    handle_type: vk.ExternalMemoryHandleTypeFlagBits
    """The handle type for the import."""
    memory_types: tuple[int, ...]
    """Memory types of the device with which it may be imported, lowest first."""
    largest_size: int
    """Size of the file in bytes: the allocation size is at most this, and may be smaller. 0 if it is not known."""


def fd_choices(device: DeviceState, fd: int, handle_type: HandleType, memory_properties: int) -> FdChoices:
    """See `extmem.raw.fd_choices`."""
    if handle_type not in (HandleType.OPAQUE_FD, HandleType.DMA_BUF):
        raise ValueError(f"handle_type is {handle_type!r}, and an fd is OPAQUE_FD or DMA_BUF; give one of them")
    with device.use():
        backend = device.backend
        found = backend.examine_fd(fd, MemoryHandleType(int(handle_type)))
        if not found.valid:
            raise DriverError(
                found.problem,
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="vkGetMemoryFdPropertiesKHR",
                devices=[device.name],
            )
        if handle_type == HandleType.DMA_BUF:
            bits = backend.fd_memory_type_bits(DMA_BUF, fd)
        else:
            external = vk.ExternalMemoryBufferCreateInfo(handle_type)
            info = vk.BufferCreateInfo(size=max(1, found.capacity or 0), usage=TRANSFER, p_next=external)
            bits = backend.buffer_requirements(info).memory_type_bits
        types = device.facts.memory_types
        fitting = (bit.bit_length() - 1 for bit in bits_of(bits))
        allowed = (i for i in fitting if types[i].property_flags & memory_properties == memory_properties)
        return FdChoices(handle_type, tuple(allowed), found.capacity or 0)
