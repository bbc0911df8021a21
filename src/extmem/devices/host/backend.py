"""`HostBackend`: memory that any machine has, as a `Backend`. Payloads are sealed memory files, on Windows sections.

How this works. The device has no driver and no state but whether it is closed, so its parts are modules of functions.
Buffers, images, transfers and commands are imported at their first use (`late`): opening a device is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.fd_copies import copy_of
from extmem.devices.host import imports, late, system
from extmem.devices.host.memory import HostAllocation, PointerAllocation
from extmem.devices.host.physical import host_identity
from extmem.errors import DriverError, HandleStateError, OutOfMemoryError, UnsupportedError
from extmem.owning import LateModule
from extmem.sharing.kinds import Backing
from extmem.vk.handle_types import NO_TYPES, OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Recorder
    from extmem.devices.host import capabilities
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.devices.sync import Batch, FenceSpec, NativeFence, NativeSemaphore, SemaphoreSpec
    from extmem.devices.types import ExaminedFd, ImportRequest, QueueFacts
    from extmem.owning import OwnedFd, Uses
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms
    from extmem.vk.handle_types import SyncHandleType
else:
    capabilities = LateModule(globals(), "extmem.devices.host.capabilities")

__all__ = ["HostBackend"]

_Property = vk.MemoryPropertyFlagBits
_TYPES = (
    # 0 is what a GPU's own visible memory looks like; images with optimal tiling are of this type.
    _Property.DEVICE_LOCAL | _Property.HOST_VISIBLE | _Property.HOST_COHERENT,
    _Property.HOST_VISIBLE | _Property.HOST_COHERENT | _Property.HOST_CACHED,
)
_TYPE_COUNT = len(_TYPES)


class HostBackend:
    """The host device, which `Backend` documents. Everything it allocates can be mapped, and shared by descriptor."""

    kind = "host"
    payload_backing = Backing.HOST_FILE
    allocates_zeroed = True
    """The kernel zeroes memory files and sections."""
    min_imported_host_pointer_alignment = system.PAGE
    max_memory_allocation_count = 0
    """0: the limit is the process's number of descriptors, and imports of one payload share theirs."""
    enabled_features: frozenset[str] = frozenset()
    """None of Vulkan's: no sparse and no protected resources."""
    max_framebuffer = (16384, 16384)
    """As large as its images."""
    queue_facts: QueueFacts | None = None

    def __init__(self) -> None:
        self._heap_size = system.total_memory()
        self._closed = False
        self.identity = host_identity()
        """This machine and boot."""

    # What it can do.

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """See `Backend`. Two types over one heap, the machine's memory (or the control group's share of it)."""
        return vk.PhysicalDeviceMemoryProperties(
            memory_types=tuple(vk.MemoryType(flags, 0) for flags in _TYPES),
            memory_heaps=(vk.MemoryHeap(self._heap_size, vk.MemoryHeapFlagBits.DEVICE_LOCAL),),
        )

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        handle_type = MemoryHandleType(int(info.handle_type))
        return vk.ExternalBufferProperties(capabilities.buffer_properties(handle_type, info.flags))

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        return late.image_layouts.format_properties(info, self._heap_size)

    # Buffers and images.

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        return late.resources.buffer_requirements(info)

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        return late.image_layouts.requirements(info)

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        return late.image_layouts.subresource_layout(info, subresource)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        return late.resources.create_buffer(info)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        return late.resources.create_image(info)

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        late.resources.bind(allocation, offset, resource)

    # Memory.

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: MemoryHandleType = NO_TYPES,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> HostAllocation:
        """See `Backend`. A new sealed memory file or section, all of it reserved now."""
        self._check(size, memory_type_index)
        if size > self._heap_size:
            raise OutOfMemoryError(
                f"vkAllocateMemory: {size} bytes are asked for and the heap has {self._heap_size}; ask for less",
                result=vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
                command="vkAllocateMemory",
                devices=[self.identity.device_name],
            )
        file = system.create(size, descriptor, terms, control_page=True, freezable=True)
        return HostAllocation(file, size, memory_type_index, True)

    examine_fd = staticmethod(system.examine)

    def import_fd(self, request: ImportRequest[ExaminedFd]) -> HostAllocation:
        """See `Backend`. The fd must be a memory file with sealed size, at least as large as the allocation."""
        examined, size = request.source, request.size
        self._check(size, request.memory_type)
        if examined.problem:
            raise imports.refusal(examined.problem)
        if size > (examined.capacity or 0):
            raise imports.too_large(size, examined.capacity or 0)
        return HostAllocation(copy_of(examined.fd), size, request.memory_type, examined.writable)

    def import_payload(self, request: ImportRequest[PayloadFd]) -> HostAllocation:
        payload, size = request.source, request.size
        self._check(size, request.memory_type)
        if size > request.capacity:
            raise imports.too_large(size, request.capacity)
        if payload.shared is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        return HostAllocation(payload, size, request.memory_type, payload.writable)

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> PointerAllocation:
        self._check(size, memory_type_index)
        return imports.import_host_pointer(address, size, memory_type_index)

    def host_pointer_memory_type_bits(self, handle_type: MemoryHandleType, address: int) -> int:
        return imports.host_pointer_memory_type_bits(handle_type, address)

    def host_range_mapped(self, address: int, size: int) -> bool:
        return system.range_is_mapped(address, size)

    def fd_memory_type_bits(self, handle_type: MemoryHandleType, fd: int) -> int:
        """Raise UnsupportedError: only non-opaque types may be queried, and the host device imports none."""
        raise imports.unsupported_type(handle_type, "OPAQUE_FD")

    def handle_memory_type_bits(self, handle_type: MemoryHandleType, handle: int) -> int:
        """Raise UnsupportedError: only non-opaque types may be queried, and the host device imports none."""
        raise imports.unsupported_type(handle_type, "OPAQUE_WIN32", "OPAQUE_WIN32_KMT")

    def export_fd(
        self, allocation: Allocation, *, read_only: bool = False, handle_type: MemoryHandleType = OPAQUE_FD
    ) -> OwnedFd:
        fd = allocation.fd
        if fd is None:
            raise UnsupportedError(
                "memory imported from a host pointer has no file descriptor and cannot be shared; "
                "allocate exportable memory and copy into it",
                requires_one_of=["memory allocated by the device"],
            )
        return system.duplicate(fd, writable=allocation.writable and not read_only)

    # Bytes and commands.

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """Do nothing: its memory is coherent."""

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """Do nothing: its memory is coherent."""

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        late.transfers.write(allocation, offset, data)

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        late.transfers.read(allocation, offset, into)

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        late.transfers.fill(allocation, offset, size, value)

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """See `Backend`. The processor does each command when it is recorded. Ownership has no meaning here."""
        record(late.commands.HostRecorder())

    # Semaphores and fences (`SyncBackend`).

    max_timeline_difference = (1 << 63) - 1
    """GPUs that wait for a word of memory compare the signed difference."""
    timelines = fences = "host"

    def external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        return late.sync.semaphore_properties(info)

    def external_fence_properties(self, info: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
        return late.sync.fence_properties(info)

    def create_semaphore(self, spec: SemaphoreSpec) -> NativeSemaphore:
        self._check_open()
        return late.sync.create_semaphore(spec)

    def create_fence(self, spec: FenceSpec) -> NativeFence:
        self._check_open()
        return late.sync.create_fence(spec)

    def examine_sync_fd(
        self,
        fd: int,
        handle_type: SyncHandleType,
        *,
        fence: bool = False,
        timeline: bool = False,
        trusted: bool = False,
    ) -> ExaminedFd:
        return late.sync.examine(fd, handle_type, fence=fence, timeline=timeline)

    def wait_semaphores(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        """See `SyncBackend`. PeerGoneError for a value whose signaler has ended."""
        return late.sync.wait_semaphores(waits, any_of=any_of, timeout_ns=timeout_ns)

    def wait_fences(self, fences: Sequence[NativeFence], *, any_of: bool = False, timeout_ns: int = 0) -> bool:
        """See `SyncBackend`. PeerGoneError for a fence whose signaler has ended."""
        return late.sync.wait_fences(fences, any_of=any_of, timeout_ns=timeout_ns)

    def submit_batches(
        self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses, *, wait: bool = False
    ) -> None:
        """See `SyncBackend`. It returns when all is done, also without `wait`."""
        late.sync.submit(batches, fence)

    def close(self) -> None:
        """See `Backend`. New memory is refused; what was allocated stays."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise HandleStateError(f"{self.identity.device_name} is closed; open the device again")

    def _check(self, size: int, memory_type: int) -> None:
        if self._closed:
            self._check_open()
        if size <= 0 or not 0 <= memory_type < _TYPE_COUNT:
            raise DriverError(
                f"vkAllocateMemory: {size} bytes of memory type {memory_type} are asked for; sizes begin at 1 "
                f"and the types are 0 to {_TYPE_COUNT - 1}",
                result=vk.Result.ERROR_UNKNOWN,
                command="vkAllocateMemory",
                devices=[self.identity.device_name],
            )
