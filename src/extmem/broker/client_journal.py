"""The journal: which clients a broker has, for the broker that follows it if it is killed; and the recovery window.

How this works. The file has a line for each client that comes and for each that goes, as pid and start time (a pid
alone may be another process by now), so that what is written for one client does not depend on how many there are. It
is written anew when most of its lines are of clients that have gone, and removed when a broker leaves with no client
left. A broker that finds one at its start follows a killed one: the clients that are left in it are about to announce
what they hold. Until all that still live have done so, and for at most `WINDOW` seconds, nobody's export is carried out
and nobody is told that a name or number leads nowhere (`RecoveryWindow`), so that no name is stolen and none seems
gone. A broker keeps its predecessor's lines until then: it may be killed itself before they have come.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import functools
import os
from collections import Counter
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

__all__ = ["WINDOW", "Client", "RecoveryWindow", "Journal", "start_time"]

WINDOW: Final = 2.0
"""Seconds that a broker waits for the clients of a killed predecessor."""
_MAX_JOURNAL: Final = 1 << 20
_SPARE_LINES: Final = 64
_LOOKS: Final = 200
"""Processes that are looked for in one step."""


class Client(msgspec.Struct, frozen=True):
    """A process, told apart from a later one with the same pid, and from one of another pid namespace."""

    pid: int
    start: int
    space: int

    @classmethod
    def of(cls, pid: int) -> Client:
        """The process that has this pid now; pid 0 is one that this pid namespace does not show."""
        return cls(pid, start_time(pid), _pid_namespace())

    @property
    def gone(self) -> bool:
        """Whether it is known to have ended."""
        return self.pid > 0 and self.space == _pid_namespace() and start_time(self.pid) != self.start


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


@functools.cache
def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


_Line: TypeAlias = tuple[bool, int, int, int]
"""Whether the client has come; its pid, its start time, its pid namespace."""


class Journal:
    """The file. Writing is best effort: with a full disk a restart is merely less patient."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clients: dict[int, Client] = {}
        self._lines = 0
        self._fd = -1
        self._keeps = False
        """Whether the file may have a predecessor's lines that are still needed."""

    def read(self) -> frozenset[Client] | None:
        """The clients that a killed broker left behind; None where nothing can be read."""
        left: Counter[Client] = Counter()
        try:
            with open(self._path, "rb") as file:
                lines = file.read(_MAX_JOURNAL).split(b"\n")
        except OSError:
            return None
        for line in lines[:-1]:  # behind the last newline is nothing, or what could not be written whole
            try:
                come, *client = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError:
                return None
            left[Client(*client)] += 1 if come else -1
        return frozenset(client for client, count in left.items() if count > 0)

    def begin(self) -> None:
        """Go on with the file as it is, behind what a predecessor has left in it."""
        self._keeps = True
        self._open()

    def add(self, key: int, pid: int) -> None:
        """A client has come. `key` is its connection's."""
        client = self._clients[key] = Client.of(pid)
        self._write(_line(client, come=True))

    def remove(self, key: int) -> None:
        """A client has gone."""
        client = self._clients.pop(key, None)
        if client is not None:
            self._write(_line(client, come=False))
            if not self._keeps and self._lines > _SPARE_LINES + 4 * len(self._clients):
                self.rewrite()

    def rewrite(self) -> None:
        """Write the file anew, with the clients that are here now and no others."""
        self._keeps = False
        beside = self._path.with_name(f".{self._path.name}.new")
        lines = [msgspec.json.encode(_line(client, come=True)) for client in self._clients.values()]
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, b"".join(line + b"\n" for line in lines))
            finally:
                os.close(fd)
            os.replace(beside, self._path)
        except OSError:
            return
        self._lines = len(lines)
        self._open()

    def close(self) -> None:
        """The broker leaves: with clients left the file stays, for the next one."""
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
        """clients: those of the killed broker; None where it is not known who they were, then the time is all used."""
        self._waiting = None if clients is None else {client.pid: client for client in clients}
        self._ends = now + WINDOW
        self.active = clients is None or bool(clients)

    def announced(self, pid: int) -> None:
        """That client has announced everything."""
        if self._waiting is not None:
            self._waiting.pop(pid, None)

    def step(self, now: float) -> bool:
        """Whether the window has just closed: all live clients have announced, or the time is over."""
        if not self.active:
            return False
        if self._waiting is not None:
            # A few at a time: it is asked again in a moment.
            for pid, client in list(self._waiting.items())[:_LOOKS]:
                del self._waiting[pid]
                if not client.gone:
                    self._waiting[pid] = client  # behind the others
        if self._waiting != {} and now < self._ends:
            return False
        self.active = False
        return True
