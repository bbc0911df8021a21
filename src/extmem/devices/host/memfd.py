"""Payloads: sealed memory files that describe themselves.

Memory can be frozen later (`seal`), so its file has no F_SEAL_SEAL. Whoever has it open for writing can add seals, too,
which takes the right to write from everybody, and nothing else. A file whose users write to it as long as it exists, as
the page of a timeline, is sealed against other seals.

How this works. The file is the allocation, rounded up to whole pages, and one page more that contains the payload's
self-description (`trailer`). Between them is the control page, which memory of a device has (`sharing.control_page`).
The kernel zeroes the file, and its size is sealed for good: a process that maps it cannot be killed by another one that
truncates it. Its mode is read-only, so that a process with a read-only descriptor cannot
open it again for writing through /proc, unless it runs as the owner, who can change the mode.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.host import reserve, trailer
from extmem.errors import OutOfMemoryError
from extmem.owning import OwnedFd, copy_fd

if sys.platform != "linux":
    raise ImportError("memory files are Linux's; extmem.devices.host picks what the platform has")

import fcntl
import resource

if TYPE_CHECKING:
    from extmem.sharing.terms import ShareTerms

__all__ = ["PAGE", "SEALS", "control_page_at", "create", "duplicate", "file_size", "is_sealed", "out_of_memory", "seal"]

PAGE = mmap.PAGESIZE
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
"""What every payload is sealed with. The size of the file does not change any more."""

_MFD_NOEXEC_SEAL = 0x8  # linux/memfd.h, since 6.3; the standard library has no name for it yet
_FLAGS = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING


def file_size(size: int, *, control_page: bool = False) -> int:
    """Bytes of the file behind an allocation of `size` bytes."""
    return -(-size // PAGE) * PAGE + PAGE * (1 + control_page)


def control_page_at(fd: int) -> int | None:
    """Return where the control page is in the file of a payload; None if the file has none. Errors: OSError."""
    at = os.fstat(fd).st_size - 2 * PAGE
    if at < 0 or not trailer.has_control_page(os.pread(fd, trailer.MAGIC_SIZE, at + PAGE)):
        return None
    return at


def create(
    size: int,
    descriptor: bytes,
    terms: ShareTerms | None = None,
    *,
    contents: bytes | memoryview = b"",
    final: bool = False,
    control_page: bool = False,
    freezable: bool = False,
) -> OwnedFd:
    """Create a payload; return its fd, owned by the caller. Errors: OutOfMemoryError; ValueError for a long descriptor.

    terms: unused: names and security are the broker's. contents: its first bytes; the others are zero. final: seal it
    against writing, too. control_page: whether it gets one. freezable: whether `seal` is permitted.
    """
    frame = trailer.pack(descriptor, control_page=control_page)
    whole = file_size(size, control_page=control_page)
    owner = None
    try:
        owner = _memfd()
        fd = owner.fd
        os.ftruncate(fd, whole)
        reserve.reserve(fd, whole)
        os.pwrite(fd, frame, whole - PAGE)
        rest = memoryview(contents)
        while rest.nbytes:
            rest = rest[os.pwrite(fd, rest, len(contents) - rest.nbytes) :]
        os.fchmod(fd, 0o444)
        seals = SEALS if freezable else SEALS | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_WRITE if final else seals)
    except BaseException as error:
        if owner is not None:
            owner.settle()
        if isinstance(error, (OSError, MemoryError)):
            raise out_of_memory(error, "vkAllocateMemory", f"an allocation of {size} bytes") from error
        raise
    return owner


def _memfd() -> OwnedFd:
    try:
        return OwnedFd.of(os.memfd_create, "extmem", _FLAGS | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return OwnedFd.of(os.memfd_create, "extmem", _FLAGS)  # a kernel before 6.3: payloads may be executable by mode


def seal(fd: int) -> bool:
    """Let nobody write to the file any more: it is sealed against writing. Return False if it is mapped for writing.

    The kernel also refuses while a driver or device uses the pages (pins them). Errors: OSError for an fd that is open
    for reading only, and for a file that takes no seals.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def is_sealed(fd: int) -> bool:
    """Return whether the file is sealed against writing by anybody. False for a file that takes no seals."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False


def duplicate(fd: int, *, writable: bool) -> OwnedFd:
    """Return a new descriptor of the same payload, close-on-exec, owned by the caller. Errors: OutOfMemoryError."""
    try:
        if writable:
            return copy_fd(fd)
        return OwnedFd.of(os.open, f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise out_of_memory(error, "vkGetMemoryFdKHR", "another descriptor of a payload") from error


def out_of_memory(error: OSError | MemoryError, command: str, what: str) -> Exception:
    """Return the error to raise: OutOfMemoryError if the system ran out of something, else the same error."""
    if isinstance(error, MemoryError):
        return OutOfMemoryError(
            f"{command}: no memory for {what}: {error}; free some, ask for less, or raise the limit",
            result=vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
            command=command,
        )
    result, remedy = _explain(error.errno or 0)
    if result is None:
        return error
    return OutOfMemoryError(
        f"{command}: no room for {what}: {os.strerror(error.errno or 0)}; {remedy}", result=result, command=command
    )


def _explain(code: int) -> tuple[vk.Result | None, str]:
    if code == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            vk.Result.ERROR_TOO_MANY_OBJECTS,
            f"this process may have {limit} descriptors open; close memory and handles, or raise `ulimit -n`",
        )
    if code == errno.ENFILE:
        return vk.Result.ERROR_TOO_MANY_OBJECTS, "the machine's table of open files is full (sysctl fs.file-max)"
    if code == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        most = f"files of this process may have {limit} bytes" if limit != resource.RLIM_INFINITY else "it is too big"
        return vk.Result.ERROR_OUT_OF_DEVICE_MEMORY, f"{most}; raise `ulimit -f` or ask for less"
    if code in (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT):
        return (
            vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
            "the machine or this process's control group is out of memory; free some, ask for less, or raise the limit",
        )
    return None, ""
