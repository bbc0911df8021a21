"""`CudaBackend`: a GPU's primary context behind the `Backend` interface.

How this works. Memory that is allocated here is CUDA's own (`vmm`); memory of other APIs is imported by
`import_by_descriptor` (`external`), host payloads by registration (`host_registration`). The specification's calls for
buffers and commands work as on the host device. All copies are done when they return (`waiting`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices import host
from extmem.devices.backend import (
    Allocation,
    DeviceIdentity,
    FdFacts,
    Origin,
    QueueFacts,
    Recorder,
)
from extmem.devices.cuda import WIN32_IS_NATIVE
from extmem.devices.cuda.capabilities import DEVICE_TYPE, EXPORTED, HOST_TYPE, Answers, no_images
from extmem.devices.cuda.export_handle import ATTRIBUTE
from extmem.devices.cuda.imports import Imports
from extmem.devices.cuda.memory import CudaAllocation
from extmem.devices.cuda.recording import CudaRecorder, CudaResource
from extmem.devices.cuda.results import fail
from extmem.devices.cuda.vmm import PRODUCER, Vmm
from extmem.devices.cuda.waiting import Waiting
from extmem.devices.fd_copies import copy_of
from extmem.devices.resources import Requirements
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Held, Lock, Uses
from extmem.sharing.kinds import Backing
from extmem.sharing.payload import PayloadFd
from extmem.vk.abi import ffi
from extmem.vk.handle_types import FROM_D3D
from extmem.vk.words import flags_text, types_text

if TYPE_CHECKING:
    from extmem.devices.cuda.gpus import Gpu
    from extmem.devices.resources import NativeResource
    from extmem.owning import OwnedFd
    from extmem.sharing.terms import ShareTerms

__all__ = ["CudaBackend"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FD = int(HandleType.OPAQUE_FD)


class CudaBackend(Held, Answers):
    """One GPU as a `Backend`. Ownership: holds the primary context until it is closed and nothing of it is left."""

    def __init__(self, gpu: Gpu) -> None:
        Held.__init__(self)
        Answers.__init__(self, gpu)
        self.gpu = gpu
        self.module = gpu.module
        self.name = gpu.name
        self.pid = current_process.pid
        self._retained = gpu.retain()
        self.making = Lock()
        """Held while something is made that is made once: an exported handle."""
        self.waiting = Waiting(self)
        self.vmm = Vmm(self)
        self._imports = Imports(self)

    # Who it is.

    @property
    def kind(self) -> str:
        """`"cuda"`."""
        return "cuda"

    @property
    def identity(self) -> DeviceIdentity:
        """See `Backend`. CUDA tells no driverUUID: it is zero."""
        return self.gpu.identity

    @property
    def ordinal(self) -> int:
        """CUDA's number of the device in this process."""
        return self.gpu.ordinal

    @property
    def payload_backing(self) -> Backing:
        """The driver's own files, which the kernel does not tell apart."""
        return Backing.DRIVER_FD

    @property
    def producer(self) -> str:
        """`Descriptor.producer` of what it allocates."""
        return PRODUCER

    @property
    def allocates_zeroed(self) -> bool:
        """False: CUDA leaves that to the driver."""
        return False

    @property
    def max_memory_allocation_count(self) -> int:
        """0: no limit but the memory."""
        return 0

    @property
    def enabled_features(self) -> frozenset[str]:
        """None of Vulkan's: no sparse and no protected resources."""
        return frozenset()

    @property
    def max_framebuffer(self) -> tuple[int, int] | None:
        """None: it makes no images."""
        return None

    @property
    def queue_facts(self) -> QueueFacts | None:
        """None: it has streams, and no queues of Vulkan's."""
        return None

    def alive(self) -> None:
        """HandleStateError once closed, and in a forked child, where CUDA does not work."""
        if self.pid != current_process.pid:
            raise HandleStateError(
                f"the CUDA device {self.name} was opened by process {self.pid}, and this is its forked child "
                f"{current_process.pid}, where CUDA does not work; start children with spawn"
            )
        if self.closing:
            raise HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def check(self, result: Any, command: str, tried: str = "") -> None:
        """Raise what a CUresult other than CUDA_SUCCESS means."""
        if result:
            fail(result, command, self.name, tried=tried)

    # Buffers.

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """Whole granules, so that what others import has the size that CUDA gave it."""
        if info.flags:
            raise UnsupportedError(
                f"buffers with create flags {flags_text(info.flags, vk.BufferCreateFlagBits)} are Vulkan's; create it "
                "with flags 0, or on a Vulkan device",
                requires_one_of=["flags 0", "a Vulkan device"],
            )
        if info.size <= 0:
            raise UnsupportedError(f"a buffer of {info.size} bytes cannot be made; its size must be at least 1")
        granule = self.vmm.granularity
        return Requirements(self.vmm.whole(int(info.size)), granule, 1 << DEVICE_TYPE)

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """UnsupportedError."""
        raise no_images(self.name)

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """UnsupportedError."""
        raise no_images(self.name)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """See `Backend`."""
        self.alive()
        return CudaResource("buffer", self.buffer_requirements(info), size=int(info.size), create_info=info)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """UnsupportedError."""
        raise no_images(self.name)

    def destroy(self, resource: NativeResource) -> None:
        """Forget where it was."""
        if isinstance(resource, CudaResource):
            resource.allocation = None

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """Note where it is, after refusing what would reach past the allocation."""
        ours, size = _ours(allocation), resource.requirements.size
        if offset < 0 or offset + min(size, resource.size or size) > ours.size:
            raise DriverError(
                f"vkBindMemory: {size} bytes from offset {offset} reach past the allocation of {ours.size} bytes; "
                "allocate what the requirements say",
                result=int(vk.Result.ERROR_UNKNOWN),
                command="vkBindMemory",
                devices=[self.name],
            )
        if isinstance(resource, CudaResource):
            resource.allocation, resource.offset, resource.bound = ours, offset, True

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
    ) -> CudaAllocation:
        """See `Backend`. Name and descriptor stay with the object manager: a driver's memory has no room for them."""
        self.alive()
        if memory_type_index != DEVICE_TYPE or size <= 0:
            raise DriverError(
                f"vkAllocateMemory: {size} bytes of memory type {memory_type_index} are asked for; sizes begin at 1, "
                f"and {self.name} by CUDA allocates type {DEVICE_TYPE} alone (type {HOST_TYPE} is for imports)",
                result=int(vk.Result.ERROR_UNKNOWN),
                command="vkAllocateMemory",
                devices=[self.name],
            )
        with self.gpu.current:
            return self.vmm.allocate(size, shared=bool(handle_types), terms=terms)

    def wrap_pointer(self, address: int, size: int) -> CudaAllocation:
        """Memory that other code of this process made with CUDA, to be shared. See `Vmm.adopt`."""
        self.alive()
        with self.gpu.current:
            return self.vmm.adopt(address, size)

    def import_by_descriptor(
        self,
        handle: int,
        origin: Origin,
        *,
        payload: PayloadFd | None = None,
        name: str | None = None,
        identity: int = 0,
        writable: bool = True,
    ) -> CudaAllocation:
        """See `ImportsByDescriptor`."""
        self.alive()
        return self._imports.described(handle, origin, payload=payload, name=name, identity=identity, writable=writable)

    def import_fd(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        *,
        handle_type: int = _FD,
        dedicated: NativeResource | None = None,
        known: bool = False,
    ) -> CudaAllocation:
        """A stranger's opaque fd of which nobody knows more than size and dedication: one that Vulkan made."""
        self.alive()
        found = self.inspect_fd(fd, handle_type)
        if not found.valid:
            raise self._imports.refusal(found.problem)
        kept = PayloadFd(copy_of(fd), True)
        try:
            return self._imports.described(
                kept.fd, Origin(size, handle_type, dedicated=dedicated is not None), payload=kept
            )
        except BaseException:
            kept.close()
            raise

    def import_payload(
        self,
        payload: PayloadFd,
        size: int,
        memory_type_index: int,
        capacity: int,
        *,
        identity: int = 0,
        dedicated: NativeResource | None = None,
    ) -> CudaAllocation:
        """A host payload: its pages, registered once. Others need their descriptor: `import_by_descriptor`."""
        self.alive()
        if not capacity:
            origin = Origin(size, _FD, dedicated=dedicated is not None)
            return self._imports.described(payload.fd, origin, payload=payload, identity=identity)
        return self._imports.from_host_payload(payload, size, capacity)

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> CudaAllocation:
        """See `Backend`. The pages are pinned and mapped until the memory is freed."""
        self.alive()
        return self._imports.from_host_pointer(address, size)

    def inspect_fd(self, fd: int, handle_type: int, *, known: bool = False) -> FdFacts:
        """See `Backend`. A file that is not a driver's is reported here; the driver refuses others (999) without harm.

        CUDA imports OPAQUE_FD alone of the fd types.
        """
        return self._imports.inspect_fd(fd, handle_type, known=known)

    def export_fd(self, allocation: Allocation, *, read_only: bool = False, handle_type: int = _FD) -> OwnedFd:
        """See `Backend`. A driver's fd can always be written through: `read_only` changes nothing here."""
        self.alive()
        fd = _ours(allocation).fd
        if fd is None:
            raise UnsupportedError(
                "this memory was not allocated for export, or it was imported from a host pointer, so there is no fd "
                "of it; name OPAQUE_FD in VkExportMemoryAllocateInfo::handleTypes",
                requires_one_of=["VkExportMemoryAllocateInfo::handleTypes with OPAQUE_FD"],
            )
        return copy_of(fd)

    @property
    def imports_handles(self) -> bool:
        """See `ImportsHandles`: on Windows."""
        return WIN32_IS_NATIVE

    def missing_for(self, handle_type: int) -> str:
        """See `ImportsHandles`."""
        return ATTRIBUTE if handle_type & EXPORTED and not self.gpu.shares else ""

    def fd_memory_type_bits(self, handle_type: int, fd: int) -> int:
        """UnsupportedError: CUDA imports no fd but opaque ones."""
        raise self.unsupported_type(handle_type)

    def handle_memory_type_bits(self, handle_type: int, handle: int) -> int:
        """The GPU's own type for Direct3D's memory, on Windows; CUDA cannot say whether it knows the handle.

        UnsupportedError for other types.
        """
        if WIN32_IS_NATIVE and handle_type in FROM_D3D:
            return 1 << DEVICE_TYPE
        raise self.unsupported_type(handle_type)

    def host_pointer_memory_type_bits(self, handle_type: int, address: int) -> int:
        """The host's type for mapped memory, none for any other. UnsupportedError for foreign mapped memory."""
        if handle_type != HandleType.HOST_ALLOCATION:
            raise self.unsupported_type(handle_type)
        return 1 << HOST_TYPE if self.host_range_mapped(address, 1) else 0

    def host_range_mapped(self, address: int, size: int) -> bool:
        """See `Backend`."""
        return host.range_is_mapped(address, size)

    # Bytes.

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """Nothing to do: what the host sees of it is coherent."""

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """Nothing to do: what the host sees of it is coherent."""

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """See `Backend`. cuMemcpyHtoD."""
        at = self._place(allocation, offset, data.nbytes)
        source = ffi.from_buffer(data)
        address = int(ffi.cast("uintptr_t", source))
        with self.waiting.work(_ours(allocation)):
            self.check(self.module.cuMemcpyHtoD(at, address, data.nbytes)[0], "cuMemcpyHtoD", f"{data.nbytes} bytes")
        del source

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """See `Backend`. cuMemcpyDtoH."""
        at = self._place(allocation, offset, into.nbytes)
        target = ffi.from_buffer(into, require_writable=True)
        address = int(ffi.cast("uintptr_t", target))
        with self.waiting.work(_ours(allocation)):
            self.check(self.module.cuMemcpyDtoH(address, at, into.nbytes)[0], "cuMemcpyDtoH", f"{into.nbytes} bytes")
        del target

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """See `Backend`. cuMemsetD8."""
        at = self._place(allocation, offset, size)
        with self.waiting.work(_ours(allocation)):
            self.check(self.module.cuMemsetD8(at, value, size)[0], "cuMemsetD8", f"{size} bytes")

    def wait(self, stream: int) -> None:
        """Wait until what was given to a stream is done; 0 is the default one. Errors: DriverError."""
        self.alive()
        with self.gpu.current:
            self.waiting.finish(stream)

    def finish_submitted(self) -> None:
        """See `FinishesLater`."""
        if self.waiting.unfinished and self.pid == current_process.pid:
            with self.gpu.current:
                self.waiting.finish()

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """See `Backend`. CUDA has no ownership by queue families."""
        self.alive()
        with self.waiting.work(uses=uses):
            record(CudaRecorder(self))

    def _place(self, allocation: Allocation, offset: int, size: int) -> int:
        self.alive()
        if offset < 0 or size < 0 or offset + size > allocation.size:
            raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
        return _ours(allocation).live + offset

    # The end.

    def free(self, allocation: Allocation) -> None:
        """See `Backend`."""
        allocation.close()

    def close(self) -> None:
        """Let go of the primary context, as soon as nothing of this device is left. Safe to call twice."""
        self.closing = True
        self.gpu.undo_left()
        self.end()

    def give_back(self) -> None:
        """See `Held`."""
        self._retained.settle()

    def unsupported_type(self, handle_type: int) -> UnsupportedError:
        """What to raise for a handle type that the device does not import."""
        return UnsupportedError(
            f"{self.name} by CUDA does not import {types_text(handle_type)} here; `extmem devices` says what it does",
            requires_one_of=["a handle type that the device imports"],
        )


def _ours(allocation: Allocation) -> CudaAllocation:
    if not isinstance(allocation, CudaAllocation):
        raise TypeError(f"{allocation!r} is no allocation of a CUDA device")
    return allocation
