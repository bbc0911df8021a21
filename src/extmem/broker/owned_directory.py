"""The runtime directory of a running broker: its lock and its socket, and the check that both are still in place.

How this works. Cleaners of temporary files, a logout and `rm -r` remove the socket or the whole directory of a running
broker. New clients then start another broker, and one name has two owners. So the broker watches the directory.
inotify(7) reports a change at once, without a timer that wakes the processor; where inotify is not available (the
user's instances are used up), a timer checks each second. The check decides in both cases: is the lock file in the
directory the one that this broker holds, and is the socket the one that it listens at?

If not, the broker takes the directory again (`restore`): it creates the directory, takes a new lock, and binds a new
socket. If another broker holds the lock by then, the directory is lost, and the clients must connect to that broker
(`server`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
from typing import Final

from extmem import wire
from extmem.errors import PeerProtocolError, UnsupportedError
from extmem.wire import transport
from extmem.wire.peers import require_broker
from extmem.wire.runtime_dir import RuntimeDir, address_in

__all__ = ["CHECK_INTERVAL", "DirectoryLostError", "OwnedDirectory", "hand_over", "listen", "lock_of"]

CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks where inotify is not available."""
_BACKLOG: Final = 512
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
# <sys/inotify.h>
_IN_ATTRIB, _IN_MOVED_FROM, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x4, 0x40, 0x200, 0x400, 0x800
_EVENTS: Final = _IN_ATTRIB | _IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF


class DirectoryLostError(Exception):
    """Another broker has the directory."""


def lock_of(directory: RuntimeDir, opened: int) -> int:
    """Take the lock of an opened runtime directory, write this pid into its file, and return its file descriptor.

    Raises BlockingIOError while another broker has it; OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(directory.broker_lock.name, flags, 0o600, dir_fd=opened)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Clients that find the lock held and no listener report this pid.
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def listen(directory: RuntimeDir, opened: int) -> socket.socket:
    """Return a socket that listens in the directory.

    The caller holds its lock, so an existing socket has no listener.
    """
    # The socket gets its name once it listens: a client that finds the name can connect.
    beside = f".{directory.socket.name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=opened)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        listener.bind(address_in(opened, beside))
        os.chmod(beside, 0o666 if directory.system else 0o600, dir_fd=opened)
        listener.listen(_BACKLOG)
        os.rename(beside, directory.socket.name, src_dir_fd=opened, dst_dir_fd=opened)
    except BaseException:
        listener.close()
        raise
    return listener


class OwnedDirectory:
    """The runtime directory of this broker. Ownership: `close` closes the lock and the watch."""

    def __init__(self, directory: RuntimeDir, opened: int, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self._socket = self._inode(directory.socket)
        self.watch = int(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        """The inotify file descriptor to wait for; -1 where a timer is used."""
        self._watch_again(opened)

    def intact(self) -> bool:
        """Return whether the lock and the socket in the directory are this broker's."""
        held = os.fstat(self._lock)
        return (
            self._inode(self.directory.broker_lock) == (held.st_dev, held.st_ino)
            and self._inode(self.directory.socket) == self._socket
            and self._socket is not None
        )

    def drain(self) -> None:
        """Read the events of the watch."""
        if self.watch >= 0:
            try:
                while os.read(self.watch, 65_536):
                    pass
            except BlockingIOError:
                return

    def restore(self) -> socket.socket:
        """Take the directory again, and return a listening socket.

        Raises DirectoryLostError if another broker has it; OSError, UnsupportedError where it cannot be taken now.
        """
        with contextlib.closing(self.directory.prepare()) as opened:
            held = os.fstat(self._lock)
            if self._inode(self.directory.broker_lock) != (held.st_dev, held.st_ino):
                try:
                    lock = lock_of(self.directory, opened.fd)
                except BlockingIOError:
                    raise DirectoryLostError from None
                os.close(self._lock)
                self._lock = lock
            listener = listen(self.directory, opened.fd)
            self._socket = self._inode(self.directory.socket)
            self._watch_again(opened.fd)
        return listener

    def leave(self) -> None:
        """Remove the socket, if it is this broker's."""
        if self._socket is not None and self._inode(self.directory.socket) == self._socket:
            self.directory.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock and close the watch."""
        os.close(self._lock)
        if self.watch >= 0:
            os.close(self.watch)

    def _watch_again(self, opened: int) -> None:
        if self.watch >= 0 and _LIBC.inotify_add_watch(self.watch, b"/proc/self/fd/%d" % opened, _EVENTS) < 0:
            os.close(self.watch)
            self.watch = -1

    @staticmethod
    def _inode(path: os.PathLike[str]) -> tuple[int, int] | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def hand_over(directory: RuntimeDir, key: bytes) -> bool:
    """Notify the broker that has the directory now that this broker's clients will connect.

    Return whether it replied.
    """
    try:
        opened = directory.open()
        if opened is None:
            return False
        with (
            contextlib.closing(opened),
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.settimeout(1.0)
            sock.connect(address_in(opened.fd, directory.socket.name))
            require_broker(sock, directory)
            transport.send(sock, wire.encode(wire.Follow(key)))
            packet = transport.receive(sock)
            return packet is not None and type(wire.decode_reply(packet[0])) is wire.Done
    except (OSError, UnsupportedError, PeerProtocolError):
        return False
