"""The journal of a broker's clients, which its successor reads if the broker is killed; and the recovery window.

How this works. The file has a line for each client that connected and for each that disconnected, with pid and start
time (a pid alone may be another process by now). So the cost of one client does not depend on their number. The file is
written anew when most of its lines are of clients that have disconnected, and removed when a broker ends without a
client. A broker that finds the file at its start is the successor of a killed one: the clients that are left in the
file are about to announce what they hold. Until all of these that still live have done so, and for at most `WINDOW`
seconds, exports wait, and so does every answer that a name or number does not exist (`RecoveryWindow`). So another
process cannot take a name in the meantime, and a name does not seem to be gone. A broker keeps its predecessor's lines
until then, because it may itself be killed before those clients have announced.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from extmem.wire.process_start import start_time

__all__ = ["WINDOW", "Client", "RecoveryWindow", "Journal"]

WINDOW: Final = 2.0
"""Seconds that a broker waits for the clients of a killed predecessor."""
_MAX_JOURNAL: Final = 1 << 20
_SPARE_LINES: Final = 64
_LOOKS: Final = 200
"""Number of processes that are checked in one step."""


class Client(msgspec.Struct, frozen=True):
    """A process, distinguished from a later one with the same pid and from one of another pid namespace."""

    pid: int
    start: int
    space: int

    @classmethod
    def of(cls, pid: int) -> Client:
        """Return the process that has this pid now; pid 0 is a process outside this pid namespace."""
        return cls(pid, start_time(pid), _pid_namespace())

    @property
    def gone(self) -> bool:
        """Whether it is known to have ended."""
        return self.pid > 0 and self.space == _pid_namespace() and start_time(self.pid) != self.start


@functools.cache
def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


_Line: TypeAlias = tuple[bool, int, int, int]
"""Whether the client connected (or disconnected); its pid, its start time, its pid namespace."""


class Journal:
    """The file. Writing is best effort: without it, the recovery window of the next broker lasts for its full time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: dict[int, Client] = {}
        self._lines = 0
        self._fd = -1
        self._keeps = False
        """Whether the file may contain lines of a predecessor that are still needed."""

    def read(self) -> frozenset[Client] | None:
        """Return the clients of a killed broker; None where the file cannot be read."""
        left: Counter[Client] = Counter()
        try:
            with open(self._path, "rb") as file:
                lines = file.read(_MAX_JOURNAL).split(b"\n")
        except OSError:
            return None
        for line in lines[:-1]:  # after the last newline is nothing, or an incomplete line
            try:
                come, *client = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError:
                return None
            left[Client(*client)] += 1 if come else -1
        return frozenset(client for client, count in left.items() if count > 0)

    def begin(self) -> None:
        """Append to the file as it is, after the lines of a predecessor."""
        self._keeps = True
        self._open()

    def add(self, key: int, pid: int) -> None:
        """Record that a client has connected. `key` identifies its connection."""
        client = self._clients[key] = Client.of(pid)
        self._write(_line(client, come=True))

    def remove(self, key: int) -> None:
        """Record that a client has disconnected."""
        client = self._clients.pop(key, None)
        if client is not None:
            self._write(_line(client, come=False))
            if not self._keeps and self._lines > _SPARE_LINES + 4 * len(self._clients):
                self.rewrite()

    def rewrite(self) -> None:
        """Write the file anew, with the clients that are connected now and no others."""
        self._keeps = False
        beside = self._path.with_name(f".{self._path.name}.new")
        lines = [msgspec.json.encode(_line(client, come=True)) for client in self._clients.values()]
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(beside, flags, 0o600), "wb") as file:
                file.write(b"".join(line + b"\n" for line in lines))
            os.replace(beside, self._path)
        except OSError:
            return
        self._lines = len(lines)
        self._open()

    def close(self) -> None:
        """Close the file when the broker ends. It is removed if no client is connected."""
        if not self._clients:
            self._path.unlink(missing_ok=True)
        self._shut()

    def _open(self) -> None:
        self._shut()
        with contextlib.suppress(OSError):
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND, 0o600)

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, line: _Line) -> None:
        self._lines += 1
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._fd, msgspec.json.encode(line) + b"\n")


def _line(client: Client, *, come: bool) -> _Line:
    return come, client.pid, client.start, client.space


class RecoveryWindow:
    """The recovery window: the time in which a killed broker's clients announce what they hold."""

    def __init__(self, clients: frozenset[Client] | None, now: float) -> None:
        """clients: those of the killed broker; None where they are unknown: the window then lasts for its full time."""
        self._waiting = None if clients is None else {client.pid: client for client in clients}
        self._ends = now + WINDOW
        self.active = clients is None or bool(clients)

    def announced(self, pid: int) -> None:
        """Record that the client has announced everything."""
        if self._waiting is not None:
            self._waiting.pop(pid, None)

    def step(self, now: float) -> bool:
        """Return whether the window has just closed: all live clients have announced, or the time is over."""
        if not self.active:
            return False
        if self._waiting is not None:
            # A limited number at a time: the loop calls this again soon.
            for pid, client in list(self._waiting.items())[:_LOOKS]:
                del self._waiting[pid]
                if not client.gone:
                    self._waiting[pid] = client  # after the others
        if self._waiting != {} and now < self._ends:
            return False
        self.active = False
        return True
