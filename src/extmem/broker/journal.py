"""The journal: which clients a broker has, for the broker that follows it if it is killed; and the grace that follows.

How this works. The file lists every connected client as pid and start time (a pid alone may be another process by
now). It is replaced atomically whenever a client comes or goes, and removed when a broker leaves with no client left.
A broker that finds one at its start follows a killed one: the clients listed are about to announce what they hold.
Until all that still live have done so, and for at most `GRACE` seconds, nobody's export is carried out and nobody is
told that a name or number leads nowhere (`Grace`), so that no name is stolen and none seems gone.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["GRACE", "Client", "Grace", "Journal", "start_time"]

GRACE: Final = 2.0
"""Seconds that a broker waits for the clients of a killed predecessor."""
_MAX_JOURNAL: Final = 1 << 20


class Client(msgspec.Struct, frozen=True):
    """A process, told apart from a later one with the same pid."""

    pid: int
    start: int


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if there is no such process (or it is a zombie)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return 0
    # The name in parentheses may hold anything; what follows the last one is plain.
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


class Journal:
    """The file. Writing is best effort: with a full disk a restart is merely less patient."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: dict[int, Client] = {}

    def read(self) -> frozenset[Client]:
        """The clients that a killed broker left behind; empty after a clean end or where nothing can be read."""
        try:
            with open(self._path, "rb") as file:
                return frozenset(msgspec.json.decode(file.read(_MAX_JOURNAL), type=list[Client]))
        except (OSError, msgspec.DecodeError):
            return frozenset()

    def add(self, key: int, pid: int) -> None:
        """A client has come. `key` is its connection's."""
        self._clients[key] = Client(pid, start_time(pid))
        self._write()

    def remove(self, key: int) -> None:
        """A client has gone."""
        if self._clients.pop(key, None) is not None:
            self._write()

    def close(self) -> None:
        """The broker leaves: with clients left the file stays, for the next one."""
        if not self._clients:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, msgspec.json.encode(list(self._clients.values())))
            finally:
                os.close(fd)
            os.replace(beside, self._path)
        except OSError:
            return


class Grace:
    """The time in which a killed broker's clients announce what they hold."""

    def __init__(self, clients: frozenset[Client], now: float) -> None:
        self._waiting = {client.pid: client.start for client in clients}
        self._ends = now + GRACE
        self.active = bool(self._waiting)

    def announced(self, pid: int) -> None:
        """That client has announced everything."""
        self._waiting.pop(pid, None)

    def step(self, now: float) -> bool:
        """Whether the grace has just ended: all live clients have announced, or the time is over."""
        if not self.active:
            return False
        gone = [pid for pid, start in self._waiting.items() if start_time(pid) != start]
        for pid in gone:
            del self._waiting[pid]
        if self._waiting and now < self._ends:
            return False
        self.active = False
        return True
