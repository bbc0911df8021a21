"""The call that vkAllocateMemory's checks examine, and the suite that they are registered in.

How this works: `read` walks the pNext chain once, puts each struct in its slot and computes the call's traits: which
structs the chain contains, whether the call imports, exports or neither, and which facts are known. Every check names
the traits that it needs, so that the attributes that it reads are never None (see `_engine`).

What counts as an import: a Win32, fd or host pointer struct whose handle type is not zero. Android, Fuchsia, QNX, NV
SciBuf and Metal import structs are not part of `extmem.vk`, so no chain can contain them. What counts as an export
(the specification does not define it): VkExportMemoryAllocateInfo or its NV equivalent with handle types that are not
zero.
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
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

__all__ = ["ALLOCATE", "BASE", "LONGEST_CHAIN", "Allocation", "Traits", "chained", "contents", "read"]

BASE = "MemoryAllocateInfo"
LONGEST_CHAIN = 64
"""Maximum number of structs in a chain. A longer chain is treated as one that leads back into itself."""


def chained(struct: type) -> str:
    """Return the path of a struct in an allocation's chain."""
    return f"{BASE}.pNext<{struct.__name__}>"


class Traits:
    """Properties of a call, as bits. `HAS_…`: the chain contains the struct; the others concern its contents."""

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
    """The chain contains a struct that does not extend an allocation, or one struct type twice."""
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
    """The import refers to a payload that is known (facts.payload)."""
    OUR_PAYLOAD = 1 << 21
    """The known payload was created by Vulkan."""
    FOREIGN_PAYLOAD = 1 << 22
    """The known payload was created by another API."""
    SIZE_IGNORED = 1 << 23
    """allocationSize is ignored for the handle type."""
    ODD_TYPE = 1 << 24
    """The import's handle type is not one of those that its struct is defined for."""
    MANY_IMPORTS = 1 << 25
    NAMED = 1 << 26
    """The Win32 struct contains a name."""
    HANDLED = 1 << 27
    """The Win32 struct contains a handle."""
    ELSEWHERE = 1 << 28
    """Exporter and importer may differ in device, driver or device group."""
    ODD_DEVICE = 1 << 29
    """The device is closed, or was created without queues."""
    UNDEDICATED = 1 << 30
    """The payload is dedicated to a buffer or image, but the import is not dedicated."""


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
    """Chained objects that do not extend an allocation."""
    lacking: tuple[type, ...] = ()
    """Chained structs that need a version or extension that is not enabled."""
    repeated: tuple[str, ...] = ()
    """Names of struct types that the chain contains more than once."""

    win32_type = NO_TYPES
    fd_type = NO_TYPES
    host_type = NO_TYPES
    import_type = NO_TYPES
    export_types = NO_TYPES

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
    """Sort the chain into slots. Return the call and the traits that follow from the chain's structs."""
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
    """Return `traits` with those added that follow from the values. All fields of the call have the right types."""
    bits = Traits
    device = call.device
    if not device.alive or device.queue_count < 1:
        traits |= bits.ODD_DEVICE
    if traits & (bits.HAS_WIN32 | bits.HAS_FD | bits.HAS_HOST):
        traits |= _import_traits(call)
    if call.export is not None:
        call.export_types = MemoryHandleType(int(call.export.handle_types))
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
    traits = 0
    if call.win32 is not None:
        call.win32_type = handle_type = MemoryHandleType(int(call.win32.handle_type))
        if call.win32.name is not None:
            traits |= bits.NAMED
        if not is_null(call.win32.handle):
            traits |= bits.HANDLED
        if handle_type:
            traits |= bits.IMPORTS_WIN32 | bits.IMPORTS
            if handle_type not in SINGLE_WIN32_TYPES:
                traits |= bits.ODD_TYPE
            call.import_type = handle_type
    if call.fd is not None:
        call.fd_type = handle_type = MemoryHandleType(int(call.fd.handle_type))
        if handle_type:
            traits |= bits.IMPORTS_FD | bits.IMPORTS | (bits.MANY_IMPORTS if traits & bits.IMPORTS else 0)
            if handle_type not in SINGLE_FD_TYPES:
                traits |= bits.ODD_TYPE
            call.import_type = handle_type
    if call.host is not None:
        call.host_type = handle_type = MemoryHandleType(int(call.host.handle_type))
        if handle_type:
            traits |= bits.IMPORTS_HOST | bits.IMPORTS | (bits.MANY_IMPORTS if traits & bits.IMPORTS else 0)
            if handle_type not in SINGLE_HOST_TYPES:
                traits |= bits.ODD_TYPE
            call.import_type = handle_type
    if call.import_type & SIZE_IGNORED_TYPES:
        traits |= bits.SIZE_IGNORED
    return traits
