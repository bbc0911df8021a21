"""The check of a file descriptor: what it is, and whether it can be a host payload. The descriptor is not changed.

No process may be able to take a payload's pages back: its size is sealed, and it lies on the kernel's own tmpfs, where
memory files are. A hole that is punched into such a file reads as zeros. A file of huge pages (MFD_HUGETLB) can be
sealed as well, but there may be no huge page left to fill a hole, and a process that reads it then is killed by SIGBUS.
"""

from __future__ import annotations

import functools
import os
import stat
import sys

from extmem.devices.host import trailer
from extmem.devices.host.memfd import PAGE
from extmem.devices.types import ExaminedFd
from extmem.owning import OwnedFd, out_of_descriptors
from extmem.vk.handle_types import OPAQUE_FD, MemoryHandleType
from extmem.vk.value_text import types_text

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

import fcntl

__all__ = ["examine", "identity_of"]


_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_WRITE_SEALS = (
    fcntl.F_SEAL_WRITE | 0x10
)  # linux/fcntl.h: F_SEAL_FUTURE_WRITE, which the standard library has no name for
_FILE_TYPES = {
    stat.S_IFREG: ("file", "an ordinary file"),
    stat.S_IFDIR: ("directory", "a directory"),
    stat.S_IFSOCK: ("socket", "a socket"),
    stat.S_IFIFO: ("pipe", "a pipe"),
    stat.S_IFCHR: ("device", "a character device"),
    stat.S_IFBLK: ("device", "a block device"),
}


def identity_of(fd: int) -> tuple[int, int] | None:
    """(st_dev, st_ino): equal for all descriptors of one payload."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def examine(fd: int, handle_type: MemoryHandleType = OPAQUE_FD, *, trusted: bool = False) -> ExaminedFd:
    """Return everything about an fd that is to be imported as this type, its self-description included.

    trusted: unused: the file of a host payload can be examined completely.
    """
    try:
        status = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except (OSError, ValueError, OverflowError):
        return ExaminedFd(fd, handle_type, "closed", f"fd {fd} is not open in this process; pass one that is")
    size, identity = status.st_size, (status.st_dev, status.st_ino)
    if flags & os.O_PATH:
        problem = f"fd {fd} was opened with O_PATH and leads to no data"
        return ExaminedFd(fd, handle_type, "other", problem, size, identity=identity)
    access = flags & os.O_ACCMODE
    seals = _seals(fd)
    writable = access == os.O_RDWR and not seals & _WRITE_SEALS
    file_type, words = _file_type(fd, status.st_mode, seals)
    problem = ""
    if file_type != "memfd":
        problem = f"fd {fd} is {words}, and a payload is a sealed memory file (memfd); pass an fd that was exported"
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
    elif status.st_dev != _memory_files():
        problem = (
            f"fd {fd} is a memory file of huge pages ({os.fstatvfs(fd).f_bsize} bytes each): after its maker punches a "
            "hole, there may be no huge page for it, which would kill every process that reads it; make it without "
            "MFD_HUGETLB"
        )
    elif handle_type != OPAQUE_FD:
        problem = f"the host device imports OPAQUE_FD and not {types_text(handle_type)}"
    if problem:
        return ExaminedFd(fd, handle_type, file_type, problem, size, 0, seals, writable, identity)
    descriptor, missing_descriptor, behind = _trailer(fd, size)
    # Without a frame of this library the last page belongs to the payload like any other.
    capacity = size - behind
    if not descriptor:
        missing_descriptor = missing_descriptor or "the payload was made without one"
    return ExaminedFd(
        fd, handle_type, file_type, "", size, capacity, seals, writable, identity, descriptor, missing_descriptor
    )


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


def _file_type(fd: int, mode: int, seals: int) -> tuple[str, str]:
    """A word for what the fd is, and more words for an error."""
    if not stat.S_ISREG(mode):
        return _FILE_TYPES.get(stat.S_IFMT(mode)) or ("other", f"neither file, socket nor pipe ({_link(fd)})")
    if seals & _SIZE_SEALS:  # only memory files can carry these seals
        return "memfd", "a memory file"
    link = _link(fd)
    if link.startswith("/memfd:"):
        return "memfd", "a memory file"
    return "file", f"an ordinary file ({link})" if link else "an ordinary file"


def _link(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def _trailer(fd: int, size: int) -> tuple[bytes, str, int]:
    """Return the descriptor, or why there is none, and the bytes of the file that are not the payload's."""
    if size < 2 * PAGE:
        return b"", f"the file has {size} bytes, too few for a payload and its self-description", 0
    try:
        frame = os.pread(fd, trailer.TRAILER_SIZE, size - PAGE)
    except OSError as error:
        return b"", f"the last page cannot be read: {os.strerror(error.errno or 0)}", 0
    descriptor, problem = trailer.unpack(frame)
    if problem:
        return b"", problem, 0
    return descriptor, "", PAGE * (1 + (trailer.has_control_page(frame) and size >= 3 * PAGE))
