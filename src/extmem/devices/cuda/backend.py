"""`CudaBackend`: a GPU's primary context as a `Backend`, put together from its parts.

How this works. Each part has one subject, and is built on those before it; none knows the backend::

    LogicalDevice ──> Vmm ──> Resources, Transfers, Imports

Memory that is allocated here is CUDA's own (`vmm`). Memory of other APIs is imported by its descriptor (`external`),
host payloads by registration (`host_registration`). Semaphores and fences are a part that is made at its first use
(`sync_members`). All copies are done when they return (`submission`). A member of
`Backend` that a part implements as it is, is that part's method: `__init__` lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices import host
from extmem.devices.cuda.capabilities import DEVICE_TYPE, HOST_TYPE, Answers
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE
from extmem.devices.cuda.imports import Imports
from extmem.devices.cuda.logical import LogicalDevice
from extmem.devices.cuda.memory import native_allocation
from extmem.devices.cuda.resources import Resources
from extmem.devices.cuda.spans import Spans
from extmem.devices.cuda.sync_members import SyncMembers
from extmem.devices.cuda.transfers import Transfers
from extmem.devices.cuda.vmm import PRODUCER, Vmm
from extmem.devices.fd_copies import copy_of
from extmem.errors import DriverError, UnsupportedError
from extmem.owning import late_imports
from extmem.sharing.kinds import Backing
from extmem.vk.handle_types import NO_TYPES, OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation
    from extmem.devices.cuda.memory import CudaAllocation
    from extmem.devices.cuda.physical import Gpu
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import QueueFacts
    from extmem.owning import OwnedFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["CudaBackend"]


class CudaBackend(Answers, SyncMembers):
    """One GPU as a `Backend`, which documents its members."""

    kind = "cuda"
    payload_backing = Backing.DRIVER_FD
    """The driver's own files, whose payloads the kernel does not identify."""
    producer = PRODUCER
    """`Descriptor.producer` of what it allocates."""
    allocates_zeroed = False
    """CUDA leaves the content of new memory to the driver."""
    max_memory_allocation_count = 0
    enabled_features: frozenset[str] = frozenset()
    """None of Vulkan's: no sparse and no protected resources."""
    max_framebuffer: tuple[int, int] | None = None
    queue_facts: QueueFacts | None = None
    """None: a GPU has streams, and no queues of Vulkan's."""
    imports_handles = WIN32_IS_NATIVE

    def __init__(self, gpu: Gpu) -> None:
        Answers.__init__(self, gpu)
        self.device = LogicalDevice(gpu)
        self.vmm = Vmm(self.device)
        self.resources = Resources(self.device, self.vmm)
        self.transfers = Transfers(self.device)
        self.imports = Imports(self.device, self.vmm, Spans(self.device, self.vmm))
        SyncMembers.__init__(self, self.device, self.transfers.submissions)

        self.identity = gpu.identity
        """CUDA reports no driverUUID: it is zero."""
        self.name = gpu.name
        self.ordinal = gpu.ordinal
        """CUDA's number of the device in this process."""

        self.buffer_requirements = self.resources.buffer_requirements
        self.image_requirements = self.resources.image_requirements
        self.image_subresource_layout = self.resources.image_subresource_layout
        self.create_buffer = self.resources.create_buffer
        self.create_image = self.resources.create_image
        self.bind = self.resources.bind

        self.examine_fd = self.imports.examine_fd
        self.import_fd = self.imports.import_fd
        self.import_payload = self.imports.import_payload
        self.import_by_descriptor = self.imports.import_by_descriptor
        self.import_host_pointer = self.imports.import_host_pointer
        self.wrap_pointer = self.imports.wrap_pointer
        self.wrap_range = self.imports.wrap_range
        self.missing_for = self.imports.missing_for
        self.fd_memory_type_bits = self.imports.fd_memory_type_bits
        self.handle_memory_type_bits = self.imports.handle_memory_type_bits
        self.host_pointer_memory_type_bits = self.imports.host_pointer_memory_type_bits
        self.host_range_mapped = host.range_is_mapped

        self.flush = self.transfers.flush
        self.invalidate = self.transfers.invalidate
        self.write = self.transfers.write
        self.write_rows = self.transfers.write_rows
        self.write_from = self.transfers.write_from
        self.read = self.transfers.read
        self.fill = self.transfers.fill
        self.copy_from = self.transfers.copy_from
        self.submit = self.transfers.submit
        self.wait = self.transfers.wait

    def framework_allocator(self) -> tuple[int, int]:
        """See `AllocatesForFrameworks`. There is one for each GPU and process."""
        self.device.check_open()
        with self.device.making, self.device.gpu.current:
            allocator = self.device.gpu.pool_allocator
            if allocator is None:
                with late_imports():
                    from extmem.devices.cuda.pool_allocator import PoolAllocator

                allocator = self.device.gpu.pool_allocator = PoolAllocator(self.device, self.vmm)
        return allocator.allocate, allocator.deallocate

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: MemoryHandleType = NO_TYPES,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> CudaAllocation:
        """See `Backend`. Name and descriptor stay with the object manager: a driver's memory has no room for them."""
        self.device.check_open()
        if memory_type_index != DEVICE_TYPE or size <= 0:
            raise DriverError(
                f"vkAllocateMemory: {size} bytes of memory type {memory_type_index} are asked for; sizes begin at 1, "
                f"and {self.name} by CUDA allocates type {DEVICE_TYPE} alone (type {HOST_TYPE} is for imports)",
                result=int(vk.Result.ERROR_UNKNOWN),
                command="vkAllocateMemory",
                devices=[self.name],
            )
        with self.device.gpu.current:
            return self.vmm.allocate(size, shared=bool(handle_types), terms=terms)

    def export_fd(
        self, allocation: Allocation, *, read_only: bool = False, handle_type: MemoryHandleType = OPAQUE_FD
    ) -> OwnedFd:
        """See `Backend`. A driver's fd can always be written through: `read_only` changes nothing here."""
        self.device.check_open()
        fd = native_allocation(allocation).fd
        if fd is None:
            raise UnsupportedError(
                "this memory was not allocated for export, or it was imported from a host pointer, so there is no fd "
                "of it; name OPAQUE_FD in VkExportMemoryAllocateInfo::handleTypes",
                requires_one_of=["VkExportMemoryAllocateInfo::handleTypes with OPAQUE_FD"],
            )
        return copy_of(fd)

    def finish_submitted(self) -> None:
        """See `FinishesLater`."""
        self.transfers.finish_submitted()
        self.finish_sync()

    def close(self) -> None:
        self.close_sync()
        self.device.close()
