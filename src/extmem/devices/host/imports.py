"""Imports of the host device: examined memory files, payloads of the object manager, and host pointers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.fd_copies import copy_of
from extmem.devices.host import system
from extmem.devices.host.memory import HostAllocation, PointerAllocation
from extmem.devices.host.physical import host_identity
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.vk.words import types_text

if TYPE_CHECKING:
    from extmem.devices.types import ExaminedFd, ImportRequest
    from extmem.sharing.payload import PayloadFd

__all__ = [
    "host_pointer_memory_type_bits",
    "import_fd",
    "import_host_pointer",
    "import_payload",
    "unsupported_type",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_ALL_TYPES = 0b11


def import_fd(request: ImportRequest[ExaminedFd]) -> HostAllocation:
    """See `Backend`. The fd must be a memory file with sealed size, at least as large as the allocation."""
    examined, size = request.source, request.size
    if examined.problem:
        raise _refusal(examined.problem)
    if size > (examined.capacity or 0):
        raise _too_large(size, examined.capacity or 0)
    return HostAllocation(copy_of(examined.fd), size, request.memory_type, examined.writable)


def import_payload(request: ImportRequest[PayloadFd]) -> HostAllocation:
    """See `Backend`."""
    payload = request.source
    if request.size > request.capacity:
        raise _too_large(request.size, request.capacity)
    if payload.shared is None:
        raise HandleStateError("this payload's descriptor is closed; import the payload again")
    return HostAllocation(payload, request.size, request.memory_type, payload.writable)


def import_host_pointer(address: int, size: int, memory_type: int) -> PointerAllocation:
    """See `Backend`. The range must be mapped readable and writable, at a page boundary."""
    if address % system.PAGE or size % system.PAGE:
        raise _refusal(f"pointer {address:#x} and size {size} must be multiples of {system.PAGE}")
    if not system.range_is_mapped(address, size):
        raise _refusal(
            f"not all of the {size} bytes at {address:#x} are mapped here for reading and writing; "
            "map them first and keep them until the memory is freed"
        )
    return PointerAllocation(address, size, memory_type)


def host_pointer_memory_type_bits(handle_type: int, address: int) -> int:
    """Both types for mapped memory, no type for other addresses. UnsupportedError for foreign mapped memory."""
    if handle_type != HandleType.HOST_ALLOCATION:
        raise unsupported_type(handle_type, "HOST_ALLOCATION")
    return _ALL_TYPES if system.range_is_mapped(address, 1) else 0


def unsupported_type(handle_type: int, *instead: str) -> UnsupportedError:
    """What to raise for a handle type that the device does not import."""
    return UnsupportedError(
        f"{host_identity().device_name} imports no {types_text(handle_type)}; it has {', '.join(instead)}",
        requires_one_of=instead,
    )


def _refusal(problem: str) -> DriverError:
    return DriverError(
        f"vkAllocateMemory: VK_ERROR_INVALID_EXTERNAL_HANDLE: {problem}",
        result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
        command="vkAllocateMemory",
        devices=[host_identity().device_name],
    )


def _too_large(size: int, capacity: int) -> DriverError:
    return _refusal(
        f"allocationSize is {size} and the memory file holds {capacity} bytes of payload; "
        "pass the exporter's allocationSize (it is in the descriptor)"
    )
