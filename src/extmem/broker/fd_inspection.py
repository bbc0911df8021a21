"""Inspects file descriptors from other processes without blocking, and decides which may be a payload.

How this works. For a file of a file system that a program serves (FUSE), fstat(2), fstatfs(2) and close(2) return when
that program answers, and the broker has one loop. So these calls are made only for files that the kernel itself serves.
Three properties can be read without the file system's participation: the mount of the file and the other fields of
/proc/self/fdinfo, and the sort of a file without a path (/proc/self/fd: the names of such files do not begin with a
slash; other names prove nothing). A memory file is on the kernel's internal tmpfs, whose mount has no path: its mount
id is compared with that of a memory file of the broker. (A memory file of huge pages is on another mount. It is not
accepted, because its pages can be removed while it is mapped.) A device node is accepted on a mount of type devtmpfs or
tmpfs, in the list of mounts of this process or of the sender.

`ALLOWED` lists for each backing which sorts of file are accepted.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import stat
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec

from extmem.objects import Identity, Refused, Status
from extmem.sharing.kinds import Backing
from extmem.wire import BY_RIGHTS, READ_ONLY, READ_WRITE

__all__ = ["ALLOWED", "Given", "Sort", "inspect", "inspect_one", "is_writable", "look"]


class Sort(Enum):
    """The sort of file of a file descriptor, in words for messages."""

    MEMFD = "a memory file"
    DMA_BUF = "a dma-buf"
    ANONYMOUS = "a driver's own file"
    DEVICE = "a device"
    PROCESS = "a pidfd"
    EVENT = "an eventfd"
    PIPE = "a pipe"
    STRANGE = "a file that cannot be a payload"


ALLOWED: Final[Mapping[Backing, frozenset[Sort]]] = {
    Backing.HOST_FILE: frozenset({Sort.MEMFD}),
    Backing.DRIVER_FD: frozenset({Sort.MEMFD, Sort.DMA_BUF, Sort.ANONYMOUS, Sort.DEVICE}),
    Backing.HOST_EVENT: frozenset({Sort.EVENT}),
}
"""The sorts of file that are accepted for each backing."""

_UNIQUE: Final = frozenset({Sort.MEMFD, Sort.DMA_BUF})
"""Files with an inode of their own, which distinguishes two payloads."""
_EVENT: Final = "[eventfd]"
_SYSTEM: Final = (
    "[eventpoll", "inotify", "[pidfd", "[timerfd", "[signalfd", "[userfaultfd", "[io_uring", "[perf_event",
    "[fanotify", "bpf", "[bpf", "[fuse", "kvm", "[fscontext", "[mount", "[secretmem",
)  # fmt: skip
"""Prefixes of the names of anonymous files that the kernel itself creates and that are not memory."""
_DEVICES: Final = (b"devtmpfs", b"tmpfs")
"""Types of file systems with device nodes that the kernel itself serves."""
_INFO: Final = 1 << 12
"""Bytes of the information about a file that are read, in one call. What is looked for is at its beginning."""
_MOUNTS: Final = 1 << 18
"""Bytes of a list of mounts that are read."""
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_F_SEAL_FUTURE_WRITE: Final = 0x10  # <linux/fcntl.h>; Python has no name for it before 3.13
_WRITE_SEALS: Final = fcntl.F_SEAL_WRITE | _F_SEAL_FUTURE_WRITE
_EVENTS: Final = -1 << 34
"""The first number of an eventfd's identity. The second is `eventfd-id`, which is equal for all its duplicates."""
_unstated = itertools.count(1)


class Given(msgspec.Struct, frozen=True):
    """The result of inspecting the file descriptors of a payload."""

    backing: Backing
    identity: Identity
    """A pair of numbers for each descriptor: `st_dev` and `st_ino` where the file has an inode of its own."""
    writable: bool
    """Whether the payload can be written through all of them, and its companion pages of the mode BY_RIGHTS too."""
    capacity: int
    """Bytes of a host payload's files, companion pages aside; 0 for a driver's, whose size is not known."""
    unique: bool
    """Whether every file has an inode (or an eventfd an id) of its own, so that the kernel distinguishes them from
    others."""
    pages: tuple[int, ...] = ()
    """For each companion page, which are the last descriptors, the mode in which importers get it."""


class _Found(msgspec.Struct, frozen=True):
    """The result of inspecting one file descriptor. `capacity` and `unique` as in `Given`."""

    identity: tuple[int, int]
    writable: bool
    capacity: int
    unique: bool


def look(fd: int, sender: int = 0, mounts: dict[int, bool] | None = None) -> Sort:
    """Return the sort of the file. No call reaches its file system, so this cannot block.

    sender: the process that sent it, whose mounts are read besides this process's. mounts: what is known of mounts, see
    `_on_devices`; for several files of one sender, which are all open meanwhile. Raises OSError without /proc.
    """
    info = _info(fd)
    mount = _field(info, b"mnt_id:")
    if mount == _memory_mount():
        return Sort.MEMFD
    if b"\nexp_name:" in info:
        return Sort.DMA_BUF
    if b"\nPid:" in info:
        return Sort.PROCESS
    if mounts is not None and mounts.get(mount) and stat.S_ISCHR(os.fstat(fd).st_mode):
        return Sort.DEVICE
    name = os.readlink(f"/proc/self/fd/{fd}")
    if name.startswith("anon_inode:"):
        inner = name.removeprefix("anon_inode:")
        if inner == _EVENT:
            return Sort.EVENT
        return Sort.STRANGE if inner.startswith(_SYSTEM) else Sort.ANONYMOUS
    if name.startswith("pipe:["):
        return Sort.PIPE
    if name.startswith("/") and _on_devices(mount, sender, mounts) and stat.S_ISCHR(os.fstat(fd).st_mode):
        return Sort.DEVICE
    return Sort.STRANGE


def inspect(
    backing: int, fds: Sequence[int], stated: int, uid: int, sender: int = 0, pages: Sequence[int] = ()
) -> Given:
    """Inspect the file descriptors of a payload that a process of that user sent.

    stated: the exporter's identity for the payload. It counts where the kernel does not distinguish the files, and
    among that user's payloads alone. pages: the modes in which importers get the last descriptors, which are companion
    pages. Raises Refused INVALID_PARAMETER for what cannot be such a payload.
    """
    data = len(fds) - len(pages)
    if data < 1:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"The payload has {len(fds)} handles, of which {len(pages)} are companion pages. Send at least one handle "
            "of its own.",
        )
    mounts: dict[int, bool] = {}
    found = [inspect_one(backing, fd, stated, uid, sender, mounts) for fd in fds[:data]]
    companions = [_inspect_companion(fd, mode, uid, sender) for fd, mode in zip(fds[data:], pages, strict=True)]
    for page, mode in zip(companions, pages, strict=True):
        if mode not in (READ_ONLY, READ_WRITE, BY_RIGHTS) or (mode == READ_WRITE and not page.writable):
            raise Refused(
                Status.INVALID_PARAMETER,
                f"A companion page is to be given with mode {mode}, and its fd is "
                f"{'writable' if page.writable else 'read-only'}. Pass {READ_ONLY} (read-only), {BY_RIGHTS} (by the "
                f"rights of the importer) or, for a writable fd, {READ_WRITE} (writable).",
            )
    by_rights = [page for page, mode in zip(companions, pages, strict=True) if mode == BY_RIGHTS]
    return Given(
        Backing(backing),
        tuple(one.identity for one in (*found, *companions)),
        all(one.writable for one in (*found, *by_rights)),
        sum(one.capacity for one in found),
        all(one.unique for one in (*found, *companions)),
        tuple(pages),
    )


def _inspect_companion(fd: int, mode: int, uid: int, sender: int) -> _Found:
    """Inspect a companion page: a memory file, or the write end of a pipe (`PageRole.LIFELINE`).

    Nobody reads the pipe here. The kernel tells its other end when the last holder of the payload has ended.
    """
    if look(fd, sender) is not Sort.PIPE:
        return inspect_one(Backing.HOST_FILE, fd, 0, uid, sender)
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & (os.O_ACCMODE | os.O_PATH) != os.O_WRONLY or mode != READ_WRITE:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"A companion page is a pipe with flags {flags:#o}, to be given with mode {mode}. Send the write end of "
            f"the pipe, with mode {READ_WRITE}.",
        )
    found = os.fstat(fd)
    return _Found((found.st_dev, found.st_ino), True, 0, True)


def inspect_one(
    backing: int, fd: int, stated: int, uid: int, sender: int = 0, mounts: dict[int, bool] | None = None
) -> _Found:
    """Inspect one file descriptor; see `inspect`, and `look` for mounts."""
    try:
        known = Backing(backing)
    except ValueError:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"The payload's backing {backing} is unknown to this broker; the known ones are "
            f"{', '.join(f'{known} {known.name}' for known in Backing)}. Send one of these.",
        ) from None
    sort = look(fd, sender, mounts)
    if sort not in ALLOWED[known]:
        raise Refused(Status.INVALID_PARAMETER, f"The payload's fd is {sort.value}. {_DO[known]}")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise Refused(Status.INVALID_PARAMETER, f"The payload's fd cannot be read. {_DO[known]}")
    found = os.fstat(fd)
    capacity = _sealed_size(fd, found.st_size) if known is Backing.HOST_FILE else 0
    if sort in _UNIQUE:
        identity = (found.st_dev, found.st_ino)
        return _Found(identity, is_writable(fd), capacity, True)
    number = _field(_info(fd), b"eventfd-id:") if sort is Sort.EVENT else -1
    if number >= 0:
        return _Found((_EVENTS, number), True, capacity, True)
    identity = (-1 - uid, stated) if stated else (-1 << 33, next(_unstated))
    return _Found(identity, True, capacity, False)


def is_writable(fd: int) -> bool:
    """Return whether the payload can be written through this file descriptor: by open mode and seals of a memory file.

    The memory of a GPU driver has no read-only form, so the result is True for all other files.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return True
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        return False
    try:
        return not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _WRITE_SEALS
    except OSError:
        return True  # a file without seals


def _sealed_size(fd: int, size: int) -> int:
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    if seals & _SEALS != _SEALS:
        raise Refused(
            Status.INVALID_PARAMETER,
            f"The payload's memfd has seals {seals:#x}; without F_SEAL_SHRINK and F_SEAL_GROW ({_SEALS:#x}) its size "
            f"could change while it is mapped. {_DO[Backing.HOST_FILE]}",
        )
    if size <= 0:
        raise Refused(Status.INVALID_PARAMETER, f"The payload's memfd has {size} bytes. {_DO[Backing.HOST_FILE]}")
    return size


_DO: Final[Mapping[Backing, str]] = {
    Backing.HOST_FILE: "Export a file of memfd_create with ordinary pages, at its full size and sealed.",
    Backing.DRIVER_FD: "Export the file descriptor that the driver returned.",
    Backing.HOST_EVENT: "Export an eventfd.",
}


def _info(fd: int) -> bytes:
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
        return b"\n" + file.read(_INFO)


def _field(info: bytes, name: bytes) -> int:
    _, found, rest = info.partition(b"\n" + name)
    return int(rest.split(None, 1)[0]) if found else -1


@functools.cache
def _memory_mount() -> int:
    with open(os.memfd_create("extmem-probe", os.MFD_CLOEXEC), "rb") as file:
        return _field(_info(file.fileno()), b"mnt_id:")


def _on_devices(mount: int, sender: int, known: dict[int, bool] | None) -> bool:
    """Return whether device nodes of that mount are accepted.

    known: the answers for mounts with an open file. An open file keeps the number of its mount from being reused. A
    payload of a GPU has up to thousands of files of one mount, and reading the lists takes longer than all else.
    """
    if known is not None and mount in known:
        return known[mount]
    lists = ["/proc/self/mountinfo"] + [f"/proc/{sender}/mountinfo"] * (sender > 0)
    found = any(_type_of(mount, mounts) in _DEVICES for mounts in lists)
    if known is not None:
        known[mount] = found
    return found


def _type_of(mount: int, mounts: str) -> bytes:
    """Return the type of the file system of that mount from a list of mounts; empty where it is not in the list."""
    begins = b"\n%d " % mount
    try:
        with open(mounts, "rb") as file:
            text = b"\n" + file.read(_MOUNTS)
    except OSError:
        return b""
    _, found, rest = text.partition(begins)
    if not found:
        return b""
    # The type follows the optional fields, which a single dash ends.
    return rest.partition(b"\n")[0].partition(b" - ")[2].split(b" ", 1)[0]
