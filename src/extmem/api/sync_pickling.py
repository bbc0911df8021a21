"""Pickling of semaphores, timelines and fences; see `pickling`. The classes name these functions (`__reduce__`)."""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias, TypeVar

from extmem import _pickles
from extmem.api import sync_functions
from extmem.api.fence import Fence
from extmem.api.pickling import bound_ticket, claimed_import
from extmem.api.semaphore import Semaphore
from extmem.api.timeline import Timeline
from extmem.arguments import a_type
from extmem.core import sync_sending
from extmem.errors import ExtmemError, HandleStateError
from extmem.owning import Use

__all__ = ["receive_fence", "receive_semaphore", "receive_timeline", "reduce"]

T = TypeVar("T", Semaphore, Timeline, Fence)
_Reason: TypeAlias = Exception
_STATE = "not received"


def reduce(thing: Semaphore | Fence) -> tuple[object, ...]:
    """Reduce a semaphore, timeline or fence. The receiver gets another object of the payload, with the same rights."""
    use: Use[Any] = thing.use()
    with use as record:
        owner, ticket = sync_sending.offered(record)
    if isinstance(thing, Fence):
        receive: object = _pickles.receive_fence
    else:
        receive = _pickles.receive_timeline if isinstance(thing, Timeline) else _pickles.receive_semaphore
    return receive, (bound_ticket(owner, ticket),)


def _received(ticket: bytes, kind: type[T]) -> T:
    made = sync_functions.open_claimed(claimed_import(ticket))
    if type(made) is not kind:
        made.close()
        raise HandleStateError(
            f"the ticket refers to {a_type(made)}, not to a {kind.__name__}; unpickle it as the sender pickled it"
        )
    return made


def receive_semaphore(ticket: bytes) -> Semaphore:
    """Claim the ticket: see `extmem._pickles`, by which pickles call this."""
    try:
        return _received(ticket, Semaphore)
    except (ExtmemError, OSError) as reason:
        return UnclaimedSemaphore(reason)


def receive_timeline(ticket: bytes) -> Timeline:
    """See `receive_semaphore`."""
    try:
        return _received(ticket, Timeline)
    except (ExtmemError, OSError) as reason:
        return UnclaimedTimeline(reason)


def receive_fence(ticket: bytes) -> Fence:
    """See `receive_semaphore`."""
    try:
        return _received(ticket, Fence)
    except (ExtmemError, OSError) as reason:
        return UnclaimedFence(reason)


class _Unclaimed:
    """What the objects of tickets that cannot be claimed have in common; see `unclaimed`."""

    __slots__ = ()
    _made_of = Exception
    _reason: Any

    def __init__(self, reason: _Reason) -> None:
        for name, value in (("_closed", True), ("_reason", reason)):
            setattr(self, name, value)

    @property
    def record(self) -> NoReturn:
        """Raises the reason why it could not be received."""
        raise self._reason.with_traceback(None)

    _facts = record  # the methods read the record from this attribute

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__.removeprefix('Unclaimed')} {_STATE}: {self._reason}>"


class UnclaimedSemaphore(_Unclaimed, Semaphore):  # type: ignore[misc]  # what it overrides raises the reason
    """A semaphore that was sent and could not be received."""

    __slots__ = ("_reason",)


class UnclaimedTimeline(_Unclaimed, Timeline):  # type: ignore[misc]  # as above
    """A timeline that was sent and could not be received."""

    __slots__ = ("_reason",)


class UnclaimedFence(_Unclaimed, Fence):  # type: ignore[misc]  # as above
    """A fence that was sent and could not be received."""

    __slots__ = ("_reason",)
