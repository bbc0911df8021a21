"""The broker's file descriptors: those of each live payload, once, whatever the number of its users.

How this works. A payload is received as file descriptors: its handles, the last of which may be companion pages.
`fd_inspection` inspects them. The broker keeps them open while the payload has a holder. It never maps or reads one
(`timeline_marks` has the exception).

Read-only users get another open file description of the same file, opened O_RDONLY through /proc/self/fd: the kernel
then refuses a writable mapping of it, mprotect included. A memfd's file has mode 0777 when it is created, so that a
process with a read-only descriptor could open /proc/self/fd/N again for writing. `_harden` changes the file's mode to
0400, and where the broker is permitted (as root) marks the file immutable. Both affect opening alone: descriptors that
are open already, and mappings, keep working, and the broker sends its own. What is left is this: the user who owns the
file, or root with the capability CAP_LINUX_IMMUTABLE, could undo them deliberately; such a user can write to the memory
of the processes that have it anyway. A file that is sealed against writing stays as it is: nobody can write to it, and
`fd_inspection` has found its size sealed. Whoever opens it again for writing can lock bytes of it, and nothing else.

A companion page has rights of its own: every importer gets it in the mode that its exporter stated, whatever the mode
of the payload is. In the mode BY_RIGHTS, an importer gets it read-only unless it may change the payload.

A GPU's payloads have no read-only form in the kernel, nor have eventfds. They are sent as they were received, to
processes that may write to them and to processes of the user that shared them (`granting`); among these the library
enforces the rule.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from extmem.broker.fd_closer import FdCloser
from extmem.broker.fd_inspection import Given, is_writable
from extmem.broker.fd_quota import FdQuota
from extmem.sharing.kinds import Backing
from extmem.sharing.limits import FRAME_AFTER_CONTROL_PAGE
from extmem.wire import BY_RIGHTS, MAX_FDS, READ_ONLY, READ_WRITE

__all__ = ["PayloadFds"]

# <linux/fs.h>: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL. The direction bits of the two differ on some
# architectures (MIPS, PowerPC, SPARC), where the call then fails and nothing is marked.
_GET_FLAGS = 0x8000_6601 | struct.calcsize("l") << 16
_SET_FLAGS = 0x4000_6602 | struct.calcsize("l") << 16
_IMMUTABLE = 0x10
_PAGE = os.sysconf("SC_PAGESIZE")
_LONG = struct.Struct("l")
_LARGE = 1 << 22
"""Bytes from which on closing a file takes so long that a thread does it."""
_READ_ONLY_CACHE = 256
"""Number of read-only descriptors that are kept for reuse. Others are opened and closed on demand."""


class _Payload(msgspec.Struct):
    fds: list[int]
    given: Given
    uid: int
    client: int
    """The process that sent it, to whose accounts its descriptors are charged."""

    @property
    def data(self) -> int:
        """The number of descriptors that are not companion pages."""
        return len(self.fds) - len(self.given.pages)


def _harden(fd: int) -> None:
    if not is_writable(fd) and _is_sealed(fd):
        return  # no descriptor can write to it; processes open such a file again for locks of its bytes (channels)
    # Not permitted: another user's file (root's payload in a user's broker), or the flag without root. The file stays
    # as it is then.
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o400)
    with contextlib.suppress(OSError):
        _set_immutable(fd, True)


def _is_sealed(fd: int) -> bool:
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False  # a file without seals


def _soften(fd: int) -> None:
    with contextlib.suppress(OSError):
        _set_immutable(fd, False)
    os.fchmod(fd, 0o600)


def _set_immutable(fd: int, immutable: bool) -> None:
    flags = _LONG.unpack(fcntl.ioctl(fd, _GET_FLAGS, bytes(_LONG.size)))[0]
    wanted = flags | _IMMUTABLE if immutable else flags & ~_IMMUTABLE
    if wanted != flags:
        fcntl.ioctl(fd, _SET_FLAGS, _LONG.pack(wanted))


class PayloadFds:
    """Payload id → file descriptors. Ownership: what is added is closed here; what `fds_for` returns is borrowed."""

    def __init__(self, closer: FdCloser, quota: FdQuota) -> None:
        self._closer = closer
        self._quota = quota
        self._most_read_only = max(4, min(_READ_ONLY_CACHE, quota.reserve // 4))
        self._live: dict[int, _Payload] = {}
        self._read_only: OrderedDict[tuple[int, int], int] = OrderedDict()
        """Payload id and index of a descriptor → a read-only descriptor of the same file; the oldest first."""
        self._fds = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, payload: int) -> bool:
        return payload in self._live

    @property
    def fds(self) -> int:
        """The number of open descriptors."""
        return self._fds + len(self._read_only)

    def given(self, payload: int) -> Given:
        """Return what the payload's descriptors are."""
        return self._live[payload].given

    def add(self, payload: int, given: Given, fds: Sequence[int], uid: int, client: int) -> None:
        """Keep descriptors that a process of that user sent. If the payload has some already that are as good, the new
        ones are closed. The caller has charged those of a new payload to the client's accounts.
        """
        known = self._live.get(payload)
        if known is not None and (known.given.writable or not given.writable):
            self._end(fds, given, uid)
            return
        if known is not None:
            self._end(known.fds, known.given, known.uid)
            self._fds -= len(known.fds)
            uid, client = known.uid, known.client
        kept = self._live[payload] = _Payload(list(fds), given, uid, client)
        self._fds += len(fds)
        for fd in kept.fds if given.backing is Backing.HOST_FILE else kept.fds[kept.data :]:
            _harden(fd)

    def upgrade(self, payload: int, uid: int) -> None:
        """Make read-only descriptors, which were announced after a restart, writable again.

        Only where the announcing user owns the files, and so could have done the same: no user gains a right by it.
        """
        known = self._live[payload]
        if known.given.writable:
            return
        by_rights = [known.data + index for index, mode in enumerate(known.given.pages) if mode == BY_RIGHTS]
        changed = [*(range(known.data) if known.given.backing is Backing.HOST_FILE else ()), *by_rights]
        for index in changed:
            self._upgrade_one(known, index, uid)
        writable = all(is_writable(known.fds[index]) for index in changed)
        known.given = msgspec.structs.replace(known.given, writable=writable)

    @staticmethod
    def _upgrade_one(known: _Payload, index: int, uid: int) -> None:
        old = known.fds[index]
        if os.fstat(old).st_uid != uid:
            return
        try:
            _soften(old)
            try:
                fd = os.open(f"/proc/self/fd/{old}", os.O_RDWR | os.O_CLOEXEC)
            finally:
                _harden(old)
        except OSError:
            return  # another client announces a writable one, or none had the right to write
        os.close(old)
        known.fds[index] = fd

    def fds_for(self, payload: int, mode: int, first: int = 0) -> Sequence[int]:
        """Return the descriptors to send, READ_ONLY or READ_WRITE: at most `MAX_FDS`, from the handle `first` on.

        Companion pages come in the modes of their own. Borrowed until the next call.
        """
        while len(self._read_only) > self._most_read_only:
            os.close(self._read_only.popitem(last=False)[1])
        known = self._live[payload]
        return [
            self._read_only_fd((payload, index), fd) if self._reads_only(known, index, mode) else fd
            for index, fd in enumerate(known.fds[first : first + MAX_FDS], first)
        ]

    @staticmethod
    def _reads_only(known: _Payload, index: int, mode: int) -> bool:
        """Whether a handle is to be sent as a read-only copy."""
        if index >= known.data:
            stated = known.given.pages[index - known.data]
            return stated == READ_ONLY or (stated == BY_RIGHTS and mode != READ_WRITE and known.given.writable)
        return mode != READ_WRITE and known.given.backing is Backing.HOST_FILE and known.given.writable

    def _read_only_fd(self, which: tuple[int, int], writable: int) -> int:
        fd = self._read_only.get(which)
        if fd is None:
            fd = self._read_only[which] = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
        else:
            self._read_only.move_to_end(which)
        return fd

    def mode_for(self, payload: int, write: bool) -> int:
        """Return the mode in which a user with or without the right to write gets the payload."""
        given = self._live[payload].given
        if given.backing is not Backing.HOST_FILE and BY_RIGHTS not in given.pages:
            return READ_WRITE
        return READ_WRITE if write and given.writable else READ_ONLY

    def page_modes(self, payload: int, mode: int) -> tuple[int, ...]:
        """Return the mode, READ_ONLY or READ_WRITE, of each companion page for a client that gets the payload so."""
        pages = self._live[payload].given.pages
        return tuple(mode if stated == BY_RIGHTS else stated for stated in pages) if BY_RIGHTS in pages else pages

    def page(self, payload: int) -> int | None:
        """Return the fd of the page of a semaphore or fence, borrowed; None if it has none (`sharing.timeline_page`).

        It is the payload itself for a timeline of the host, else the first companion page.
        """
        known = self._live[payload]
        if known.given.pages:
            return known.fds[known.data]
        return known.fds[0] if known.given.backing is Backing.HOST_FILE else None

    def control_page(self, payload: int) -> tuple[int, int] | None:
        """Return the fd and the offset of the control page of memory, borrowed; None if it has none.

        It is a companion page with the rights of the payload, else it is in the file of a host payload.
        Errors: OSError.
        """
        known = self._live[payload]
        if BY_RIGHTS in known.given.pages:
            return known.fds[known.data + known.given.pages.index(BY_RIGHTS)], 0
        if known.given.backing is not Backing.HOST_FILE:
            return None
        fd = known.fds[0]
        at = os.fstat(fd).st_size - 2 * _PAGE
        if at < 0 or os.pread(fd, len(FRAME_AFTER_CONTROL_PAGE), at + _PAGE) != FRAME_AFTER_CONTROL_PAGE:
            return None
        return fd, at

    def control_identity(self, payload: int) -> tuple[int, int]:
        """Return what identifies the control page of memory; for memory without one, the payload. Errors: OSError."""
        found = self.control_page(payload)
        if found is None:
            return -1, payload
        status = os.fstat(found[0])
        return status.st_dev, status.st_ino

    def with_page(self, page: tuple[int, int], payload: int) -> list[int]:
        """Return this payload, whose control page is in the file `page`, and the others that have this file, too.

        Their bytes are common: they are named parts of the same memory.
        """
        others = [number for number, known in self._live.items() if page in known.given.identity and number != payload]
        return [payload, *others]

    def is_frozen(self, payload: int) -> bool:
        """Return whether memory is sealed against writing: its file, or the control page where no memory file has the
        bytes. Errors: OSError.
        """
        known = self._live[payload]
        if known.given.backing is Backing.HOST_FILE:
            files = known.fds[: known.data]
        else:
            files = [known.fds[known.data + index] for index, mode in enumerate(known.given.pages) if mode == BY_RIGHTS]
        return bool(files) and all(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE for fd in files)

    def drop(self, released: Iterable[int]) -> None:
        """Close the descriptors of payloads without a holder."""
        for payload in released:
            known = self._live.pop(payload, None)
            if known is not None:
                self._end(known.fds, known.given, known.uid)
                self._fds -= len(known.fds)
                self._quota.give(known.uid, known.client, len(known.fds))
                for index in range(len(known.fds)):
                    fd = self._read_only.pop((payload, index), None)
                    if fd is not None:
                        os.close(fd)

    def close(self) -> None:
        """Close everything."""
        self.drop(list(self._live))

    def _end(self, fds: Sequence[int], given: Given, uid: int) -> None:
        at_once = given.backing is not Backing.DRIVER_FD and given.capacity < _LARGE
        for fd in fds:
            if at_once:
                os.close(fd)
            else:
                self._closer.close(fd, uid)
