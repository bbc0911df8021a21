"""Serving many clients that all want something at once: a few at a time, each for a while.

How this works. A client that is answered runs, and asks again some fifty microseconds later. When everybody is answered
in turn, that many processes run in turn, and each finds the processors' caches full of the others' things, which costs
it more than the request. So while more clients wait than the processors can run, only so many are *favoured*: they
are answered as they ask, up to `WHILE` messages, and the others wait for their turn to be that. With 64 clients on two
processors this is twice as fast for all of them together; a client waits longer for its next turn, and gets more done
in it.

Whoever does not come back within `PATIENCE` loses the favour, and is answered like anybody else for some turns (twice
as many each time): a client that asks seldom gains nothing by it, and must not keep the others waiting.

A round lasts `ROUND` at most, so that the loop sees newcomers and the clock. Who had the favour least lately comes
first in the next.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import itertools
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from extmem.broker.sessions import Session

__all__ = ["Crowd"]

WHILE: Final = 32
"""Messages."""
PATIENCE: Final = 0.001
"""Seconds; epoll counts in milliseconds."""
ROUND: Final = 0.02
"""Seconds."""
_SHYEST: Final = 64
_IN: Final = int(select.EPOLLIN)


class Crowd:
    """Who is favoured. Ownership: `close` closes what it waits with."""

    def __init__(self, sessions: Mapping[int, Session], turn: Callable[[Session, int], None], room: int = 0) -> None:
        """sessions: the broker's, by descriptor. turn: serves one message. room: how many are favoured at a time."""
        self._sessions = sessions
        self._turn = turn
        self._room = room or len(os.sched_getaffinity(0)) + 1
        self._epoll = select.epoll()
        self._left: dict[int, int] = {}
        """The favoured, with the messages that each may still send."""
        self._numbers = itertools.count(1)

    def gathers(self, waiting: int) -> bool:
        """Whether so many that wait are a crowd."""
        return waiting > self._room + 1

    def serve(self, events: Sequence[tuple[int, int]], other: Callable[[int], None]) -> None:
        """One round. events: who waits, from epoll; what is no session's goes to `other`. Raises what `turn` does."""
        until = time.monotonic() + ROUND
        sessions = self._sessions
        waiting = []
        for fd, event in events:
            session = sessions.get(fd)
            if session is None:
                other(fd)
            else:
                waiting.append((session.favoured, fd, event))
        waiting.sort()
        try:
            for _, fd, event in waiting:
                session = sessions.get(fd)
                if session is None:
                    continue
                session.favoured = next(self._numbers)
                self._turn(session, event)
                if session.shy:
                    session.shy -= 1
                elif fd in sessions and session.ready:
                    self._epoll.register(fd, _IN)
                    self._left[fd] = WHILE
                    while len(self._left) >= self._room:
                        self._favour()
                if time.monotonic() > until:
                    return
        finally:
            for fd in list(self._left):
                self._forget(fd)

    def _favour(self) -> None:
        """Serve the favoured once; let go of who has had enough, or of all if none comes back."""
        sessions, left = self._sessions, self._left
        events = self._epoll.poll(PATIENCE)
        if not events:
            for fd in list(left):
                session = sessions.get(fd)
                if session is not None:
                    session.shyness = min(_SHYEST, 2 * session.shyness)
                    session.shy = session.shyness
                self._forget(fd)
        for fd, event in events:
            session = sessions.get(fd)
            if session is not None:
                self._turn(session, event)
                session.shyness = 1
                left[fd] -= 1
            if not left[fd] or fd not in sessions or not sessions[fd].ready:
                self._forget(fd)

    def _forget(self, fd: int) -> None:
        del self._left[fd]
        with contextlib.suppress(OSError):  # a closed one is forgotten already
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Close it."""
        self._epoll.close()
