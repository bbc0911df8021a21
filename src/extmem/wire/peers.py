"""The check that both ends make of every connection: which user is at the other end, as the kernel reports it.

How this works. A path can become another socket's from one moment to the next, and any user can create a runtime
directory below /tmp first. So neither end trusts the path of a connection. The kernel keeps with each connected Unix
socket the process that connected it, and with the other end the one that listened (SO_PEERCRED): the broker serves its
own user and root alone (a system-wide one serves every user), and a client uses its own user's broker or root's alone.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("the broker and its sockets exist on Linux only; extmem.manager selects what the system has")

import os
import socket
import stat

from extmem.errors import PeerProtocolError, UnsupportedError
from extmem.wire.limits import PROTOCOL_VERSION
from extmem.wire.runtime_dir import RuntimeDir
from extmem.wire.transport import credentials_of

_UNSTATED_VERSION = 2
"""The last version whose `inheritance` does not contain it."""

__all__ = ["admits", "inheritance", "inherited_socket", "require_broker"]


def admits(uid: int, *, everybody: bool) -> bool:
    """Whether this broker serves that user."""
    return everybody or _trusted(uid)


def _trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


def require_broker(sock: socket.socket, directory: RuntimeDir) -> None:
    """Check that a client's connection is to a broker that it may use.

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
    """Return the text by which a child finds its connection.

    It has the number of the descriptor, the inode of the socket, which distinguishes it from any other socket that has
    the number by then, and the version of the wire format.
    """
    return f"{channel.fileno()}:{os.fstat(channel.fileno()).st_ino}:{PROTOCOL_VERSION}"


def inherited_socket(text: str) -> socket.socket | None:
    """Return the connection that a parent left to this process, by the text of `inheritance` in its environment.

    Return None, and change nothing, where the number is another socket's or is not open: the variable is stale, or was
    inherited further than the descriptor. Raises PeerProtocolError for a connection of another version of extmem.
    """
    number, _, rest = text.partition(":")
    inode, _, version = rest.partition(":")
    version = version or str(_UNSTATED_VERSION)
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
    if version != str(PROTOCOL_VERSION):
        sock.close()
        raise PeerProtocolError(
            f"the connection that this process inherited is of version {version} of the wire format, and this process "
            f"uses version {PROTOCOL_VERSION}: its parent has another version of extmem. Use the same version of "
            "extmem in both processes"
        )
    return sock
