"""Imports of a CUDA device: by descriptor, of fds without one, of host payloads, and of host pointers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices import host
from extmem.devices.cuda import fd_check
from extmem.devices.cuda.capabilities import DEVICE_TYPE, EXPORTED, HOST_TYPE, Answers
from extmem.devices.cuda.external import External
from extmem.devices.cuda.handle_types import ATTRIBUTE, WIN32_IS_NATIVE
from extmem.devices.cuda.memory import CudaAllocation
from extmem.devices.cuda.owners import Undo
from extmem.devices.cuda.vmm import PRODUCER
from extmem.devices.fd_copies import copy_of
from extmem.devices.types import HostRange, Origin
from extmem.errors import DriverError, UnsupportedError
from extmem.sharing.payload import PayloadFd
from extmem.vk.handle_types import FROM_D3D, HOST_ALLOCATION, OPAQUE_FD, MemoryHandleType

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.spans import Spans
    from extmem.devices.cuda.vmm import Vmm
    from extmem.devices.types import ExaminedFd, ImportRequest

__all__ = ["Imports"]


class Imports:
    """The imports of one device, and what can be imported."""

    def __init__(self, device: LogicalDevice, vmm: Vmm, spans: Spans) -> None:
        self._device = device
        self._vmm = vmm
        self._spans = spans
        self._gpu = device.gpu
        self._external = External(device)

    def examine_fd(self, fd: int, handle_type: MemoryHandleType, *, trusted: bool = False) -> ExaminedFd:
        """See `Backend`, and `fd_check`."""
        return fd_check.examine(self._device, fd, handle_type, trusted=trusted)

    def import_fd(self, request: ImportRequest[ExaminedFd]) -> CudaAllocation:
        """See `Backend`. An opaque fd without a descriptor, of which size and dedication are stated: Vulkan's."""
        self._device.check_open()
        examined = request.source
        if examined.problem:
            raise self._refusal(examined.problem)
        payload = PayloadFd(copy_of(examined.fd), True)
        try:
            return self.import_payload(request.of(payload))
        except BaseException:
            payload.close()
            raise

    def import_payload(self, request: ImportRequest[PayloadFd]) -> CudaAllocation:
        """See `Backend`. A host payload's pages are registered once; others are better imported by their descriptor."""
        self._device.check_open()
        payload, size = request.source, request.size
        if request.capacity:
            return self._import_host_payload(payload, size, request.capacity)
        origin = Origin(size, OPAQUE_FD, dedicated=request.dedicated is not None)
        return self.import_by_descriptor(payload.fd, origin, payload=payload, identity=request.identity)

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
        self._device.check_open()
        here = self._gpu.identity
        if not here.may_be(origin.device_uuid, origin.luid):
            there = (origin.device_uuid or origin.luid or b"").hex()
            raise DriverError(
                f"the payload lies on {origin.device_name or 'device'} {there}, and {self._gpu.name} is "
                f"{here.device_uuid.hex()}{f', LUID {here.luid.hex()}' if here.luid else ''}; open it on the device "
                "that it was made on",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="cuImportExternalMemory",
                devices=[self._gpu.name, *origin.devices],
            )
        if origin.producer != PRODUCER:
            return self._external.import_handle(
                handle, origin, name=name, payload=payload, identity=identity, writable=writable
            )
        if origin.parts:
            if payload is None:
                raise UnsupportedError(
                    f"the memory consists of {len(origin.parts)} allocations, and one handle leads to one of them; "
                    "open it by name or from a pickle",
                    requires_one_of=["a name", "a pickle of the memory"],
                )
            with self._gpu.current:
                return self._spans.import_handles(
                    payload.fds, origin, payload=payload, identity=identity, writable=writable
                )
        with self._gpu.current:
            return self._vmm.import_fd(
                handle, origin.size, origin.device_name, payload=payload, identity=identity, writable=writable
            )

    def _import_host_payload(self, payload: PayloadFd, size: int, capacity: int) -> CudaAllocation:
        """A host payload's pages, registered once. Errors: DriverError; UnsupportedError."""
        if size > capacity:
            raise self._refusal(f"{size} bytes are to be imported, and the payload's file has {capacity}")
        registrations = self._gpu.registrations
        with self._gpu.current:
            taken = registrations.take(payload.fd, size, writable=payload.writable)
        undo: Undo = [(registrations.give_back, taken)]
        return CudaAllocation(
            self._device,
            size,
            HOST_TYPE,
            taken.pointer,
            undo,
            payload=payload,
            writable=payload.writable,
            mapping=taken.mapping,
        )

    def import_host_pointer(self, address: int, size: int, memory_type_index: int = 0) -> CudaAllocation:
        """See `Backend`. The pages are pinned and mapped until the memory is freed."""
        self._device.check_open()
        device, alignment = self._device, Answers.min_imported_host_pointer_alignment
        if address % alignment or size % alignment or not host.range_is_mapped(address, size):
            raise self._refusal(
                f"{size} bytes at {address:#x} cannot be imported: address and size must be multiples of {alignment}, "
                "and all of it mapped here for reading and writing"
            )
        registrations = self._gpu.registrations
        with self._gpu.current:
            pointer = registrations.register(address, size, writable=True)
        undo: Undo = [(registrations.unregister, address)]
        return CudaAllocation(device, size, HOST_TYPE, pointer, undo, mapping=HostRange(address, size))

    def wrap_pointer(self, address: int, size: int) -> CudaAllocation:
        """See `WrapsPointers`, and `Vmm.adopt`."""
        self._device.check_open()
        with self._gpu.current:
            return self._vmm.adopt(address, size)

    def wrap_range(self, address: int, size: int) -> CudaAllocation:
        """See `WrapsPointers`, and `Spans.adopt`."""
        self._device.check_open()
        with self._gpu.current:
            return self._spans.adopt(address, size)

    # What can be imported.

    def missing_for(self, handle_type: MemoryHandleType) -> str:
        return ATTRIBUTE if handle_type & EXPORTED and not self._gpu.shares else ""

    def fd_memory_type_bits(self, handle_type: MemoryHandleType, fd: int) -> int:
        """Raise UnsupportedError: CUDA imports only opaque fds."""
        raise self._device.unsupported_type(handle_type)

    def handle_memory_type_bits(self, handle_type: MemoryHandleType, handle: int) -> int:
        """The GPU's own type for Direct3D's memory, on Windows; CUDA does not report whether it knows the handle.

        Errors: UnsupportedError for other types.
        """
        if WIN32_IS_NATIVE and handle_type in FROM_D3D:
            return 1 << DEVICE_TYPE
        raise self._device.unsupported_type(handle_type)

    def host_pointer_memory_type_bits(self, handle_type: MemoryHandleType, address: int) -> int:
        """The host's type for mapped memory, no type for other addresses. UnsupportedError for foreign memory."""
        if handle_type != HOST_ALLOCATION:
            raise self._device.unsupported_type(handle_type)
        return 1 << HOST_TYPE if host.range_is_mapped(address, 1) else 0

    def _refusal(self, problem: str) -> DriverError:
        return DriverError(
            f"vkAllocateMemory: {problem}",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="vkAllocateMemory",
            devices=[self._gpu.name],
        )
