"""Allocating, importing, freeing and mapping memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.testing.fake_vulkan._system import sharing
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Buffer, Device, Image, Memory, Resource, Source
from extmem.testing.fake_vulkan.payloads import HostPayload, Shadow
from extmem.vk.abi import ffi, from_c
from extmem.vk.handle_types import SIZED_BY_D3D

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

Result = vk.Result
HandleType = vk.ExternalMemoryHandleTypeFlagBits
_Property = vk.MemoryPropertyFlagBits
_Feature = vk.ExternalMemoryFeatureFlagBits
_HOST = int(HandleType.HOST_ALLOCATION)
_NO_MEMORY = int(Result.ERROR_OUT_OF_DEVICE_MEMORY)
_BAD_HANDLE = int(Result.ERROR_INVALID_EXTERNAL_HANDLE)
_TOO_MANY = int(Result.ERROR_TOO_MANY_OBJECTS)
_MAP_FAILED = int(Result.ERROR_MEMORY_MAP_FAILED)
_WHOLE = int(vk.WHOLE_SIZE)


def vkAllocateMemory(fake: FakeVulkan, handle: Any, raw: Any, allocator: Any, out: Any) -> int:
    """Allocate memory, import a handle (an fd is consumed), or import host memory."""
    device = fake.get(handle, Device)
    info = from_c(vk.MemoryAllocateInfo, raw)
    size, kind = int(info.allocation_size), int(info.memory_type_index)
    if not 0 <= kind < len(device.gpu.memory_types):
        raise fake.wrong(f"memoryTypeIndex is {kind}, and there are {len(device.gpu.memory_types)}")
    if size <= 0:
        fake.misuse("allocationSize is 0")
        if not fake.manners.short_files_pass:
            raise Refusal(_NO_MEMORY)
    if fake.poisoned_by:
        raise Refusal(_NO_MEMORY)
    dedicated = _dedicated(fake, device, info, size)
    export = vk.find(info, vk.ExportMemoryAllocateInfo)
    export_types = int(export.handle_types) if export is not None else 0
    _check_export(fake, device, export_types, dedicated)
    _check_room(fake, device, size, kind)
    source = _source(fake, device, info, size, kind, dedicated)
    memory = Memory(
        device, source.size, kind, source.payload, export_types, source.kind, dedicated, ours=not source.kind
    )
    memory.share, memory.kmt = source.share, source.kmt
    out[0] = fake.add(memory)
    return 0


def _dedicated(fake: FakeVulkan, device: Device, info: vk.MemoryAllocateInfo, size: int) -> Resource | None:
    chained = vk.find(info, vk.MemoryDedicatedAllocateInfo)
    if chained is None or (chained.buffer is None and chained.image is None):
        return None
    if chained.buffer is not None and chained.image is not None:
        raise fake.wrong("memory dedicated to a buffer and an image at once")
    resource: Resource = (
        fake.get(chained.buffer, Buffer, device)
        if chained.buffer is not None
        else fake.get(chained.image, Image, device)
    )
    win32 = vk.find(info, vk.ImportMemoryWin32HandleInfoKHR)
    if size != resource.size and (win32 is None or win32.handle_type not in SIZED_BY_D3D):
        fake.misuse(f"memory of {size} bytes is dedicated to {resource}, which requires {resource.size}")
    return resource


def _check_export(fake: FakeVulkan, device: Device, types: int, dedicated: Resource | None) -> None:
    kind = "image" if isinstance(dedicated, Image) else "buffer"
    bits = types
    while bits:
        bit = bits & -bits
        bits ^= bit
        external = device.gpu.says(kind, bit)
        if external is None or not external.features & _Feature.EXPORTABLE:
            fake.misuse(f"{HandleType(bit)!r} cannot be exported, and is among the export types")
        elif external.dedicated == "required" and dedicated is None:
            fake.misuse(f"{HandleType(bit)!r} is exported of dedicated memory alone, and this is not")


def _check_room(fake: FakeVulkan, device: Device, size: int, kind: int) -> None:
    living = [memory for memory in fake.living(Memory) if memory.parent is device]
    if len(living) >= device.gpu.max_allocations:
        raise Refusal(_TOO_MANY)
    types = device.gpu.memory_types
    used = sum(memory.size for memory in living if types[memory.memory_type].heap == types[kind].heap)
    if used + size > device.gpu.heaps[types[kind].heap]:
        raise Refusal(_NO_MEMORY)


def _source(
    fake: FakeVulkan, device: Device, info: vk.MemoryAllocateInfo, size: int, kind: int, dedicated: Resource | None
) -> Source:
    """Return the payload of the memory: that of an import, host memory, or a new one."""
    imported: Source | None = sharing().imported(fake, device, info, size, kind, dedicated)
    if imported is not None:
        return imported
    pointer_info = vk.find(info, vk.ImportMemoryHostPointerInfoEXT)
    if pointer_info is not None and pointer_info.handle_type:
        address, alignment = pointer_info.host_pointer, device.gpu.host_pointer_alignment
        at = address if isinstance(address, int) else 0
        if at % alignment or size % alignment or not at:
            raise fake.wrong(f"{size} bytes of host memory at {at:#x}: not multiples of {alignment}", _BAD_HANDLE)
        if not device.gpu.memory_types[kind].flags & _Property.HOST_VISIBLE:
            fake.misuse(f"host memory is imported to memory type {kind}, which is not visible to the host")
        return Source(HostPayload(at, size), size, _HOST)
    created: Source = sharing().created(fake, device, info, size, kind, dedicated)
    return created


def vkFreeMemory(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Unmap and free the memory. NULL is ignored."""
    device = fake.get(handle, Device)
    if raw:
        memory = fake.get(raw, Memory, device)
        fake.end(memory)
        memory.mapping = memory.shadow = None
        memory.payload.close()


def vkMapMemory(fake: FakeVulkan, handle: Any, raw: int, offset: int, size: int, flags: int, out: Any) -> int:
    """Map the memory; memory that is not coherent is mapped as a copy."""
    memory = fake.get(raw, Memory, fake.get(handle, Device))
    flags_of_type = memory.parent.gpu.memory_types[memory.memory_type].flags
    if not flags_of_type & _Property.HOST_VISIBLE:
        raise fake.wrong(f"{memory} is mapped, and memory type {memory.memory_type} is not host-visible", _MAP_FAILED)
    if memory.mapping is not None:
        raise fake.wrong(f"{memory} is mapped twice", _MAP_FAILED)
    if offset >= memory.size or (size != _WHOLE and not 0 < size <= memory.size - offset):
        raise fake.wrong(f"{size} bytes from {offset} of {memory.size} are mapped", _MAP_FAILED)
    if flags_of_type & _Property.HOST_COHERENT:
        try:
            address, memory.mapping = memory.payload.map(memory.size)
        except (OSError, MemoryError):
            raise Refusal(_MAP_FAILED) from None
    else:
        memory.shadow = Shadow(memory.payload, memory.size)
        address, memory.mapping = memory.shadow.address, memory.shadow
    out[0] = ffi.cast("void *", address + offset)
    return 0


def vkUnmapMemory(fake: FakeVulkan, handle: Any, raw: int) -> None:
    """Unmap the memory. What the host wrote to memory that is not coherent, and did not flush, is lost."""
    memory = fake.get(raw, Memory, fake.get(handle, Device))
    if memory.mapping is None:
        raise fake.wrong(f"{memory} is unmapped, and was not mapped")
    memory.mapping = memory.shadow = None


def vkFlushMappedMemoryRanges(fake: FakeVulkan, handle: Any, count: int, ranges: Any) -> int:
    """Make what the host wrote visible to the device."""
    for memory, offset, size in _ranges(fake, fake.get(handle, Device), count, ranges):
        if memory.shadow is not None:
            memory.shadow.flush(offset, size, memory.parent.gpu.non_coherent_atom)
    return 0


def vkInvalidateMappedMemoryRanges(fake: FakeVulkan, handle: Any, count: int, ranges: Any) -> int:
    """Make what the device wrote visible to the host."""
    for memory, offset, size in _ranges(fake, fake.get(handle, Device), count, ranges):
        if memory.shadow is not None:
            memory.shadow.invalidate(offset, size)
    return 0


def _ranges(fake: FakeVulkan, device: Device, count: int, ranges: Any) -> list[tuple[Memory, int, int]]:
    found = []
    for area in ranges[0:count]:
        memory, offset, size = fake.get(area.memory, Memory, device), int(area.offset), int(area.size)
        atom = device.gpu.non_coherent_atom
        if memory.mapping is None:
            raise fake.wrong(f"a range of {memory}, which is not mapped")
        if size == _WHOLE:
            size = memory.size - offset
        elif size % atom and offset + size != memory.size:
            fake.misuse(f"a range of {size} bytes, which is not a multiple of {atom} and does not reach the end")
        if offset % atom:
            fake.misuse(f"a range from {offset}, which is not a multiple of {atom}")
        if offset + size > memory.size:
            raise fake.wrong(f"{size} bytes from {offset} of {memory.size}")
        found.append((memory, offset, size))
    return found
