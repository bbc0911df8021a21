"""Allocating exportable memory (VkExportMemoryAllocateInfo, VkExportMemoryWin32HandleInfoKHR)."""

from __future__ import annotations

from collections.abc import Mapping

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._allocation import ALLOCATE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import OPAQUE_WIN32, SIZE_IGNORED_TYPES, bits_of, types_text
from extmem.rules.facts import ExternalMemoryFacts
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType, common, union

__all__ = ["dedicated_only", "unexportable"]

_PATH = f"{chained(vk.ExportMemoryAllocateInfo)}.handle_types"
_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
_EXPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.EXPORTABLE)

Answers = Mapping[MemoryHandleType, ExternalMemoryFacts]


def dedicated_only(types: MemoryHandleType, answers: Answers) -> MemoryHandleType:
    """Return those of the types that need a dedicated allocation: as the device reports, and always D3D textures."""
    dedicated_types = common(types, SIZE_IGNORED_TYPES)
    for bit in bits_of(types):
        answer = answers.get(bit)
        if answer is not None and int(answer.features) & _DEDICATED_ONLY:
            dedicated_types = union(dedicated_types, bit)
    return dedicated_types


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


@rule("VkExportMemoryAllocateInfo-handleTypes-parameter", on=ALLOCATE, needs=Traits.HAS_EXPORT)
def types_are_defined(call: Allocation) -> Finding | None:
    """The handle types are defined bits."""
    return _import_payload.defined_types(call.export_types, _PATH)


@rule("VkExportMemoryAllocateInfo-handleTypes-09860", on=ALLOCATE, needs=Traits.HAS_EXPORT | Traits.EXPORTS)
def types_are_exportable(call: Allocation) -> Finding | None:
    """The types can be exported each alone, all together, and from the imported type if the call also imports."""
    types = call.export_types
    if not _import_payload.capabilities_apply(call, types):
        return None
    problem = unexportable(types, call.facts.capabilities, call.import_type)
    if not problem:
        return None
    return (
        _PATH,
        f"on {call.device.name!r}: {problem}",
        "Request fewer handle types; one type is enough for a memory object.",
    )


@rule("VkMemoryAllocateInfo-pNext-00639", on=ALLOCATE, needs=Traits.HAS_EXPORT | Traits.EXPORTS, never=Traits.DEDICATED)
def dedicated_where_required(call: Allocation) -> Finding | None:
    """Types that need a dedicated allocation have one. The NV struct for dedicated allocations counts too."""
    nv = call.dedicated_nv
    if nv is not None and (nv.image or nv.buffer):
        return None
    types = dedicated_only(call.export_types, call.facts.capabilities)
    if not types:
        return None
    answers = call.facts.capabilities
    never = [bit for bit in bits_of(types) if bit in answers and not int(answers[bit].features) & _EXPORTABLE]
    remedy = "Chain MemoryDedicatedAllocateInfo with the buffer or image that the memory is for."
    if never:
        names = types_text(sum(never))
        remedy = (
            f"Omit {names}: {call.device.name!r} does not export it for buffers. Where "
            "get_physical_device_image_format_properties2 reports EXPORTABLE, dedicate the memory to such an image."
        )
    return _PATH, f"{types_text(types)} can be exported from dedicated allocations only", remedy


@rule("VkExportMemoryWin32HandleInfoKHR-handleTypes-00657", on=ALLOCATE, needs=Traits.HAS_EXPORT_WIN32)
def attributes_belong_to_an_nt_export(call: Allocation) -> Finding | None:
    """Security, access and name are given with an OPAQUE_WIN32 export only."""
    if call.export_types & OPAQUE_WIN32:
        return None
    if call.export:
        actual = f"handle_types is {types_text(call.export_types)}"
    else:
        actual = "there is no ExportMemoryAllocateInfo"
    return (
        chained(vk.ExportMemoryWin32HandleInfoKHR),
        f"security, access and name are for OPAQUE_WIN32 exports, but {actual}",
        "Add OPAQUE_WIN32 to ExportMemoryAllocateInfo.handle_types, or remove ExportMemoryWin32HandleInfoKHR.",
    )
