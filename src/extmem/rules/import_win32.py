"""Importing by NT handle, KMT handle or name (VkImportMemoryWin32HandleInfoKHR).

The checks are in the order of a resolution: the type, handle or name, a name for this type, what it refers to, the
exporter's device, the size. A failed resolution is passed as `facts.refusal`, with the object manager's message.
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

_PATH = chained(vk.ImportMemoryWin32HandleInfoKHR)
_STRUCT = "VkImportMemoryWin32HandleInfoKHR"
_ELSEWHERE = Traits.IMPORTS_WIN32 | Traits.PAYLOAD | Traits.ELSEWHERE


@rule(f"{_STRUCT}-handleType-parameter", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.ODD_TYPE)
def type_is_defined(call: Allocation) -> Finding | None:
    """The handle type is exactly one bit that the registry defines."""
    return _import_payload.single_type(call.win32_type, f"{_PATH}.handle_type")


@rule(f"{_STRUCT}-handleType-00660", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.ODD_TYPE)
def type_is_win32(call: Allocation) -> Finding | None:
    """The handle type is one of the six. Values that are not a handle type break the `-parameter` rule."""
    handle_type = call.win32_type
    if handle_type & WIN32_TYPES == handle_type or handle_type not in DEFINED_TYPES:
        return None
    return (
        f"{_PATH}.handle_type",
        f"{types_text(handle_type)} is not a Win32 handle type",
        f"Use one of {types_text(WIN32_TYPES)}, or the import struct for {types_text(handle_type)}.",
    )


@rule(f"{_STRUCT}-handle-01441", on=ALLOCATE, needs=Traits.NAMED | Traits.HANDLED)
def handle_or_name(call: Allocation) -> Finding | None:
    """The struct has a handle or a name, not both."""
    win32 = call.win32
    if win32 is None:
        return None
    return (
        _PATH,
        f"both handle {handle_text(win32.handle)} and name {win32.name!r} are given",
        "Give the handle or the name, and None for the other.",
    )


@rule(f"{_STRUCT}-handleType-01439", on=ALLOCATE, needs=Traits.NAMED)
def name_is_for_nt_types(call: Allocation) -> Finding | None:
    """The handle type is an NT type if there is a name.

    KMT handles have no names. With handle type 0 the struct is ignored, so the name would not be imported.
    """
    win32 = call.win32
    if win32 is None or call.win32_type & NT_TYPES:
        return None
    type_name = types_text(call.win32_type)
    reason = (
        "handle_type is 0, so nothing would be imported"
        if not call.win32_type
        else f"{type_name} handles have no names"
    )
    return (
        f"{_PATH}.name",
        f"{reason}, but name is {win32.name!r}",
        f"Use one of {types_text(NT_TYPES)} to import by name, or pass name=None.",
    )


@rule(f"{_STRUCT}-handleType-01440", on=ALLOCATE, needs=Traits.IMPORTS_WIN32, never=Traits.HANDLED)
def name_leads_to_a_resource(call: Allocation) -> Finding | None:
    """Without a handle, the name refers to a resource of this type."""
    win32 = call.win32
    if win32 is None:
        return None
    if win32.name is None:
        return f"{_PATH}.name", "neither handle nor name is given", "Give the name of a shared resource, or a handle."
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            f"{_PATH}.name",
            f"the name {win32.name!r} does not refer to a resource: {refusal.status}: {refusal.detail.rstrip('.')}",
            "Open the name of a live export, from a process that is allowed to open it.",
        )
    return _type_mismatch(call, f"{_PATH}.name", f"the resource named {win32.name!r}")


@rule(f"{_STRUCT}-handleType-00661", on=ALLOCATE, needs=Traits.IMPORTS_WIN32, never=Traits.NAMED)
def handle_leads_to_a_resource(call: Allocation) -> Finding | None:
    """Without a name, the handle refers to a resource of this type."""
    win32 = call.win32
    if win32 is None:
        return None
    handle = win32.handle
    if is_null(handle):
        return f"{_PATH}.handle", "neither handle nor name is given", "Give a handle, or the name of a shared resource."
    if is_invalid_handle(handle):
        return (
            f"{_PATH}.handle",
            f"it is {handle_text(handle)}",
            "Check the call that returned the handle: it reported a failure.",
        )
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            f"{_PATH}.handle",
            f"{handle_text(handle)} is not a valid {types_text(call.win32_type)} handle in this process: "
            f"{refusal.status}: {refusal.detail.rstrip('.')}",
            "Use a handle that is open in this process; numbers from another process must be duplicated first.",
        )
    return _type_mismatch(call, f"{_PATH}.handle", f"the resource behind {handle_text(handle)}")


def _type_mismatch(call: Allocation, where: str, what: str) -> Finding | None:
    """Return a finding if a payload made by Vulkan was not exported as the handle type."""
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
    """The device imports the type, for the dedicated resource or else for a transfer buffer."""
    return _import_payload.importable(call, f"{_PATH}.handle_type")


@rule(f"{_STRUCT}-handle-00659", on=ALLOCATE, needs=_ELSEWHERE)
def same_physical_device(call: Allocation) -> Finding | None:
    """The payload is on the importing device."""
    return _import_payload.same_device(call, _PATH)


@rule(f"{_STRUCT}-handle-01518", on=ALLOCATE, needs=_ELSEWHERE | Traits.HANDLED)
def uuids_match_by_handle(call: Allocation) -> Finding | None:
    """Both UUIDs match, for all six Win32 types."""
    return _import_payload.same_uuids(call, f"{_PATH}.handle")


@rule(f"{_STRUCT}-name-01519", on=ALLOCATE, needs=_ELSEWHERE | Traits.NAMED)
def uuids_match_by_name(call: Allocation) -> Finding | None:
    """Both UUIDs match, for all six Win32 types."""
    return _import_payload.same_uuids(call, f"{_PATH}.name")


@rule("VkMemoryAllocateInfo-allocationSize-01743", on=ALLOCATE, needs=Traits.IMPORTS_WIN32 | Traits.OUR_PAYLOAD)
def size_and_type_are_the_exporters(call: Allocation) -> Finding | None:
    """An opaque payload is imported with the size and memory type of its allocation."""
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
    """The memory type is one of those that the device reports for a handle from outside Vulkan."""
    return _import_payload.allowed_type(call, "vkGetMemoryWin32HandlePropertiesKHR")
