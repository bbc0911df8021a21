"""Memory as GPU arrays: which device pointer an array is made over, and what keeps it alive.

How this works. Memory of a CUDA device has a pointer. Memory of a GPU's Vulkan device is imported by CUDA when a GPU
array of it is first requested, on the CUDA device with its UUID. That import belongs to the memory's record and ends
with it. The arrays of one memory object share an `ArrayHold`, which holds the record: while one lives, the memory
cannot be closed. The record keeps the pattern of the array that its descriptor describes, so that a second one needs no
call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from extmem.core import cross_api, shared_devices
from extmem.errors import InternalError, UnsupportedError
from extmem.interop.device_array import DeviceArray
from extmem.sharing.layout import Axes, layout_for

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_object import MemoryObject
    from extmem.core.memory_record import MemoryRecord
    from extmem.devices.backend import Allocation

__all__ = ["ArrayHold", "Place", "device_array", "on_gpu", "on_no_gpu", "shared_hold"]


class ArrayHold:
    """Keeps a record, and so the memory, while arrays of it live."""

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


class Place(NamedTuple):
    """Where a payload is on a GPU."""

    pointer: int
    """CUdeviceptr of the allocation's first byte."""
    ordinal: int
    """CUDA's number of the device in this process."""
    hosted: bool
    """Whether it is host memory that the GPU sees."""
    wait: Callable[[int], None]
    """Waits for what was given to a stream of the device (CUstream as a number; 0 is the default one)."""


def on_gpu(record: MemoryRecord) -> Place | None:
    """Where CUDA has the memory; None for memory that is on no GPU that CUDA knows.

    Errors: UnsupportedError for GPU memory that was not allocated for export, and for images; DriverError.
    """
    device = record.device
    if device.described is not None:
        return _placed(record.allocation, device)
    if device.kind == "host":
        return None
    found = shared_devices.cuda_device(device.uuid)
    if found is None or found.described is None:
        return None
    with device.making:
        companion = record.companion or _imported(record, found)
    return _placed(companion, found)


def _imported(record: MemoryRecord, cuda: DeviceState) -> Allocation:
    """The companion: what CUDA imports of another device's memory. The caller holds that device's `making`."""
    described = cuda.described
    way = cross_api.handle_of(record.allocation)
    if way is None or described is None:
        raise UnsupportedError(
            f"this memory of {record.device.name} was not allocated for export, so CUDA cannot import it; allocate it "
            "with handle_types=OPAQUE_FD (on Windows OPAQUE_WIN32), or copy it",
            requires_one_of=["VkExportMemoryAllocateInfo::handleTypes with OPAQUE_FD or OPAQUE_WIN32"],
        )
    handle, kind = way
    origin = cross_api.origin(record.descriptor, kind)
    made = record.companion = described.import_by_descriptor(handle, origin, writable=record.writable)
    return made


def _placed(allocation: Allocation, device: DeviceState) -> Place:
    backend: Any = device.backend
    pointer, ordinal = getattr(allocation, "live", None), getattr(backend, "ordinal", None)
    if not isinstance(pointer, int) or not isinstance(ordinal, int):
        raise InternalError(f"{allocation!r} of {device.name} tells no device pointer")
    return Place(pointer, ordinal, bool(getattr(allocation, "is_host_memory", False)), backend.wait)


def device_array(
    memory: MemoryObject,
    *,
    dtype: object = None,
    shape: Axes = None,
    strides: Axes = None,
    offset: int = 0,
) -> DeviceArray | None:
    """An array over memory that is on a GPU, with the descriptor's layout or the caller's; None for other memory.

    Errors: as `on_gpu`; ValueError for a layout that cannot be; HandleStateError.
    """
    with memory.use() as record:
        return _device_array(memory, record, dtype, shape, strides, offset)


def _device_array(
    memory: MemoryObject,
    record: MemoryRecord,
    dtype: object,
    shape: Axes,
    strides: Axes,
    offset: int,
) -> DeviceArray | None:
    as_described = dtype is None and shape is None and strides is None and not offset
    pattern = record.pattern if as_described else None
    if pattern is None:
        place = on_gpu(record)
        if place is None:
            return None
        described = record.descriptor
        layout = layout_for(
            described.payload_size, described.array, dtype=dtype, shape=shape, strides=strides, offset=offset
        )
        pattern = DeviceArray(
            place.pointer + described.payload_offset,
            layout,
            place.ordinal,
            read_only=not record.writable,
            keep=None,
            hosted=place.hosted,
        )
        if as_described:
            record.pattern = pattern
    return pattern.kept_by(shared_hold(record, memory.gpu_holds))


def on_no_gpu(what: str, device: DeviceState) -> UnsupportedError:
    """The error for memory (`what`) of which no GPU array can be made."""
    return UnsupportedError(
        f"this memory ({what}) is on {device.name}, and CUDA knows no such GPU here; open it on the CUDA device "
        '(device=extmem.open_device(kind="cuda")), or use numpy() or read()',
        requires_one_of=["a CUDA device", "numpy()", "read()"],
    )
