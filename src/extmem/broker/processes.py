"""The identity of processes, by pidfd and never by pid.

How this works. A pid means another process in another pid namespace, and another one once its process has ended. So a
client that names a process opens a pidfd of it, in its own namespace, and sends that. The broker keeps a pidfd of each
client's process. Two pidfds are of one process if they have the same inode. Kernels before 6.9 give all pidfds one
inode; there the pid in the broker's own /proc is compared: while the process of a pidfd has not been reaped, no other
process has its pid. A pidfd becomes readable when its process ends.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
from typing import Final, TypeAlias

from extmem.objects import Refused, Status

__all__ = ["ProcessKey", "key_of", "pidfd_of_peer", "pidfd_of_pid"]

ProcessKey: TypeAlias = tuple[int, int]
"""A value that is equal for two pidfds of one process."""

_SO_PEERPIDFD: Final = 77  # asm-generic/socket.h, Linux 6.5; Python has no name for it
_INT: Final = struct.Struct("i")


def pidfd_of_peer(sock: socket.socket, pid: int) -> int:
    """Return a pidfd of the process that connected, or -1 where none is available. The caller must close it."""
    try:
        return int(_INT.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size))[0])
    except OSError:
        return pidfd_of_pid(pid)


def pidfd_of_pid(pid: int) -> int:
    """Return a pidfd of a process of this pid namespace, or -1 where none is available. The caller must close it."""
    try:
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1


def key_of(pidfd: int) -> ProcessKey:
    """Return the identity of the process of a pidfd.

    Raises Refused: INVALID_PARAMETER for another sort of file descriptor, INVALID_CID for a process that was reaped,
    where inodes do not distinguish processes.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        _, found, rest = file.read().partition(b"\nPid:")
    if not found:
        raise Refused(
            Status.INVALID_PARAMETER,
            "The file descriptor that is to name a process is not a pidfd. Send one of pidfd_open(2).",
        )
    if _own_inodes():
        stat = os.fstat(pidfd)
        return stat.st_dev, stat.st_ino
    pid = int(rest.split(None, 1)[0])
    if pid <= 0:
        raise Refused(
            Status.INVALID_CID,
            "The process has ended, or is not in a pid namespace of the broker. Name a running process.",
        )
    return 0, pid


@functools.cache
def _own_inodes() -> bool:
    """Return whether the pidfds of each process have an inode of their own."""
    own, anonymous = os.pidfd_open(os.getpid()), os.eventfd(0)
    try:
        return os.fstat(own).st_ino != os.fstat(anonymous).st_ino
    finally:
        os.close(own)
        os.close(anonymous)
