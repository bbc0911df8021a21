"""`end_with`: a lock of a slot that ends with the last of the arrays over it.

How this works. Each array is watched by a weak reference, whose callback takes one step of an iterator. All steps but
the last do nothing; the last one releases the lock. The callbacks are C code, so an exception of a signal handler
cannot come between the end of an array and the release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, compress, repeat, starmap
from typing import Any, Final
from weakref import ref

__all__ = ["end_with"]

_never: Final = repeat(False)
_watches: Final[dict[int, list[ref[Any]]]] = {}
"""The references to the arrays, by the id of what is kept for them."""


def end_with(arrays: Iterable[ref[Any]], unlock: Iterator[Any], keep: list[Any], then: Callable[[], object]) -> None:
    """Advance `unlock` when all of these arrays are gone, at once if they are. Then `keep` is cleared.

    keep: what must exist until then. then: is called after that; the lock is released also if it fails.
    """
    key = id(keep)
    watches = _watches[key] = []
    calls = chain(unlock, starmap(_watches.pop, ((key, None),)), starmap(keep.clear, ((),)), starmap(then, ((),)))
    last = compress(calls, _never)  # taking one step makes all calls
    live = [array for array in [one() for one in arrays] if array is not None]
    steps = chain(repeat(None, len(live)), last)  # one step for each array, and one for the end of this function
    while live:
        watches.append(ref(live[-1], partial(next, steps)))
        live.pop()
    next(steps, None)
