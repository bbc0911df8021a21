"""`Owner`: owns one thing of the system and gives it back exactly once. See the package for how."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import compress, islice, repeat, starmap
from typing import Any, Final, TypeAlias
from weakref import ref

from extmem.owning.held import Held

__all__ = ["Making", "Owner", "Step", "do_last", "living"]

Step: TypeAlias = tuple[Any, ...]
"""A call that gives something back, and its arguments. The call is C code."""

_never: Final = repeat(False)
_call: Final = operator.call
_drain: Final = deque[Any](maxlen=0).extend
_watches: Final[dict[int, ref[Owner]]] = {}
"""References that watch owners, by the owner's id. One whose owner was lost stays until its id is another's."""


class Owner(Held):
    """What owns a descriptor, a mapping, an object of a driver; see the package. Subclasses say what it is.

    What it owes is a list of steps and one iterator over it. To take a step from the iterator, to give back or for the
    caller, is a single call of C code, and nobody else can take it any more.
    """

    __slots__ = ("_owed", "_rest", "_undoing")

    def __init__(self) -> None:
        # Not by `super` and `_watch`: every payload that is opened makes some of these.
        self._gate = bytearray(1)
        self.closing = False
        owed: list[Step] = []
        self._owed = owed
        self._rest = rest = iter(owed)
        self._undoing = undoing = starmap(_call, rest)
        # Where this object is lost, the reference calls the partial object, and that drains the iterator.
        _watches[id(self)] = ref(self, partial(next, compress(undoing, _never)))

    def _watch(self, owed: list[Step]) -> None:
        self._owed = owed
        self._rest = iter(owed)
        self._undoing = starmap(_call, self._rest)
        _watches[id(self)] = ref(self, partial(next, compress(self._undoing, _never)))

    # Taking.

    def acquire(self, give_back: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call, and owe `give_back(result)` from then on. The result.

        What `call` raises leaves nothing owed. Both are C code.
        """
        self._owed.extend(zip((give_back,), starmap(call, (arguments,)), strict=False))
        return self._owed[-1][1]

    def owe(self, steps: Iterable[Step]) -> None:
        """Owe these steps, in the order of giving back. Making one may be what takes the thing, if that is C code."""
        self._owed.extend(steps)

    @property
    def owed_number(self) -> Any:
        """The first argument of the step that was owed last: what was taken."""
        return self._owed[-1][1]

    @property
    def owes(self) -> bool:
        """Whether there is something to give back."""
        return operator.length_hint(self._rest) > 0

    # Giving back.

    def give_back(self) -> None:
        """Give it back now; whoever calls this makes sure that nobody uses it. Safe to repeat.

        Nothing can be owed any more afterwards. Errors: what a step raises; the others are still owed then.
        """
        _drain(self._undoing)
        _watches.pop(id(self), None)

    def disown(self) -> list[Step]:
        """Owe nothing more: the steps that were owed, which are the caller's duty now.

        After an exception they are owed as before. No signal handler runs between the effect and the return.
        """
        taken: list[Step] = []
        try:
            taken.extend(self._rest)
        except BaseException:
            self._watch(taken)
            raise
        return taken

    def forget(self) -> None:
        """Owe nothing more: it has been given back, or is somebody else's."""
        _drain(self._rest)

    def take_one(self) -> Iterator[Step]:
        """An iterator that takes one step when it is asked: that is the asker's duty from then on. For `Making`."""
        return islice(self._rest, 1)

    def in_forked_child(self) -> None:
        """What a forked child does with its copy. By default it leaves the thing to the parent."""
        self.forget()


class Making:
    """A call that puts what it makes into `made[0]` and returns a result code, for `Owner.owe`.

    `steps` gives `give_back(*before, made[0], *after)`, and makes the call when it is asked for it; `result` is the
    code from then on. consumes: an owner whose thing the call takes over; it owes nothing from then on.
    """

    __slots__ = ("_consumed", "_consumes", "_results", "steps")

    def __init__(
        self,
        call: Callable[..., Any],
        arguments: Step,
        made: Any,
        give_back: Any,
        before: Step = (),
        after: Step = (),
        consumes: Owner | None = None,
    ) -> None:
        self._results: list[Any] = []
        self._consumed: list[Step] = []
        self._consumes = consumes
        calls = map(self._results.append, starmap(call, (arguments,)))
        if consumes is not None:
            consuming = map(self._consumed.append, consumes.take_one())
            calls = map(operator.itemgetter(1), zip(consuming, calls, strict=False))
        numbers = map(operator.getitem, map(operator.itemgetter(1), zip(calls, (made,), strict=False)), (0,))
        columns = ((give_back,), *zip(before), numbers, *zip(after))
        self.steps: Iterable[Step] = zip(*columns, strict=False)

    @property
    def result(self) -> int:
        """The result code."""
        return int(self._results[0])

    def give_back_consumed(self) -> None:
        """The call failed and has left what it was to take over: its owner owes it again."""
        if self._consumes is not None:
            self._consumes.owe(self._consumed)
            self._consumed.clear()


def living() -> Iterator[Owner]:
    """The owners that owe something now; for tests and benchmarks, which look for what is left."""
    for watch in list(_watches.values()):
        owner = watch()
        if owner is not None and owner.owes:
            yield owner


def do_last(steps: list[Step]) -> None:
    """Take the last step off a list and do it, in one call of C code. IndexError where there is none."""
    _drain(starmap(_call, map(steps.pop, (-1,))))


def _after_fork() -> None:
    for watch in list(_watches.values()):
        owner = watch()
        if owner is not None:
            owner.in_forked_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
