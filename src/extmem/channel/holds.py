"""`Holds`: the locks of slots that one description has for frames, each of which ends exactly once.

How this works. `args` has an entry for each frame number: the arguments of the call that releases the lock. `release`
takes the entry and makes the call in one call of C code, so no thread makes it twice, and no signal handler runs
between the two. Whoever calls `release` keeps the description open meanwhile (`RangeLocks.hold`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from extmem.devices.host.range_lock_system import RangeLocks

__all__ = ["Holds", "end_with"]


class Holds:
    """See the module."""

    __slots__ = ("_call", "_locks", "args")

    def __init__(self, locks: RangeLocks) -> None:
        self._locks = locks
        self._call = locks.call
        self.args: dict[int, tuple[Any, ...]] = {}
        """What is locked, by the number of its frame. `Slot.unlocking` is the entry of a slot."""

    def release(self, number: int) -> None:
        """Release the lock of a frame, unless it is released."""
        keep = self._locks.hold  # keeps the description open
        next(starmap(self._call, iter(partial(self.args.pop, number, None), None)), None)
        del keep


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
