"""Views: memoryviews through which a program looks at a payload, zero copy.

How this works. A view is over a ctypes array, which holds the memory's holding, not the other way round: while the
array lives, nothing that it looks at is given back. The memory knows its arrays by weak references. Where another
thread closes the memory while the array is made, everything is given back when the array is lost.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import ref

from extmem.owning import unsettled

if TYPE_CHECKING:
    from extmem.memory.holding import Holding

__all__ = ["view", "view_of_all"]


def view(holding: Holding, arrays: list[ref[Any]]) -> memoryview:
    """The payload's bytes, read-only where they may not be written. Errors: as `view_of_all`."""
    octets, descriptor = view_of_all(holding, arrays), holding.descriptor
    if descriptor.payload_size == holding.size:
        return octets
    return octets[descriptor.payload_offset : descriptor.payload_offset + descriptor.payload_size]


def view_of_all(holding: Holding, arrays: list[ref[Any]]) -> memoryview:
    """The bytes of the whole allocation, as bound resources lie in it; read-only where they may not be written.

    arrays: what views of this memory look through, while there are any.
    Errors: HandleStateError; as `Allocation.map`.
    """
    array: Any = None
    for seen in arrays:
        array = seen()
        break
    if array is None:
        array = _mapped(holding)
        arrays.append(ref(array, arrays.remove))
    octets = memoryview(array).cast("B")
    return octets if holding.writable else octets.toreadonly()


def _mapped(holding: Holding) -> Any:
    hold = holding.hold()
    try:
        array = _bytes_of(holding.size).from_address(holding.allocation.map(holding.writable).address)
        array.holding, array.hold = holding, hold
    finally:
        # The frame of an exception must not keep the hold. As at the end of a `Use`, no signal handler runs before it
        # is noted that the holding is to be given back.
        del hold
        if holding.closing:
            unsettled[holding] = 0
            holding.try_to_end()
    return array


@lru_cache(maxsize=256)
def _bytes_of(size: int) -> Any:
    """The ctypes array type. Making one takes longer than mapping."""
    return type("View", (ctypes.c_ubyte * size,), {"__slots__": ("hold", "holding")})
