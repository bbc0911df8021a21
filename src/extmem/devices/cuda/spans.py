"""Memory of CUDA that consists of several allocations side by side, such as a tensor of PyTorch's expandable segments.

How this works. PyTorch reserves one range of addresses and maps allocations of 2 or 20 MiB there, one after the other.
A handle leads to one allocation, from its beginning on (cuMemMap takes no other offset). So a range is shared as the
list of the allocations that it touches, with the offset at which it begins in the first one. The driver tells which
they are: cuMemRetainAllocationHandle returns the allocation that is mapped at an address, and
cuMemGetAllocationPropertiesFromHandle whether it can be exported. Nothing here knows the framework.

An importer reserves the addresses of all allocations together, and maps one after the other there. If one of them
fails, the others are unmapped and released again. It does not keep their descriptors: 80 GiB in allocations of 20 MiB
have 4,096. Whoever needs them later gets new ones from the driver (`CudaAllocation.part_fds`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from extmem.devices.cuda.capabilities import DEVICE_TYPE
from extmem.devices.cuda.handle_types import WORDS
from extmem.devices.cuda.memory import CudaAllocation
from extmem.devices.cuda.owners import Undo, take
from extmem.errors import DescriptorError, DriverError, OutOfMemoryError, UnsupportedError
from extmem.sharing.limits import HANDLES_LIMIT, PAGES_LIMIT

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.vmm import Vmm
    from extmem.devices.types import Origin
    from extmem.sharing.payload import PayloadFd

__all__ = ["Spans"]

_INVALID_VALUE = 1
_REMEDIES = ["extmem.torch.pool()", "extmem.torch.make_shareable()", "memory allocated by extmem"]
_DO = (
    "allocate it in a block of extmem.torch.pool(), call extmem.torch.make_shareable() before it is allocated, or copy "
    "it into memory of extmem's"
)


class _Part(msgspec.Struct, frozen=True):
    """One allocation, and where it is mapped."""

    begin: int
    size: int
    handle: Any


class Spans:
    """Ranges of several allocations on one device."""

    def __init__(self, device: LogicalDevice, vmm: Vmm) -> None:
        self._device = device
        self._gpu = device.gpu
        self._module = device.module
        self._vmm = vmm
        self._kind = vmm.kind

    # Sharing what is mapped here.

    def adopt(self, address: int, size: int) -> CudaAllocation:
        """Return the allocations that other code mapped at these addresses, to be shared. They stay mapped there.

        The result begins with the allocation at `address`, and so at or before it. It keeps the memory, but neither the
        mapping nor its contents: the caller keeps what owns them.
        Errors: UnsupportedError, if the driver cannot export one of them; ValueError for no bytes; DriverError.
        """
        if size < 1:
            raise ValueError(f"size is {size}; pass the bytes that are to be shared, 1 or more")
        undo = Undo()
        try:
            parts = list(self._parts(address, size, undo))
            sizes = tuple(part.size for part in parts)
            allocation = CudaAllocation(
                self._device,
                sum(sizes),
                DEVICE_TYPE,
                parts[0].begin,
                undo,
                identity=secrets.randbits(63) | 1,
                parts=sizes if len(sizes) > 1 else (),
            )
        except BaseException:
            self._gpu.undo(undo)
            raise
        handles = [part.handle for part in parts]
        if len(parts) > 1:
            allocation.exports_each = lambda: map(self._vmm.export, handles)
        else:
            allocation.exports = lambda: self._vmm.export(handles[0])
        return allocation

    def _parts(self, address: int, size: int, undo: Undo) -> Iterator[_Part]:
        at, count = address, 0
        while at < address + size:
            part = self._part_at(at, address, size, undo, begins=count > 0)
            count += 1
            if count > HANDLES_LIMIT - PAGES_LIMIT:
                raise UnsupportedError(
                    f"{size} bytes at {address:#x} are in more than {HANDLES_LIMIT - PAGES_LIMIT} allocations of the "
                    f"driver, the most that one payload has; {_DO}",
                    requires_one_of=_REMEDIES,
                )
            yield part
            at = part.begin + part.size

    def _part_at(self, at: int, address: int, size: int, undo: Undo, *, begins: bool) -> _Part:
        """Return the allocation that is mapped at `at`. Errors: UnsupportedError, if it cannot be exported.

        begins: whether it is known to begin there, because the one before it ends there.
        """
        cu = self._module
        where = f"{size} bytes at {address:#x}"
        result, handle = take(undo, (cu.cuMemRelease, ...), cu.cuMemRetainAllocationHandle, at)
        if int(result) == _INVALID_VALUE:
            raise UnsupportedError(
                f"{where}: the memory at {at:#x} was not made by CUDA's virtual-memory API (it is of cudaMalloc, an "
                "asynchronous pool or managed memory, or another process's, opened by cudaIpcOpenMemHandle), and the "
                f"driver exports no other; {_DO}",
                requires_one_of=_REMEDIES,
            )
        self._device.check(result, "cuMemRetainAllocationHandle", f"{at:#x}")
        self._check(handle, where)
        begin, end = self._mapping(handle, at, undo, begins=begins)
        return _Part(begin, end - begin, handle)

    def _check(self, handle: Any, where: str) -> None:
        """Check that an allocation can be exported, and is of this device. Errors: UnsupportedError."""
        cu = self._module
        answer = cu.cuMemGetAllocationPropertiesFromHandle(handle)
        properties = self._device.value_of(answer, "cuMemGetAllocationPropertiesFromHandle")
        types, kinds = int(properties.requestedHandleTypes), cu.CUmemLocationType
        if int(properties.location.type) != int(kinds.CU_MEM_LOCATION_TYPE_DEVICE):
            problem = "is memory of the host"
        elif int(properties.location.id) != self._gpu.ordinal:
            problem = f"is on CUDA device {int(properties.location.id)}, and this is device {self._gpu.ordinal}"
        elif types & int(self._kind):
            return
        elif types & int(cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_FABRIC):
            problem = (
                f"was made to be exported as fabric handles, and not as {WORDS} (PyTorch does that where an IMEX "
                "channel is configured)"
            )
        else:
            problem = (
                "was made without a shareable handle type (PyTorch does that if TORCH_CUDA_EXPANDABLE_SEGMENTS_IPC=0 "
                "is set)"
            )
        raise UnsupportedError(f"{where}: the memory {problem}; {_DO}", requires_one_of=_REMEDIES)

    def _mapping(self, handle: Any, at: int, undo: Undo, *, begins: bool) -> tuple[int, int]:
        """Return the first address of the allocation that is mapped at `at`, and the one behind its last.

        cuMemGetAddressRange returns the range of addresses. If that contains several allocations side by side, the
        handle that is mapped at an address distinguishes them.
        """
        mine, granule = int(handle), self._vmm.granularity
        result, first, length = self._module.cuMemGetAddressRange(at)
        self._device.check(result, "cuMemGetAddressRange", f"{at:#x}")
        begin, end = int(first), int(first) + int(length)
        if begins:
            begin = at
        elif self._vmm.mapped_at(begin, undo) != mine:
            other, inside = begin, begin + (at - begin) // granule * granule
            while inside - other > granule:
                middle = other + (inside - other) // 2 // granule * granule
                other, inside = (other, middle) if self._vmm.mapped_at(middle, undo) == mine else (middle, inside)
            begin = inside
        if self._vmm.mapped_at(end - 1, undo) != mine:
            inside = begin + (at - begin) // granule * granule
            while end - inside > granule:
                middle = inside + (end - inside) // 2 // granule * granule
                inside, end = (middle, end) if self._vmm.mapped_at(middle, undo) == mine else (inside, middle)
        return begin, end

    # Importing.

    def import_handles(
        self, handles: Sequence[int], origin: Origin, *, payload: PayloadFd, identity: int, writable: bool
    ) -> CudaAllocation:
        """Import the allocations of a payload side by side, into one range of addresses of exactly their size.

        handles: their descriptors, borrowed for the call. If the driver exports imported memory again, the allocation
        closes the payload, and exports new ones on demand. Errors: DriverError; DescriptorError, if there are fewer or
        more handles than sizes, or a size is not whole granules. Nothing is left of a failed import.
        """
        cu, sizes, granule = self._module, origin.parts, self._vmm.granularity
        if len(handles) != len(sizes) or any(size % granule for size in sizes):
            raise DescriptorError(
                f"the payload has {len(handles)} handles, and its description lists {len(sizes)} allocations of "
                f"{', '.join(map(str, sorted(set(sizes))[:4]))} bytes; each has one handle and a multiple of {granule} "
                "bytes. Its exporter wrote the description: export the payload anew"
            )
        undo, whole = Undo(), sum(sizes)
        others = (origin.device_name,) if origin.device_name else ()
        try:
            result, address = take(undo, (cu.cuMemAddressFree, ..., whole), cu.cuMemAddressReserve, whole, 0, 0, 0)
            self._device.check(result, "cuMemAddressReserve", f"{whole} bytes")
            at, imported = int(address), []
            for number, (fd, size) in enumerate(zip(handles, sizes, strict=True)):
                result, handle = take(undo, (cu.cuMemRelease, ...), cu.cuMemImportFromShareableHandle, fd, self._kind)
                tried = f"allocation {number} of {len(sizes)}, {size} bytes"
                self._device.check(result, "cuMemImportFromShareableHandle", tried, others)
                self._vmm.check_device(handle, origin.device_name)
                (result,) = take(undo, (cu.cuMemUnmap, at, size), cu.cuMemMap, at, size, 0, handle, 0)
                self._device.check(result, "cuMemMap", tried)
                imported.append(handle)
                at += size
            self._vmm.allow(int(address), whole, writable=writable)
            allocation = CudaAllocation(
                self._device,
                whole,
                DEVICE_TYPE,
                int(address),
                undo,
                payload=payload,
                identity=identity,
                writable=writable,
                parts=sizes,
            )
        except BaseException:
            self._gpu.undo(undo)
            raise
        if self._exports_again(imported[0]):
            allocation.export_on_demand(lambda: map(self._vmm.export, imported))
        return allocation

    def _exports_again(self, handle: Any) -> bool:
        """Whether the driver exports what was imported. Then the descriptors, up to thousands, need not stay open."""
        try:
            self._vmm.export(handle).settle()
        except (UnsupportedError, DriverError, OutOfMemoryError):
            return False
        return True
