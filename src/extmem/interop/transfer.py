"""Copies between a payload and the program, made by the device: `DeviceMemory.write`, `read`, `read_bytes`, `fill`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

from extmem.arguments import whole_number
from extmem.core import views
from extmem.interop.numpy_views import new_octets, numpy_view
from extmem.interop.writing import octets_to_write
from extmem.sharing.layout import layout_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from extmem.core.memory_record import MemoryRecord

__all__ = ["fill", "read", "read_bytes", "write"]


def write(record: MemoryRecord, data: object, offset: SupportsIndex | None, cast: bool) -> None:
    """See `DeviceMemory.write`."""
    descriptor = record.descriptor
    start = 0 if offset is None else whole_number(offset, "offset")
    octets = octets_to_write(data, descriptor.array, offset=None if offset is None else start, cast=cast)
    if start < 0 or start + octets.nbytes > descriptor.payload_size:
        raise ValueError(
            f"{octets.nbytes} bytes from offset {start} reach outside the payload of {descriptor.payload_size} bytes; "
            "nothing was copied"
        )
    if views.shares_bytes(octets, record):
        octets = memoryview(bytes(octets))
    record.device.backend.write(record.allocation, descriptor.payload_offset + start, octets)


def read(record: MemoryRecord) -> NDArray[Any]:
    """See `DeviceMemory.read`."""
    descriptor = record.descriptor
    layout = layout_for(descriptor.payload_size, descriptor.array)
    octets = new_octets(descriptor.payload_size)
    record.device.backend.read(record.allocation, descriptor.payload_offset, octets)
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
