"""Allocating memory that can be exported (VkExportMemoryAllocateInfo, VkExportMemoryWin32HandleInfoKHR)."""

from __future__ import annotations

from collections.abc import Mapping

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._allocation import ALLOCATE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import OPAQUE_WIN32, SIZE_IGNORED_TYPES, bits_of, types_text
from extmem.rules.facts import ExternalMemoryFacts

__all__ = ["dedicated_only", "unexportable"]

_HERE = f"{chained(vk.ExportMemoryAllocateInfo)}.handle_types"
_DEDICATED_ONLY = int(vk.ExternalMemoryFeatureFlagBits.DEDICATED_ONLY)
_EXPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.EXPORTABLE)

Answers = Mapping[int, ExternalMemoryFacts]


def dedicated_only(types: int, answers: Answers) -> int:
    """Those of the types that need a dedicated allocation, by the device's answers or, for D3D textures, always."""
    found = types & SIZE_IGNORED_TYPES
    for bit in bits_of(types):
        answer = answers.get(bit)
        if answer is not None and int(answer.features) & _DEDICATED_ONLY:
            found |= bit
    return found


def unexportable(types: int, answers: Answers, imported: int = 0) -> str:
    """Why the types cannot be exported together, as text; empty when they can, or when the device was not asked."""
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
    """Unknown bits mean nothing to any device."""
    return _import_payload.defined_types(call.export_types, _HERE)


@rule("VkExportMemoryAllocateInfo-handleTypes-09860", on=ALLOCATE, needs=Traits.HAS_EXPORT | Traits.EXPORTS)
def types_are_exportable(call: Allocation) -> Finding | None:
    """Each for itself, all together, and from the imported type where the call imports as well."""
    types = call.export_types
    if not _import_payload.speaks_of_this_resource(call, types):
        return None
    problem = unexportable(types, call.facts.capabilities, call.import_type)
    if not problem:
        return None
    return _HERE, f"on {call.device.name!r}: {problem}", "Ask for fewer handle types; one memory object can serve one."


@rule("VkMemoryAllocateInfo-pNext-00639", on=ALLOCATE, needs=Traits.HAS_EXPORT | Traits.EXPORTS, never=Traits.DEDICATED)
def dedicated_where_required(call: Allocation) -> Finding | None:
    """The NV dedicated struct counts as well."""
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
            f"Leave {names} out: {call.device.name!r} does not export it for buffers. Where "
            "get_physical_device_image_format_properties2 reports EXPORTABLE, dedicate the memory to such an image."
        )
    return _HERE, f"{types_text(types)} can be exported from dedicated allocations only", remedy


@rule("VkExportMemoryWin32HandleInfoKHR-handleTypes-00657", on=ALLOCATE, needs=Traits.HAS_EXPORT_WIN32)
def attributes_belong_to_an_nt_export(call: Allocation) -> Finding | None:
    """Security, access and name without an OPAQUE_WIN32 export would be ignored, or worse."""
    if call.export_types & OPAQUE_WIN32:
        return None
    said = f"handle_types is {types_text(call.export_types)}" if call.export else "there is no ExportMemoryAllocateInfo"
    return (
        chained(vk.ExportMemoryWin32HandleInfoKHR),
        f"security, access and name are for OPAQUE_WIN32 exports, but {said}",
        "Add OPAQUE_WIN32 to ExportMemoryAllocateInfo.handle_types, or take ExportMemoryWin32HandleInfoKHR out.",
    )
