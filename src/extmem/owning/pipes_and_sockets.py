"""Pipes and sockets whose file descriptors are 3 or greater, so that they never replace stdin, stdout or stderr.

A process that was started with one of those closed (a daemon, a cron job, `2>&-`) gets the numbers 0, 1 and 2 for the
next files that it opens, and code that prints or logs writes to them. A payload with such a number would be
overwritten.

`OwnedFd` ensures this for other files.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("these are file descriptors of Linux; Windows does not number files in this way")

import fcntl
import os
import socket
from itertools import starmap

from extmem.owning._system import FIRST
from extmem.owning.fd import OwnedFd

__all__ = ["pipe", "socket_above_standard_streams"]


def pipe(flags: int) -> tuple[OwnedFd, OwnedFd]:
    """Return the reading and the writing end of a new pipe, both 3 or greater: os.pipe2. Errors: OSError."""
    created: list[tuple[int, int]] = []
    ends = OwnedFd(), OwnedFd()
    try:
        created.extend(starmap(os.pipe2, ((flags,),)))  # one call: no signal handler runs before the fds are recorded
        for one, fd in zip(ends, created[0], strict=True):
            one.own(fd)
    except BaseException:
        for pair in created:
            for one, fd in zip(ends, pair, strict=True):
                if not one.owes:
                    os.close(fd)
        raise
    receiving, sending = ends
    return receiving.above_standard_streams(), sending.above_standard_streams()


def socket_above_standard_streams(sock: socket.socket) -> socket.socket:
    """Return the socket if its fd is 3 or greater. Else close it, and return a copy whose fd is."""
    if sock.fileno() >= FIRST:
        return sock
    with sock:
        return socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, FIRST))
