"""What a stranger's fd is, and whether it can be a payload. Never raises for what it finds, never touches the fd.

A payload's pages must be nobody's to take back: its size is sealed, and it lies where memory files lie, which is the
kernel's own tmpfs. A hole that is punched into such a file reads as zeros. In a file of huge pages (MFD_HUGETLB), which
can be sealed likewise, there may be no huge page left to fill it with, and whoever reads it then is killed by SIGBUS.
"""

from __future__ import annotations

import functools
import os
import stat
import sys

from extmem.devices.backend import FdFacts
from extmem.devices.host import trailer
from extmem.devices.host.memfd import PAGE
from extmem.owning import OwnedFd, out_of_descriptors

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

import fcntl

__all__ = ["identity_of", "inspect"]

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_WRITE_SEALS = (
    fcntl.F_SEAL_WRITE | 0x10
)  # linux/fcntl.h: F_SEAL_FUTURE_WRITE, which the standard library has no name for
_O_PATH = os.O_PATH
_KINDS = {
    stat.S_IFREG: ("file", "an ordinary file"),
    stat.S_IFDIR: ("directory", "a directory"),
    stat.S_IFSOCK: ("socket", "a socket"),
    stat.S_IFIFO: ("pipe", "a pipe"),
    stat.S_IFCHR: ("device", "a character device"),
    stat.S_IFBLK: ("device", "a block device"),
}


def identity_of(fd: int) -> tuple[int, int] | None:
    """(st_dev, st_ino): equal for all descriptors of one payload."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def inspect(fd: int) -> FdFacts:
    """Everything about an fd, its self-description included."""
    try:
        facts = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except (OSError, ValueError, OverflowError):
        return FdFacts("closed", f"fd {fd} is not open in this process")
    size, identity = facts.st_size, (facts.st_dev, facts.st_ino)
    if flags & _O_PATH:
        return FdFacts("other", f"fd {fd} was opened with O_PATH and leads to no data", size, identity=identity)
    access = flags & os.O_ACCMODE
    seals = _seals(fd)
    writable = access == os.O_RDWR and not seals & _WRITE_SEALS
    kind, words = _kind(fd, facts.st_mode, seals)
    problem = ""
    if kind != "memfd":
        problem = f"fd {fd} is {words}, and a payload is a sealed memory file (memfd)"
    elif access == os.O_WRONLY:
        problem = f"fd {fd} was opened for writing only and cannot be mapped"
    elif seals & _SIZE_SEALS != _SIZE_SEALS:
        missing = [
            name
            for name, bit in (("F_SEAL_SHRINK", fcntl.F_SEAL_SHRINK), ("F_SEAL_GROW", fcntl.F_SEAL_GROW))
            if not seals & bit
        ]
        problem = (
            f"fd {fd} is a memfd whose size can still change (seals {seals:#x}, {' and '.join(missing)} missing): "
            "truncating it would kill every process that maps it; its maker must seal it"
        )
    elif facts.st_dev != _memory_files():
        problem = (
            f"fd {fd} is a memory file of huge pages ({os.fstatvfs(fd).f_bsize} bytes each): one that its maker takes "
            "back may have no other to follow it, which would kill whoever reads it; make it without MFD_HUGETLB"
        )
    if problem:
        return FdFacts(kind, problem, size, 0, seals, writable, identity)
    descriptor, why = _trailer(fd, size)
    # Without a frame of ours the last page belongs to the payload like any other.
    capacity = size if why else size - PAGE
    if not descriptor:
        why = why or "the payload was made without one"
    return FdFacts(kind, "", size, capacity, seals, writable, identity, descriptor, why)


@functools.lru_cache(maxsize=1)
def _memory_files() -> int:
    """st_dev of the kernel's own tmpfs, where all memory files of ordinary pages are."""
    try:
        opened = OwnedFd.of(os.memfd_create, "extmem-where", os.MFD_CLOEXEC)
    except OSError as error:
        raise out_of_descriptors(error, "memfd_create") from None
    try:
        return os.fstat(opened.fd).st_dev
    finally:
        opened.close()


def _seals(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return 0


def _kind(fd: int, mode: int, seals: int) -> tuple[str, str]:
    if stat.S_ISREG(mode):
        # Only memory files can carry these seals; an unsealed one is told by its name.
        link = _link(fd)
        if seals & _SIZE_SEALS or link.startswith("/memfd:"):
            return "memfd", "a memory file"
        return "file", f"an ordinary file ({link})" if link else "an ordinary file"
    return _KINDS.get(stat.S_IFMT(mode), ("other", f"neither file, socket nor pipe ({_link(fd)})"))


def _link(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _trailer(fd: int, size: int) -> tuple[bytes, str]:
    if size < 2 * PAGE:
        return b"", f"the file has {size} bytes, too few for a payload and its self-description"
    try:
        frame = os.pread(fd, trailer.TRAILER_SIZE, size - PAGE)
    except OSError as error:
        return b"", f"the last page cannot be read: {os.strerror(error.errno or 0)}"
    return trailer.unpack(frame)
