"""Which process is meant: by a descriptor of it (pidfd), never by a number.

How this works. A pid means another process in another pid namespace, and another one once its process has ended. So a
client that names a process opens a pidfd of it, in its own namespace, and sends that. The broker keeps a pidfd of each
client's process. Two of them are of one process if they have one inode; kernels before 6.9 give all of them the same
one, and then the pid tells, as our own /proc shows it: while a pidfd's process has not been reaped, nobody else has its
pid. A pidfd becomes readable when its process ends.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import functools
import os
import socket
import struct
from typing import Final, TypeAlias

from extmem.objects import Refused, Status

__all__ = ["ProcessKey", "key_of", "pidfd_of_peer", "pidfd_of_pid"]

ProcessKey: TypeAlias = tuple[int, int]
"""What two pidfds of one process have in common."""

_SO_PEERPIDFD: Final = 77  # asm-generic/socket.h, Linux 6.5; Python has no name for it
_INT: Final = struct.Struct("i")


def pidfd_of_peer(sock: socket.socket, pid: int) -> int:
    """A pidfd of the process that connected, -1 where there is none to be had. Closing it is the caller's duty."""
    try:
        return int(_INT.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size))[0])
    except OSError:
        return pidfd_of_pid(pid)


def pidfd_of_pid(pid: int) -> int:
    """A pidfd of a process of this pid namespace; -1 where there is none to be had."""
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1


def key_of(pidfd: int) -> ProcessKey:
    """Which process a pidfd is of. Refused INVALID_PARAMETER for another descriptor, INVALID_CID for one of a process
    that was reaped, where no inode tells.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        _, found, rest = file.read().partition(b"\nPid:")
    if not found:
        raise Refused(
            Status.INVALID_PARAMETER,
            "The descriptor that is to name a process is not a pidfd. Send one of pidfd_open(2).",
        )
    if _own_inodes():
        stat = os.fstat(pidfd)
        return stat.st_dev, stat.st_ino
    pid = int(rest.split(None, 1)[0])
    if pid <= 0:
        raise Refused(Status.INVALID_CID, "The process has ended, or is in no pid namespace of the broker's.")
    return 0, pid


@functools.cache
def _own_inodes() -> bool:
    """Whether each process has an inode of its own, or all share that of every anonymous file."""
    own, anonymous = os.pidfd_open(os.getpid()), os.eventfd(0)
    try:
        return os.fstat(own).st_ino != os.fstat(anonymous).st_ino
    finally:
        os.close(own)
        os.close(anonymous)
