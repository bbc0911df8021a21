"""How long offers last: a strong one for a minute, a bound one as long as the process that it is for lives.

How this works. The object manager knows what a ticket keeps alive; time and the death of processes are known here. A
ticket nobody claims within `STRONG` seconds is demoted: it keeps nothing alive any more, but still works while its
object lives. One that is bound to a process stays strong until that process claims it or dies (a child may take its
time to start); its death withdraws it.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import os
from collections import deque
from typing import Final

from extmem.objects import ObjectManager, Refused, Status

__all__ = ["STRONG", "Tickets"]

STRONG: Final = 60.0
"""Seconds that an unbound offer keeps what it offers alive."""
_CLAIMED: Final = 1_024
"""Tickets that clients say they claimed before a restart; their senders may announce them later than that."""


class Tickets:
    """Clocks and process watches of the tickets in flight. Ownership: the pidfds are closed here."""

    def __init__(self, model: ObjectManager) -> None:
        self._model = model
        self._senders: dict[int, int] = {}
        """Ticket → the process that sent it; those that time or a death may still touch."""
        self._strong: deque[tuple[float, int]] = deque()
        self._bound: dict[int, int] = {}
        """Ticket → pidfd."""
        self._watched: dict[int, tuple[int, set[int]]] = {}
        """Pidfd → its pid and tickets; the loop waits for these."""
        self._pidfds: dict[int, int] = {}
        """Pid → pidfd."""
        self._claimed: deque[int] = deque(maxlen=_CLAIMED)

    def offered(self, ticket: int, sender: int, now: float) -> float:
        """A strong ticket has been made. When `expire` is due for it."""
        if len(self._strong) > 2 * len(self._senders) + 64:
            self._strong = deque(entry for entry in self._strong if entry[1] in self._senders)
        self._senders[ticket] = sender
        self._strong.append((now + STRONG, ticket))
        return now + STRONG

    @property
    def next_deadline(self) -> float | None:
        """When `expire` is due."""
        return self._strong[0][0] if self._strong else None

    def expire(self, now: float) -> None:
        """Demote what nobody has claimed in time.

        Tickets that ended otherwise are unknown to the model: it ignores them.
        """
        while self._strong and self._strong[0][0] <= now:
            _, ticket = self._strong.popleft()
            if ticket not in self._bound and self._senders.pop(ticket, None) is not None:
                self._model.demote(ticket)

    def bind(self, ticket: int, pid: int, sender: int) -> int | None:
        """Watch a process for a ticket. The pidfd if it is a new one to wait for; None otherwise.

        Raises ProcessLookupError when the process is gone already, Refused when the ticket is not the sender's in
        flight.
        """
        if self._senders.get(ticket) != sender:
            raise Refused(
                Status.INVALID_HANDLE,
                "The ticket is not in flight from this process: it was claimed, withdrawn or has lost its "
                "strength. Offer anew.",
            )
        if ticket in self._bound:
            self._unbind(ticket)
        fresh = pid not in self._pidfds
        if fresh:
            pidfd = os.pidfd_open(pid)
            self._pidfds[pid] = pidfd
            self._watched[pidfd] = (pid, set())
        pidfd = self._pidfds[pid]
        self._watched[pidfd][1].add(ticket)
        self._bound[ticket] = pidfd
        return pidfd if fresh else None

    def watches(self, fd: int) -> bool:
        """Whether this is one of the pidfds."""
        return fd in self._watched

    def died(self, pidfd: int) -> None:
        """The process behind a pidfd is gone: withdraw what it has not claimed."""
        pid, tickets = self._watched.pop(pidfd)
        del self._pidfds[pid]
        os.close(pidfd)
        for ticket in tickets:
            del self._bound[ticket]
            sender = self._senders.pop(ticket, None)
            if sender is not None:
                try:
                    self._model.withdraw(sender, ticket)
                except Refused:
                    continue  # the sender is gone too, and its tickets with it

    def done(self, ticket: int) -> None:
        """The ticket was claimed or withdrawn."""
        self._senders.pop(ticket, None)
        if ticket in self._bound:
            self._unbind(ticket)

    def claimed_before(self, ticket: int) -> None:
        """After a restart: a client says that it claimed the ticket. Its sender may not know, and announce it later, or
        have come first and announced it already: then it ends here, as nobody may claim it again.
        """
        sender = self._senders.get(ticket)
        self.done(ticket)
        if sender is not None:
            with contextlib.suppress(Refused):  # the sender is gone, and its tickets with it
                self._model.withdraw(sender, ticket)
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

    def _unbind(self, ticket: int) -> None:
        pidfd = self._bound.pop(ticket)
        pid, tickets = self._watched[pidfd]
        tickets.discard(ticket)
        if not tickets:
            del self._watched[pidfd]
            del self._pidfds[pid]
            os.close(pidfd)
