"""The lifetime of tickets: a minute, or the lifetime of the process that the ticket is bound to.

How this works. The object manager records what a ticket keeps alive; time and the end of processes are handled here. A
ticket that is not claimed expires after some seconds (`SECONDS`, or EXTMEM_TICKET_SECONDS in the broker's environment).
A ticket that is bound to a process stays until that process claims it or ends, because a child may take long to start.
Neither depends on whether the sender still runs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import Final

from extmem.broker.processes import ProcessKey, key_of
from extmem.objects import STEP, ObjectManager, Refused, Status
from extmem.owning import OwnedFd

__all__ = ["SECONDS", "Tickets"]

SECONDS: Final = 60.0
"""Seconds for which an unbound ticket keeps its payload alive; the default of EXTMEM_TICKET_SECONDS."""
_CLAIMED: Final = 1_024
"""Number of tickets that are remembered as claimed before a restart, as their senders may announce them later."""


class Tickets:
    """Deadlines and watched processes of the tickets in flight. Ownership: the pidfds are closed here."""

    def __init__(self, model: ObjectManager, seconds: float = SECONDS) -> None:
        self._model = model
        self.seconds = seconds
        self._senders: dict[int, int] = {}
        """Ticket → the process that sent it, of those that may still expire or be cancelled."""
        self._strong: deque[tuple[float, int]] = deque()
        self._bound: dict[int, int] = {}
        """Ticket → pidfd."""
        self._watched: dict[int, tuple[ProcessKey, set[int]]] = {}
        """Pidfd → its process and tickets. The loop waits for these pidfds."""
        self._pidfds: dict[ProcessKey, int] = {}
        """Process → pidfd."""
        self._claimed: deque[int] = deque(maxlen=_CLAIMED)

    def offered(self, ticket: int, sender: int, now: float) -> float:
        """Record a ticket that keeps its payload alive. Return the time at which `expire` is due for it."""
        if len(self._strong) > 2 * len(self._senders) + 64:
            self._strong = deque(entry for entry in self._strong if entry[1] in self._senders)
        self._senders[ticket] = sender
        self._strong.append((now + self.seconds, ticket))
        return now + self.seconds

    @property
    def next_deadline(self) -> float | None:
        """The time at which `expire` is due; None without tickets."""
        return self._strong[0][0] if self._strong else None

    def expire(self, now: float) -> None:
        """Expire tickets that were not claimed in time: at most `STEP`; `next_deadline` is past if more are left.

        The model ignores tickets that ended otherwise.
        """
        for _ in range(STEP):
            if not self._strong or self._strong[0][0] > now:
                return
            _, ticket = self._strong.popleft()
            if ticket not in self._bound and self._senders.pop(ticket, None) is not None:
                self._model.expire(ticket)

    def bind(self, ticket: int, pidfd: OwnedFd, sender: int) -> int | None:
        """Bind a ticket to a process. Return the pidfd, which is taken, if the loop must wait for it; None otherwise.

        Refused unless the sender sent the ticket, it is in flight, and the file descriptor is a pidfd.
        """
        if self._senders.get(ticket) != sender:
            raise Refused(
                Status.INVALID_HANDLE,
                "The ticket is not in flight from this process: it was claimed, withdrawn, or has expired. Offer anew.",
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

    def died(self, pidfd: int) -> Iterator[None]:
        """Cancel the tickets that an ended process has not claimed, in steps."""
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
        """Record that the ticket was claimed or withdrawn."""
        self._senders.pop(ticket, None)
        self.unbind(ticket)

    def claimed_before(self, ticket: int) -> None:
        """Record, after a restart, that a client claimed the ticket before it.

        Its sender may announce the ticket later, or may have announced it already; it is cancelled then, as it must not
        be claimed twice.
        """
        self.done(ticket)
        self._model.cancel(ticket)
        self._claimed.append(ticket)

    def was_claimed(self, ticket: int) -> bool:
        """Return whether a client has announced that it claimed the ticket."""
        return ticket in self._claimed

    def close(self) -> None:
        """Close all pidfds."""
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pidfds.clear()
        self._watched.clear()
        self._bound.clear()

    def unbind(self, ticket: int) -> None:
        """End the binding of a ticket to a process."""
        pidfd = self._bound.pop(ticket, None)
        if pidfd is None:
            return
        key, tickets = self._watched[pidfd]
        tickets.discard(ticket)
        if not tickets:
            del self._watched[pidfd]
            del self._pidfds[key]
            os.close(pidfd)
