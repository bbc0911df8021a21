"""Importing by NT handle, KMT handle or name (VkImportMemoryWin32HandleInfoKHR).

The order is that of a resolution: the type, handle or name, a name for this type, what it leads to, whose it is, its
size. A failed resolution comes in as `facts.refusal`, in the object manager's own words.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _import_payload
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._engine import Finding, rule
from extmem.rules._text import (
    D3D12_HEAP,
    DEFINED_TYPES,
    NT_TYPES,
    OPAQUE_WIN32_TYPES,
    WIN32_TYPES,
    handle_text,
    is_invalid_handle,
    is_null,
    size_text,
    types_text,
)

__all__: list[str] = []

_HERE = chained(vk.ImportMemoryWin32HandleInfoKHR)
_STRUCT = "VkImportMemoryWin32HandleInfoKHR"
_ELSEWHERE = Traits.IMPORTS_WIN32 | Traits.PAYLOAD | Traits.ELSEWHERE


@rule(f"{_STRUCT}-handleType-parameter", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.ODD_TYPE)
def type_is_defined(call: Allocation) -> Finding | None:
    """Exactly one bit that the registry knows."""
    return _import_payload.single_type(call.win32_type, f"{_HERE}.handle_type")


@rule(f"{_STRUCT}-handleType-00660", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.ODD_TYPE)
def type_is_win32(call: Allocation) -> Finding | None:
    """One of the six; values that are no type at all are the `-parameter` rule's."""
    kind = call.win32_type
    if kind & WIN32_TYPES == kind or kind not in DEFINED_TYPES:
        return None
    return (
        f"{_HERE}.handle_type",
        f"{types_text(kind)} is not a Win32 handle type",
        f"Use one of {types_text(WIN32_TYPES)}, or the import struct made for {types_text(kind)}.",
    )


@rule(f"{_STRUCT}-handle-01441", on=ALLOCATE, needs=Traits.NAMED | Traits.HANDLED)
def handle_or_name(call: Allocation) -> Finding | None:
    """Not both."""
    win32 = call.win32
    if win32 is None:
        return None
    return (
        _HERE,
        f"both handle {handle_text(win32.handle)} and name {win32.name!r} are given",
        "Give the handle or the name and leave the other at None.",
    )


@rule(f"{_STRUCT}-handleType-01439", on=ALLOCATE, needs=Traits.NAMED)
def name_is_for_nt_types(call: Allocation) -> Finding | None:
    """KMT handles have no names. Handle type 0 with a name counts too: the import would silently not happen."""
    win32 = call.win32
    if win32 is None or call.win32_type & NT_TYPES:
        return None
    kind = types_text(call.win32_type)
    said = "handle_type is 0, so nothing would be imported" if not call.win32_type else f"{kind} handles have no names"
    return (
        f"{_HERE}.name",
        f"{said}, but name is {win32.name!r}",
        f"Use one of {types_text(NT_TYPES)} to import by name, or leave the name at None.",
    )


@rule(f"{_STRUCT}-handleType-01440", on=ALLOCATE, needs=Traits.IMPORTS_WIN32, never=Traits.HANDLED)
def name_leads_to_a_resource(call: Allocation) -> Finding | None:
    """Without a handle, the name is what counts."""
    win32 = call.win32
    if win32 is None:
        return None
    if win32.name is None:
        return f"{_HERE}.name", "neither handle nor name is given", "Give the name of a shared resource, or a handle."
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            f"{_HERE}.name",
            f"the name {win32.name!r} leads to no resource: {refusal.status}: {refusal.detail.rstrip('.')}",
            "Open a name that a live export has, from a process that may open it.",
        )
    return _type_mismatch(call, f"{_HERE}.name", f"the resource named {win32.name!r}")


@rule(f"{_STRUCT}-handleType-00661", on=ALLOCATE, needs=Traits.IMPORTS_WIN32, never=Traits.NAMED)
def handle_leads_to_a_resource(call: Allocation) -> Finding | None:
    """Without a name, the handle is what counts."""
    win32 = call.win32
    if win32 is None:
        return None
    handle = win32.handle
    if is_null(handle):
        return f"{_HERE}.handle", "neither handle nor name is given", "Give a handle, or the name of a shared resource."
    if is_invalid_handle(handle):
        return (
            f"{_HERE}.handle",
            f"it is {handle_text(handle)}",
            "Check what made the handle: it reported a failure.",
        )
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            f"{_HERE}.handle",
            f"{handle_text(handle)} is no valid {types_text(call.win32_type)} handle here: "
            f"{refusal.status}: {refusal.detail.rstrip('.')}",
            "Use a handle that is open in this process; numbers from another process must be duplicated first.",
        )
    return _type_mismatch(call, f"{_HERE}.handle", f"the resource behind {handle_text(handle)}")


def _type_mismatch(call: Allocation, where: str, what: str) -> Finding | None:
    """A payload that Vulkan made has the types it was exported for, and no others."""
    payload = call.payload
    if payload is None or not payload.made_by_vulkan or not payload.handle_types:
        return None
    if int(payload.handle_types) & call.win32_type:
        return None
    return (
        where,
        f"{what} was exported as {types_text(int(payload.handle_types))}, not {types_text(call.win32_type)}",
        f"Import it as {types_text(int(payload.handle_types))}.",
    )


@rule(f"{_STRUCT}-handleType-09861", on=ALLOCATE, needs=Traits.IMPORTS_WIN32)
def type_is_importable(call: Allocation) -> Finding | None:
    """As the device answered for the dedicated resource, else for a transfer buffer."""
    return _import_payload.importable(call, f"{_HERE}.handle_type")


@rule(f"{_STRUCT}-handle-00659", on=ALLOCATE, needs=_ELSEWHERE)
def same_physical_device(call: Allocation) -> Finding | None:
    """A payload cannot leave the GPU it lies on."""
    return _import_payload.same_device(call, _HERE)


@rule(f"{_STRUCT}-handle-01518", on=ALLOCATE, needs=_ELSEWHERE | Traits.HANDLED)
def uuids_match_by_handle(call: Allocation) -> Finding | None:
    """All six Win32 types want both UUIDs to match."""
    return _import_payload.same_uuids(call, f"{_HERE}.handle")


@rule(f"{_STRUCT}-name-01519", on=ALLOCATE, needs=_ELSEWHERE | Traits.NAMED)
def uuids_match_by_name(call: Allocation) -> Finding | None:
    """All six Win32 types want both UUIDs to match."""
    return _import_payload.same_uuids(call, f"{_HERE}.name")


@rule("VkMemoryAllocateInfo-allocationSize-01743", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.OUR_PAYLOAD)
def size_and_type_are_the_exporters(call: Allocation) -> Finding | None:
    """Opaque payloads keep the size and memory type of their allocation."""
    if not call.win32_type & OPAQUE_WIN32_TYPES:
        return None
    return _import_payload.same_size_and_type(call)


@rule("VkMemoryAllocateInfo-allocationSize-00647", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.PAYLOAD)
def heap_size_is_the_exporters(call: Allocation) -> Finding | None:
    """Direct3D 12 heaps are imported whole."""
    payload = call.payload
    if call.win32_type != D3D12_HEAP or payload is None or payload.allocation_size is None:
        return None
    if call.info.allocation_size == payload.allocation_size:
        return None
    return (
        f"{BASE}.allocation_size",
        f"it is {size_text(call.info.allocation_size)}, the Direct3D 12 heap has {size_text(payload.allocation_size)}",
        f"Pass allocation_size={payload.allocation_size}.",
    )


@rule("VkMemoryAllocateInfo-memoryTypeIndex-00645", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.FOREIGN_PAYLOAD)
def memory_type_suits_the_handle(call: Allocation) -> Finding | None:
    """Foreign handles come with a set of memory types that the device can see them as."""
    return _import_payload.allowed_type(call, "vkGetMemoryWin32HandlePropertiesKHR")
