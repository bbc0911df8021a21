"""Importing by NT handle, KMT handle or name (VkImportMemoryWin32HandleInfoKHR).

The checks are in the order of a resolution: the type, handle or name, a name for this type, what it refers to, the
exporter's device, the size. A failed resolution is passed as `facts.refusal`, with the object manager's message.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._engine import Demand, Finding, demand
from extmem.rules._handle_types import defined_but_not, single_type
from extmem.rules._import_payload import (
    allowed_type,
    exported_otherwise,
    importable,
    same_device,
    same_size_and_type,
    same_uuids,
)
from extmem.rules._text import (
    NT_TYPES,
    WIN32_TYPES,
    handle_text,
    is_invalid_handle,
    is_null,
    types_text,
)

__all__: list[str] = []

_PATH = chained(vk.ImportMemoryWin32HandleInfoKHR)
_STRUCT = "VkImportMemoryWin32HandleInfoKHR"
_ELSEWHERE = Traits.IMPORTS_WIN32 | Traits.PAYLOAD | Traits.ELSEWHERE


def _handle_beside_name(call: Allocation) -> str:
    return handle_text(call.win32.handle) if call.win32 is not None else ""


def _name_of_no_nt_type(call: Allocation) -> str:
    """KMT handles have no names. With handle type 0 the struct is ignored, so the name would not be imported."""
    if call.win32_type & NT_TYPES:
        return ""
    if not call.win32_type:
        return "handle_type is 0, so nothing would be imported"
    return f"{types_text(call.win32_type)} handles have no names"


def _name_leads_nowhere(call: Allocation) -> Finding | None:
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
    return exported_otherwise(call, call.win32_type, f"{_PATH}.name", f"the resource named {win32.name!r}")


def _handle_leads_nowhere(call: Allocation) -> Finding | None:
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
    return exported_otherwise(call, call.win32_type, f"{_PATH}.handle", f"the resource behind {handle_text(handle)}")


def _other_heap_size(call: Allocation) -> bool:
    """Direct3D 12 heaps are imported whole."""
    size = call.payload.allocation_size if call.payload is not None else None
    return size is not None and size != call.info.allocation_size


demand(
    ALLOCATE,
    single_type(
        f"{_STRUCT}-handleType-parameter",
        "win32_type",
        f"{_PATH}.handle_type",
        needs=Traits.IMPORTS_WIN32 | Traits.ODD_TYPE,
    ),
    Demand(
        f"{_STRUCT}-handleType-00660",
        defined_but_not("win32_type", WIN32_TYPES),
        f"{_PATH}.handle_type",
        "{found} is not a Win32 handle type",
        f"Use one of {types_text(WIN32_TYPES)}, or the import struct for {{found}}.",
        needs=Traits.IMPORTS_WIN32 | Traits.ODD_TYPE,
    ),
    Demand(
        f"{_STRUCT}-handle-01441",
        _handle_beside_name,
        _PATH,
        "both handle {found} and name {call.win32.name!r} are given",
        "Give the handle or the name, and None for the other.",
        needs=Traits.NAMED | Traits.HANDLED,
    ),
    Demand(
        f"{_STRUCT}-handleType-01439",
        _name_of_no_nt_type,
        f"{_PATH}.name",
        "{found}, but name is {call.win32.name!r}",
        f"Use one of {types_text(NT_TYPES)} to import by name, or pass name=None.",
        needs=Traits.NAMED,
    ),
    Demand(f"{_STRUCT}-handleType-01440", _name_leads_nowhere, needs=Traits.IMPORTS_WIN32, never=Traits.HANDLED),
    Demand(f"{_STRUCT}-handleType-00661", _handle_leads_nowhere, needs=Traits.IMPORTS_WIN32, never=Traits.NAMED),
    importable(f"{_STRUCT}-handleType-09861", f"{_PATH}.handle_type", Traits.IMPORTS_WIN32),
    same_device(f"{_STRUCT}-handle-00659", _PATH, _ELSEWHERE),
    same_uuids(f"{_STRUCT}-handle-01518", f"{_PATH}.handle", _ELSEWHERE | Traits.HANDLED),
    same_uuids(f"{_STRUCT}-name-01519", f"{_PATH}.name", _ELSEWHERE | Traits.NAMED),
    Demand(  # an opaque payload is imported with the size and memory type of its allocation
        "VkMemoryAllocateInfo-allocationSize-01743",
        same_size_and_type,
        needs=Traits.OPAQUE_WIN32 | Traits.OUR_PAYLOAD,
    ),
    Demand(
        "VkMemoryAllocateInfo-allocationSize-00647",
        _other_heap_size,
        f"{BASE}.allocation_size",
        "it is {call.info.allocation_size:d} bytes, the Direct3D 12 heap has {call.payload.allocation_size} bytes",
        "Pass allocation_size={call.payload.allocation_size}.",
        needs=Traits.D3D12_HEAP | Traits.PAYLOAD,
    ),
    allowed_type(
        "VkMemoryAllocateInfo-memoryTypeIndex-00645",
        "payload.memory_type_bits",
        "vkGetMemoryWin32HandlePropertiesKHR",
        Traits.IMPORTS_WIN32 | Traits.FOREIGN_PAYLOAD,
    ),
)
