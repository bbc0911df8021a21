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
_watches: Final[dict[int, tuple[list[ref[Any]], list[bool]]]] = {}
"""The references to arrays, and a list that is not empty once they have ended. A reference must not end in its own
callback, so the next call of `end_with` forgets them.
"""


def end_with(arrays: Iterable[ref[Any]], unlock: Iterator[Any], keep: list[Any], then: Callable[[], object]) -> None:
    """Advance `unlock` when all of these arrays are gone, at once if they are. Then `keep` is cleared.

    keep: what must exist until then. then: is called after that; the lock is released also if it fails.
    """
    for key, (_, over) in list(_watches.items()):
        if over:
            _watches.pop(key, None)
    watches: list[ref[Any]] = []
    ended: list[bool] = []
    calls = chain(unlock, starmap(keep.clear, ((),)), starmap(then, ((),)), starmap(ended.append, ((True,),)))
    last = compress(calls, _never)  # taking one step makes all calls
    live = [array for array in [one() for one in arrays] if array is not None]
    steps = chain(repeat(None, len(live)), last)  # one step for each array, and one for the end of this function
    _watches[id(watches)] = (watches, ended)
    while live:
        watches.append(ref(live[-1], partial(next, steps)))
        live.pop()
    next(steps, None)
