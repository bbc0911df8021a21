"""Memory that CUDA makes to be shared: its virtual-memory API, by which one part makes memory and another maps it.

How this works. An allocation of whole granules (2 MiB on most GPUs) is made, a range of addresses reserved, the one
mapped to the other, and the device allowed to use it. What is exported is the allocation; who imports it maps it
anew. A Vulkan device takes the same descriptor for an opaque fd.
"""

from __future__ import annotations

import os
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.cuda.allocation import CudaAllocation, Undo
from extmem.devices.cuda.call import fail
from extmem.devices.cuda.capabilities import DEVICE_TYPE
from extmem.errors import DriverError, OutOfMemoryError, UnsupportedError

if TYPE_CHECKING:
    from extmem.broker.descriptors import PayloadFd
    from extmem.devices.cuda.driver import CudaDriver

__all__ = ["PRODUCER", "Vmm"]

_INVALID_VALUE = 1
PRODUCER = "cuda-vmm"
"""`Descriptor.producer` of this memory."""


class Vmm:
    """cuMemCreate, cuMemMap and their kin for one device."""

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._gpu = driver.gpu
        self._module = driver.module

    @cached_property
    def granularity(self) -> int:
        """Bytes of which every allocation is a multiple. Errors: UnsupportedError where the GPU has no such memory."""
        kind = self._module.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        result, found = self._module.cuMemGetAllocationGranularity(self._properties(shared=self._can_share), kind)
        self._check(result, "cuMemGetAllocationGranularity")
        return int(found)

    @property
    def _can_share(self) -> bool:
        return bool(self._gpu.can["posix_fd"])

    def whole(self, size: int) -> int:
        """The bytes of so many granules that `size` bytes fit."""
        granule = self.granularity
        return -(-size // granule) * granule

    def _properties(self, *, shared: bool) -> Any:
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
        if shared and not self._can_share:
            raise UnsupportedError(
                f"{self._gpu.name} does not export memory as POSIX descriptors here; allocate on the GPU's Vulkan "
                "device and open it here",
                requires_one_of=["CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED", "a Vulkan device"],
            )
        properties = cu.CUmemAllocationProp()
        properties.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        properties.location.id = self._gpu.ordinal
        types = cu.CUmemAllocationHandleType
        properties.requestedHandleTypes = (
            types.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR if shared else types.CU_MEM_HANDLE_TYPE_NONE
        )
        return properties

    def allocate(self, size: int, *, shared: bool) -> CudaAllocation:
        """New memory of `size` bytes, in whole granules. shared: whether it can be exported. Errors: DriverError."""
        cu, whole, undo = self._module, self.whole(size), Undo()
        try:
            result, handle = cu.cuMemCreate(whole, self._properties(shared=shared), 0)
            self._check(result, "cuMemCreate", f"{whole} bytes")
            undo.append((cu.cuMemRelease, handle))
            pointer = self._map(handle, whole, undo, writable=True)
        except BaseException:
            self._gpu.undo(undo)
            raise
        identity = secrets.randbits(63) | 1 if shared else 0
        made = CudaAllocation(self._driver, size, DEVICE_TYPE, pointer, undo, identity=identity)
        made.producer = PRODUCER
        if shared:
            made.exports = lambda: self.export(handle)
        return made

    def adopt(self, address: int, size: int) -> CudaAllocation:
        """Memory that somebody else mapped by the same API, at this address, to be shared; it stays mapped there.

        Errors: UnsupportedError where the driver can't export what is there.
        """
        cu, undo = self._module, Undo()
        result, handle = cu.cuMemRetainAllocationHandle(address)
        if int(result) == _INVALID_VALUE:
            raise UnsupportedError(
                f"the memory at {address:#x} was not made by CUDA's virtual-memory API (cuMemRetainAllocationHandle), "
                "and the driver exports no other: allocate it through extmem and let the framework use that "
                "(memory.torch(), memory.cupy()), or copy it once into such memory",
                requires_one_of=["memory allocated by extmem", "memory of cuMemCreate with a shareable handle type"],
            )
        self._check(result, "cuMemRetainAllocationHandle", f"{address:#x}")
        undo.append((cu.cuMemRelease, handle))
        try:
            fd = self.export(handle)
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
        identity = secrets.randbits(63) | 1
        made = CudaAllocation(self._driver, size, DEVICE_TYPE, address, undo, fd=fd, identity=identity)
        made.producer = PRODUCER
        return made

    def export(self, handle: Any) -> int:
        """A new POSIX descriptor of an allocation, close-on-exec, owned by the caller. Errors: DriverError."""
        kind = self._module.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
        result, made = self._module.cuMemExportToShareableHandle(handle, kind, 0)
        if int(result) == _INVALID_VALUE:
            raise UnsupportedError(
                "cuMemExportToShareableHandle: this memory was made without a shareable handle type",
                requires_one_of=["CUmemAllocationProp::requestedHandleTypes"],
            )
        self._check(result, "cuMemExportToShareableHandle")
        fd = int(made)
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            os.close(fd)
            raise OutOfMemoryError(
                f"cuMemExportToShareableHandle: fd {fd} cannot be made close-on-exec ({error})",
                result=int(vk.Result.ERROR_TOO_MANY_OBJECTS),
                command="cuMemExportToShareableHandle",
                devices=[self._gpu.name],
            ) from error
        return fd

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
        """A view of memory that a CUDA process made. The fd is borrowed for the call; the driver takes none over.

        device_name: the exporter's.
        """
        cu, whole, undo = self._module, self.whole(size), Undo()
        try:
            kind = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
            result, handle = cu.cuMemImportFromShareableHandle(fd, kind)
            tried = f"{size} bytes of CUDA memory by fd {fd}"
            self._check(result, "cuMemImportFromShareableHandle", tried, device_name)
            undo.append((cu.cuMemRelease, handle))
            self._same_device(handle, device_name)
            pointer = self._map(handle, whole, undo, writable=writable)
        except BaseException:
            self._gpu.undo(undo)
            raise
        made = CudaAllocation(
            self._driver,
            size,
            DEVICE_TYPE,
            pointer,
            undo,
            payload=payload,
            identity=identity,
            writable=writable,
        )
        made.producer = PRODUCER
        return made

    def _same_device(self, handle: Any, device_name: str) -> None:
        result, properties = self._module.cuMemGetAllocationPropertiesFromHandle(handle)
        self._check(result, "cuMemGetAllocationPropertiesFromHandle")
        ordinal = int(properties.location.id)
        if ordinal != self._gpu.ordinal:
            raise DriverError(
                f"cuMemImportFromShareableHandle: the memory lies on CUDA device {ordinal}"
                + f" ({device_name})" * bool(device_name)
                + f", and {self._gpu.name} is device {self._gpu.ordinal}; open it on the device that it was made on",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="cuMemImportFromShareableHandle",
                devices=[self._gpu.name, device_name or f"CUDA device {ordinal}"],
            )

    def _map(self, handle: Any, whole: int, undo: Undo, *, writable: bool) -> int:
        cu = self._module
        result, address = cu.cuMemAddressReserve(whole, 0, 0, 0)
        self._check(result, "cuMemAddressReserve", f"{whole} bytes")
        undo.append((cu.cuMemAddressFree, address, whole))
        (result,) = cu.cuMemMap(address, whole, 0, handle, 0)
        self._check(result, "cuMemMap", f"{whole} bytes")
        undo.append((cu.cuMemUnmap, address, whole))
        allowed = cu.CUmemAccessDesc()
        allowed.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        allowed.location.id = self._gpu.ordinal
        flags = cu.CUmemAccess_flags
        allowed.flags = flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE if writable else flags.CU_MEM_ACCESS_FLAGS_PROT_READ
        (result,) = cu.cuMemSetAccess(address, whole, [allowed], 1)
        self._check(result, "cuMemSetAccess", f"{whole} bytes")
        return int(address)

    def _check(self, result: Any, command: str, tried: str = "", other: str = "") -> None:
        if result:
            fail(result, command, self._gpu.name, *([other] if other else []), tried=tried)
