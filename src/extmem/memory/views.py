"""Views: how memory is looked at without copying, and how we know that somebody still looks.

How this works. A view is a ctypes array laid over the mapping's address; every memoryview and every array made from it
keeps it alive, and it keeps the `Holding` alive, so the mapping stays as long as anyone looks. The memory keeps only a
weak reference to it: when that is dead, nobody looks, and closing is safe.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extmem.memory.holding import Holding

__all__ = ["ViewSlot"]


class ViewSlot:
    """The one view that a memory object hands out, and whether it is still looked at."""

    __slots__ = ("_array",)

    def __init__(self) -> None:
        self._array: weakref.ref[object] | None = None

    @property
    def live(self) -> bool:
        """Whether a memoryview or array over the memory is still alive."""
        return self._array is not None and self._array() is not None

    def open(self, holding: Holding) -> memoryview:
        """A memoryview (format "B") of the whole memory; read-only where the memory is."""
        array: Any = self._array() if self._array is not None else None
        if array is None:
            mapping = holding.map()
            array = (ctypes.c_ubyte * holding.size).from_address(mapping.address)
            # The view owns what it looks at, not the other way round.
            array.holding = holding
            self._array = weakref.ref(array)
            if holding.views:
                holding.views = [view for view in holding.views if view() is not None]
            holding.views.append(self._array)
        view = memoryview(array).cast("B")
        return view if holding.writable else view.toreadonly()
