"""Facts for rule tests: one device, its capabilities, payloads and resources; and functions that make a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import (
    AllocateFacts,
    DeviceFacts,
    ExternalMemoryFacts,
    MemoryFacts,
    MemoryTypeFacts,
    PayloadFacts,
    Refusal,
    ResourceFacts,
    Violation,
)
from extmem.rules.violation import OWN

T = vk.ExternalMemoryHandleTypeFlagBits
SIZE, TYPE = 65536, 1
PAGE = 4096
ADDRESS = 0x7F00_0000_0000
GPU_UUID, OTHER_UUID = bytes(range(16)), bytes(range(16, 32))
DRIVER_UUID, OLD_DRIVER_UUID = b"\xd0" * 16, b"\xd1" * 16
GPU = DeviceFacts(
    "GPU 0",
    GPU_UUID,
    DRIVER_UUID,
    (MemoryTypeFacts(1, 1 << 20), MemoryTypeFacts(6, 1 << 20), MemoryTypeFacts(14, 1 << 16)),
    min_imported_host_pointer_alignment=PAGE,
    identity=1,
)
DEDICATED_ONLY, EXPORTABLE, IMPORTABLE = 1, 2, 4
NOT_FOUND = Refusal("STATUS_OBJECT_NAME_NOT_FOUND", "no live object is named 'frames'.")
BAD_HANDLE = Refusal("STATUS_INVALID_HANDLE", "this process has no such handle.")


def can(features: int = EXPORTABLE | IMPORTABLE, compatible: int = 0, again: int = 0, *types: int) -> Any:
    """Return capabilities of these types (by default OPAQUE_WIN32): features, compatible types, export from
    imported."""
    kinds = types or (T.OPAQUE_WIN32,)
    mask = compatible
    for kind in kinds:
        mask |= int(kind)
    return {int(kind): ExternalMemoryFacts(features, again, mask) for kind in kinds}


def link(*structs: Any) -> Any:
    """Chain the structs to one another, and return the first of them, or None."""
    for before, after in zip(structs, structs[1:], strict=False):
        before.p_next = after
    return structs[0] if structs else None


def alloc(*chain: Any, size: Any = SIZE, index: Any = TYPE, device: DeviceFacts = GPU, **facts: Any) -> list[Violation]:
    """Check one vkAllocateMemory with this chain."""
    return rules.check_allocate_memory(vk.MemoryAllocateInfo(size, index, link(*chain)), AllocateFacts(device, **facts))


def win32(kind: Any = T.OPAQUE_WIN32, handle: Any = None, name: Any = None) -> vk.ImportMemoryWin32HandleInfoKHR:
    """An import by Win32 handle or name."""
    return vk.ImportMemoryWin32HandleInfoKHR(kind, handle, name)


def fd(kind: Any = T.OPAQUE_FD, number: Any = 7) -> vk.ImportMemoryFdInfoKHR:
    """An import by fd."""
    return vk.ImportMemoryFdInfoKHR(kind, number)


def host(kind: Any = T.HOST_ALLOCATION, pointer: Any = ADDRESS) -> vk.ImportMemoryHostPointerInfoEXT:
    """An import by address."""
    return vk.ImportMemoryHostPointerInfoEXT(kind, pointer)


def export(kinds: Any = T.OPAQUE_WIN32) -> vk.ExportMemoryAllocateInfo:
    """An allocation for export."""
    return vk.ExportMemoryAllocateInfo(kinds)


def payload(kinds: int = T.OPAQUE_WIN32, **facts: Any) -> PayloadFacts:
    """A payload that GPU 0 exported; `facts` replace those of its descriptor."""
    defaults: dict[str, Any] = {
        "allocation_size": SIZE,
        "memory_type_index": TYPE,
        "device_uuid": GPU_UUID,
        "driver_uuid": DRIVER_UUID,
        "dedicated": "none",
    }
    return PayloadFacts(int(kinds), **{**defaults, **facts})


def foreign(kinds: int, bits: int | None = 1 << TYPE, **facts: Any) -> PayloadFacts:
    """A payload that another API made on GPU 0, importable as these memory types."""
    return payload(kinds, made_by_vulkan=False, dedicated=None, memory_type_bits=bits, **facts)


def buffer_info(kinds: int = 0, size: int = SIZE, **fields: Any) -> vk.BufferCreateInfo:
    """A transfer buffer, for external memory if types are given."""
    chain = vk.ExternalMemoryBufferCreateInfo(kinds) if kinds else None
    known: dict[str, Any] = {"size": size, "usage": vk.BufferUsageFlagBits.TRANSFER_DST, "p_next": chain}
    return vk.BufferCreateInfo(**{**known, **fields})


def image_info(kinds: int = 0, width: int = 64, **fields: Any) -> vk.ImageCreateInfo:
    """A small image, for external memory if types are given."""
    known: dict[str, Any] = {
        "image_type": vk.ImageType.TYPE_2D,
        "format": vk.Format.R8G8B8A8_UNORM,
        "extent": vk.Extent3D(width, 64, 1),
        "mip_levels": 1,
        "array_layers": 1,
        "samples": 1,
        "usage": vk.ImageUsageFlagBits.TRANSFER_DST,
        "p_next": vk.ExternalMemoryImageCreateInfo(kinds) if kinds else None,
    }
    return vk.ImageCreateInfo(**{**known, **fields})


def buffer(info: vk.BufferCreateInfo | None = None, **facts: Any) -> ResourceFacts:
    """A buffer of GPU 0."""
    return _resource("buffer", info or buffer_info(), facts)


def image(info: vk.ImageCreateInfo | None = None, **facts: Any) -> ResourceFacts:
    """An image of GPU 0."""
    return _resource("image", info or image_info(), facts)


def _resource(kind: Any, info: Any, facts: dict[str, Any]) -> ResourceFacts:
    chained = info.p_next
    known: dict[str, Any] = {
        "size": SIZE,
        "alignment": 256,
        "memory_type_bits": 1 << TYPE,
        "handle_types": int(chained.handle_types) if chained is not None else 0,
        "device_uuid": GPU_UUID,
        "identity": 11,
        "device_identity": GPU.identity,
    }
    return ResourceFacts(kind, info, **{**known, **facts})


def whole(aspects: int = vk.ImageAspectFlagBits.COLOR) -> vk.ImageSubresourceRange:
    """All levels and layers."""
    return vk.ImageSubresourceRange(aspects, 0, 0xFFFF_FFFF, 0, 0xFFFF_FFFF)


def on_whole(struct: Any, **fields: Any) -> Any:
    """A barrier of this structure over all of a buffer or image, which stays in GENERAL; `fields` replace that."""
    known: dict[str, Any] = {"size": vk.WHOLE_SIZE}
    if struct in (vk.ImageMemoryBarrier, vk.ImageMemoryBarrier2):
        general = vk.ImageLayout.GENERAL
        known = {"old_layout": general, "new_layout": general, "subresource_range": whole()}
    return struct(**{**known, **fields})


def for_buffer(handle: int = 0xB) -> vk.MemoryDedicatedAllocateInfo:
    """Dedicate to a buffer."""
    return vk.MemoryDedicatedAllocateInfo(buffer=handle)


def for_image(handle: int = 0xA) -> vk.MemoryDedicatedAllocateInfo:
    """Dedicate to an image."""
    return vk.MemoryDedicatedAllocateInfo(image=handle)


def memory(**facts: Any) -> MemoryFacts:
    """A live allocation of GPU 0."""
    known: dict[str, Any] = {"size": SIZE, "memory_type_index": TYPE, "device_uuid": GPU_UUID}
    return MemoryFacts(**{**known, **facts})


def get_win32(kind: Any = T.OPAQUE_WIN32, chain: Any = None, device: DeviceFacts = GPU, **facts: Any) -> Any:
    """Get a Win32 handle of memory exported as OPAQUE_WIN32, unless `facts` replace that."""
    known = memory(**{"export_handle_types": int(T.OPAQUE_WIN32), **facts})
    return rules.check_get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(0x3, kind, chain), device, known)


def get_fd(kind: Any = T.OPAQUE_FD, chain: Any = None, device: DeviceFacts = GPU, **facts: Any) -> Any:
    """Get an fd of memory exported as OPAQUE_FD, unless `facts` replace that."""
    known = memory(**{"export_handle_types": int(T.OPAQUE_FD), **facts})
    return rules.check_get_memory_fd(vk.MemoryGetFdInfoKHR(0x3, kind, chain), device, known)


def ask_win32(kind: Any = T.D3D12_HEAP, handle: Any = 0x1C, device: DeviceFacts = GPU, **facts: Any) -> Any:
    """Query the properties of a Win32 handle."""
    return rules.check_memory_win32_handle_properties(kind, handle, device, **facts)


def ask_fd(kind: Any = T.DMA_BUF, number: Any = 7, device: DeviceFacts = GPU, **facts: Any) -> Any:
    """Query the properties of an fd."""
    return rules.check_memory_fd_properties(kind, number, device, **facts)


def ask_host(kind: Any = T.HOST_ALLOCATION, pointer: Any = ADDRESS, device: DeviceFacts = GPU, **facts: Any) -> Any:
    """Query the properties of a host pointer."""
    return rules.check_memory_host_pointer_properties(kind, pointer, device, **facts)


def ask_buffer(**fields: Any) -> list[Violation]:
    """Query whether transfer buffers can be shared as OPAQUE_WIN32, unless `fields` replace that."""
    known: dict[str, Any] = {"usage": vk.BufferUsageFlagBits.TRANSFER_DST, "handle_type": T.OPAQUE_WIN32}
    return rules.check_external_buffer_info(vk.PhysicalDeviceExternalBufferInfo(**{**known, **fields}))


CLOSED = replace(GPU, alive=False)
QUEUELESS = replace(GPU, queue_count=0)
GROUP = replace(GPU, device_group=(GPU_UUID, OTHER_UUID))
# With the facts of a device that barriers depend on: everything enabled, or only Vulkan 1.0.
MODERN = replace(
    GPU,
    queue_family_count=3,
    api_version=1 << 22 | 3 << 12,
    extensions=frozenset({"VK_EXT_queue_family_foreign"}),
    synchronization2=True,
)
PLAIN = replace(MODERN, api_version=1 << 22, extensions=frozenset(), synchronization2=False)
OTHER_GPU = replace(GPU, name="GPU 1", device_uuid=OTHER_UUID, identity=2)


@dataclass(frozen=True)
class Case:
    """A call that breaks a rule, and its nearest legal twin."""

    vuid: str
    wrong: Callable[[], list[Violation]]
    right: Callable[[], list[Violation]]
    also: frozenset[str]
    """Other rules that the call breaks by necessity."""


CASES: dict[str, Case] = {}


def case(vuid: str, wrong: Callable[[], list[Violation]], right: Callable[[], list[Violation]], *also: str) -> None:
    """Add a case; ids without `VUID-`."""
    full = vuid if vuid.startswith(OWN) else f"VUID-{vuid}"
    if full in CASES:
        raise ValueError(f"two cases for {full}")
    CASES[full] = Case(full, wrong, right, frozenset(f"VUID-{v}" for v in also))
