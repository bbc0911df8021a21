"""How long offers last: a minute, or as long as the process that it is for lives.

How this works. The object manager knows what a ticket keeps alive; time and the death of processes are known here. The
time of a ticket that nobody claims is over after so many seconds (`SECONDS`, or what the broker was told at its start).
One that is bound to a process stays until that process claims it or dies (a child may take its time to start); its
death ends it. Whether the sender lives makes no difference to either.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
from collections import deque
from collections.abc import Iterator
from typing import Final

from extmem.broker.processes import ProcessKey, key_of
from extmem.objects import STEP, ObjectManager, Refused, Status
from extmem.owning import OwnedFd

__all__ = ["SECONDS", "Tickets"]

SECONDS: Final = 60.0
"""Seconds that an unbound offer keeps what it offers alive; EXTMEM_TICKET_SECONDS in the broker's environment says
otherwise."""
_CLAIMED: Final = 1_024
"""Tickets that clients say they claimed before a restart; their senders may announce them later than that."""


class Tickets:
    """Clocks and process watches of the tickets in flight. Ownership: the pidfds are closed here."""

    def __init__(self, model: ObjectManager, seconds: float = SECONDS) -> None:
        self._model = model
        self.seconds = seconds
        self._senders: dict[int, int] = {}
        """Ticket → the process that sent it; those that time or a death may still touch."""
        self._strong: deque[tuple[float, int]] = deque()
        self._bound: dict[int, int] = {}
        """Ticket → pidfd."""
        self._watched: dict[int, tuple[ProcessKey, set[int]]] = {}
        """Pidfd → its process and tickets; the loop waits for these."""
        self._pidfds: dict[ProcessKey, int] = {}
        """Process → pidfd."""
        self._claimed: deque[int] = deque(maxlen=_CLAIMED)

    def offered(self, ticket: int, sender: int, now: float) -> float:
        """A strong ticket has been made. When `expire` is due for it."""
        if len(self._strong) > 2 * len(self._senders) + 64:
            self._strong = deque(entry for entry in self._strong if entry[1] in self._senders)
        self._senders[ticket] = sender
        self._strong.append((now + self.seconds, ticket))
        return now + self.seconds

    @property
    def next_deadline(self) -> float | None:
        """When `expire` is due."""
        return self._strong[0][0] if self._strong else None

    def expire(self, now: float) -> None:
        """End the time of what nobody has claimed: of some of it, and `next_deadline` tells whether there is more.

        Tickets that ended otherwise are unknown to the model: it ignores them.
        """
        for _ in range(STEP):
            if not self._strong or self._strong[0][0] > now:
                return
            _, ticket = self._strong.popleft()
            if ticket not in self._bound and self._senders.pop(ticket, None) is not None:
                self._model.expire(ticket)

    def bind(self, ticket: int, pidfd: OwnedFd, sender: int) -> int | None:
        """Watch a process for a ticket. The pidfd, which is taken, if it is a new one to wait for; None otherwise.

        Refused when the ticket is not the sender's in flight, or the descriptor is of no process.
        """
        if self._senders.get(ticket) != sender:
            raise Refused(
                Status.INVALID_HANDLE,
                "The ticket is not in flight from this process: it was claimed, withdrawn or has lost its "
                "strength. Offer anew.",
            )
        key = key_of(pidfd.fd)
        self.unbind(ticket)
        known = self._pidfds.get(key)
        fresh = None
        if known is None:
            known = fresh = self._pidfds[key] = pidfd.take()
            self._watched[known] = (key, set())
        self._watched[known][1].add(ticket)
        self._bound[ticket] = known
        return fresh

    def watches(self, fd: int) -> bool:
        """Whether this is one of the pidfds."""
        return fd in self._watched

    def died(self, pidfd: int) -> Iterator[None]:
        """The process behind a pidfd is gone: end what it has not claimed, in steps."""
        key, tickets = self._watched.pop(pidfd)
        del self._pidfds[key]
        os.close(pidfd)
        for ticket in tickets:
            del self._bound[ticket]
        return self._cancel_all(tickets)

    def _cancel_all(self, tickets: set[int]) -> Iterator[None]:
        for number, ticket in enumerate(tickets, 1):
            if self._senders.pop(ticket, None) is not None:
                self._model.cancel(ticket)
            if not number % STEP:
                yield

    def done(self, ticket: int) -> None:
        """The ticket was claimed or withdrawn."""
        self._senders.pop(ticket, None)
        self.unbind(ticket)

    def claimed_before(self, ticket: int) -> None:
        """After a restart: a client says that it claimed the ticket. Its sender may not know, and announce it later, or
        have come first and announced it already: then it ends here, as nobody may claim it again.
        """
        self.done(ticket)
        self._model.cancel(ticket)
        self._claimed.append(ticket)

    def was_claimed(self, ticket: int) -> bool:
        """Whether a client has said so."""
        return ticket in self._claimed

    def close(self) -> None:
        """Close all pidfds."""
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pidfds.clear()
        self._watched.clear()
        self._bound.clear()

    def unbind(self, ticket: int) -> None:
        """The ticket is for nobody in particular any more."""
        pidfd = self._bound.pop(ticket, None)
        if pidfd is None:
            return
        key, tickets = self._watched[pidfd]
        tickets.discard(ticket)
        if not tickets:
            del self._watched[pidfd]
            del self._pidfds[key]
            os.close(pidfd)
