"""Transfers: bytes that the processor copies to and from mapped payloads. Its memory is coherent."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Mapping

__all__ = ["fill", "read", "write"]


def write(allocation: Allocation, offset: int, data: memoryview) -> None:
    """See `Backend`."""
    mapping = _map_range(allocation, offset, data.nbytes, writable=True)
    _bytes(mapping, offset, data.nbytes)[:] = data


def read(allocation: Allocation, offset: int, into: memoryview) -> None:
    """See `Backend`."""
    mapping = _map_range(allocation, offset, into.nbytes, writable=allocation.writable)
    into[:] = _bytes(mapping, offset, into.nbytes)


def fill(allocation: Allocation, offset: int, size: int, value: int) -> None:
    """See `Backend`."""
    mapping = _map_range(allocation, offset, size, writable=True)
    ctypes.memset(mapping.address + offset, value, size)


def _map_range(allocation: Allocation, offset: int, size: int, *, writable: bool) -> Mapping:
    if offset < 0 or offset + size > allocation.size:
        raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
    return allocation.map(writable)


def _bytes(mapping: Mapping, offset: int, size: int) -> memoryview:
    """Bytes of a mapping, valid while it is held."""
    return memoryview((ctypes.c_ubyte * size).from_address(mapping.address + offset)).cast("B")
