"""Allocating exportable memory (VkExportMemoryAllocateInfo, VkExportMemoryWin32HandleInfoKHR)."""

from __future__ import annotations

from collections.abc import Mapping

from extmem import vk
from extmem.rules._allocation import ALLOCATE, Allocation, Traits, chained
from extmem.rules._engine import Demand, demand
from extmem.rules._handle_types import defined_types
from extmem.rules._import_payload import capabilities_apply
from extmem.rules._text import OPAQUE_WIN32, SIZE_IGNORED_TYPES, bits_of, types_text
from extmem.rules.facts import ExternalMemoryFacts
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

__all__ = ["dedicated_only", "unexportable"]

_PATH = f"{chained(vk.ExportMemoryAllocateInfo)}.handle_types"
_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
_EXPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.EXPORTABLE)

Answers = Mapping[MemoryHandleType, ExternalMemoryFacts]


def dedicated_only(types: MemoryHandleType, answers: Answers) -> MemoryHandleType:
    """Return those of the types that need a dedicated allocation: as the device reports, and always D3D textures."""
    reported = sum(bit for bit in bits_of(types) if bit in answers and int(answers[bit].features) & _DEDICATED_ONLY)
    return MemoryHandleType(reported | types & SIZE_IGNORED_TYPES)


def unexportable(types: MemoryHandleType, answers: Answers, imported: MemoryHandleType = NO_TYPES) -> str:
    """Return why the types cannot be exported together; empty if they can, or if the device was not queried."""
    again = answers.get(imported) if imported else None
    wrong = []
    for bit in bits_of(types):
        answer = answers.get(bit)
        if answer is None:
            continue
        if not int(answer.features) & _EXPORTABLE:
            wrong.append(f"{types_text(bit)} cannot be exported")
        elif types & ~int(answer.compatible):
            others = types_text(types & ~int(answer.compatible))
            wrong.append(f"{types_text(bit)} cannot be exported together with {others}")
        elif again is not None and not int(again.export_from_imported) & bit:
            wrong.append(f"{types_text(bit)} cannot be exported from memory imported as {types_text(imported)}")
    return "; ".join(wrong)


def _unexportable(call: Allocation) -> str:
    """The types can be exported each alone, all together, and from the imported type if the call also imports."""
    if not capabilities_apply(call, call.export_types):
        return ""
    return unexportable(call.export_types, call.facts.capabilities, call.import_type)


def _undedicated(call: Allocation) -> tuple[str, str] | None:
    """Types that need a dedicated allocation have one. The NV struct for dedicated allocations counts too."""
    nv = call.dedicated_nv
    if nv is not None and (nv.image or nv.buffer):
        return None
    types = dedicated_only(call.export_types, call.facts.capabilities)
    if not types:
        return None
    answers = call.facts.capabilities
    never = [bit for bit in bits_of(types) if bit in answers and not int(answers[bit].features) & _EXPORTABLE]
    if not never:
        return types_text(types), "Chain MemoryDedicatedAllocateInfo with the buffer or image that the memory is for."
    return types_text(types), (
        f"Omit {types_text(sum(never))}: {call.device.name!r} does not export it for buffers. Where "
        "get_physical_device_image_format_properties2 reports EXPORTABLE, dedicate the memory to such an image."
    )


def _attributes_without_export(call: Allocation) -> str:
    """Security, access and name are given with an OPAQUE_WIN32 export only."""
    if call.export_types & OPAQUE_WIN32:
        return ""
    return f"handle_types is {types_text(call.export_types)}" if call.export else "there is no ExportMemoryAllocateInfo"


demand(
    ALLOCATE,
    defined_types("VkExportMemoryAllocateInfo-handleTypes-parameter", "export_types", _PATH, needs=Traits.HAS_EXPORT),
    Demand(
        "VkExportMemoryAllocateInfo-handleTypes-09860",
        _unexportable,
        _PATH,
        "on {call.device.name!r}: {found}",
        "Request fewer handle types; one type is enough for a memory object.",
        needs=Traits.HAS_EXPORT | Traits.EXPORTS,
    ),
    Demand(
        "VkMemoryAllocateInfo-pNext-00639",
        _undedicated,
        _PATH,
        "{found[0]} can be exported from dedicated allocations only",
        "{found[1]}",
        needs=Traits.HAS_EXPORT | Traits.EXPORTS,
        never=Traits.DEDICATED,
    ),
    Demand(
        "VkExportMemoryWin32HandleInfoKHR-handleTypes-00657",
        _attributes_without_export,
        chained(vk.ExportMemoryWin32HandleInfoKHR),
        "security, access and name are for OPAQUE_WIN32 exports, but {found}",
        "Add OPAQUE_WIN32 to ExportMemoryAllocateInfo.handle_types, or remove ExportMemoryWin32HandleInfoKHR.",
        needs=Traits.HAS_EXPORT_WIN32,
    ),
)
