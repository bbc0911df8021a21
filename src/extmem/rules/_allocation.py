"""The call that vkAllocateMemory's checks look at, and the suite they are registered in.

How this works: `read` walks the pNext chain once, puts each struct in its slot and works out the call's traits: which
structs are there, whether it imports, exports or neither, and which facts are known. Every check names the traits it
needs, so that a check may rely on what it reads being there (see `_engine`).

What counts as an import: a Win32, fd or host pointer struct whose handle type is not zero. Android, Fuchsia, QNX, NV
SciBuf and Metal imports are not in this library's words, so no chain can hold them. What counts as an export (the
specification never says): VkExportMemoryAllocateInfo or its NV twin with handle types that are not zero.
"""

from __future__ import annotations

from typing import Any

from extmem import vk
from extmem.rules._enabled import CHAINED, lacks
from extmem.rules._engine import Suite
from extmem.rules._text import (
    SINGLE_FD_TYPES,
    SINGLE_HOST_TYPES,
    SINGLE_WIN32_TYPES,
    SIZE_IGNORED_TYPES,
    is_null,
    type_mask,
)
from extmem.rules.facts import AllocateFacts, DeviceFacts, PayloadFacts, ResourceFacts

__all__ = ["ALLOCATE", "BASE", "LONGEST_CHAIN", "Allocation", "Traits", "chained", "contents", "read"]

BASE = "MemoryAllocateInfo"
LONGEST_CHAIN = 64
"""More structs than that are taken for a chain that bites its tail."""


def chained(struct: type) -> str:
    """The path of a struct in an allocation's chain."""
    return f"{BASE}.pNext<{struct.__name__}>"


class Traits:
    """What a call may be or have, as bits. `HAS_…`: the struct is in the chain; the others are about its contents."""

    HAS_WIN32 = 1 << 0
    HAS_FD = 1 << 1
    HAS_HOST = 1 << 2
    HAS_EXPORT = 1 << 3
    HAS_EXPORT_WIN32 = 1 << 4
    HAS_DEDICATED = 1 << 5
    HAS_FLAGS = 1 << 6
    HAS_CAPTURE_ADDRESS = 1 << 7
    HAS_DEDICATED_NV = 1 << 8
    HAS_EXPORT_NV = 1 << 9
    HAS_EXPORT_WIN32_NV = 1 << 10
    HAS_IMPORT_WIN32_NV = 1 << 11
    ODD_CHAIN = 1 << 12
    """A struct that does not belong there, or one twice."""
    IMPORTS_WIN32 = 1 << 13
    IMPORTS_FD = 1 << 14
    IMPORTS_HOST = 1 << 15
    IMPORTS = 1 << 16
    EXPORTS = 1 << 17
    DEDICATED = 1 << 18
    """VkMemoryDedicatedAllocateInfo names a buffer or an image."""
    TARGET = 1 << 19
    """That buffer or image is known (facts.dedicated)."""
    PAYLOAD = 1 << 20
    """The import leads to a payload that is known (facts.payload)."""
    OUR_PAYLOAD = 1 << 21
    """… which Vulkan made."""
    FOREIGN_PAYLOAD = 1 << 22
    """… which another API made."""
    SIZE_IGNORED = 1 << 23
    """The handle type's allocationSize means nothing."""
    ODD_TYPE = 1 << 24
    """The import's handle type is not one that its struct is for."""
    MANY_IMPORTS = 1 << 25
    NAMED = 1 << 26
    """The Win32 struct has a name …"""
    HANDLED = 1 << 27
    """… or a handle."""
    ELSEWHERE = 1 << 28
    """Exporter and importer may differ in device, driver or device group: worth a closer look."""
    ODD_DEVICE = 1 << 29
    """The device is closed, or was made without queues."""
    UNDEDICATED = 1 << 30
    """The payload is dedicated to a buffer or image, the import to none."""


class Allocation:
    """One vkAllocateMemory call with its facts; a slot is None when its struct is not in the chain."""

    win32: vk.ImportMemoryWin32HandleInfoKHR | None = None
    fd: vk.ImportMemoryFdInfoKHR | None = None
    host: vk.ImportMemoryHostPointerInfoEXT | None = None
    export: vk.ExportMemoryAllocateInfo | None = None
    export_win32: vk.ExportMemoryWin32HandleInfoKHR | None = None
    dedicated: vk.MemoryDedicatedAllocateInfo | None = None
    dedicated_nv: vk.DedicatedAllocationMemoryAllocateInfoNV | None = None
    flags: vk.MemoryAllocateFlagsInfo | None = None
    capture_address: vk.MemoryOpaqueCaptureAddressAllocateInfo | None = None
    export_nv: vk.ExportMemoryAllocateInfoNV | None = None
    foreign: tuple[Any, ...] = ()
    """Chained things that do not extend an allocation."""
    lacking: tuple[type, ...] = ()
    """Chained structs that need what is not enabled."""
    repeated: tuple[str, ...] = ()
    """Names of struct types that are in the chain more than once."""

    win32_type = 0
    fd_type = 0
    host_type = 0
    import_type = 0
    export_types = 0

    def __init__(self, info: vk.MemoryAllocateInfo, facts: AllocateFacts) -> None:
        self.info = info
        self.facts = facts
        self.device: DeviceFacts = facts.device
        self.payload: PayloadFacts | None = facts.payload
        self.target: ResourceFacts | None = facts.dedicated
        self.nodes: list[tuple[str, Any]] = [(BASE, info)]


ALLOCATE: Suite[Allocation] = Suite("vkAllocateMemory")

# struct type → slot of Allocation, trait bit, path
_SLOTS: dict[type, tuple[str, int, str]] = {
    struct: (slot, bit, chained(struct))
    for struct, slot, bit in (
        (vk.ImportMemoryWin32HandleInfoKHR, "win32", Traits.HAS_WIN32),
        (vk.ImportMemoryFdInfoKHR, "fd", Traits.HAS_FD),
        (vk.ImportMemoryHostPointerInfoEXT, "host", Traits.HAS_HOST),
        (vk.ExportMemoryAllocateInfo, "export", Traits.HAS_EXPORT),
        (vk.ExportMemoryWin32HandleInfoKHR, "export_win32", Traits.HAS_EXPORT_WIN32),
        (vk.MemoryDedicatedAllocateInfo, "dedicated", Traits.HAS_DEDICATED),
        (vk.MemoryAllocateFlagsInfo, "flags", Traits.HAS_FLAGS),
        (vk.MemoryOpaqueCaptureAddressAllocateInfo, "capture_address", Traits.HAS_CAPTURE_ADDRESS),
        (vk.DedicatedAllocationMemoryAllocateInfoNV, "dedicated_nv", Traits.HAS_DEDICATED_NV),
        (vk.ExportMemoryAllocateInfoNV, "export_nv", Traits.HAS_EXPORT_NV),
        (vk.ExportMemoryWin32HandleInfoNV, "", Traits.HAS_EXPORT_WIN32_NV),
        (vk.ImportMemoryWin32HandleInfoNV, "", Traits.HAS_IMPORT_WIN32_NV),
        (vk.MemoryPriorityAllocateInfoEXT, "", 0),
    )
}


def read(info: vk.MemoryAllocateInfo, facts: AllocateFacts) -> tuple[Allocation, int]:
    """Sort the chain into slots. Returns the call and the traits that the chain's structs give it."""
    call = Allocation(info, facts)
    traits = 0
    node: Any = info.p_next
    if node is not None:
        seen: set[type] = set()
        for _ in range(LONGEST_CHAIN):
            struct = type(node)
            slot = _SLOTS.get(struct)
            if slot is None:
                call.foreign += (node,)
                traits |= Traits.ODD_CHAIN
                node = node.p_next if isinstance(node, vk.ChainStruct) else None
                if node is None:
                    break
                continue
            name, bit, where = slot
            if struct in seen:
                if struct.__name__ not in call.repeated:
                    call.repeated += (struct.__name__,)
                traits |= Traits.ODD_CHAIN
            else:
                seen.add(struct)
                traits |= bit
                if name:
                    setattr(call, name, node)
                call.nodes.append((where, node))
                if struct in CHAINED and lacks(CHAINED[struct], call.device):
                    call.lacking += (struct,)
                    traits |= Traits.ODD_CHAIN
            node = node.p_next
            if node is None:
                break
    return call, traits


def contents(call: Allocation, traits: int) -> int:
    """The traits that follow from the values; only for a call whose fields are all of the right kind."""
    bits = Traits
    device = call.device
    if not device.alive or device.queue_count < 1:
        traits |= bits.ODD_DEVICE
    if traits & (bits.HAS_WIN32 | bits.HAS_FD | bits.HAS_HOST):
        traits |= _import_traits(call)
    if call.export is not None:
        call.export_types = int(call.export.handle_types)
        if call.export_types:
            traits |= bits.EXPORTS
    if call.export_nv is not None and type_mask(call.export_nv.handle_types):
        traits |= bits.EXPORTS
    if call.dedicated is not None and not (is_null(call.dedicated.image) and is_null(call.dedicated.buffer)):
        traits |= bits.DEDICATED
        if call.target is not None:
            traits |= bits.TARGET
    payload = call.payload
    if payload is not None and traits & bits.IMPORTS:
        traits |= bits.PAYLOAD
        traits |= bits.OUR_PAYLOAD if payload.made_by_vulkan else bits.FOREIGN_PAYLOAD
        if (
            payload.device_uuid != device.device_uuid
            or payload.driver_uuid != device.driver_uuid
            or payload.device_group
            or device.device_group
            or payload.device_mask
            or call.flags is not None
        ):
            traits |= bits.ELSEWHERE
        if payload.dedicated not in (None, "none") and not traits & (bits.DEDICATED | bits.HAS_DEDICATED_NV):
            traits |= bits.UNDEDICATED
    return traits


def _import_traits(call: Allocation) -> int:
    bits = Traits
    found = 0
    if call.win32 is not None:
        call.win32_type = kind = int(call.win32.handle_type)
        if call.win32.name is not None:
            found |= bits.NAMED
        if not is_null(call.win32.handle):
            found |= bits.HANDLED
        if kind:
            found |= bits.IMPORTS_WIN32 | bits.IMPORTS
            if kind not in SINGLE_WIN32_TYPES:
                found |= bits.ODD_TYPE
            call.import_type = kind
    if call.fd is not None:
        call.fd_type = kind = int(call.fd.handle_type)
        if kind:
            found |= bits.IMPORTS_FD | bits.IMPORTS | (bits.MANY_IMPORTS if found & bits.IMPORTS else 0)
            if kind not in SINGLE_FD_TYPES:
                found |= bits.ODD_TYPE
            call.import_type = kind
    if call.host is not None:
        call.host_type = kind = int(call.host.handle_type)
        if kind:
            found |= bits.IMPORTS_HOST | bits.IMPORTS | (bits.MANY_IMPORTS if found & bits.IMPORTS else 0)
            if kind not in SINGLE_HOST_TYPES:
                found |= bits.ODD_TYPE
            call.import_type = kind
    if call.import_type & SIZE_IGNORED_TYPES:
        found |= bits.SIZE_IGNORED
    return found
