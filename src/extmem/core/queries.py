"""Queries of a device: checked by the rules, then made to the driver, while the device is held.

See the methods of `Device` with these names. Errors of all: HandleStateError if the device is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import arguments, import_source, rule_facts
from extmem.core.memory_object import MemoryObject
from extmem.devices.optional_protocols import DescribesFormats
from extmem.errors import RuleViolation, UnsupportedError
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState

__all__ = [
    "external_buffer_properties",
    "fd_properties",
    "format_properties",
    "host_pointer_properties",
    "image_format_properties",
    "memory_of",
    "win32_handle_properties",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)


def external_buffer_properties(
    device: DeviceState, given: vk.PhysicalDeviceExternalBufferInfo
) -> vk.ExternalBufferProperties:
    """`Device.get_physical_device_external_buffer_properties`."""
    info = copy_struct(given)
    with device.use():
        violations = rules.check_external_buffer_info(info, device.facts)
        device.report(violations, "vkGetPhysicalDeviceExternalBufferProperties")
        return device.backend.external_buffer_properties(info)


def image_format_properties(device: DeviceState, given: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
    """`Device.get_physical_device_image_format_properties2`."""
    info = copy_struct(given)
    with device.use():
        violations = rules.check_external_image_format_info(info, device.facts)
        device.report(violations, "vkGetPhysicalDeviceImageFormatProperties2")
        return device.backend.image_format_properties(info)


def format_properties(device: DeviceState, vk_format: vk.Format | int) -> vk.FormatProperties2:
    """`Device.get_physical_device_format_properties2`."""
    with device.use():
        device.report(rules.check_format_properties(vk_format, device.facts), "vkGetPhysicalDeviceFormatProperties2")
        if not isinstance(device.backend, DescribesFormats):
            raise UnsupportedError(
                f"{device.name} has no vkGetPhysicalDeviceFormatProperties2 and no DRM format modifiers; query its "
                "images with get_physical_device_image_format_properties2, or use a Vulkan device",
                requires_one_of=["a Vulkan device"],
            )
        return device.backend.format_properties(int(vk_format))


def win32_handle_properties(
    device: DeviceState, handle_type: HandleType, handle: NtHandle | KmtHandle | int
) -> vk.MemoryWin32HandlePropertiesKHR:
    """`Device.get_memory_win32_handle_properties`."""
    with device.use():
        refusal = import_source.handle_refusal(device.backend, handle_type, handle)
        violations = rules.check_memory_win32_handle_properties(handle_type, handle, device.facts, refusal=refusal)
        device.report(violations, "vkGetMemoryWin32HandlePropertiesKHR")
        single = MemoryHandleType(arguments.whole_number(handle_type, "handle_type"))
        return vk.MemoryWin32HandlePropertiesKHR(device.backend.handle_memory_type_bits(single, int(handle)))


def fd_properties(device: DeviceState, handle_type: HandleType, fd: FdHandle | int) -> vk.MemoryFdPropertiesKHR:
    """`Device.get_memory_fd_properties`."""
    with device.use():
        number = int(fd) if isinstance(fd, (FdHandle, int)) else fd
        valid = _is_valid_fd(device, handle_type, number)
        violations = rules.check_memory_fd_properties(handle_type, number, device.facts, fd_is_valid=valid)
        device.report(violations, "vkGetMemoryFdPropertiesKHR")
        single = MemoryHandleType(arguments.whole_number(handle_type, "handle_type"))
        bits = device.backend.fd_memory_type_bits(single, arguments.whole_number(number, "fd"))
        return vk.MemoryFdPropertiesKHR(bits)


def _is_valid_fd(device: DeviceState, handle_type: object, fd: object) -> bool | None:
    """Return whether an fd is open, and refers to memory as far as the device can detect it.

    None for arguments that the rules refuse.
    """
    if not isinstance(handle_type, int) or not isinstance(fd, int) or not -(1 << 31) <= fd < 1 << 31:
        return None
    bits = MemoryHandleType(int(handle_type))
    examined = device.backend.examine_fd(fd, bits)
    # The kind of file does not matter for an opaque fd, nor for a type that the device does not import.
    if (
        bits == OPAQUE_FD
        or not 0 < bits < 1 << 32
        or bits.bit_count() != 1
        or not int(rule_facts.transfer_capability(device, bits).features) & _IMPORTABLE
    ):
        return examined.file_type != "closed"
    return examined.valid


def host_pointer_properties(
    device: DeviceState, handle_type: HandleType, host_pointer: int
) -> vk.MemoryHostPointerPropertiesEXT:
    """`Device.get_memory_host_pointer_properties`."""
    with device.use():
        is_address = isinstance(host_pointer, int) and 0 <= host_pointer < 1 << 64
        mapped = device.backend.host_range_mapped(host_pointer, 1) if is_address else None
        violations = rules.check_memory_host_pointer_properties(handle_type, host_pointer, device.facts, mapped=mapped)
        device.report(violations, "vkGetMemoryHostPointerPropertiesEXT")
        single = MemoryHandleType(arguments.whole_number(handle_type, "handle_type"))
        pointer = arguments.whole_number(host_pointer, "host_pointer")
        return vk.MemoryHostPointerPropertiesEXT(device.backend.host_pointer_memory_type_bits(single, pointer))


def memory_of(device: DeviceState, info: object, struct: type[vk.ChainStruct]) -> MemoryObject:
    """Return the memory of this device in the argument of vkGetMemoryFdKHR or vkGetMemoryWin32HandleKHR.

    Errors: RuleViolation for another struct than `struct`; TypeError for a `memory` that is not memory;
    HandleStateError for memory of another device.
    """
    if type(info) is not struct:
        word = "Fd" if struct is vk.MemoryGetFdInfoKHR else "Win32Handle"
        raise RuleViolation(rules.wrong_get_info(info, struct), command=f"vkGetMemory{word}KHR")
    memory = getattr(info, "memory", None)
    if not isinstance(memory, MemoryObject):
        raise TypeError(f"{struct.__name__}.memory is {memory!r}: pass a DeviceMemory of this device")
    if memory.device is not device:
        raise arguments.of_another_device(memory, memory.device)
    return memory
