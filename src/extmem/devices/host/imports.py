"""Imports of the host device: examined memory files, payloads of the object manager, and host pointers."""

from __future__ import annotations

from extmem import vk
from extmem.devices.host import system
from extmem.devices.host.memory import PointerAllocation
from extmem.devices.host.physical import host_identity
from extmem.errors import DriverError, UnsupportedError
from extmem.vk.handle_types import HOST_ALLOCATION, MemoryHandleType
from extmem.vk.value_text import types_text

__all__ = [
    "host_pointer_memory_type_bits",
    "import_host_pointer",
    "refusal",
    "too_large",
    "unsupported_type",
]

_ALL_TYPES = 0b11


def import_host_pointer(address: int, size: int, memory_type: int) -> PointerAllocation:
    """See `Backend`. The range must be mapped readable and writable, at a page boundary."""
    if address % system.PAGE or size % system.PAGE:
        raise refusal(f"pointer {address:#x} and size {size} must be multiples of {system.PAGE}")
    if not system.range_is_mapped(address, size):
        raise refusal(
            f"not all of the {size} bytes at {address:#x} are mapped here for reading and writing; "
            "map them first and keep them until the memory is freed"
        )
    return PointerAllocation(address, size, memory_type)


def host_pointer_memory_type_bits(handle_type: MemoryHandleType, address: int) -> int:
    """Both types for mapped memory, no type for other addresses. UnsupportedError for foreign mapped memory."""
    if handle_type != HOST_ALLOCATION:
        raise unsupported_type(handle_type, "HOST_ALLOCATION")
    return _ALL_TYPES if system.range_is_mapped(address, 1) else 0


def unsupported_type(handle_type: MemoryHandleType, *instead: str) -> UnsupportedError:
    """What to raise for a handle type that the device does not import."""
    return UnsupportedError(
        f"{host_identity().device_name} imports no {types_text(handle_type)}; it has {', '.join(instead)}",
        requires_one_of=instead,
    )


def refusal(problem: str) -> DriverError:
    """Return the error to raise for an import that is refused."""
    return DriverError(
        f"vkAllocateMemory: VK_ERROR_INVALID_EXTERNAL_HANDLE: {problem}",
        result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
        command="vkAllocateMemory",
        devices=[host_identity().device_name],
    )


def too_large(size: int, capacity: int) -> DriverError:
    """Return the error to raise for a memory file that is smaller than the allocation."""
    return refusal(
        f"allocationSize is {size} and the memory file holds {capacity} bytes of payload; "
        "pass the exporter's allocationSize (it is in the descriptor)"
    )
