"""`Hold`: the lock of one slot, which ends once: by a call, or with the frame or the last array that needs it.

How this works. The release is one step of an iterator of C code: whoever advances it first makes it (a method, the
callback of a weak reference), and nobody makes it twice. The iterator keeps the hold on the descriptor whose lock it
releases, so the number of the descriptor cannot be another file's by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat, starmap
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

if TYPE_CHECKING:
    from extmem.channel.slots import Slot
    from extmem.devices.host.range_lock_system import RangeLocks

__all__ = ["Hold", "end_with"]

_ONCE: Final = ((None,),)


class Hold:
    """See the module. Made when the slot is locked."""

    __slots__ = ("_ended", "_steps", "index", "number", "slot", "watch")

    def __init__(self, locks: RangeLocks, number: int, slot: Slot, index: int = 0) -> None:
        call, arguments = locks.unlocking(slot.range)
        self._ended: list[None] = []
        self._steps = zip(starmap(call, (arguments,)), starmap(self._ended.append, _ONCE), repeat(locks.hold, 1))
        self.number = number
        """The frame's number."""
        self.slot = slot
        self.index = index
        """Where the reader's page lists it."""
        self.watch: ref[Any] | None = None
        """The reference to the frame, with whose loss it ends."""

    @property
    def ended(self) -> bool:
        """Whether the lock is released."""
        return bool(self._ended)

    def end(self) -> None:
        """Release the lock, unless it is released."""
        next(self._steps, None)

    def end_with(self, frame: object) -> None:
        """Release the lock when the frame is lost, at the latest."""
        self.watch = ref(frame, partial(next, self._steps))


_lingering: dict[int, tuple[list[ref[Any]], Callable[[], None]]] = {}
"""What is released when the last of some arrays is gone."""


def end_with(arrays: Iterable[ref[Any]], release: Callable[[], None]) -> None:
    """Call a function when all of these arrays are gone. It is called at once if they are."""
    left: list[ref[Any]] = []
    key = id(left)

    def gone(one: ref[Any]) -> None:
        left.remove(one)
        if not left and _lingering.pop(key, None) is not None:
            release()

    _lingering[key] = (left, release)
    for array in arrays:
        live = array()
        if live is not None:
            left.append(ref(live, gone))
        del live
    if not left and _lingering.pop(key, None) is not None:
        release()
