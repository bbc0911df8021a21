"""`IoRing`: sleeps on futexes by an io_uring, whose descriptor an event loop polls (Linux 6.7).

How this works. An io_uring is two queues in memory that is shared with the kernel. `sleep_on` writes one entry, that of
a futex wait, into the submission queue and calls io_uring_enter. When the word has another value than expected, or
somebody wakes, the kernel adds an entry to the completion queue, and the descriptor can be read. Nothing else is
submitted, one entry at a time, so the submission queue is never full; `MOST` bounds the completion queue.

Many containers forbid io_uring, and older kernels lack the operation: `usable` finds out once, by an operation that
ends at once.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from functools import lru_cache
from itertools import starmap
from typing import Final

from extmem.devices.host._libc import ffi
from extmem.owning import OwnedFd

if sys.platform != "linux":
    raise ImportError("io_uring is Linux's; extmem.devices.host picks what the platform has")

__all__ = ["MOST", "IoRing", "usable"]

MOST: Final = 64
"""Most words to sleep on at a time."""

_SETUP, _ENTER = 425, 426
_ENTRIES = 16
_COMPLETIONS = 2 * MOST
_CQSIZE = 1 << 3  # IORING_SETUP_CQSIZE
_SQES_AT = 0x10000000  # IORING_OFF_SQES
_FUTEX_WAIT = 51  # IORING_OP_FUTEX_WAIT
_SIZE_U32 = 2  # FUTEX2_SIZE_U32
_ANY_WAKE = 0xFFFF_FFFF
_PARAMS = struct.Struct("=7I12x10I10I")
"""struct io_uring_params: sizes, flags, features; then the offsets of the parts of both queues."""
_ENTRY_SIZE = 64

_syscall = ffi.dlopen(None).syscall


class IoRing:
    """An io_uring for futexes. Ownership: until it is lost. One thread uses it at a time. Errors: OSError."""

    def __init__(self) -> None:
        params = bytearray(120)
        struct.pack_into("=3I", params, 0, 0, _COMPLETIONS, _CQSIZE)
        buffer = ffi.from_buffer(params)
        arguments = (_SETUP, _ENTRIES, int(ffi.cast("uintptr_t", buffer)), 0, 0, 0, 0)
        self._owner = OwnedFd(numbers=filter((-1).__lt__, starmap(_syscall, (arguments,))))
        if self._owner.fd < 0:
            raise OSError(ffi.errno, f"io_uring_setup: {os.strerror(ffi.errno)}")
        entries, completions, *_ = found = _PARAMS.unpack_from(params)
        sq, cq = found[7:17], found[17:27]
        size = max(sq[6] + 4 * entries, cq[5] + 16 * completions)
        self._queues = memoryview(mmap.mmap(self._owner.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)).cast("I")
        self._entries = memoryview(mmap.mmap(self._owner.fd, _ENTRY_SIZE * entries, offset=_SQES_AT)).cast("Q")
        self._sq_tail, sq_array = sq[1] // 4, sq[6] // 4
        self._cq_head, self._cq_tail, self._completed = cq[0] // 4, cq[1] // 4, cq[5] // 4
        self._sq_mask, self._cq_mask = self._queues[sq[2] // 4], self._queues[cq[2] // 4]
        for index in range(entries):
            self._queues[sq_array + index] = index

    @property
    def fd(self) -> int:
        """The descriptor, borrowed; it can be read while there are completions."""
        return self._owner.fd

    def sleep_on(self, address: int, expected: int, tag: int) -> None:
        """Complete once the word at this address, in shared memory, has another value, or somebody wakes.

        tag: what `completed` returns for it.
        """
        queues, entries = self._queues, self._entries
        tail = queues[self._sq_tail]
        at = (tail & self._sq_mask) * 8
        entries[at] = _FUTEX_WAIT | _SIZE_U32 << 32
        entries[at + 1], entries[at + 2], entries[at + 3] = expected, address, 0
        entries[at + 4], entries[at + 5], entries[at + 6], entries[at + 7] = tag, 0, _ANY_WAKE, 0
        queues[self._sq_tail] = (tail + 1) & 0xFFFF_FFFF
        if _syscall(_ENTER, self._owner.fd, 1, 0, 0, 0, 0) < 0:
            code = ffi.errno
            queues[self._sq_tail] = tail  # the kernel has not taken it
            raise OSError(code, f"io_uring_enter: {os.strerror(code)}")

    def completed(self) -> list[tuple[int, int]]:
        """Return (tag, result) of what has completed since the last call; a result below 0 is an errno."""
        queues = self._queues
        head, tail = queues[self._cq_head], queues[self._cq_tail]
        found = []
        while head != tail:
            at = self._completed + 4 * (head & self._cq_mask)
            result = queues[at + 2]
            found.append((queues[at] | queues[at + 1] << 32, result - (result >> 31 << 32)))
            head = (head + 1) & 0xFFFF_FFFF
        queues[self._cq_head] = head
        return found


@lru_cache(maxsize=1)
def usable() -> bool:
    """Whether this process may use an io_uring, and the kernel has its operation for futexes."""
    word = ffi.new("unsigned int[1]")
    try:
        ring = IoRing()
        ring.sleep_on(int(ffi.cast("uintptr_t", word)), 1, 7)  # the word is 0: it ends at once, with EAGAIN
    except (OSError, ValueError):
        return False
    return ring.completed() == [(7, -errno.EAGAIN)]
