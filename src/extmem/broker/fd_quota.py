"""The limits of the broker's file descriptors for each user and each client.

How this works. The broker keeps a file descriptor for each handle of each payload, two for each client, and one for
each process that a ticket is bound to. The system's limit is divided dynamically: a client may have three times as many
as are free, a user seven times as many. So one client alone gets three quarters of them, two clients get three sevenths
each, and one user gets seven eighths; some are always left for later clients. A reserve is kept for connections that
have not sent Hello, which may ask for the broker's status or end it, and for the broker's own files.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections import Counter
from pathlib import Path
from typing import Final

from extmem.objects import Refused, Status

__all__ = ["CLIENT", "FdQuota", "raise_limit"]

CLIENT: Final = 2
"""Number of file descriptors for a client: its connection and its process."""
_CLIENTS_PART: Final = 3
_USERS_PART: Final = 7
_MOST_RESERVED: Final = 512


def raise_limit() -> int:
    """Raise this process's limit of open files as far as the system permits, and return it."""
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
    """The accounts. A client is identified by the object manager's id of its process."""

    def __init__(self, limit: int, directory: object) -> None:
        """limit: of open files. directory: the runtime directory, for messages."""
        self.limit = limit
        self.reserve = min(_MOST_RESERVED, limit // 4)
        self._directory = directory
        self.used = 0
        self._users: Counter[int] = Counter()
        self._clients: Counter[int] = Counter()

    @property
    def free(self) -> int:
        """The number that is neither used nor reserved."""
        return max(0, self.limit - self.reserve - self.used)

    @property
    def client_share(self) -> int:
        """The number that a client without any may get now."""
        return self.free * _CLIENTS_PART // (_CLIENTS_PART + 1)

    @property
    def user_share(self) -> int:
        """The number that a user without any may get now."""
        return self.free * _USERS_PART // (_USERS_PART + 1)

    def take(self, user: int, client: int, count: int = 1) -> None:
        """Charge so many to both accounts. Refused QUOTA_EXCEEDED beyond their shares; nothing is changed then."""
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
        """Undo `take`. A client that has ended does not have an account any more."""
        self.used -= count
        self._users[user] -= count
        if not self._users[user]:
            del self._users[user]
        if client in self._clients:
            self._clients[client] -= count
            if not self._clients[client]:
                del self._clients[client]

    def end(self, client: int) -> None:
        """Close the account of a client that has ended. What others still hold of it stays charged to its user."""
        self._clients.pop(client, None)
