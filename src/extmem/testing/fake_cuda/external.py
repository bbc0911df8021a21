"""External memory, which a fake Vulkan driver exports, and registered host memory."""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.machine import INVALID_VALUE, Refusal
from extmem.testing.fake_cuda.objects import ExternalMemory, Mapped, Pinned, Reserved
from extmem.testing.fake_cuda.sharing import abandon, place, reserve
from extmem.testing.fake_cuda.sharing import external as opened
from extmem.testing.fake_cuda.streams import pending
from extmem.testing.fake_vulkan.payloads import read_tag

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_DEDICATED = 1
_DIRECT3D_RESOURCES = (5, 6, 7)
"""Handle types of Direct3D's resources, which require CUDA_EXTERNAL_MEMORY_DEDICATED."""
_OS, _UNKNOWN, _REGISTERED, _NOT_REGISTERED = 304, 999, 712, 713
_PAGE = mmap.PAGESIZE
_CONTEXT, _MEMORY_TYPE, _ORDINAL = 1, 2, 9
_HOST_MEMORY = 1
_DEVICE_MAP, _READ_ONLY = 0x02, 0x08


def cuImportExternalMemory(fake: FakeCuda, description: Any) -> tuple[Any]:
    """Import external memory. An fd is consumed on success, an NT handle never.

    As with the real driver, an import with a smaller size or a wrong dedicated flag succeeds, and a bad fd gives
    CUDA_ERROR_UNKNOWN. `imports` and `misuses` record the parameters.
    """
    ordinal = fake.current().ordinal
    kind, size, flags = int(description.type), int(description.size), int(description.flags)
    fake.imports.append({"type": kind, "size": size, "flags": flags})
    payload = opened(fake, description)
    tag = read_tag(payload.fd) if payload is not None else None
    if payload is None or tag is None or tag.device_uuid != fake.gpus[ordinal].uuid:
        if payload is not None:
            abandon(payload)
        raise Refusal(_UNKNOWN)
    if size < tag.size:
        fake.wrong(f"{size} bytes are imported of a payload of {tag.size}")
    if bool(flags & _DEDICATED) != (bool(tag.dedicated) or kind in _DIRECT3D_RESOURCES):
        fake.wrong(f"the payload is dedicated to {tag.dedicated or 'nothing'}, and the flags are {flags}")
    memory = ExternalMemory(payload=payload, size=size, ordinal=ordinal)
    return (fake.module.CUexternalMemory(fake.add(memory)),)


def cuDestroyExternalMemory(fake: FakeCuda, handle: Any) -> None:
    """Destroy external memory, whose mappings must be freed before."""
    fake.current()
    memory = fake.get(handle, ExternalMemory)
    if any(mapped.memory is memory for mapped in fake.living(Mapped)):
        fake.wrong("an external memory is destroyed while something is mapped onto it")
    fake.end(memory)
    if memory.payload is not None:
        memory.payload.close()


def cuExternalMemoryGetMappedBuffer(fake: FakeCuda, handle: Any, description: Any) -> tuple[Any]:
    """Map a buffer. A size larger than the payload is refused here, not by the import."""
    fake.current()
    memory = fake.get(handle, ExternalMemory)
    offset, size, flags = int(description.offset), int(description.size), int(description.flags)
    if offset % _PAGE or flags or memory.payload is None:
        raise fake.wrong(f"offset {offset}, flags {flags}")
    tag = read_tag(memory.payload.fd)
    if tag is None or offset + size > min(memory.size, tag.size) or size <= 0:
        raise Refusal(INVALID_VALUE)
    try:
        keep = reserve(-(-size // _PAGE) * _PAGE)
        place(keep, memory.payload.fd, size, writable=True)
    except OSError:
        raise Refusal(_OS) from None
    fake.add(Mapped(memory=memory, address=keep.address, size=size, keep=keep))
    return (fake.module.CUdeviceptr(keep.address),)


def cuExternalMemoryGetMappedMipmappedArray(fake: FakeCuda, handle: Any, description: Any) -> tuple[Any]:
    """Map an image's array; its texels are not modelled."""
    fake.current()
    memory = fake.get(handle, ExternalMemory)
    shape = description.arrayDesc
    if int(description.numLevels) < 1 or int(shape.Width) < 1 or int(shape.NumChannels) not in (1, 2, 4):
        raise fake.wrong(f"levels {int(description.numLevels)}, width {int(shape.Width)}")
    return (fake.module.CUmipmappedArray(fake.add(Mapped(memory=memory))),)


def cuMipmappedArrayDestroy(fake: FakeCuda, handle: Any) -> None:
    """Destroy an array, before its memory."""
    fake.current()
    fake.end(fake.get(handle, Mapped))


def cuMemFree(fake: FakeCuda, pointer: Any) -> None:
    """Free a mapped buffer."""
    fake.current()
    for mapped in fake.living(Mapped):
        if mapped.address == int(pointer):
            fake.end(mapped)
            mapped.keep = None
            return
    raise fake.wrong(f"{int(pointer):#x} is not a mapped buffer")


def cuPointerGetAttributes(fake: FakeCuda, count: int, attributes: Any, pointer: Any) -> tuple[list[Any]]:
    """Return the context and the device ordinal of a mapped buffer."""
    address = int(pointer)
    for mapped in fake.living(Mapped):
        if mapped.memory is not None and mapped.address <= address < mapped.address + mapped.size:
            ordinal = mapped.memory.ordinal
            handle = fake.contexts[ordinal].handle + (4096 if fake.stray_pointers else 0)
            known = {_CONTEXT: fake.module.CUcontext(handle), _ORDINAL: 0}  # 0 for each device, as cuda-bindings 13
            return ([known[int(attribute)] for attribute in attributes[:count]],)
    raise Refusal(INVALID_VALUE)


def cuPointerGetAttribute(fake: FakeCuda, attribute: Any, pointer: Any) -> tuple[int]:
    """Return the kind of memory at an address; other attributes are not asked for. Pageable memory has none."""
    fake.current()
    if int(attribute) != _MEMORY_TYPE:
        raise fake.wrong(f"attribute {attribute} is asked for")
    if fake.pinned_at(int(pointer), 1) is None:
        raise Refusal(INVALID_VALUE)
    return (_HOST_MEMORY,)


def cuMemHostAlloc(fake: FakeCuda, size: int, flags: int) -> tuple[int]:
    """Allocate pinned memory."""
    fake.current()
    keep = ctypes.create_string_buffer(size)
    address = ctypes.addressof(keep)
    fake.add(Pinned(address=address, size=size, flags=flags, keep=keep))
    return (address,)


def cuMemFreeHost(fake: FakeCuda, address: Any) -> None:
    """Free pinned memory of the driver's, by its address."""
    fake.current()
    for pinned in fake.living(Pinned):
        if pinned.address == int(address) and pinned.keep is not None:
            if pending(fake, pinned):
                fake.wrong("memory is freed while a stream has still to copy from it or to it")
            fake.end(pinned)
            return
    raise fake.wrong(f"{int(address):#x} is not pinned memory that the driver allocated")


def cuMemGetAddressRange(fake: FakeCuda, pointer: Any) -> tuple[Any, int]:
    """Return the start and size of a mapped buffer or a reserved range."""
    address = int(pointer)
    begin, whole = fake.whole_ranges or (0, 0)
    if begin <= address < begin + whole:
        return (fake.module.CUdeviceptr(begin), whole)
    spans: list[Mapped | Reserved] = [*fake.living(Mapped), *fake.living(Reserved)]
    for span in spans:
        if span.address <= address < span.address + span.size:
            size = span.size // 2 if fake.short_ranges else span.size
            return (fake.module.CUdeviceptr(span.address), size)
    raise Refusal(INVALID_VALUE)


def cuMemHostRegister(fake: FakeCuda, address: Any, size: int, flags: int) -> None:
    """Register whole pages, which must not be registered."""
    fake.current()
    start = int(address)
    if start % _PAGE or size % _PAGE or not flags & _DEVICE_MAP:
        raise fake.wrong(f"{size} bytes at {start:#x}, flags {flags}")
    if any(p.address < start + size and start < p.address + p.size for p in fake.living(Pinned)):
        raise Refusal(_REGISTERED)
    fake.add(Pinned(address=start, size=size, flags=flags))


def cuMemHostUnregister(fake: FakeCuda, address: Any) -> None:
    """Unregister memory by the address that it was registered with."""
    fake.current()
    for pinned in fake.living(Pinned):
        if pinned.address == int(address):
            if pending(fake, pinned):
                fake.wrong("memory is unregistered while a stream has still to wait for a word of it or to write one")
            fake.end(pinned)
            return
    raise fake.wrong(f"{int(address):#x} is not registered", _NOT_REGISTERED)


def cuMemHostGetDevicePointer(fake: FakeCuda, address: Any, flags: int) -> tuple[Any]:
    """Return the same address: host and device have one address space."""
    fake.current()
    if not any(p.address <= int(address) < p.address + p.size for p in fake.living(Pinned)):
        raise fake.wrong(f"{int(address):#x} is not registered")
    return (fake.module.CUdeviceptr(int(address)),)
