"""The runtime directory as the broker has it: its lock, its socket, and whether both are still where they belong.

How this works. Cleaners of temporary files, a logout and `rm -r` take the socket or the whole directory away from a
living broker; newcomers then start another one, and one name has two owners. So the broker watches. inotify(7) says so
at once, without waking the processor again and again as a timer would; where there is none to be had (the user's
instances are used up), a timer looks each second. What counts is always the look: is the lock file that is there the
one that we hold, and the socket ours?

If not, the broker takes the place again (`restore`): it makes the directory, takes a new lock, and binds a new socket.
If another broker holds the lock by then, the place is lost, and the clients must go there (`server`).
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

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

__all__ = ["CHECK_INTERVAL", "DirectoryLostError", "OwnedDirectory", "hand_over", "holder", "listen", "lock_of"]

CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks where inotify is not to be had."""
_BACKLOG: Final = 512
# <sys/inotify.h>
_IN_ATTRIB, _IN_MOVED_FROM, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x4, 0x40, 0x200, 0x400, 0x800
_EVENTS: Final = _IN_ATTRIB | _IN_MOVED_FROM | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class DirectoryLostError(Exception):
    """Another broker has the place."""


def lock_of(directory: RuntimeDir, opened: int) -> int:
    """The lock of an opened runtime directory, taken, with our pid in it.

    Raises BlockingIOError while another broker has it; OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(directory.broker_lock.name, flags, 0o600, dir_fd=opened)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Clients that find the lock held and nobody listening name the process.
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def holder(directory: RuntimeDir, opened: int) -> str:
    """The pid of the broker that has the lock, as its file says."""
    try:
        fd = os.open(directory.broker_lock.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=opened)
    except OSError:
        return "unknown"
    try:
        return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        os.close(fd)


def listen(directory: RuntimeDir, opened: int) -> socket.socket:
    """A socket that listens in the directory, whose lock is ours: nobody listens at one that is there."""
    # Ours gets its name when it listens: who finds it can connect.
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
    """A runtime directory that this broker has. Ownership: the lock and the watch are closed by `close`."""

    def __init__(self, directory: RuntimeDir, opened: int, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self._socket = self._inode(directory.socket)
        self.watch = _inotify()
        """To be waited for; -1 where there is only a timer."""
        self._watch_again(opened)

    def intact(self) -> bool:
        """Whether lock and socket are where they belong, and ours."""
        held = os.fstat(self._lock)
        return (
            self._inode(self.directory.broker_lock) == (held.st_dev, held.st_ino)
            and self._inode(self.directory.socket) == self._socket
            and self._socket is not None
        )

    def drain(self) -> None:
        """Take in what the watch has to say: that something has changed."""
        if self.watch >= 0:
            try:
                while os.read(self.watch, 65_536):
                    pass
            except BlockingIOError:
                return

    def restore(self) -> socket.socket:
        """Take the place again: a listening socket. LostError if another broker has it; OSError, UnsupportedError where
        it cannot be taken now.
        """
        opened = self.directory.prepare()
        try:
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
        finally:
            opened.close()
        return listener

    def leave(self) -> None:
        """Remove the socket, if it is ours."""
        if self._socket is not None and self._inode(self.directory.socket) == self._socket:
            self.directory.socket.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the place."""
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
    """Tell the broker that has the place by now that our clients are about to come. Whether it has heard."""
    try:
        opened = directory.open()
        if opened is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.connect(address_in(opened.fd, directory.socket.name))
                require_broker(sock, directory)
                transport.send(sock, wire.encode(wire.Follow(key)))
                packet = transport.receive(sock)
                return packet is not None and type(wire.decode_reply(packet[0])) is wire.Done
        finally:
            opened.close()
    except (OSError, UnsupportedError, PeerProtocolError):
        return False


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _inotify() -> int:
    return int(_LIBC.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
