"""Who may have how many of the broker's descriptors: what there is, divided by user and by client.

How this works. The broker keeps a descriptor for each payload, two for each client, and one for each process that a
reference in flight is for. The system's limit is divided as it is used: a client may have three times as many as are
free, a user seven times as many. So one client alone gets three quarters of them, two get three sevenths each, one
user seven eighths; and whoever comes later finds some. A reserve is kept for those who have not said Hello, of whom one
may want to know how the broker is, or end it, and for the broker's own.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import os
import resource
from collections import Counter
from pathlib import Path
from typing import Final

from extmem.objects import Refused, Status

__all__ = ["CLIENT", "FdQuota", "raise_limit"]

CLIENT: Final = 2
"""Descriptors of a client: its connection, and its process."""
_CLIENTS_PART: Final = 3
_USERS_PART: Final = 7
_MOST_RESERVED: Final = 512


def raise_limit() -> int:
    """Have as many descriptors as the system lets this process have: that many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        most = int(Path("/proc/sys/fs/nr_open").read_bytes())
        if os.geteuid() == 0 and hard < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return most
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard
    return soft


class FdQuota:
    """The accounts. A client is known by the object manager's id of its process."""

    def __init__(self, limit: int, place: object) -> None:
        """limit: of open files. place: the runtime directory, for messages."""
        self.limit = limit
        self.reserve = min(_MOST_RESERVED, limit // 4)
        self._directory = place
        self.used = 0
        self._users: Counter[int] = Counter()
        self._clients: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """What is neither used nor reserved."""
        return max(0, self.limit - self.reserve - self.used)

    @property
    def client_share(self) -> int:
        """How many a client that has none may get now."""
        return self.free * _CLIENTS_PART // (_CLIENTS_PART + 1)

    @property
    def user_share(self) -> int:
        """How many a user that has none may get now."""
        return self.free * _USERS_PART // (_USERS_PART + 1)

    def take(self, user: int, client: int, count: int = 1) -> None:
        """Put so many on their accounts. Refused QUOTA_EXCEEDED if they have their share; nothing is changed then."""
        free = self.free - count
        client_has, user_has = self._clients[client] + count, self._users[user] + count
        if free < 0 or client_has > _CLIENTS_PART * free or user_has > _USERS_PART * free:
            if client_has > _CLIENTS_PART * free:
                whose = f"this process has {client_has - count} of them"
            else:
                whose = f"user {user} has {user_has - count} of them"
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"The broker in {self._directory} may have {self.limit} files open, of which {self.used} are in use "
                f"and {self.reserve} are kept in reserve; {whose}, which is its share now. Free shared memory, or "
                "raise the limit (ulimit -n) where the broker is started.",
            )
        self.used += count
        self._users[user] += count
        self._clients[client] += count

    def give(self, user: int, client: int, count: int = 1) -> None:
        """Take them off again. A client that has ended has no account any more."""
        self.used -= count
        self._users[user] -= count
        if not self._users[user]:
            del self._users[user]
        if client in self._clients:
            self._clients[client] -= count
            if not self._clients[client]:
                del self._clients[client]

    def end(self, client: int) -> None:
        """The client has ended. What it leaves to others is its user's from now on."""
        self._clients.pop(client, None)

    def of_user(self, user: int) -> int:
        """How many the user has."""
        return self._users[user]
