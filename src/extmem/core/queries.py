"""What can be asked of a device: checked by the rules, then answered by the driver, while the device is held.

See the methods of `Device` with these names. Errors of all: HandleStateError of a device that is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import arguments, import_source, rule_facts
from extmem.core.memory_object import MemoryObject
from extmem.devices.optional_protocols import DescribesFormats
from extmem.errors import RuleViolation, UnsupportedError
from extmem.handles import FdHandle, KmtHandle, NtHandle
from extmem.vk.copies import copied

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
    info = copied(given)
    with device.use():
        found = rules.check_external_buffer_info(info, device.facts)
        device.report(found, "vkGetPhysicalDeviceExternalBufferProperties")
        return device.backend.external_buffer_properties(info)


def image_format_properties(device: DeviceState, given: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
    """`Device.get_physical_device_image_format_properties2`."""
    info = copied(given)
    with device.use():
        found = rules.check_external_image_format_info(info, device.facts)
        device.report(found, "vkGetPhysicalDeviceImageFormatProperties2")
        return device.backend.image_format_properties(info)


def format_properties(device: DeviceState, vk_format: vk.Format | int) -> vk.FormatProperties2:
    """`Device.get_physical_device_format_properties2`."""
    with device.use():
        device.report(rules.check_format_properties(vk_format, device.facts), "vkGetPhysicalDeviceFormatProperties2")
        return _describing(device).format_properties(int(vk_format))


def _describing(device: DeviceState) -> DescribesFormats:
    """The driver, where it describes formats. UnsupportedError where it does not."""
    if not isinstance(device.backend, DescribesFormats):
        raise UnsupportedError(
            f"{device.name} has no vkGetPhysicalDeviceFormatProperties2 and no DRM format modifiers; ask it with "
            "get_physical_device_image_format_properties2 which images it has, or take a Vulkan device",
            requires_one_of=["a Vulkan device"],
        )
    return device.backend


def win32_handle_properties(
    device: DeviceState, handle_type: HandleType, handle: NtHandle | KmtHandle | int
) -> vk.MemoryWin32HandlePropertiesKHR:
    """`Device.get_memory_win32_handle_properties`."""
    with device.use():
        refusal = import_source.handle_refusal(device.backend, handle_type, handle)
        found = rules.check_memory_win32_handle_properties(handle_type, handle, device.facts, refusal=refusal)
        device.report(found, "vkGetMemoryWin32HandlePropertiesKHR")
        kind = arguments.whole_number(handle_type, "handle_type")
        return vk.MemoryWin32HandlePropertiesKHR(device.backend.handle_memory_type_bits(kind, int(handle)))


def fd_properties(device: DeviceState, handle_type: HandleType, fd: FdHandle | int) -> vk.MemoryFdPropertiesKHR:
    """`Device.get_memory_fd_properties`."""
    with device.use():
        number = int(fd) if isinstance(fd, (FdHandle, int)) else fd
        valid = _leads_to_memory(device, handle_type, number)
        found = rules.check_memory_fd_properties(handle_type, number, device.facts, fd_is_valid=valid)
        device.report(found, "vkGetMemoryFdPropertiesKHR")
        kind = arguments.whole_number(handle_type, "handle_type")
        bits = device.backend.fd_memory_type_bits(kind, arguments.whole_number(number, "fd"))
        return vk.MemoryFdPropertiesKHR(bits)


def _leads_to_memory(device: DeviceState, handle_type: object, fd: object) -> bool | None:
    """Whether an fd is open, and memory where the device can tell; None where the rules refuse the arguments."""
    if not isinstance(handle_type, int) or not isinstance(fd, int) or not -(1 << 31) <= fd < 1 << 31:
        return None
    looked = device.backend.examine_fd(fd, int(handle_type))
    # Of an opaque fd, and as a type that the device lacks, there is nothing to ask: what is behind it does not count.
    single = 0 < handle_type < 1 << 32 and handle_type.bit_count() == 1
    if handle_type == HandleType.OPAQUE_FD or not single:
        return looked.file_type != "closed"
    if not int(rule_facts.transfer_capability(device, handle_type).features) & _IMPORTABLE:
        return looked.file_type != "closed"
    return looked.valid


def host_pointer_properties(
    device: DeviceState, handle_type: HandleType, host_pointer: int
) -> vk.MemoryHostPointerPropertiesEXT:
    """`Device.get_memory_host_pointer_properties`."""
    with device.use():
        known = isinstance(host_pointer, int) and 0 <= host_pointer < 1 << 64
        mapped = device.backend.host_range_mapped(host_pointer, 1) if known else None
        found = rules.check_memory_host_pointer_properties(handle_type, host_pointer, device.facts, mapped=mapped)
        device.report(found, "vkGetMemoryHostPointerPropertiesEXT")
        kind = arguments.whole_number(handle_type, "handle_type")
        pointer = arguments.whole_number(host_pointer, "host_pointer")
        return vk.MemoryHostPointerPropertiesEXT(device.backend.host_pointer_memory_type_bits(kind, pointer))


def memory_of(device: DeviceState, info: object, struct: type[vk.ChainStruct]) -> MemoryObject:
    """The memory of this device that a handle is asked of."""
    if type(info) is not struct:
        word = "Fd" if struct is vk.MemoryGetFdInfoKHR else "Win32Handle"
        raise RuleViolation(rules.wrong_get_info(info, struct), command=f"vkGetMemory{word}KHR")
    memory = getattr(info, "memory", None)
    if not isinstance(memory, MemoryObject):
        raise TypeError(f"{struct.__name__}.memory is {memory!r}: pass a DeviceMemory of this device")
    if memory.device is not device:
        raise arguments.of_another_device(memory, memory.device)
    return memory
