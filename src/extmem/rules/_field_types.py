"""The first step of every check: is each field of the right type?

A struct whose size is a string cannot be checked further. For a call with such fields, all of these fields are reported
and nothing else. Each is reported under the rule that requires a valid value there (the `-parameter` rules).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

from extmem import vk
from extmem.rules._engine import CHECKED
from extmem.rules.violation import Violation

__all__ = [
    "FIELD_TYPES",
    "FieldTypes",
    "is_address",
    "is_fd",
    "is_handle",
    "is_security",
    "is_sequence",
    "is_text",
    "is_u32",
    "is_u64",
    "malformed",
    "misfit",
    "register",
    "wrong_struct",
]

_PRIMITIVES = (bool, str, bytes, bytearray, float, complex, list, tuple, dict, set, frozenset)


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether it is an int, and not True or False, which are given by mistake where numbers are expected."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_u32(value: object) -> bool:
    """Return whether it is an unsigned 32-bit integer."""
    return isinstance(value, int) and value is not True and value is not False and 0 <= value <= 0xFFFF_FFFF


def is_u64(value: object) -> bool:
    """Return whether it is an unsigned 64-bit integer."""
    return isinstance(value, int) and value is not True and value is not False and 0 <= value <= 0xFFFF_FFFF_FFFF_FFFF


def is_handle(value: object) -> bool:
    """Return whether it is None, a number that fits a pointer, or an object of the library."""
    if value is None:
        return True
    if is_integer(value):
        return -(2**63) <= value < 2**64
    return not isinstance(value, _PRIMITIVES)


def is_fd(value: object) -> bool:
    """Return whether it is a C int, or an object of the library that represents one."""
    if is_integer(value):
        return -(2**31) <= value < 2**31
    return value is not None and not isinstance(value, _PRIMITIVES)


def is_address(value: object) -> bool:
    """Return whether it is NULL (0 or None) or a number that fits a pointer."""
    return value is None or is_u64(value)


def is_text(value: object) -> bool:
    """Return whether it is None or a str."""
    return value is None or isinstance(value, str)


def is_security(value: object) -> bool:
    """Return whether it is None or vk.SecurityAttributes with SDDL text, a security descriptor or its address."""
    return value is None or (
        isinstance(value, vk.SecurityAttributes)
        and (value.security_descriptor is None or isinstance(value.security_descriptor, (str, bytes, int)))
        and isinstance(value.inherit_handle, int)
    )


def is_numbers(value: object) -> bool:
    """Return whether it is a sequence of unsigned 64-bit integers."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and all(map(is_u64, value))


def is_handles(value: object) -> bool:
    """Return whether it is a sequence of handles without NULL."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and all(v is not None and is_handle(v) for v in value)
    )


def is_indices(value: object) -> bool:
    """Return whether it is a sequence of unsigned 32-bit integers."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and all(map(is_u32, value))


def is_extent(value: object) -> bool:
    """Return whether it is a vk.Extent3D."""
    return type(value) is vk.Extent3D


def is_sequence(value: object) -> bool:
    """Return whether it is a sequence that is not text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def is_range(value: object) -> bool:
    """Return whether it is a vk.ImageSubresourceRange of unsigned 32-bit integers."""
    return type(value) is vk.ImageSubresourceRange and all(
        map(
            is_u32,
            (value.aspect_mask, value.base_mip_level, value.level_count, value.base_array_layer, value.layer_count),
        )
    )


def is_layouts(value: object) -> bool:
    """Return whether it is a sequence of vk.SubresourceLayout of unsigned 64-bit integers."""
    return is_sequence(value) and all(
        type(one) is vk.SubresourceLayout
        and all(map(is_u64, (one.offset, one.size, one.row_pitch, one.array_pitch, one.depth_pitch)))
        for one in value  # type: ignore[attr-defined]  # is_sequence was true
    )


Predicate: TypeAlias = Callable[[object], bool]
FieldTypes: TypeAlias = tuple[tuple[str, Predicate, str], ...]
"""Name of the field, predicate that its value must satisfy, and the rule that is broken if it does not."""

_EXPECTED: dict[Predicate, str] = {
    is_u32: "an integer from 0 to 2**32 - 1",
    is_u64: "an integer from 0 to 2**64 - 1",
    is_handle: "None, a handle value or one of extmem's objects",
    is_fd: "a file descriptor number or an FdHandle",
    is_address: "an address as an integer",
    is_text: "None or a str",
    is_security: "None or vk.SecurityAttributes(SDDL text or None, True or False)",
    is_numbers: "a sequence of integers from 0 to 2**64 - 1",
    is_handles: "a sequence of memory objects",
    is_indices: "a sequence of integers from 0 to 2**32 - 1",
    is_extent: "a vk.Extent3D",
    is_sequence: "a sequence of structs",
    is_range: "a vk.ImageSubresourceRange of integers from 0 to 2**32 - 1",
    is_layouts: "a sequence of vk.SubresourceLayout of integers from 0 to 2**64 - 1",
}

_ALLOCATE = "VUID-vkAllocateMemory-pAllocateInfo-parameter"
_CHAINED = "VUID-VkMemoryAllocateInfo-pNext-pNext"
_WIN32 = "VUID-VkImportMemoryWin32HandleInfoKHR-"
_FD = "VUID-VkImportMemoryFdInfoKHR-"
_HOST = "VUID-VkImportMemoryHostPointerInfoEXT-"
_MUTEX = "VUID-VkWin32KeyedMutexAcquireReleaseInfoKHR-"
_BUFFER = "VUID-VkBindBufferMemoryInfo-"
_IMAGE = "VUID-VkBindImageMemoryInfo-"
_BUFFER_QUERY = "VUID-VkPhysicalDeviceExternalBufferInfo-"
_TYPES = "-handleTypes-parameter"
_CREATE_BUFFER, _CREATE_IMAGE = "VUID-VkBufferCreateInfo-", "VUID-VkImageCreateInfo-"
_IMAGE_QUERY = "VUID-VkPhysicalDeviceImageFormatInfo2-"
_MODIFIERS = "VUID-VkImageDrmFormatModifierListCreateInfoEXT-"
_MODIFIER = "VUID-VkImageDrmFormatModifierExplicitCreateInfoEXT-"
_MODIFIER_QUERY = "VUID-VkPhysicalDeviceImageDrmFormatModifierInfoEXT-"
_DEPENDENCY = "VUID-vkCmdPipelineBarrier2-srcQueueFamilyIndex-10387"


def _families(source: str, destination: str) -> FieldTypes:
    """Return the rows of a barrier's two queue families."""
    return (
        ("src_queue_family_index", is_u32, f"VUID-{source}"),
        ("dst_queue_family_index", is_u32, f"VUID-{destination}"),
    )


def _accesses(source: str, destination: str) -> FieldTypes:
    """Return the rows of a barrier's two access masks."""
    return ("src_access_mask", is_u32, f"VUID-{source}"), ("dst_access_mask", is_u32, f"VUID-{destination}")


FIELD_TYPES: dict[type, FieldTypes] = {
    vk.MemoryAllocateInfo: (
        ("allocation_size", is_u64, _ALLOCATE),
        ("memory_type_index", is_u32, _ALLOCATE),
    ),
    vk.ImportMemoryWin32HandleInfoKHR: (
        ("handle_type", is_u32, _WIN32 + "handleType-parameter"),
        ("handle", is_handle, _WIN32 + "handleType-00661"),
        ("name", is_text, _WIN32 + "handleType-01440"),
    ),
    vk.ImportMemoryFdInfoKHR: (
        ("handle_type", is_u32, _FD + "handleType-parameter"),
        ("fd", is_fd, _FD + "handleType-00670"),
    ),
    vk.ImportMemoryHostPointerInfoEXT: (
        ("handle_type", is_u32, _HOST + "handleType-parameter"),
        ("host_pointer", is_address, _HOST + "pHostPointer-parameter"),
    ),
    vk.ExportMemoryAllocateInfo: (("handle_types", is_u32, "VUID-VkExportMemoryAllocateInfo" + _TYPES),),
    vk.ExportMemoryWin32HandleInfoKHR: (
        ("attributes", is_security, "VUID-VkExportMemoryWin32HandleInfoKHR-pAttributes-parameter"),
        ("access", is_u32, _CHAINED),
        ("name", is_text, _CHAINED),
    ),
    vk.MemoryDedicatedAllocateInfo: (
        ("image", is_handle, "VUID-VkMemoryDedicatedAllocateInfo-image-parameter"),
        ("buffer", is_handle, "VUID-VkMemoryDedicatedAllocateInfo-buffer-parameter"),
    ),
    vk.MemoryAllocateFlagsInfo: (("flags", is_u32, _CHAINED), ("device_mask", is_u32, _CHAINED)),
    vk.MemoryOpaqueCaptureAddressAllocateInfo: (("opaque_capture_address", is_u64, _CHAINED),),
    vk.DedicatedAllocationMemoryAllocateInfoNV: (("image", is_handle, _CHAINED), ("buffer", is_handle, _CHAINED)),
    vk.MemoryGetWin32HandleInfoKHR: (
        ("memory", is_handle, "VUID-VkMemoryGetWin32HandleInfoKHR-memory-parameter"),
        ("handle_type", is_u32, "VUID-VkMemoryGetWin32HandleInfoKHR-handleType-parameter"),
    ),
    vk.MemoryGetFdInfoKHR: (
        ("memory", is_handle, "VUID-VkMemoryGetFdInfoKHR-memory-parameter"),
        ("handle_type", is_u32, "VUID-VkMemoryGetFdInfoKHR-handleType-parameter"),
    ),
    vk.PhysicalDeviceExternalBufferInfo: (
        ("flags", is_u32, _BUFFER_QUERY + "flags-parameter"),
        ("usage", is_u32, _BUFFER_QUERY + "None-09499"),
        ("handle_type", is_u32, _BUFFER_QUERY + "handleType-parameter"),
    ),
    vk.PhysicalDeviceExternalImageFormatInfo: (
        ("handle_type", is_u32, "VUID-VkPhysicalDeviceExternalImageFormatInfo-handleType-parameter"),
    ),
    vk.PhysicalDeviceImageFormatInfo2: (
        ("format", is_u32, _IMAGE_QUERY + "format-parameter"),
        ("type", is_u32, _IMAGE_QUERY + "type-parameter"),
        ("tiling", is_u32, _IMAGE_QUERY + "tiling-parameter"),
        ("usage", is_u32, _IMAGE_QUERY + "usage-parameter"),
        ("flags", is_u32, _IMAGE_QUERY + "flags-parameter"),
    ),
    vk.PhysicalDeviceImageDrmFormatModifierInfoEXT: (
        ("drm_format_modifier", is_u64, _IMAGE_QUERY + "tiling-02249"),
        ("sharing_mode", is_u32, _MODIFIER_QUERY + "sharingMode-parameter"),
        ("queue_family_indices", is_indices, _MODIFIER_QUERY + "sharingMode-02314"),
    ),
    vk.ImageDrmFormatModifierListCreateInfoEXT: (
        ("drm_format_modifiers", is_numbers, _MODIFIERS + "pDrmFormatModifiers-parameter"),
    ),
    vk.ImageDrmFormatModifierExplicitCreateInfoEXT: (
        ("drm_format_modifier", is_u64, _MODIFIER + "drmFormatModifier-02264"),
        ("plane_layouts", is_layouts, _MODIFIER + "pPlaneLayouts-parameter"),
    ),
    vk.BufferCreateInfo: (
        ("flags", is_u32, _CREATE_BUFFER + "flags-parameter"),
        ("size", is_u64, _CREATE_BUFFER + "size-00912"),
        ("usage", is_u32, _CREATE_BUFFER + "None-09499"),
        ("sharing_mode", is_u32, _CREATE_BUFFER + "sharingMode-parameter"),
        ("queue_family_indices", is_indices, _CREATE_BUFFER + "sharingMode-00913"),
    ),
    vk.ImageCreateInfo: (
        ("flags", is_u32, _CREATE_IMAGE + "flags-parameter"),
        ("image_type", is_u32, _CREATE_IMAGE + "imageType-parameter"),
        ("format", is_u32, _CREATE_IMAGE + "format-parameter"),
        ("extent", is_extent, _CREATE_IMAGE + "extent-00944"),
        ("mip_levels", is_u32, _CREATE_IMAGE + "mipLevels-00947"),
        ("array_layers", is_u32, _CREATE_IMAGE + "arrayLayers-00948"),
        ("samples", is_u32, _CREATE_IMAGE + "samples-parameter"),
        ("tiling", is_u32, _CREATE_IMAGE + "tiling-parameter"),
        ("usage", is_u32, _CREATE_IMAGE + "usage-parameter"),
        ("sharing_mode", is_u32, _CREATE_IMAGE + "sharingMode-parameter"),
        ("queue_family_indices", is_indices, _CREATE_IMAGE + "sharingMode-00941"),
        ("initial_layout", is_u32, _CREATE_IMAGE + "initialLayout-parameter"),
    ),
    vk.Extent3D: (
        ("width", is_u32, _CREATE_IMAGE + "extent-00944"),
        ("height", is_u32, _CREATE_IMAGE + "extent-00945"),
        ("depth", is_u32, _CREATE_IMAGE + "extent-00946"),
    ),
    vk.ExternalMemoryBufferCreateInfo: (("handle_types", is_u32, "VUID-VkExternalMemoryBufferCreateInfo" + _TYPES),),
    vk.ExternalMemoryImageCreateInfo: (("handle_types", is_u32, "VUID-VkExternalMemoryImageCreateInfo" + _TYPES),),
    vk.BindBufferMemoryInfo: (("memory_offset", is_u64, _BUFFER + "memoryOffset-01031"),),
    vk.BindImageMemoryInfo: (("memory_offset", is_u64, _IMAGE + "memoryOffset-01046"),),
    vk.MemoryMapInfo: (("flags", is_u32, "VUID-VkMemoryMapInfo-flags-09575"),),
    vk.MemoryUnmapInfo: (("flags", is_u32, "VUID-VkMemoryUnmapInfo-flags-09580"),),
    vk.Win32KeyedMutexAcquireReleaseInfoKHR: (
        ("acquire_syncs", is_handles, _MUTEX + "pAcquireSyncs-parameter"),
        ("acquire_keys", is_numbers, _MUTEX + "pAcquireKeys-parameter"),
        ("acquire_timeouts", is_numbers, _MUTEX + "pAcquireTimeouts-parameter"),
        ("release_syncs", is_handles, _MUTEX + "pReleaseSyncs-parameter"),
        ("release_keys", is_numbers, _MUTEX + "pReleaseKeys-parameter"),
    ),
    vk.MemoryBarrier: _accesses("VkMemoryBarrier-srcAccessMask-parameter", "VkMemoryBarrier-dstAccessMask-parameter"),
    vk.BufferMemoryBarrier: (
        *_families("VkBufferMemoryBarrier-buffer-09095", "VkBufferMemoryBarrier-buffer-09096"),
        *_accesses(
            "vkCmdPipelineBarrier-pBufferMemoryBarriers-02817", "vkCmdPipelineBarrier-pBufferMemoryBarriers-02818"
        ),
        ("offset", is_u64, "VUID-VkBufferMemoryBarrier-offset-01187"),
        ("size", is_u64, "VUID-VkBufferMemoryBarrier-size-01189"),
    ),
    vk.BufferMemoryBarrier2: _families("VkBufferMemoryBarrier2-buffer-09095", "VkBufferMemoryBarrier2-buffer-09096"),
    vk.ImageMemoryBarrier: (
        *_families("VkImageMemoryBarrier-image-09117", "VkImageMemoryBarrier-image-09118"),
        *_accesses(
            "vkCmdPipelineBarrier-pImageMemoryBarriers-02819", "vkCmdPipelineBarrier-pImageMemoryBarriers-02820"
        ),
        ("old_layout", is_u32, "VUID-VkImageMemoryBarrier-oldLayout-parameter"),
        ("new_layout", is_u32, "VUID-VkImageMemoryBarrier-newLayout-parameter"),
        ("subresource_range", is_range, "VUID-VkImageMemoryBarrier-subresourceRange-parameter"),
    ),
    vk.ImageMemoryBarrier2: _families("VkImageMemoryBarrier2-image-09117", "VkImageMemoryBarrier2-image-09118"),
    vk.ImageSubresource: (
        ("aspect_mask", is_u32, "VUID-VkImageSubresource-aspectMask-parameter"),
        ("mip_level", is_u32, "VUID-vkGetImageSubresourceLayout-mipLevel-01716"),
        ("array_layer", is_u32, "VUID-vkGetImageSubresourceLayout-arrayLayer-01717"),
    ),
    vk.DependencyInfo: (
        ("buffer_memory_barriers", is_sequence, _DEPENDENCY),
        ("image_memory_barriers", is_sequence, _DEPENDENCY),
    ),
}

ARGUMENTS: dict[type, str] = {
    vk.MemoryAllocateInfo: "VUID-vkAllocateMemory-pAllocateInfo-parameter",
    vk.MemoryGetWin32HandleInfoKHR: "VUID-vkGetMemoryWin32HandleKHR-pGetWin32HandleInfo-parameter",
    vk.MemoryGetFdInfoKHR: "VUID-vkGetMemoryFdKHR-pGetFdInfo-parameter",
    vk.PhysicalDeviceExternalBufferInfo: (
        "VUID-vkGetPhysicalDeviceExternalBufferProperties-pExternalBufferInfo-parameter"
    ),
    vk.PhysicalDeviceExternalImageFormatInfo: ("VUID-VkPhysicalDeviceExternalImageFormatInfo-handleType-parameter"),
    vk.PhysicalDeviceImageFormatInfo2: "VUID-vkGetPhysicalDeviceImageFormatProperties2-pImageFormatInfo-parameter",
    vk.BufferCreateInfo: "VUID-vkCreateBuffer-pCreateInfo-parameter",
    vk.ImageCreateInfo: "VUID-vkCreateImage-pCreateInfo-parameter",
    vk.BindBufferMemoryInfo: _BUFFER + "memoryOffset-01031",
    vk.BindImageMemoryInfo: _IMAGE + "memoryOffset-01046",
    vk.MemoryMapInfo: "VUID-VkMemoryMapInfo-flags-09575",
    vk.MemoryUnmapInfo: "VUID-VkMemoryUnmapInfo-flags-09580",
    vk.MemoryBarrier: "VUID-vkCmdPipelineBarrier-pMemoryBarriers-parameter",
    vk.BufferMemoryBarrier: "VUID-VkBufferMemoryBarrier-buffer-09095",
    vk.BufferMemoryBarrier2: "VUID-VkBufferMemoryBarrier2-buffer-09095",
    vk.ImageMemoryBarrier: "VUID-VkImageMemoryBarrier-image-09117",
    vk.ImageMemoryBarrier2: "VUID-VkImageMemoryBarrier2-image-09117",
    vk.ImageSubresource: "VUID-vkGetImageSubresourceLayout-pSubresource-parameter",
    vk.DependencyInfo: _DEPENDENCY,
    vk.Win32KeyedMutexAcquireReleaseInfoKHR: _MUTEX + "pAcquireSyncs-parameter",
}
"""The rule that is broken when an object of another type is passed in place of the struct. Where the specification has
no such rule for the command within extmem's scope, it is the nearest one."""

_HOST_QUERY = "VUID-vkGetMemoryHostPointerPropertiesEXT-pHostPointer-parameter"


def register(fields: Mapping[type, FieldTypes], arguments: Mapping[type, str]) -> None:
    """Add structs to the two tables, and enter their rules as checked."""
    FIELD_TYPES.update(fields)
    ARGUMENTS.update(arguments)
    for row in fields.values():
        for field in row:
            CHECKED.setdefault(field[2], []).append(f"{__name__}.malformed")
    for argument in arguments.values():
        CHECKED.setdefault(argument, []).append(f"{__name__}.misfit")


register(dict(FIELD_TYPES), dict(ARGUMENTS))
CHECKED.setdefault(_HOST_QUERY, []).append(f"{__name__}.misfit")


def wrong_struct(info: object, struct: type, where: str) -> list[Violation]:
    """Return the violation if `info` is not of exactly this struct type; subclasses are not accepted."""
    if type(info) is struct:
        return []
    return [misfit(ARGUMENTS[struct], where, info, f"a vk.{struct.__name__}")]


def misfit(vuid: str, where: str, value: object, expected: str) -> Violation:
    """Return the violation for one value that is not of the right type."""
    return Violation(vuid, where, f"it is {_shown(value)}, not {expected}", f"Give {expected}.")


def _shown(value: object) -> str:
    """Return a short text for a value of any type."""
    if value is None:
        return "None"
    if isinstance(value, int) and not -(2**70) < value < 2**70:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (int, float, str, bytes)):
        text = repr(value)
        return f"the {type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
    return f"of type {type(value).__name__}"


def malformed(nodes: Iterable[tuple[str, Any]]) -> list[Violation]:
    """Return a violation for each field of these structs (each with its path) that is not of the right type."""
    violations: list[Violation] = []
    for where, node in nodes:
        for field, is_valid, vuid in FIELD_TYPES.get(type(node), ()):
            value = getattr(node, field)
            if not is_valid(value):
                violations.append(misfit(vuid, f"{where}.{field}", value, _EXPECTED[is_valid]))
    return violations
