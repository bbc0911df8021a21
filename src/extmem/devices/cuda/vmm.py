"""CUDA's own memory, which can be shared: the virtual-memory API, which allocates memory and maps it separately.

How this works. Whole granules (2 MiB on most GPUs) are allocated, a range of addresses is reserved, the allocation is
mapped there, and the device gets access. The allocation is exported as a descriptor or NT handle (`handle_types`), and
an importer maps it again. A Vulkan device imports the descriptor as an opaque fd, and the handle as OPAQUE_WIN32.
"""

from __future__ import annotations

import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.cuda.capabilities import DEVICE_TYPE
from extmem.devices.cuda.handle_types import ATTRIBUTE, KIND, WORDS, Terms, make_private
from extmem.devices.cuda.memory import CudaAllocation
from extmem.devices.cuda.owners import Undo, take
from extmem.errors import DriverError, OutOfMemoryError, UnsupportedError
from extmem.owning import OwnedDescriptor, OwnedFd, do_last

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["PRODUCER", "Vmm"]

_INVALID_VALUE = 1
PRODUCER = "cuda-vmm"
"""`Descriptor.producer` of this memory."""


class Vmm:
    """cuMemCreate, cuMemMap and related calls for one device."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device
        self._gpu = device.gpu
        self._module = device.module
        self.kind = getattr(device.module.CUmemAllocationHandleType, KIND)
        """The handle type by which memory is exported."""

    @cached_property
    def granularity(self) -> int:
        """Bytes of which every allocation is a multiple. Errors: UnsupportedError where the GPU has no such memory."""
        kind = self._module.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        terms = Terms(None) if self._gpu.shares else None
        answer = self._module.cuMemGetAllocationGranularity(self.properties(terms), kind)
        return int(self._device.value_of(answer, "cuMemGetAllocationGranularity"))

    def whole(self, size: int) -> int:
        """Return `size` bytes rounded up to whole granules."""
        granule = self.granularity
        return -(-size // granule) * granule

    def properties(self, terms: Terms | None) -> Any:
        """Return CUmemAllocationProp, valid while `terms` exists. terms: None for memory that is never shared."""
        cu = self._module
        if not self._gpu.can["virtual_memory"]:
            raise UnsupportedError(
                f"{self._gpu.name} has no virtual-memory API, and CUDA has no other memory to share; allocate on "
                "the GPU's Vulkan device and open it here",
                requires_one_of=[
                    "a GPU with CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED",
                    "a Vulkan device",
                ],
            )
        if terms is not None and not self._gpu.shares:
            raise UnsupportedError(
                f"{self._gpu.name} does not export memory as {WORDS} here; allocate on the GPU's Vulkan device and "
                "open it here",
                requires_one_of=[ATTRIBUTE, "a Vulkan device"],
            )
        properties = cu.CUmemAllocationProp()
        properties.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        properties.location.id = self._gpu.ordinal
        if terms is None:
            properties.requestedHandleTypes = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_NONE
        else:
            properties.requestedHandleTypes = self.kind
            if terms.address:
                properties.win32HandleMetaData = terms.address
        return properties

    def allocate(self, size: int, *, shared: bool, terms: ShareTerms | None = None) -> CudaAllocation:
        """Allocate `size` bytes, in whole granules. shared: whether it can be exported.

        terms: how, if the driver needs them (Windows). Errors: DriverError; refusals of the terms.
        """
        cu, whole, undo = self._module, self.whole(size), Undo()
        security = Terms(terms) if shared else None
        try:
            answer = take(undo, (cu.cuMemRelease, ...), cu.cuMemCreate, whole, self.properties(security), 0)
            handle = self._device.value_of(answer, "cuMemCreate", f"{whole} bytes")
            pointer = self._map(handle, whole, undo, writable=True)
            identity = secrets.randbits(63) | 1 if shared else 0
            allocation = CudaAllocation(self._device, size, DEVICE_TYPE, pointer, undo, identity=identity)
        except BaseException:
            self._gpu.undo(undo)
            raise
        if security is not None:
            allocation.exports, allocation.keep_alive = (lambda: self.export(handle)), security
        return allocation

    def adopt(self, address: int, size: int) -> CudaAllocation:
        """Adopt memory that other code mapped by the same API at this address, to be shared. It stays mapped there.

        The result is the whole allocation, however small `size` is. Errors: UnsupportedError if the driver cannot
        export the memory, or if it is not one allocation from its beginning on; ValueError for no bytes.
        """
        if size < 1:
            raise ValueError(f"size is {size}; pass the bytes that are to be shared, 1 or more")
        cu, undo = self._module, Undo()
        result, handle = take(undo, (cu.cuMemRelease, ...), cu.cuMemRetainAllocationHandle, address)
        if int(result) == _INVALID_VALUE:
            raise UnsupportedError(
                f"the memory at {address:#x} was not made by CUDA's virtual-memory API (cuMemRetainAllocationHandle), "
                "and the driver exports no other: allocate it through extmem and let the framework use that "
                "(memory.torch(), memory.cupy()), or copy it once into such memory",
                requires_one_of=["memory allocated by extmem", "memory of cuMemCreate with a shareable handle type"],
            )
        self._device.check(result, "cuMemRetainAllocationHandle", f"{address:#x}")
        try:
            whole = self._measure(handle, address, size, undo)
            fd = self.export(handle)
            identity = secrets.randbits(63) | 1
            return CudaAllocation(self._device, whole, DEVICE_TYPE, address, undo, fd=fd, identity=identity)
        except _NotWholeError as error:
            self._gpu.undo(undo)
            raise UnsupportedError(
                f"{size} bytes at {address:#x} cannot be shared: {error}. A handle leads to one allocation, from its "
                "beginning on. Allocate the tensor through extmem (memory.torch(), memory.cupy()), or copy it once "
                "into memory of extmem's",
                requires_one_of=["memory allocated by extmem", "a tensor that begins its allocation and fits it"],
            ) from None
        except UnsupportedError as error:
            self._gpu.undo(undo)
            raise UnsupportedError(
                f"the memory at {address:#x} was made without a shareable handle type; allocate it through extmem, or "
                "copy it once into memory of extmem's",
                requires_one_of=["memory allocated by extmem", "CUmemAllocationProp::requestedHandleTypes"],
            ) from error
        except BaseException:
            self._gpu.undo(undo)
            raise

    def _measure(self, handle: Any, address: int, size: int, undo: Undo) -> int:
        """Bytes of the allocation that is mapped from `address` on. Errors: _NotWholeError; DriverError.

        cuMemGetAddressRange returns the range of addresses. If that contains several allocations side by side, the
        handle that is mapped at an address distinguishes them.
        """
        cu, mine = self._module, int(handle)
        result, begin, length = cu.cuMemGetAddressRange(address)
        self._device.check(result, "cuMemGetAddressRange", f"{address:#x}")
        begin, end = int(begin), int(begin) + int(length)
        if begin < address and self.mapped_at(address - 1, undo) == mine:
            raise _NotWholeError(f"they begin inside of an allocation, {address - begin} bytes after {begin:#x}")
        if self.mapped_at(end - 1, undo) != mine:
            inside, granule = address, self.granularity
            while end - inside > granule:
                middle = inside + (end - inside) // 2 // granule * granule
                if self.mapped_at(middle, undo) == mine:
                    inside = middle
                else:
                    end = middle
        if address + size > end:
            raise _NotWholeError(f"the allocation that begins there has {end - address} bytes, and others follow it")
        return end - address

    def mapped_at(self, address: int, undo: Undo) -> int:
        """The handle of the allocation that is mapped at an address, as a number; 0 for none. DriverError.

        undo: records the handle until it is released again. The GPU's context is current.
        """
        cu = self._module
        result, handle = take(undo, (cu.cuMemRelease, ...), cu.cuMemRetainAllocationHandle, address)
        if int(result) == _INVALID_VALUE:
            return 0
        self._device.check(result, "cuMemRetainAllocationHandle", f"{address:#x}")
        do_last(undo)
        return int(handle)

    def export(self, handle: Any) -> OwnedFd:
        """A new POSIX descriptor or NT handle of an allocation, kept from children, owned by the caller.

        Errors: DriverError; UnsupportedError where the memory was not made for that.
        """
        owned = OwnedDescriptor()
        result, _ = owned.own_result_of(self._module.cuMemExportToShareableHandle, handle, self.kind, 0)
        if int(result) == _INVALID_VALUE:
            raise UnsupportedError(
                "cuMemExportToShareableHandle: this memory was made without a shareable handle type",
                requires_one_of=["CUmemAllocationProp::requestedHandleTypes"],
            )
        self._device.check(result, "cuMemExportToShareableHandle")
        try:
            make_private(owned.fd)
            return owned.above_standard_streams()
        except OSError as error:
            owned.settle()
            raise OutOfMemoryError(
                f"cuMemExportToShareableHandle: fd {owned.fd} cannot be made close-on-exec ({error})",
                result=int(vk.Result.ERROR_TOO_MANY_OBJECTS),
                command="cuMemExportToShareableHandle",
                devices=[self._gpu.name],
            ) from error

    def import_fd(
        self,
        fd: int,
        size: int,
        device_name: str = "",
        *,
        payload: PayloadFd | None = None,
        identity: int = 0,
        writable: bool = True,
    ) -> CudaAllocation:
        """Import memory that a CUDA process allocated. The driver takes nothing over.

        fd: its descriptor or NT handle, borrowed for the call. device_name: the exporter's.
        """
        cu, whole, undo = self._module, self.whole(size), Undo()
        try:
            result, handle = take(undo, (cu.cuMemRelease, ...), cu.cuMemImportFromShareableHandle, fd, self.kind)
            tried = f"{size} bytes of CUDA memory by {WORDS[:-1]} {fd}"
            others = (device_name,) if device_name else ()
            self._device.check(result, "cuMemImportFromShareableHandle", tried, others)
            self.check_device(handle, device_name)
            pointer = self._map(handle, whole, undo, writable=writable)
            return CudaAllocation(
                self._device,
                size,
                DEVICE_TYPE,
                pointer,
                undo,
                payload=payload,
                identity=identity,
                writable=writable,
            )
        except BaseException:
            self._gpu.undo(undo)
            raise

    def check_device(self, handle: Any, device_name: str) -> None:
        """Check that imported memory is of this device. Errors: DriverError. device_name: the exporter's."""
        answer = self._module.cuMemGetAllocationPropertiesFromHandle(handle)
        properties = self._device.value_of(answer, "cuMemGetAllocationPropertiesFromHandle")
        ordinal = int(properties.location.id)
        if ordinal != self._gpu.ordinal:
            raise DriverError(
                f"cuMemImportFromShareableHandle: the memory is on CUDA device {ordinal}"
                + f" ({device_name})" * bool(device_name)
                + f", and {self._gpu.name} is device {self._gpu.ordinal}; open it on the device that it was made on",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="cuMemImportFromShareableHandle",
                devices=[self._gpu.name, device_name or f"CUDA device {ordinal}"],
            )

    def _map(self, handle: Any, whole: int, undo: Undo, *, writable: bool) -> int:
        cu = self._module
        result, address = take(undo, (cu.cuMemAddressFree, ..., whole), cu.cuMemAddressReserve, whole, 0, 0, 0)
        self._device.check(result, "cuMemAddressReserve", f"{whole} bytes")
        (result,) = take(undo, (cu.cuMemUnmap, address, whole), cu.cuMemMap, address, whole, 0, handle, 0)
        self._device.check(result, "cuMemMap", f"{whole} bytes")
        self.allow(int(address), whole, writable=writable)
        return int(address)

    def allow(self, address: int, whole: int, *, writable: bool) -> None:
        """Let the device access what is mapped at these addresses. Errors: DriverError."""
        (result,) = self._module.cuMemSetAccess(address, whole, [self.access(writable=writable)], 1)
        self._device.check(result, "cuMemSetAccess", f"{whole} bytes")

    def access(self, *, writable: bool) -> Any:
        """Return CUmemAccessDesc: the device's right to access memory."""
        cu = self._module
        allowed = cu.CUmemAccessDesc()
        allowed.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        allowed.location.id = self._gpu.ordinal
        flags = cu.CUmemAccess_flags
        allowed.flags = flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE if writable else flags.CU_MEM_ACCESS_FLAGS_PROT_READ
        return allowed


class _NotWholeError(Exception):
    """The memory at an address is not one allocation from its beginning on. Used only within this module."""
