"""Importing memory of this process by address (VkImportMemoryHostPointerInfoEXT).

A struct with handle type 0 is not an import. The rule that follows from the registry forbids it, but the rules and the
text of the chapter allow it; extmem follows the chapter.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._conditions import not_multiple
from extmem.rules._engine import Demand, Finding, demand
from extmem.rules._handle_types import defined_but_not, single_type
from extmem.rules._import_payload import allowed_type, importable
from extmem.rules._text import HOST_ALLOCATION, HOST_MAPPED_FOREIGN_MEMORY, HOST_TYPES
from extmem.vk.handle_types import MemoryHandleType

__all__: list[str] = []

_PATH = chained(vk.ImportMemoryHostPointerInfoEXT)
_STRUCT = "VkImportMemoryHostPointerInfoEXT"


def _covered(vuid: str, handle_type: MemoryHandleType) -> Demand:
    """Return the row that the whole range is mapped, for imports of this handle type."""

    def broken(call: Allocation) -> Finding | None:
        if call.host_type != handle_type or call.facts.host_range_mapped is not False:
            return None
        pointer, size = call.host_pointer, int(call.info.allocation_size)
        if not size:
            return f"{BASE}.allocation_size", "it is 0", "Give the number of bytes to import, beginning at the pointer."
        return (
            f"{_PATH}.host_pointer",
            f"not all of {pointer:#x} to {pointer + size:#x} is mapped for reading and writing in this process, or a "
            "part is past the end of its file",
            "Import a range that is mapped for both throughout, and keep it so, and its file as long, until the memory "
            "is freed.",
        )

    return Demand(vuid, broken, needs=Traits.IMPORTS_HOST)


_ALIGNMENT = "device.min_imported_host_pointer_alignment"

demand(
    ALLOCATE,
    single_type(
        f"{_STRUCT}-handleType-parameter",
        "host_type",
        f"{_PATH}.handle_type",
        needs=Traits.IMPORTS_HOST | Traits.ODD_TYPE,
    ),
    Demand(
        f"{_STRUCT}-handleType-01748",
        defined_but_not("host_type", HOST_TYPES),
        f"{_PATH}.handle_type",
        "{found} is not a type of host memory",
        "Use HOST_ALLOCATION or HOST_MAPPED_FOREIGN_MEMORY.",
        needs=Traits.IMPORTS_HOST | Traits.ODD_TYPE,
    ),
    importable(f"{_STRUCT}-handleType-01747", f"{_PATH}.handle_type", Traits.IMPORTS_HOST),
    Demand(
        f"{_STRUCT}-pHostPointer-01749",
        not_multiple("host_pointer", _ALIGNMENT),
        f"{_PATH}.host_pointer",
        f"{{call.host_pointer:#x}} is not a multiple of the device's alignment of {{call.{_ALIGNMENT}}}",
        f"Use memory that starts on a boundary of {{call.{_ALIGNMENT}}} bytes.",
        needs=Traits.IMPORTS_HOST,
    ),
    Demand(
        "VkMemoryAllocateInfo-allocationSize-01745",
        not_multiple("info.allocation_size", _ALIGNMENT),
        f"{BASE}.allocation_size",
        f"{{call.info.allocation_size:d}} bytes are not a multiple of the device's alignment of {{call.{_ALIGNMENT}}}",
        "Import {found[1]} bytes, if that much memory is mapped.",
        needs=Traits.IMPORTS_HOST,
    ),
    _covered(f"{_STRUCT}-handleType-01750", HOST_ALLOCATION),
    _covered(f"{_STRUCT}-handleType-01751", HOST_MAPPED_FOREIGN_MEMORY),
    allowed_type(
        "VkMemoryAllocateInfo-memoryTypeIndex-01744",
        "facts.host_memory_type_bits",
        "vkGetMemoryHostPointerPropertiesEXT",
        Traits.IMPORTS_HOST,
    ),
)
