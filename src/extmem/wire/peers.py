"""Who is at the other end of a connection, by the kernel's word: the check that both ends make of every connection.

How this works. A path can lead to another socket from one moment to the next, and a runtime directory below /tmp can be
made by anybody first. So neither end trusts the path that a connection came by. The kernel keeps with each connected
Unix socket who connected it, and with the other end who listened (SO_PEERCRED): the broker serves its own user and root
alone (a system-wide one serves everybody), and a client speaks to nobody but its own user's broker or root's.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import os
import socket
import stat

from extmem.errors import UnsupportedError
from extmem.wire.runtime_dir import RuntimeDir
from extmem.wire.transport import credentials_of

__all__ = ["admits", "inheritance", "inherited_socket", "require_broker"]


def admits(uid: int, *, everybody: bool) -> bool:
    """Whether this broker serves that user."""
    return everybody or _trusted(uid)


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def require_broker(sock: socket.socket, directory: RuntimeDir) -> None:
    """Make sure that a client's connection leads to a broker that it may talk to.

    Raises UnsupportedError where the listener's user is neither this process's nor root (for the system-wide broker:
    is not root). Nothing has been sent to it then; the socket stays the caller's.
    """
    uid = credentials_of(sock).uid
    if uid == 0 or (_trusted(uid) and not directory.system):
        return
    whose = "root" if directory.system else f"you (user {os.geteuid()}) or root"
    raise UnsupportedError(
        f"the process that listens at {directory.socket} belongs to user {uid}, not to {whose}, so it is not your "
        "broker, and nothing was sent to it. Set EXTMEM_RUNTIME_DIR to a directory that only you can enter",
        requires_one_of=["EXTMEM_RUNTIME_DIR"],
    )


def inheritance(channel: socket.socket) -> str:
    """What a child finds its connection by: the descriptor's number, and the socket's inode, which tells it from any
    other socket that has the number by then.
    """
    return f"{channel.fileno()}:{os.fstat(channel.fileno()).st_ino}"


def inherited_socket(text: str) -> socket.socket | None:
    """The connection that a parent left to this process, by the text of its environment variable (`inheritance`).

    None, and nothing is changed, where the number leads to another socket or to none: the variable is stale, or came
    further than the descriptor did.
    """
    number, _, inode = text.partition(":")
    try:
        fd = int(number)
        found = os.fstat(fd)
        if not stat.S_ISSOCK(found.st_mode) or found.st_ino != int(inode):
            return None
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError):
        return None
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_SEQPACKET or not _trusted(credentials_of(sock).uid):
        sock.detach()
        return None
    return sock
