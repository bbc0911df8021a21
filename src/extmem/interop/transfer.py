"""Copies between a payload and the program, made by the device: `DeviceMemory.write`, `read`, `read_bytes`, `fill`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias

from extmem.arguments import whole_number
from extmem.core import views
from extmem.devices.optional_protocols import WritesRows
from extmem.interop.numpy_views import new_octets, numpy_view
from extmem.interop.pitched import Rows
from extmem.interop.writing import contents_to_write
from extmem.owning import late_imports
from extmem.sharing.layout import layout_for

if TYPE_CHECKING:
    from extmem.core.memory_record import MemoryRecord
    from extmem.devices.backend import Allocation

__all__ = ["Progress", "check_progress", "fill", "read", "read_bytes", "write"]


Progress: TypeAlias = Callable[[int, int], object]
"""Called with the bytes that were copied and the bytes in all."""
_PIECE: Final = 64 << 20
"""Bytes that are copied between two calls of a program's `progress`."""


def check_progress(progress: object) -> None:
    """Refuse what is neither a function nor None. Errors: TypeError."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress is {progress!r}; give a function that takes the copied bytes and all bytes, or None")


def _in_pieces(
    copy: Callable[[Allocation, int, memoryview], None],
    record: MemoryRecord,
    offset: int,
    octets: memoryview,
    progress: Progress | None,
    each: int | None = None,
) -> None:
    """Copy between a part of the payload and these bytes, and report the progress. Its exceptions end the copy."""
    start = record.descriptor.payload_offset + offset
    if progress is None:
        copy(record.allocation, start, octets)
        return
    check_progress(progress)
    size, each = octets.nbytes, each or _PIECE
    for at in range(0, size, each):
        copy(record.allocation, start + at, octets[at : at + each])
        progress(min(at + each, size), size)


def write(
    record: MemoryRecord, data: object, offset: SupportsIndex | None, cast: bool, progress: Progress | None = None
) -> None:
    """See `DeviceMemory.write`."""
    descriptor = record.descriptor
    start = 0 if offset is None else whole_number(offset, "offset")
    octets, rows = contents_to_write(data, descriptor.array, offset=None if offset is None else start, cast=cast)
    if start < 0 or start + octets.nbytes > descriptor.payload_size:
        raise ValueError(
            f"{octets.nbytes} bytes from offset {start} reach outside the payload of {descriptor.payload_size} bytes; "
            "nothing was copied"
        )
    if views.shares_bytes(octets, record):
        octets = memoryview(bytes(octets))
    if rows is not None:
        _write_rows(record, octets, rows, progress)
        return
    _in_pieces(record.device.backend.write, record, start, octets, progress)


def _write_rows(record: MemoryRecord, octets: memoryview, rows: Rows, progress: Progress | None) -> None:
    """Write rows with gaps between them, from the beginning of the payload. The gaps stay as they are."""
    backend, whole = record.device.backend, octets.nbytes
    each = max(1, _PIECE // rows.size) * rows.size
    writes_rows = backend.write_rows if isinstance(backend, WritesRows) else None

    def copy(allocation: Allocation, offset: int, piece: memoryview) -> None:
        at = record.descriptor.payload_offset
        first = (offset - at) // rows.size
        at += first * rows.pitch
        if writes_rows is not None:
            writes_rows(allocation, at, piece, rows.size, rows.pitch)
            return
        for index in range(piece.nbytes // rows.size):
            row = piece[index * rows.size : (index + 1) * rows.size]
            backend.write(allocation, at + index * rows.pitch, row)

    if whole:
        _in_pieces(copy, record, 0, octets, progress, each)


def read(record: MemoryRecord, out: object = None, progress: Progress | None = None) -> Any:
    """See `DeviceMemory.read`."""
    descriptor = record.descriptor
    if out is not None:
        with late_imports():
            from extmem.interop.reading import target_of

        target = target_of(out, descriptor.payload_size, descriptor.array)
        if views.shares_bytes(target.octets, record):
            target = target.apart()
        _in_pieces(record.device.backend.read, record, 0, target.octets, progress)
        if target.finish is not None:
            target.finish()
        return out
    layout = layout_for(descriptor.payload_size, descriptor.array)
    octets = new_octets(descriptor.payload_size)
    _in_pieces(record.device.backend.read, record, 0, octets, progress)
    return numpy_view(octets, layout)


def read_bytes(record: MemoryRecord, offset: SupportsIndex, size: SupportsIndex | None) -> bytearray:
    """See `DeviceMemory.read_bytes`."""
    whole, start = record.descriptor.payload_size, whole_number(offset, "offset")
    count = whole - start if size is None else whole_number(size, "size")
    if start < 0 or count < 0 or start + count > whole:
        raise ValueError(f"{count} bytes from offset {start} reach outside the payload of {whole} bytes")
    octets = bytearray(count)
    record.device.backend.read(record.allocation, record.descriptor.payload_offset + start, memoryview(octets))
    return octets


def fill(record: MemoryRecord, value: SupportsIndex) -> None:
    """See `DeviceMemory.fill`."""
    byte, descriptor = whole_number(value, "value"), record.descriptor
    if not 0 <= byte <= 255:
        raise ValueError(f"value is {byte}; a byte is 0 to 255")
    record.device.backend.fill(record.allocation, descriptor.payload_offset, descriptor.payload_size, byte)
