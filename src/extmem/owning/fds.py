"""Descriptors of 3 and more: what this library opens never takes the place of stdin, stdout or stderr.

A process that was started with one of those closed (a daemon, a cron job, `2>&-`) gets the numbers 0, 1 and 2 for the
next files that it opens, and whatever prints or logs writes there. A payload with such a number would be overwritten.

`OwnedFd` sees to that by itself; these functions are for sockets and pipes.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("these are descriptors of Linux; Windows does not number files in this way")

import fcntl
import os
import socket
from itertools import starmap

from extmem.owning._system import FIRST
from extmem.owning.fd import OwnedFd

__all__ = ["pipe", "raised_socket"]


def pipe(flags: int) -> tuple[OwnedFd, OwnedFd]:
    """os.pipe2, both ends owned, and 3 or greater: for reading, for writing. Errors: OSError."""
    made: list[tuple[int, int]] = []
    ends = OwnedFd(), OwnedFd()
    try:
        made.extend(starmap(os.pipe2, ((flags,),)))  # one call: no signal handler runs before it is noted
        for one, fd in zip(ends, made[0], strict=True):
            one.own(fd)
    except BaseException:
        for pair in made:
            for one, fd in zip(ends, pair, strict=True):
                if not one.owes:
                    os.close(fd)
        raise
    receiving, sending = ends
    return receiving.raised(), sending.raised()


def raised_socket(made: socket.socket) -> socket.socket:
    """A socket that was just made, under a number of 3 or more. The argument is closed where that is another one."""
    if made.fileno() >= FIRST:
        return made
    with made:
        return socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST))
