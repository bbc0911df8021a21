"""The virtual-memory API on memory files or sections: real addresses, real handles, real bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.machine import INVALID_VALUE, OUT_OF_MEMORY, Refusal
from extmem.testing.fake_cuda.objects import Physical, Reserved
from extmem.testing.fake_cuda.sharing import KIND, created, exported, imported, place, reserve
from extmem.testing.fake_vulkan.payloads import read_tag

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_READ, _READ_WRITE = 1, 3
_FABRIC = 8
"""CU_MEM_HANDLE_TYPE_FABRIC: exported to other machines, and not as an fd or NT handle."""
_UNKNOWN, _NOT_SUPPORTED, _OS = 999, 801, 304


def cuMemGetAllocationGranularity(fake: FakeCuda, properties: Any, option: Any) -> tuple[int]:
    """Return the granularity, equal for the minimal and the recommended one."""
    return (_gpu(fake, properties).granularity,)


def _gpu(fake: FakeCuda, properties: Any) -> Any:
    if int(properties.type) != 1 or int(properties.location.type) != 1:
        raise fake.wrong("CUmemAllocationProp is not pinned memory of a device")
    ordinal = int(properties.location.id)
    if not 0 <= ordinal < len(fake.gpus):
        raise fake.wrong(f"location.id is {ordinal}")
    gpu = fake.gpus[ordinal]
    if not gpu.virtual_memory:
        raise Refusal(_NOT_SUPPORTED)
    return gpu


def cuMemCreate(fake: FakeCuda, size: int, properties: Any, flags: int) -> tuple[Any]:
    """Make memory with arbitrary contents, as a driver may."""
    gpu = _gpu(fake, properties)
    if size <= 0 or size % gpu.granularity:
        raise fake.wrong(f"{size} bytes are not a multiple of {gpu.granularity}")
    ordinal = int(properties.location.id)
    used = sum(physical.size for physical in fake.living(Physical) if physical.ordinal == ordinal)
    if used + size > gpu.memory:
        raise Refusal(OUT_OF_MEMORY)
    kind = int(properties.requestedHandleTypes)
    if kind not in (0, KIND, _FABRIC):
        raise fake.wrong(f"requestedHandleTypes is {kind}")
    if kind == KIND and not gpu.shares:
        raise Refusal(_NOT_SUPPORTED)
    try:
        payload = created(fake, gpu, size, properties)
    except OSError:
        raise Refusal(OUT_OF_MEMORY) from None
    return (_handle(fake, Physical(payload=payload, size=size, ordinal=ordinal, handle_types=kind)),)


def _handle(fake: FakeCuda, physical: Physical) -> Any:
    return fake.module.CUmemGenericAllocationHandle(fake.add(physical))


def cuMemRelease(fake: FakeCuda, handle: Any) -> None:
    """Release a handle. The memory exists until its last mapping ends."""
    release(fake, fake.get(handle, Physical))


def release(fake: FakeCuda, physical: Physical) -> None:
    """Release one reference."""
    physical.references -= 1
    if not physical.references:
        fake.end(physical)
        if physical.payload is not None:
            physical.payload.close()


def cuMemExportToShareableHandle(fake: FakeCuda, handle: Any, kind: Any, flags: int) -> tuple[int]:
    """Return a new fd or NT handle, each time."""
    physical = fake.get(handle, Physical)
    if int(kind) != KIND or flags:
        raise fake.wrong(f"handle type {int(kind)}, flags {flags}")
    if physical.handle_types != KIND or physical.payload is None:
        raise Refusal(INVALID_VALUE)
    try:
        return (exported(physical.payload),)
    except OSError:
        raise Refusal(_OS) from None


def cuMemImportFromShareableHandle(fake: FakeCuda, handle: int, kind: Any) -> tuple[Any]:
    """Import memory by its fd or NT handle, which stays the caller's."""
    if int(kind) != KIND:
        raise fake.wrong(f"handle type {int(kind)}")
    tag = read_tag(handle)
    ordinals = [number for number, gpu in enumerate(fake.gpus) if tag is not None and gpu.uuid == tag.device_uuid]
    try:
        payload = imported(handle) if ordinals else None
    except OSError:
        raise Refusal(_OS) from None
    if tag is None or payload is None:
        raise Refusal(_UNKNOWN)
    physical = Physical(payload=payload, size=tag.size, ordinal=ordinals[0], handle_types=KIND)
    return (_handle(fake, physical),)


def cuMemGetAllocationPropertiesFromHandle(fake: FakeCuda, handle: Any) -> tuple[Any]:
    """Return the memory's properties: its type, its device and its handle type."""
    physical = fake.get(handle, Physical)
    properties = fake.module.CUmemAllocationProp()
    properties.type = fake.module.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location.type = fake.module.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.location.id = physical.ordinal
    properties.requestedHandleTypes = fake.module.CUmemAllocationHandleType(physical.handle_types)
    return (properties,)


def cuMemRetainAllocationHandle(fake: FakeCuda, address: Any) -> tuple[Any]:
    """Return the handle of the memory that is mapped at an address."""
    for reserved in fake.living(Reserved):
        if reserved.physical is not None and reserved.address <= int(address) < reserved.address + reserved.size:
            reserved.physical.references += 1
            return (fake.module.CUmemGenericAllocationHandle(reserved.physical.number),)
    raise Refusal(INVALID_VALUE)


def cuMemAddressReserve(fake: FakeCuda, size: int, alignment: int, address: Any, flags: int) -> tuple[Any]:
    """Reserve addresses."""
    granularity = min(gpu.granularity for gpu in fake.gpus)
    if size <= 0 or size % granularity or flags:
        raise fake.wrong(f"{size} bytes, flags {flags}")
    try:
        keep = reserve(size)
    except OSError:
        raise Refusal(OUT_OF_MEMORY) from None
    reserved = Reserved(address=keep.address, size=size, keep=keep)
    fake.add(reserved)
    return (fake.module.CUdeviceptr(reserved.address),)


def _range(fake: FakeCuda, address: Any, size: int) -> Reserved:
    for reserved in fake.living(Reserved):
        if reserved.address == int(address) and reserved.size == size:
            return reserved
    raise fake.wrong(f"{size} bytes at {int(address):#x} are not a reserved range")


def _parted(fake: FakeCuda, address: Any, size: int) -> Reserved:
    """Return a part of a reserved range as a range of its own, split from the rest. Nothing must be mapped there."""
    begin, granularity = int(address), min(gpu.granularity for gpu in fake.gpus)
    for reserved in fake.living(Reserved):
        if reserved.address <= begin and begin + size <= reserved.address + reserved.size:
            if (
                reserved.physical is not None
                or size <= 0
                or (begin - reserved.address) % granularity
                or size % granularity
            ):
                break
            if begin > reserved.address:
                reserved = _split(fake, reserved, begin - reserved.address)
            if size < reserved.size:
                _split(fake, reserved, size)
            return reserved
    return _range(fake, address, size)


def _split(fake: FakeCuda, reserved: Reserved, size: int) -> Reserved:
    try:
        keep = reserved.keep.split(size)
    except OSError:
        raise Refusal(OUT_OF_MEMORY) from None
    rest = Reserved(address=keep.address, size=keep.size, keep=keep)
    reserved.size = size
    fake.add(rest)
    return rest


def cuMemAddressFree(fake: FakeCuda, address: Any, size: int) -> None:
    """Free addresses, where nothing must be mapped. They were reserved in one call, and may be mapped in parts."""
    begin = int(address)
    parts = [one for one in fake.living(Reserved) if begin <= one.address and one.address + one.size <= begin + size]
    if sum(part.size for part in parts) != size:
        raise fake.wrong(f"{size} bytes at {begin:#x} are not a reserved range")
    if any(part.physical is not None for part in parts):
        raise fake.wrong("the range is freed while memory is mapped there")
    for part in parts:
        fake.end(part)
        part.keep = None


def cuMemMap(fake: FakeCuda, address: Any, size: int, offset: int, handle: Any, flags: int) -> None:
    """Map an allocation from its beginning, in a range or a part of one. A size larger than it has is refused."""
    reserved, physical = _parted(fake, address, size), fake.get(handle, Physical)
    if reserved.physical is not None or offset or flags:
        raise fake.wrong(f"mapped twice, or offset {offset}, flags {flags}")
    if size > physical.size:
        raise Refusal(INVALID_VALUE)
    reserved.physical = physical
    physical.references += 1


def cuMemSetAccess(fake: FakeCuda, address: Any, size: int, access: Any, count: int) -> None:
    """Allow the device to access the memory that is mapped in a range, one allocation or several side by side."""
    begin = int(address)
    parts = [one for one in fake.living(Reserved) if begin <= one.address and one.address + one.size <= begin + size]
    if sum(part.size for part in parts) != size or count != 1 or len(access) != 1:
        raise fake.wrong(f"{size} bytes at {begin:#x} are not reserved ranges, or the number of accesses is not one")
    for part in parts:
        _allow(fake, part, access[0])


def _allow(fake: FakeCuda, reserved: Reserved, access: Any) -> None:
    if reserved.physical is None or reserved.physical.payload is None:
        raise fake.wrong("nothing is mapped there")
    flags = int(access.flags)
    if int(access.location.id) != reserved.physical.ordinal or flags not in (_READ, _READ_WRITE):
        raise fake.wrong(f"access {flags} for device {int(access.location.id)}")
    try:
        place(reserved.keep, reserved.physical.payload.fd, reserved.size, writable=flags == _READ_WRITE)
    except OSError:
        raise Refusal(_OS) from None
    reserved.access = flags


def cuMemUnmap(fake: FakeCuda, address: Any, size: int) -> None:
    """Unmap the memory. The addresses stay reserved."""
    reserved = _range(fake, address, size)
    physical, reserved.physical = reserved.physical, None
    if physical is None:
        raise fake.wrong("nothing is mapped there")
    place(reserved.keep, -1, size, writable=False)
    release(fake, physical)
