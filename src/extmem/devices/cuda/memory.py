"""The CUDA device's allocations: a device pointer, and the calls that release the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Owner

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Mapping
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.owners import Undo
    from extmem.owning import OwnedFd
    from extmem.sharing.payload import PayloadFd

__all__ = ["CudaAllocation", "native_allocation"]


class CudaAllocation(Owner):
    """Memory of CUDA. Ownership: released by `close`, in reverse order of `undo`, with the fd, if any.

    If it is lost, the GPU does that (`Gpu.when_lost`), since the calls need a current context.
    """

    __slots__ = (
        "_fd",
        "_hold",
        "_payload",
        "array",
        "device",
        "exports",
        "exports_each",
        "keep_alive",
        "mapping",
        "memory_type_index",
        "parts",
        "pointer",
        "size",
        "stated_identity",
        "undo",
        "writable",
    )

    identity: tuple[int, int] | None = None
    """None: the kernel does not identify a driver's payloads."""

    def __init__(
        self,
        device: LogicalDevice,
        size: int,
        memory_type_index: int,
        pointer: int,
        undo: Undo,
        *,
        payload: PayloadFd | None = None,
        fd: OwnedFd | None = None,
        identity: int = 0,
        writable: bool = True,
        mapping: Mapping | None = None,
        array: Any = None,
        parts: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.device = device
        self._hold = device.hold()
        self.size = size
        self.memory_type_index = memory_type_index
        self.pointer = pointer
        """CUdeviceptr; 0 for images, which have an `array`, and once closed."""
        self.undo = undo
        self.array = array
        """CUmipmappedArray of an imported image; None for other memory."""
        self.mapping = mapping
        """The host's mapping, for host memory; None for other memory."""
        self.exports: Callable[[], OwnedFd] | None = None
        """Exports a new fd or NT handle, for memory that CUDA allocated to be shared."""
        self.parts = parts
        """The bytes of each allocation that it consists of, which have a handle each; empty for one allocation."""
        self.exports_each: Callable[[], Iterator[OwnedFd]] | None = None
        """Exports the fds of memory of several allocations that others mapped here."""
        self.keep_alive: object = None
        """Objects whose addresses the driver has."""
        self.stated_identity = identity
        self.writable = writable
        self._payload = payload
        self._fd = fd
        self.owe(device.gpu.when_lost(undo, self._hold, device))

    @property
    def live(self) -> int:
        """`pointer`. HandleStateError once closed; UnsupportedError for an image."""
        self._check_open()
        if not self.pointer:
            raise UnsupportedError(
                "this payload is an image, whose layout is the driver's: it has an array and no pointer; use "
                "extmem.raw.cuda_array(memory), or copy it to a buffer on its Vulkan device",
                requires_one_of=["a buffer", "an image of LINEAR tiling"],
            )
        return self.pointer

    @property
    def fd(self) -> int | None:
        """The payload's fd or NT handle, borrowed: the imported one, or one that CUDA exports at the first use."""
        self._check_open()
        if self.parts:
            raise UnsupportedError(
                f"this memory consists of {len(self.parts)} allocations of the driver, so it has no handle that leads "
                "to all of it; share it by name, or pass the memory object to another process",
                requires_one_of=["a name", "a pickle of the memory"],
            )
        if self._payload is not None:
            return self._payload.fd if self._payload.fd >= 0 else None
        with self.device.making:
            if self._fd is None and self.exports is not None:
                self._fd = self.exports()
            return self._fd.fd if self._fd is not None else None

    def export_on_demand(self, exports_each: Callable[[], Iterator[OwnedFd]]) -> None:
        """Close the descriptors of an import of several allocations. exports_each: makes new ones."""
        self.exports_each = exports_each
        if self._payload is not None:
            self._payload.close()
            self._payload = None

    @property
    def exports_parts(self) -> bool:
        """See `AllocationOfParts`."""
        return self.exports_each is not None

    def part_fds(self) -> list[OwnedFd | int]:
        """See `AllocationOfParts`. What is exported is not kept: it may be hundreds of descriptors."""
        self._check_open()
        if self._payload is not None:
            return [*self._payload.fds]
        with self.device.gpu.current:
            return [*self.exports_each()] if self.exports_each is not None else []

    def _check_open(self) -> None:
        if not self._gate or self.closing:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")

    @property
    def closed(self) -> bool:
        return self.closing

    @property
    def mapped(self) -> bool:
        """Whether it is host memory, which is always mapped."""
        return self.mapping is not None

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. Only host memory is mapped, and has its mapping already."""
        self._check_open()
        if self.mapping is None:
            raise UnsupportedError(
                f"the host cannot see memory type {self.memory_type_index} of {self.device.name} by CUDA; use "
                "memory.torch(), cupy() or jax() on the GPU, or memory.read() and memory.write()",
                requires_one_of=["a GPU array", "DeviceMemory.read and write"],
            )
        return self.mapping

    def close(self) -> None:
        """Unmap and release. Safe to call twice, and again after an exception."""
        self.end()

    def give_back(self) -> None:
        """See `Owner`. A forked child makes no CUDA calls: it releases only its own objects."""
        device = self.device
        if device.pid == current_process.pid:
            device.gpu.undo(self.undo)
        self.forget()
        super().give_back()
        self.pointer, self.array, self.exports, self.exports_each, self.keep_alive = 0, None, None, None, None
        if self._fd is not None:
            self._fd.settle()
        if self._payload is not None:
            self._payload.close()
        self.mapping = None
        self._hold.release()
        if device.closing:
            device.end()


def native_allocation(allocation: Allocation) -> CudaAllocation:
    """The allocation as a CUDA device's. Errors: TypeError for another device's."""
    if not isinstance(allocation, CudaAllocation):
        raise TypeError(f"{allocation!r} is not an allocation of a CUDA device")
    return allocation
