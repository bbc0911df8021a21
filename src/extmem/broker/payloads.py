"""The broker's file descriptors: one per live payload, whatever the number of its users.

How this works. A payload comes as a descriptor of some kind; `INSPECTORS` says what a descriptor of that kind must be
and what tells two payloads apart. The broker keeps it open while the object manager says that somebody holds the
payload. It never maps or reads one.

Read-only users get another open file description of the same file, opened O_RDONLY through /proc/self/fd: the kernel
then refuses a writable mapping of it, mprotect included. A memfd's file has mode 0777 when it is made, so that
anybody with a read-only descriptor could open /proc/self/fd/N again for writing. `_harden` makes the file's mode
0400, and where the broker may (as root) marks the file immutable. Both concern opening alone: descriptors that are
open already, and mappings, keep working, and the broker hands out its own. So they do no harm, and what is left is
this: the user who owns the file, or root with the capability CAP_LINUX_IMMUTABLE, would have to undo them on purpose,
and could as well write to the memory of the processes that have it.

GPU payloads have no read-only form in the kernel: `Kind.OPAQUE` goes out as it came in, and the library keeps the rule.
"""

from __future__ import annotations

import sys

if sys.platform != "linux":
    raise ImportError("this is the broker's, which is Linux's; extmem.manager picks what the system has")

import contextlib
import fcntl
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from extmem.broker.wire import READ_ONLY, READ_WRITE, Kind
from extmem.objects import Refused, Status

__all__ = ["Identity", "Payloads", "inspect", "is_writable"]

Identity = tuple[int, int]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_WRITE_SEALS = fcntl.F_SEAL_WRITE | 0x10  # linux/fcntl.h: F_SEAL_FUTURE_WRITE
# <linux/fs.h>: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL. The direction bits of the two differ on some
# architectures (MIPS, PowerPC, SPARC), where the call then fails and nothing is marked.
_GET_FLAGS = 0x8000_6601 | struct.calcsize("l") << 16
_SET_FLAGS = 0x4000_6602 | struct.calcsize("l") << 16
_IMMUTABLE = 0x10
_LONG = struct.Struct("l")
_READ_ONLY_CACHE = 256
"""Read-only descriptors kept for reuse; more are opened and closed as asked for."""


@dataclass(slots=True)
class _Payload:
    fd: int
    kind: Kind
    writable: bool
    capacity: int


def _inspect_host(fd: int, stated: int, uid: int) -> Identity:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise Refused(Status.INVALID_PARAMETER, f"The payload's fd is {_what(found.st_mode)}, no memfd. {_DO}")
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise Refused(
            Status.INVALID_PARAMETER, f"The payload's fd is a file on disk ({error.strerror}), no memfd. {_DO}"
        ) from None
    if seals & _SEALS != _SEALS:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"The payload's memfd has seals {seals:#x}; without F_SEAL_SHRINK and F_SEAL_GROW ({_SEALS:#x}) its users "
            f"could be cut off from under their feet. {_DO}",
        )
    if found.st_size <= 0:
        raise Refused(Status.INVALID_PARAMETER, f"The payload's memfd has {found.st_size} bytes. {_DO}")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        raise Refused(Status.INVALID_PARAMETER, f"The payload's fd cannot be read. {_DO}")
    return found.st_dev, found.st_ino


_DO = "Export what memfd_create made, at its full size and sealed."


def _inspect_opaque(fd: int, stated: int, uid: int) -> Identity:
    found = os.fstat(fd)
    if stat.S_ISDIR(found.st_mode) or stat.S_ISSOCK(found.st_mode) or stat.S_ISFIFO(found.st_mode):
        raise Refused(
            Status.INVALID_PARAMETER, f"The payload's fd is {_what(found.st_mode)}; export what the driver gave."
        )
    if stated:
        # Anonymous inodes are all one inode: the exporter tells its payloads apart. Only among its own user's, lest one
        # user's payload be taken for another's.
        return -1 - uid, stated
    return found.st_dev, found.st_ino


INSPECTORS: dict[Kind, Callable[[int, int, int], Identity]] = {
    Kind.HOST: _inspect_host,
    Kind.OPAQUE: _inspect_opaque,
}


def _what(mode: int) -> str:
    words = {
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a block device",
        stat.S_IFREG: "a file",
    }
    return words.get(stat.S_IFMT(mode), "an anonymous kernel object")


def inspect(kind: int, fd: int, stated: int, uid: int) -> tuple[Kind, Identity]:
    """What the descriptor is, and its identity.

    Raises Refused INVALID_PARAMETER if it cannot be a payload of that kind.
    """
    try:
        known = Kind(kind)
    except ValueError:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"Payload kind {kind} is unknown to this broker ({', '.join(f'{k} {k.name}' for k in Kind)}). Stop the "
            "broker "
            "(`extmem broker stop`) so that the newer version starts.",
        ) from None
    return known, INSPECTORS[known](fd, stated, uid)


def is_writable(kind: Kind, fd: int) -> bool:
    """Whether who has this descriptor can write to the payload.

    What the kernel says of a memfd, its seals included; always for a driver's.
    """
    if kind is not Kind.HOST:
        return True
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        return False
    try:
        return not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _WRITE_SEALS
    except OSError:
        return True  # not a memfd, which `inspect` refuses


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

    def __init__(self) -> None:
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

    def kind(self, payload: int) -> Kind:
        """What the payload's descriptor is."""
        return self._live[payload].kind

    def capacity(self, payload: int) -> int:
        """Bytes of a host payload's file; 0 for a driver's, which does not say."""
        return self._live[payload].capacity

    def writable(self, payload: int) -> bool:
        """Whether the descriptor here can be written through; only after a restart it may be not."""
        return self._live[payload].writable

    def add(self, payload: int, kind: Kind, fd: int) -> None:
        """Keep a descriptor. One that is here already, and as good, wins: the new one is closed."""
        writable = is_writable(kind, fd)
        known = self._live.get(payload)
        if known is not None and (known.writable or not writable):
            os.close(fd)
            return
        if known is not None:
            os.close(known.fd)
        self._live[payload] = _Payload(fd, kind, writable, os.fstat(fd).st_size if kind is Kind.HOST else 0)
        if kind is Kind.HOST:
            _harden(fd)

    def upgrade(self, payload: int, uid: int) -> None:
        """Make a read-only descriptor, announced after a restart, writable again.

        Only where the announcing user owns the file, and so could have done the same: nobody gains a right by it.
        """
        known = self._live[payload]
        if known.writable or os.fstat(known.fd).st_uid != uid:
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
        known.fd, known.writable = fd, is_writable(known.kind, fd)

    def fd_for(self, payload: int, mode: int) -> int:
        """A descriptor to send, READ_ONLY or READ_WRITE. Borrowed until the next call."""
        known = self._live[payload]
        if mode == READ_WRITE or known.kind is not Kind.HOST or not known.writable:
            return known.fd
        fd = self._read_only.get(payload)
        if fd is None:
            fd = os.open(f"/proc/self/fd/{known.fd}", os.O_RDONLY | os.O_CLOEXEC)
            self._read_only[payload] = fd
            if len(self._read_only) > _READ_ONLY_CACHE:
                os.close(self._read_only.popitem(last=False)[1])
        else:
            self._read_only.move_to_end(payload)
        return fd

    def mode_for(self, payload: int, write: bool) -> int:
        """How a user with or without the right to write gets the payload."""
        known = self._live[payload]
        if known.kind is not Kind.HOST:
            return READ_WRITE
        return READ_WRITE if write and known.writable else READ_ONLY

    def drop(self, released: Iterable[int]) -> None:
        """Close what nobody holds any more."""
        for payload in released:
            known = self._live.pop(payload, None)
            if known is not None:
                os.close(known.fd)
            fd = self._read_only.pop(payload, None)
            if fd is not None:
                os.close(fd)

    def close(self) -> None:
        """Close everything."""
        self.drop(list(self._live))
