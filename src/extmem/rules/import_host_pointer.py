"""Importing memory of this process by address (VkImportMemoryHostPointerInfoEXT).

A struct with handle type 0 is not an import. The rule that follows from the registry forbids it, but the rules and the
text of the chapter allow it; extmem follows the chapter.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import (
    DEFINED_TYPES,
    HOST_ALLOCATION,
    HOST_MAPPED_FOREIGN_MEMORY,
    HOST_TYPES,
    size_text,
    types_text,
)
from extmem.vk.handle_types import MemoryHandleType

__all__: list[str] = []

_PATH = chained(vk.ImportMemoryHostPointerInfoEXT)
_STRUCT = "VkImportMemoryHostPointerInfoEXT"


def _pointer(call: Allocation) -> int:
    return int(call.host.host_pointer or 0) if call.host is not None else 0


@rule(f"{_STRUCT}-handleType-parameter", on=ALLOCATE, needs=Traits.IMPORTS_HOST | Traits.ODD_TYPE)
def type_is_defined(call: Allocation) -> Finding | None:
    """The handle type is exactly one bit that the registry defines."""
    return _import_payload.single_type(call.host_type, f"{_PATH}.handle_type")


@rule(f"{_STRUCT}-handleType-01748", on=ALLOCATE, needs=Traits.IMPORTS_HOST | Traits.ODD_TYPE)
def type_is_host(call: Allocation) -> Finding | None:
    """The handle type is one of the two. Values that are not a handle type break the `-parameter` rule."""
    handle_type = call.host_type
    if handle_type & HOST_TYPES == handle_type or handle_type not in DEFINED_TYPES:
        return None
    return (
        f"{_PATH}.handle_type",
        f"{types_text(handle_type)} is not a type of host memory",
        "Use HOST_ALLOCATION or HOST_MAPPED_FOREIGN_MEMORY.",
    )


@rule(f"{_STRUCT}-handleType-01747", on=ALLOCATE, needs=Traits.IMPORTS_HOST)
def type_is_importable(call: Allocation) -> Finding | None:
    """The device imports the type for a transfer buffer."""
    return _import_payload.importable(call, f"{_PATH}.handle_type")


@rule(f"{_STRUCT}-pHostPointer-01749", on=ALLOCATE, needs=Traits.IMPORTS_HOST)
def pointer_is_aligned(call: Allocation) -> Finding | None:
    """The address is a multiple of the device's alignment, which is usually the page size."""
    alignment = call.device.min_imported_host_pointer_alignment
    pointer = _pointer(call)
    if not alignment or not pointer % alignment:
        return None
    return (
        f"{_PATH}.host_pointer",
        f"{pointer:#x} is not a multiple of the device's alignment of {alignment}",
        f"Use memory that starts on a boundary of {alignment} bytes.",
    )


@rule("VkMemoryAllocateInfo-allocationSize-01745", on=ALLOCATE, needs=Traits.IMPORTS_HOST)
def size_is_aligned(call: Allocation) -> Finding | None:
    """The size is a multiple of the alignment."""
    alignment = call.device.min_imported_host_pointer_alignment
    size = int(call.info.allocation_size)
    if not alignment or not size % alignment:
        return None
    return (
        f"{BASE}.allocation_size",
        f"{size_text(size)} are not a multiple of the device's alignment of {alignment}",
        f"Import {-(-size // alignment) * alignment} bytes, if that much memory is mapped.",
    )


def _covered(call: Allocation, handle_type: MemoryHandleType) -> Finding | None:
    if call.host_type != handle_type or call.facts.host_range_mapped is not False:
        return None
    pointer, size = _pointer(call), int(call.info.allocation_size)
    if not size:
        return f"{BASE}.allocation_size", "it is 0", "Give the number of bytes to import, beginning at the pointer."
    return (
        f"{_PATH}.host_pointer",
        f"not all of {pointer:#x} to {pointer + size:#x} is mapped for reading and writing in this process, or a part "
        "is past the end of its file",
        "Import a range that is mapped for both throughout, and keep it so, and its file as long, until the memory is "
        "freed.",
    )


@rule(f"{_STRUCT}-handleType-01750", on=ALLOCATE, needs=Traits.IMPORTS_HOST)
def allocation_is_covered(call: Allocation) -> Finding | None:
    """The whole range of a host allocation is mapped."""
    return _covered(call, HOST_ALLOCATION)


@rule(f"{_STRUCT}-handleType-01751", on=ALLOCATE, needs=Traits.IMPORTS_HOST)
def foreign_mapping_is_covered(call: Allocation) -> Finding | None:
    """The whole range of a foreign mapping is mapped."""
    return _covered(call, HOST_MAPPED_FOREIGN_MEMORY)


@rule("VkMemoryAllocateInfo-memoryTypeIndex-01744", on=ALLOCATE, needs=Traits.IMPORTS_HOST)
def memory_type_suits_the_pointer(call: Allocation) -> Finding | None:
    """The memory type is one of those that the device reports for the pointer."""
    return _import_payload.memory_type_allowed(
        call, call.facts.host_memory_type_bits, "vkGetMemoryHostPointerPropertiesEXT"
    )
