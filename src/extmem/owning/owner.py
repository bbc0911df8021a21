"""`Owner`: owns one resource of the system and releases it exactly once. See the package for how."""

from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import compress, islice, repeat, starmap
from typing import Any, Final, TypeAlias
from weakref import ref

from extmem.owning.held import Held

__all__ = ["Making", "Owner", "Step", "do_last", "living"]

Step: TypeAlias = tuple[Any, ...]
"""A call that releases something, and its arguments. The call is C code."""

_never: Final = repeat(False)
_call: Final = operator.call
_drain: Final = deque[Any](maxlen=0).extend
_watches: Final[dict[int, ref[Owner]]] = {}
"""Weak references to owners, by the owner's id. A dead one stays until another owner has the id."""


class Owner(Held):
    """Owner of a file descriptor, a mapping, or an object of a driver; see the package. Subclasses define which.

    What it owes is a list of steps and one iterator over it. Taking a step from the iterator, to call it or to pass it
    to the caller, is a single call of C code, so each step is taken once.
    """

    __slots__ = ("_owed", "_rest", "_undoing")

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        """steps: what it owes at first; see `owe`.

        Another thread may fork while a step is acquired. So a subclass sets the attributes that its `in_forked_child`
        uses before it calls this.
        """
        # Written out instead of `super` and `_watch`, because every payload that is opened creates several owners.
        self._gate = bytearray(1)
        self.closing = False
        owed: list[Step] = []
        self._owed = owed
        self._rest = rest = iter(owed)
        self._undoing = undoing = starmap(_call, rest)
        # When this object is garbage-collected, the reference calls the partial object, which drains the iterator.
        _watches[id(self)] = ref(self, partial(next, compress(undoing, _never)))
        owed.extend(steps)

    def _watch(self, owed: list[Step]) -> None:
        self._owed = owed
        self._rest = iter(owed)
        self._undoing = starmap(_call, self._rest)
        _watches[id(self)] = ref(self, partial(next, compress(self._undoing, _never)))

    # Acquiring.

    def owe(self, steps: Iterable[Step]) -> None:
        """Owe these steps, in the order of their release. The iterable may acquire the resource, if it is C code."""
        self._owed.extend(steps)

    @property
    def owed_number(self) -> Any:
        """The first argument of the last step: the number that was acquired."""
        return self._owed[-1][1]

    @property
    def owes(self) -> bool:
        """Whether there is something to release."""
        return operator.length_hint(self._rest) > 0

    # Releasing.

    def give_back(self) -> None:
        """Release it now; the caller ensures that it is not in use. Safe to repeat.

        Nothing can be owed afterwards. Errors: those of a step; the other steps are still owed then.
        """
        _drain(self._undoing)
        _watches.pop(id(self), None)

    def disown(self) -> list[Step]:
        """Owe nothing more, and return the steps that were owed, which the caller must call.

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
        """Owe nothing more, because it was released, or has another owner."""
        _drain(self._rest)

    def take_one(self) -> Iterator[Step]:
        """Return an iterator that removes and yields one step, which the caller owes from then on. For `Making`."""
        return islice(self._rest, 1)

    def in_forked_child(self) -> None:
        """Called for the copy in a forked child. By default the child releases nothing, since the parent does."""
        self.forget()


class Making:
    """A call that writes what it creates to `made[0]` and returns a result code, for `Owner.owe`.

    `steps` yields `give_back(*before, made[0], *after)`, and makes the call when it is iterated over; `result` is the
    code from then on. consumes: an owner whose resource the call consumes; it owes nothing from then on.
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
        """Make the owner of the consumed resource owe it again, because the call failed and did not consume it."""
        if self._consumes is not None:
            self._consumes.owe(self._consumed)
            self._consumed.clear()


def living() -> Iterator[Owner]:
    """Yield the owners that owe something now; for tests and benchmarks, which check that nothing is left."""
    for watch in list(_watches.values()):
        owner = watch()
        if owner is not None and owner.owes:
            yield owner


def do_last(steps: list[Step]) -> None:
    """Remove the last step from a list and call it, in one call of C code. Errors: IndexError for an empty list."""
    _drain(starmap(_call, map(steps.pop, (-1,))))


def _after_fork() -> None:
    with ExitStack() as stack:  # which makes all calls, also if one of them raises an error
        for watch in list(_watches.values()):
            owner = watch()
            if owner is not None:
                stack.callback(owner.in_forked_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
