"""GPU arrays over memory: the device pointer of an array, and the object that keeps the memory alive.

How this works. Memory of a CUDA device has a device pointer. Memory of a Vulkan device on a GPU is imported into CUDA
when a GPU array of it is first requested, on the CUDA device with the same UUID. The import belongs to the memory
record and ends with it. The arrays of a memory object share an `ArrayHold`, which holds the record: while one is alive,
the memory cannot be closed. The record keeps the pattern of the array that its descriptor describes, so the next array
of that layout needs no call of the driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

import msgspec

from extmem.core import cross_api, shared_devices
from extmem.core.device_state import DeviceState
from extmem.core.memory_object import MemoryObject
from extmem.core.memory_record import MemoryRecord
from extmem.devices.backend import Allocation
from extmem.errors import InternalError, UnsupportedError
from extmem.interop.device_array import DeviceArray
from extmem.sharing.layout import Axes, layout_for

__all__ = ["ArrayHold", "DevicePointer", "device_array", "device_pointer", "no_gpu_error", "shared_hold"]


class ArrayHold:
    """Keeps a record, and so the memory, while arrays of it are alive."""

    __slots__ = ("__weakref__", "_hold", "record")

    def __init__(self, record: MemoryRecord) -> None:
        self._hold = record.hold()
        self.record = record


def shared_hold(record: MemoryRecord, holds: list[ref[ArrayHold]]) -> ArrayHold:
    """Return the hold that the GPU arrays of one memory object share. Errors: HandleStateError.

    holds: references to the holds of this memory object that arrays use; a new one is added to it.
    """
    for reference in holds:
        hold = reference()
        if hold is not None:
            return hold
    hold = ArrayHold(record)
    holds.append(ref(hold, holds.remove))
    return hold


class DevicePointer(msgspec.Struct, frozen=True):
    """The address of an allocation on a GPU."""

    pointer: int
    """CUdeviceptr of the allocation's first byte."""
    ordinal: int
    """The ordinal of the device in CUDA, in this process."""
    hosted: bool
    """Whether it is host memory that the GPU can access."""
    wait: Callable[[int], None]
    """Waits for the work in a stream of the device. Its argument is a CUstream as a number; 0 is the default stream."""


def device_pointer(record: MemoryRecord) -> DevicePointer | None:
    """Return the device pointer of the memory in CUDA; None for memory that is not on a GPU that CUDA supports.

    Errors: UnsupportedError for GPU memory that was not allocated for export, and for images; DriverError.
    """
    device = record.device
    if device.descriptor_importer is not None:
        return _pointer_to(record.allocation, device)
    if device.kind == "host":
        return None
    cuda = shared_devices.cuda_device(device.uuid)
    if cuda is None or cuda.descriptor_importer is None:
        return None
    with device.creation_lock:
        imported = record.companion or _import_into_cuda(record, cuda)
    return _pointer_to(imported, cuda)


def _import_into_cuda(record: MemoryRecord, cuda: DeviceState) -> Allocation:
    """Import memory of another device into CUDA. The caller holds the `creation_lock` of that device."""
    importer = cuda.descriptor_importer
    deferred = record.deferred
    exported = cross_api.handle_of(record.allocation) if deferred is None else deferred.handle
    if exported is None or importer is None:
        raise UnsupportedError(
            f"this memory of {record.device.name} was not allocated for export, so CUDA cannot import it; allocate it "
            "with handle_types=OPAQUE_FD (on Windows OPAQUE_WIN32), or copy it",
            requires_one_of=["VkExportMemoryAllocateInfo::handleTypes with OPAQUE_FD or OPAQUE_WIN32"],
        )
    handle, handle_type = exported
    origin = cross_api.origin(record.descriptor, handle_type)
    record.companion = importer.import_by_descriptor(handle, origin, writable=record.writable)
    return record.companion


def _pointer_to(allocation: Allocation, device: DeviceState) -> DevicePointer:
    backend: Any = device.backend
    pointer, ordinal = getattr(allocation, "live", None), getattr(backend, "ordinal", None)
    if not isinstance(pointer, int) or not isinstance(ordinal, int):
        raise InternalError(f"{allocation!r} of {device.name} has no device pointer")
    return DevicePointer(pointer, ordinal, allocation.mapped, backend.wait)


def device_array(
    memory: MemoryObject,
    *,
    dtype: object = None,
    shape: Axes = None,
    strides: Axes = None,
    offset: int = 0,
) -> DeviceArray | None:
    """Return an array over memory on a GPU, with the layout of the descriptor or the caller's; None for other memory.

    Errors: as `device_pointer`; ValueError for an invalid layout; HandleStateError.
    """
    as_described = dtype is None and shape is None and strides is None and not offset
    with memory.use() as record:
        pattern = record.pattern if as_described else None
        if pattern is None:
            address = device_pointer(record)
            if address is None:
                return None
            described = record.descriptor
            layout = layout_for(
                described.payload_size, described.array, dtype=dtype, shape=shape, strides=strides, offset=offset
            )
            pattern = DeviceArray(
                address.pointer + described.payload_offset,
                layout,
                address.ordinal,
                read_only=not record.writable,
                keep=None,
                hosted=address.hosted,
            )
            if as_described:
                record.pattern = pattern
        return pattern.kept_by(shared_hold(record, memory.gpu_holds))


def no_gpu_error(what: str, device: DeviceState) -> UnsupportedError:
    """Return the error for memory that no GPU array can be made of. what: its description."""
    return UnsupportedError(
        f"this memory ({what}) is on {device.name}, which is not a GPU that CUDA finds in this process; open it on the "
        'CUDA device (device=extmem.open_device(kind="cuda")), or use numpy() or read()',
        requires_one_of=["a CUDA device", "numpy()", "read()"],
    )
