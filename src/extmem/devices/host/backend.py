"""`HostBackend`: memory that any machine has, as a device. Payloads are sealed memory files, on Windows sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices import host
from extmem.devices.backend import (
    Allocation,
    DeviceIdentity,
    FdFacts,
    Mapping,
    QueueFacts,
    Recorder,
)
from extmem.devices.fd_copies import copy_of
from extmem.devices.host import capabilities, system
from extmem.devices.host.identity import host_identity
from extmem.devices.host.memory import HostAllocation, PointerAllocation
from extmem.errors import DriverError, HandleStateError, OutOfMemoryError, UnsupportedError
from extmem.owning import OwnedFd, Uses
from extmem.sharing.kinds import Backing
from extmem.vk.words import flags_text, types_text

if TYPE_CHECKING:
    from extmem.devices.resources import NativeResource, Requirements
    from extmem.sharing.payload import PayloadFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["HostBackend"]

_BUFFER_ALIGNMENT = 64
_ALL_TYPES = 0b11
_Property = vk.MemoryPropertyFlagBits
_TYPES = (
    # 0 is what a GPU's own visible memory looks like; images with optimal tiling live there.
    _Property.DEVICE_LOCAL | _Property.HOST_VISIBLE | _Property.HOST_COHERENT,
    _Property.HOST_VISIBLE | _Property.HOST_COHERENT | _Property.HOST_CACHED,
)
_TYPE_COUNT = len(_TYPES)
_MAX_FRAMEBUFFER = (16384, 16384)


class HostBackend:
    """The host device. Everything it allocates can be mapped, and shared by descriptor."""

    def __init__(self) -> None:
        self._heap_size = system.physical()
        self._closed = False

    @property
    def kind(self) -> str:
        """`"host"`."""
        return "host"

    @property
    def identity(self) -> DeviceIdentity:
        """This machine and boot."""
        return host_identity()

    @property
    def payload_backing(self) -> Backing:
        """Sealed memory files."""
        return Backing.HOST_FILE

    @property
    def allocates_zeroed(self) -> bool:
        """True: the kernel zeroes memory files and sections."""
        return True

    @property
    def min_imported_host_pointer_alignment(self) -> int:
        """The page size in bytes."""
        return system.PAGE

    @property
    def max_memory_allocation_count(self) -> int:
        """0: the limit is the process's number of descriptors, and imports of one payload share theirs."""
        return 0

    # What it can do.

    @property
    def enabled_features(self) -> frozenset[str]:
        """None of Vulkan's: no sparse and no protected resources."""
        return frozenset()

    @property
    def max_framebuffer(self) -> tuple[int, int]:
        """As large as its images."""
        return _MAX_FRAMEBUFFER

    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """Two types over one heap, the machine's memory (or the control group's share of it)."""
        return vk.PhysicalDeviceMemoryProperties(
            memory_types=tuple(vk.MemoryType(flags, 0) for flags in _TYPES),
            memory_heaps=(vk.MemoryHeap(self._heap_size, vk.MemoryHeapFlagBits.DEVICE_LOCAL),),
        )

    def external_buffer_properties(self, info: vk.PhysicalDeviceExternalBufferInfo) -> vk.ExternalBufferProperties:
        """See `Backend`."""
        return vk.ExternalBufferProperties(capabilities.buffer_properties(info.handle_type, info.flags))

    def image_format_properties(self, info: vk.PhysicalDeviceImageFormatInfo2) -> vk.ImageFormatProperties2:
        """See `Backend`."""
        return host.images.format_properties(info, self._heap_size)

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """Its size rounded up to 64 bytes, in either memory type. UnsupportedError for sparse and protected ones."""
        if info.flags:
            raise UnsupportedError(
                f"buffers with create flags {flags_text(info.flags, vk.BufferCreateFlagBits)} are not supported: the "
                "host device has no sparse, protected "
                "or captured buffers; create it with flags 0",
                requires_one_of=["flags 0"],
            )
        external = vk.find(info, vk.ExternalMemoryBufferCreateInfo)
        types = int(external.handle_types) if external is not None else 0
        if types & ~capabilities.SUPPORTED:
            raise UnsupportedError(
                f"buffers cannot be external as {types_text(types)} on the host device; "
                f"it has {types_text(capabilities.SUPPORTED)}",
                requires_one_of=[kind.name or "" for kind in capabilities.SUPPORTED],
            )
        if info.size <= 0:
            raise UnsupportedError(f"a buffer of {info.size} bytes cannot be made; its size must be at least 1")
        size = -(-info.size // _BUFFER_ALIGNMENT) * _BUFFER_ALIGNMENT
        return host.images.Requirements(size, _BUFFER_ALIGNMENT, _ALL_TYPES)

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """See `Backend`."""
        return host.images.requirements(info)

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """See `Backend`."""
        return host.images.subresource_layout(info, subresource)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """See `Backend`. There is no object behind it: a buffer is a part of the memory that it is bound to."""
        return host.recording.HostResource(
            "buffer", self.buffer_requirements(info), size=int(info.size), create_info=info
        )

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """See `Backend`. There is no object behind it."""
        return host.recording.HostResource("image", self.image_requirements(info), create_info=info)

    def destroy(self, resource: NativeResource) -> None:
        """Forget where it was."""
        if isinstance(resource, host.recording.HostResource):
            resource.allocation = None

    # Memory.

    def allocate(
        self,
        size: int,
        memory_type_index: int,
        descriptor: bytes,
        *,
        handle_types: int = 0,
        dedicated: NativeResource | None = None,
        terms: ShareTerms | None = None,
    ) -> HostAllocation:
        """A new sealed memory file or section, all of it reserved now. Errors: OutOfMemoryError."""
        self._check(size, memory_type_index)
        if size > self._heap_size:
            raise OutOfMemoryError(
                f"vkAllocateMemory: {size} bytes are asked for and the heap has {self._heap_size}; ask for less",
                result=vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
                command="vkAllocateMemory",
                devices=[self.identity.device_name],
            )
        return HostAllocation(system.create(size, descriptor, terms), size, memory_type_index, True)

    def import_fd(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        *,
        handle_type: int = 1,
        dedicated: NativeResource | None = None,
        known: bool = False,
    ) -> HostAllocation:
        """See `Backend`. The fd must be a memory file with sealed size, at least as large as the allocation."""
        self._check(size, memory_type_index)
        facts = system.inspect(fd)
        if not facts.valid:
            raise self._refusal(facts.problem)
        if size > facts.capacity:
            raise self._too_large(size, facts.capacity)
        return HostAllocation(copy_of(fd), size, memory_type_index, facts.writable)

    def import_payload(
        self,
        payload: PayloadFd,
        size: int,
        memory_type_index: int,
        capacity: int,
        *,
        identity: int = 0,
        dedicated: NativeResource | None = None,
    ) -> HostAllocation:
        """See `Backend`."""
        if self._closed or size <= 0 or not 0 <= memory_type_index < _TYPE_COUNT:
            self._check(size, memory_type_index)
        if size > capacity:
            raise self._too_large(size, capacity)
        if payload.shared is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        return HostAllocation(payload, size, memory_type_index, payload.writable)

    def inspect_fd(self, fd: int, handle_type: int, *, known: bool = False) -> FdFacts:
        """See `Backend`."""
        facts = system.inspect(fd)
        if handle_type != vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD and facts.valid:
            return FdFacts(
                facts.kind,
                f"the host device imports OPAQUE_FD and not {types_text(handle_type)}",
                identity=facts.identity,
            )
        return facts

    def export_fd(self, allocation: Allocation, *, read_only: bool = False, handle_type: int = 1) -> OwnedFd:
        """See `Backend`."""
        return system.duplicate(self._fd(allocation), writable=allocation.writable and not read_only)

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> PointerAllocation:
        """See `Backend`. The range must be mapped readable and writable, at a page boundary."""
        self._check(size, memory_type_index)
        if address % system.PAGE or size % system.PAGE:
            raise self._refusal(f"pointer {address:#x} and size {size} must be multiples of {system.PAGE}")
        if not self.host_range_mapped(address, size):
            raise self._refusal(
                f"not all of the {size} bytes at {address:#x} are mapped here for reading and writing; "
                "map them first and keep them until the memory is freed"
            )
        return PointerAllocation(address, size, memory_type_index)

    def host_pointer_memory_type_bits(self, handle_type: int, address: int) -> int:
        """Both types for mapped memory, none for any other. UnsupportedError for foreign mapped memory."""
        if handle_type != vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION:
            raise self._unsupported_type(handle_type, "HOST_ALLOCATION")
        return _ALL_TYPES if self.host_range_mapped(address, 1) else 0

    def host_range_mapped(self, address: int, size: int) -> bool:
        """See `Backend`."""
        return system.range_is_mapped(address, size)

    def fd_memory_type_bits(self, handle_type: int, fd: int) -> int:
        """UnsupportedError: only non-opaque types may be asked about, and the host device imports none."""
        raise self._unsupported_type(handle_type, "OPAQUE_FD")

    def handle_memory_type_bits(self, handle_type: int, handle: int) -> int:
        """UnsupportedError: only non-opaque types may be asked about, and the host device imports none."""
        raise self._unsupported_type(handle_type, "OPAQUE_WIN32", "OPAQUE_WIN32_KMT")

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """Note where it is, after refusing what would reach past the allocation."""
        size = resource.requirements.size
        if offset < 0 or offset + size > allocation.size:
            raise DriverError(
                f"vkBindMemory: {size} bytes from offset {offset} reach past the allocation of "
                f"{allocation.size} bytes; allocate what the requirements say",
                result=vk.Result.ERROR_UNKNOWN,
                command="vkBindMemory",
                devices=[self.identity.device_name],
            )
        if isinstance(resource, host.recording.HostResource):
            resource.allocation, resource.offset, resource.bound = allocation, offset, True

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """Nothing to do: its memory is coherent."""

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """Nothing to do: its memory is coherent."""

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """See `Backend`. The processor copies."""
        mapping = self._mapped(allocation, offset, data.nbytes, writable=True)
        _bytes(mapping, offset, data.nbytes)[:] = data

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """See `Backend`. The processor copies."""
        mapping = self._mapped(allocation, offset, into.nbytes, writable=allocation.writable)
        into[:] = _bytes(mapping, offset, into.nbytes)

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """See `Backend`. The processor fills."""
        mapping = self._mapped(allocation, offset, size, writable=True)

        import ctypes

        ctypes.memset(mapping.address + offset, value, size)

    @staticmethod
    def _mapped(allocation: Allocation, offset: int, size: int, *, writable: bool) -> Mapping:
        if offset < 0 or offset + size > allocation.size:
            raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
        return allocation.map(writable)

    @property
    def queue_facts(self) -> QueueFacts | None:
        """None: it has no queues."""
        return None

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """See `Backend`. The processor does each command when it is recorded, and all who map a payload own it."""
        record(host.recording.HostRecorder(self))

    def free(self, allocation: Allocation) -> None:
        """Close it."""
        allocation.close()

    def close(self) -> None:
        """Refuse new memory. Safe to call twice; what was allocated stays."""
        self._closed = True

    # Shared by the above.

    def _check(self, size: int, memory_type_index: int) -> None:
        if self._closed:
            raise HandleStateError(f"{self.identity.device_name} is closed; open the device again")
        if size <= 0 or not 0 <= memory_type_index < _TYPE_COUNT:
            raise DriverError(
                f"vkAllocateMemory: {size} bytes of memory type {memory_type_index} are asked for; sizes begin at 1 "
                f"and the types are 0 to {_TYPE_COUNT - 1}",
                result=vk.Result.ERROR_UNKNOWN,
                command="vkAllocateMemory",
                devices=[self.identity.device_name],
            )

    @staticmethod
    def _fd(allocation: Allocation) -> int:
        fd = allocation.fd
        if fd is None:
            raise UnsupportedError(
                "memory imported from a host pointer has no file descriptor and cannot be shared; "
                "allocate exportable memory and copy into it",
                requires_one_of=["memory allocated by the device"],
            )
        return fd

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: VK_ERROR_INVALID_EXTERNAL_HANDLE: {problem}",
            result=vk.Result.ERROR_INVALID_EXTERNAL_HANDLE,
            command="vkAllocateMemory",
            devices=[self.identity.device_name],
        )

    def _too_large(self, size: int, capacity: int) -> DriverError:
        return self._refusal(
            f"allocationSize is {size} and the memory file holds {capacity} bytes of payload; "
            "pass the exporter's allocationSize (it is in the descriptor)"
        )

    def _unsupported_type(self, handle_type: int, *instead: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.identity.device_name} imports no {types_text(handle_type)}; it has {', '.join(instead)}",
            requires_one_of=instead,
        )


def _bytes(mapping: Mapping, offset: int, size: int) -> memoryview:
    """Bytes of a mapping, valid while it is held."""

    import ctypes

    return memoryview((ctypes.c_ubyte * size).from_address(mapping.address + offset)).cast("B")
