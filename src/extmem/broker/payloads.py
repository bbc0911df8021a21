"""The broker's file descriptors: one per live payload, whatever the number of its users.

How this works. A payload comes as a descriptor, and `files` finds out what that is worth. The broker keeps it open
while the object manager says that somebody holds the payload. It never maps or reads one.

Read-only users get another open file description of the same file, opened O_RDONLY through /proc/self/fd: the kernel
then refuses a writable mapping of it, mprotect included. A memfd's file has mode 0777 when it is made, so that
anybody with a read-only descriptor could open /proc/self/fd/N again for writing. `_harden` makes the file's mode
0400, and where the broker may (as root) marks the file immutable. Both concern opening alone: descriptors that are
open already, and mappings, keep working, and the broker hands out its own. So they do no harm, and what is left is
this: the user who owns the file, or root with the capability CAP_LINUX_IMMUTABLE, would have to undo them on purpose,
and could as well write to the memory of the processes that have it.

A GPU's payloads have no read-only form in the kernel. `Backing.DRIVER_FD` is sent as it was received, to processes that
may write to it and to processes of the user that shared it (`dispatch`); among these the library enforces the rule.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import fcntl
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from extmem.broker.closing import Closer
from extmem.broker.files import Given, is_writable
from extmem.broker.shares import Shares
from extmem.wire import READ_ONLY, READ_WRITE, Backing

__all__ = ["Payloads"]

# <linux/fs.h>: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL. The direction bits of the two differ on some
# architectures (MIPS, PowerPC, SPARC), where the call then fails and nothing is marked.
_GET_FLAGS = 0x8000_6601 | struct.calcsize("l") << 16
_SET_FLAGS = 0x4000_6602 | struct.calcsize("l") << 16
_IMMUTABLE = 0x10
_LONG = struct.Struct("l")
_LARGE = 1 << 22
"""Bytes whose pages take so long to give back that a thread does it."""
_READ_ONLY_CACHE = 256
"""Read-only descriptors kept for reuse; more are opened and closed as asked for."""


@dataclass(slots=True)
class _Payload:
    fd: int
    given: Given
    uid: int
    client: int
    """Whose process it came from: whose accounts it is on."""


def _harden(fd: int) -> None:
    # Not permitted: another user's file (root's payload in a user's broker), or no root for the flag. It stays as it
    # is.
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o400)
    with contextlib.suppress(OSError):
        _set_immutable(fd, True)


def _soften(fd: int) -> None:
    with contextlib.suppress(OSError):
        _set_immutable(fd, False)
    os.fchmod(fd, 0o600)


def _set_immutable(fd: int, immutable: bool) -> None:
    flags = _LONG.unpack(fcntl.ioctl(fd, _GET_FLAGS, bytes(_LONG.size)))[0]
    wanted = flags | _IMMUTABLE if immutable else flags & ~_IMMUTABLE
    if wanted != flags:
        fcntl.ioctl(fd, _SET_FLAGS, _LONG.pack(wanted))


class Payloads:
    """Payload id → descriptor. Ownership: what is added is closed here; what `fd_for` returns is borrowed."""

    def __init__(self, closer: Closer, shares: Shares) -> None:
        self._closer = closer
        self._shares = shares
        self._most_read_only = max(4, min(_READ_ONLY_CACHE, shares.reserve // 4))
        self._live: dict[int, _Payload] = {}
        self._read_only: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, payload: int) -> bool:
        return payload in self._live

    @property
    def fds(self) -> int:
        """Open descriptors."""
        return len(self._live) + len(self._read_only)

    def given(self, payload: int) -> Given:
        """What the payload's descriptor is worth."""
        return self._live[payload].given

    def add(self, payload: int, given: Given, fd: int, uid: int, client: int) -> None:
        """Keep a descriptor that a process of that user gave. One that is here already, and as good, wins: the new one
        is closed. The caller has put a new payload's on the client's accounts.
        """
        known = self._live.get(payload)
        if known is not None and (known.given.writable or not given.writable):
            self._end(fd, given, uid)
            return
        if known is not None:
            self._end(known.fd, known.given, known.uid)
            uid, client = known.uid, known.client
        self._live[payload] = _Payload(fd, given, uid, client)
        if given.backing is Backing.HOST_FILE:
            _harden(fd)

    def upgrade(self, payload: int, uid: int) -> None:
        """Make a read-only descriptor, announced after a restart, writable again.

        Only where the announcing user owns the file, and so could have done the same: nobody gains a right by it.
        """
        known = self._live[payload]
        if known.given.backing is not Backing.HOST_FILE or known.given.writable or os.fstat(known.fd).st_uid != uid:
            return
        try:
            _soften(known.fd)
            try:
                fd = os.open(f"/proc/self/fd/{known.fd}", os.O_RDWR | os.O_CLOEXEC)
            finally:
                _harden(known.fd)
        except OSError:
            return  # somebody else announces a writable one, or nobody had the right to write
        os.close(known.fd)
        known.fd, known.given = fd, known.given._replace(writable=is_writable(fd))

    def fd_for(self, payload: int, mode: int) -> int:
        """A descriptor to send, READ_ONLY or READ_WRITE. Borrowed until the next call."""
        known = self._live[payload]
        if mode == READ_WRITE or known.given.backing is not Backing.HOST_FILE or not known.given.writable:
            return known.fd
        fd = self._read_only.get(payload)
        if fd is None:
            fd = os.open(f"/proc/self/fd/{known.fd}", os.O_RDONLY | os.O_CLOEXEC)
            self._read_only[payload] = fd
            if len(self._read_only) > self._most_read_only:
                os.close(self._read_only.popitem(last=False)[1])
        else:
            self._read_only.move_to_end(payload)
        return fd

    def mode_for(self, payload: int, write: bool) -> int:
        """How a user with or without the right to write gets the payload."""
        given = self._live[payload].given
        if given.backing is not Backing.HOST_FILE:
            return READ_WRITE
        return READ_WRITE if write and given.writable else READ_ONLY

    def drop(self, released: Iterable[int]) -> None:
        """Close what nobody holds any more."""
        for payload in released:
            known = self._live.pop(payload, None)
            if known is not None:
                self._end(known.fd, known.given, known.uid)
                self._shares.give(known.uid, known.client)
            fd = self._read_only.pop(payload, None)
            if fd is not None:
                os.close(fd)

    def close(self) -> None:
        """Close everything."""
        self.drop(list(self._live))

    def _end(self, fd: int, given: Given, uid: int) -> None:
        if given.backing is Backing.HOST_FILE and given.capacity < _LARGE:
            os.close(fd)
        else:
            self._closer.close(fd, uid)
