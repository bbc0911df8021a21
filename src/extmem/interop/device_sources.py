"""Arrays on a GPU that are shared where they are, or copied into a payload on the same GPU.

How this works. Memory that the driver can export is shared as it is (`core.lending`). Otherwise the copy is CUDA's,
from address to address. The work that writes the source is waited for before: the stream that the array names, and the
current stream of its framework. An array whose elements have gaps is made contiguous by its framework first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

from extmem.core import shared_devices
from extmem.core.device_state import DeviceState
from extmem.core.memory_record import HeldMemory, MemoryRecord
from extmem.core.sharing_arrays import How
from extmem.devices import select
from extmem.devices.optional_protocols import CopiesPointers
from extmem.errors import UnsupportedError
from extmem.interop.array_sources import ArraySource
from extmem.owning import late_imports

__all__ = ["copy_all", "device_at", "share_in_place"]


def device_at(place: str) -> DeviceState:
    """Return the CUDA device "cuda:N", N as CUDA counts in this process. Errors: UnsupportedError without it."""
    number = int(place.removeprefix("cuda:"))
    offers = select.cuda_offers()
    device = shared_devices.cuda_device(offers[number].identity.device_uuid) if number < len(offers) else None
    if device is None:
        raise UnsupportedError(
            f"memory on {place} needs that device of CUDA, and extmem finds {len(offers)} of them; use memory of the "
            "host, or install cuda-bindings and NVIDIA's driver, whose state `extmem devices` shows",
            requires_one_of=["a CUDA device that extmem finds", "memory of the host"],
        )
    return device


def share_in_place(source: ArraySource, original: Any, how: How) -> HeldMemory:
    """Share an array where it is, without a copy. The work that writes it is waited for before.

    original: the array as the program passed it. Errors: UnsupportedError, with the reason and what
    helps, if the driver cannot export its memory; as `lending.share_range`.
    """
    with late_imports():
        from extmem.core import lending

    device = device_at(source.device)
    backend = device.backend
    if isinstance(backend, CopiesPointers):
        with device.use():
            backend.wait(_stream_of(source.values))
    moved = _moved(source, original)
    return lending.share_range(device, source.address, source.reach, source.layout, source.values, how, moved)


def _moved(source: ArraySource, original: Any) -> Callable[[], str]:
    """Return a function that tells whether an array has other memory than when it was shared."""
    kept, address, what = source.values, source.address, source.what
    try:
        original_of: Callable[[], Any] = ref(original)
    except TypeError:  # of a class without weak references
        original_of = type(None)

    def moved() -> str:
        current = original_of()
        now = _address_of(kept)
        if now == address and current is not None:
            now = _address_of(current)
        return "" if now == address else f"{what} at {address:#x}, which is at {now:#x} now (set_, resize_ or .data =)"

    return moved


def _address_of(values: Any) -> int:
    if hasattr(values, "data_ptr"):
        return int(values.data_ptr())
    return int(values.__cuda_array_interface__["data"][0])


def copy_all(placed: Sequence[tuple[ArraySource, int]], record: MemoryRecord) -> None:
    """Copy the elements of arrays into a payload on the same GPU, each to its offset. All is done when this returns.

    The streams that write the arrays are waited for, each once; then the copies run, and are waited for together. An
    array that has gaps is copied alone, so that only one contiguous copy exists at a time.
    Errors: UnsupportedError for a device that does not copy, and as `_contiguous`; DriverError.
    """
    placed = [(source, offset) for source, offset in placed if source.nbytes]
    if not placed:
        return
    backend, start = record.device.backend, record.descriptor.payload_offset
    if not isinstance(backend, CopiesPointers):
        raise UnsupportedError(
            f"{record.device.name} does not copy from memory of CUDA; copy the array to the host first",
            requires_one_of=["a CUDA device"],
        )
    for stream in {_stream_of(source.values) for source, _ in placed}:
        backend.wait(stream)
    pieces = [(start + offset, source.address, source.nbytes) for source, offset in placed if source.dense]
    if pieces:
        backend.copy_from(record.allocation, pieces)
    for source, offset in placed:
        if not source.dense:
            values, address = _contiguous(source)
            backend.wait(_stream_of(values))
            backend.copy_from(record.allocation, [(start + offset, address, source.nbytes)])
            del values


def _contiguous(source: ArraySource) -> tuple[Any, int]:
    values = source.values
    if hasattr(values, "contiguous"):  # PyTorch
        made = values.contiguous()
        return made, int(made.data_ptr())
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None:
        made = cupy.ascontiguousarray(cupy.asarray(values))
        return made, int(made.data.ptr)
    raise UnsupportedError(
        f"{source.what} has gaps between its elements, and neither PyTorch nor CuPy is imported to remove them; share "
        "a contiguous copy",
        requires_one_of=["a contiguous array"],
    )


def _stream_of(values: Any) -> int:
    """Return the stream (CUstream) with the work that writes the array; 0 for the default stream."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return int(torch.cuda.current_stream(values.device).cuda_stream)
    cupy: Any = sys.modules.get("cupy")
    if cupy is not None and isinstance(values, cupy.ndarray):
        return int(cupy.cuda.get_current_stream().ptr)
    interface: dict[str, Any] = getattr(values, "__cuda_array_interface__", {})  # without it: memory of extmem
    stream = interface.get("stream")
    return 0 if stream in (None, 1) else int(stream)
