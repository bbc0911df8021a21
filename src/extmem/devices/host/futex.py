"""Futexes: 32-bit words in shared memory on which threads of several processes sleep. futex(2) and futex_waitv(2).

How this works. The library calls them through cffi, which releases the GIL around the call. A sleep lasts at most
`SLICE_NS`: a signal that arrives just before the call would not end it, so Python's signal handlers run within that
time in any case. The words are shared (no FUTEX_PRIVATE_FLAG), because they are in pages that several processes map.
A waiter needs only a read-only mapping.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from extmem.devices.host._libc import ffi

if sys.platform != "linux":
    raise ImportError("futexes are Linux's; extmem.devices.host picks what the platform has")

__all__ = ["MOST_WORDS", "SLICE_NS", "Words", "add_and_wake", "sleep", "wake"]

SLICE_NS: Final = 500_000_000
"""Longest sleep in nanoseconds."""
MOST_WORDS: Final = 128
"""FUTEX_WAITV_MAX: the number of words that one call sleeps on."""

_WITHOUT_WAITV_NS = 5_000_000
"""Longest sleep on one of several words, on a kernel without futex_waitv (before 5.16)."""

_WAIT, _WAKE, _WAKE_OP = 0, 1, 5
_EVERYBODY = 0x7FFFFFFF
_ADD_ONE = (1 << 28) | (1 << 12)  # FUTEX_OP_ADD, oparg 1; then wake sleepers on the same word, of which there are none
_SIZE_U32 = 2  # FUTEX2_SIZE_U32
_WAITER = struct.Struct("=QQII")
_CLOCK_MONOTONIC = 1
_WAITV: Final = 449
_FUTEX_OF_MACHINE = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221, "s390x": 238}

_libc = ffi.dlopen(None)
_syscall = _libc.syscall
_FUTEX: Final = _FUTEX_OF_MACHINE.get(os.uname().machine, 98)


def _timespec(nanoseconds: int) -> tuple[Any, int]:
    """Return a struct timespec and its address, which is valid while the struct is referred to."""
    made = ffi.new("long[2]", divmod(nanoseconds, 1_000_000_000))
    return made, int(ffi.cast("uintptr_t", made))


_slice, _SLICE = _timespec(SLICE_NS)


def add_and_wake(address: int) -> None:
    """Add 1 to the word, modulo 2**32, and wake all who sleep on it: FUTEX_WAKE_OP.

    The kernel's atomic operation is a full memory barrier: who sees the new word sees what was stored before.
    Errors: OSError (EFAULT for memory that may not be written).
    """
    if _syscall(_FUTEX, address, _WAKE_OP, _EVERYBODY, 0, address, _ADD_ONE) < 0:
        raise _error("FUTEX_WAKE_OP")


def wake(address: int) -> int:
    """Wake all who sleep on the word, without changing it. Return how many: FUTEX_WAKE."""
    return max(0, int(_syscall(_FUTEX, address, _WAKE, _EVERYBODY, 0, 0, 0)))


def sleep(address: int, expected: int, deadline: int | None = None) -> bool:
    """Sleep while the word has the expected value, until somebody wakes: FUTEX_WAIT. Return whether to try again.

    It may return early (a wake of another, a signal, the end of a slice): the caller looks again, and calls again.
    deadline: of `time.monotonic_ns`; None for none. False only if it has passed. Errors: OSError.
    """
    if deadline is None:
        if _syscall(_FUTEX, address, _WAIT, expected, _SLICE, 0, 0) < 0 and ffi.errno in _FAULTS:
            raise _error("FUTEX_WAIT")
        return True
    left = deadline - time.monotonic_ns()
    if left <= 0:
        return False
    if left >= SLICE_NS:
        return sleep(address, expected)
    _keep, timeout = _timespec(left)
    if _syscall(_FUTEX, address, _WAIT, expected, timeout, 0, 0) < 0 and ffi.errno in _FAULTS:
        raise _error("FUTEX_WAIT")
    return True


class Words:
    """Several words, to sleep until one of them has another value than expected: futex_waitv (Linux 5.16).

    More than `MOST_WORDS` words, or a kernel without the call: it sleeps on some of them, and for a short time only.
    """

    __slots__ = ("_addresses", "_buffer", "_first", "_fields", "_time", "_timeout", "expected")

    def __init__(self, addresses: Sequence[int]) -> None:
        """addresses: of the words, which the caller keeps mapped."""
        self._addresses = addresses
        self.expected = [0] * len(addresses)
        """The value expected of each word, to be set before `sleep`."""
        fields = bytearray().join(_WAITER.pack(0, address, _SIZE_U32, 0) for address in addresses[:MOST_WORDS])
        self._fields = memoryview(fields).cast("Q")
        self._buffer = ffi.from_buffer(fields)
        self._first = int(ffi.cast("uintptr_t", self._buffer))
        self._time, self._timeout = _timespec(0)

    def sleep(self, deadline: int | None = None) -> bool:
        """Sleep. As the function `sleep`. Errors: OSError."""
        now = time.monotonic_ns()
        if deadline is not None and deadline <= now:
            return False
        count = len(self._addresses)
        if count == 1:
            return sleep(self._addresses[0], self.expected[0], deadline)
        if not _has_waitv():
            some = now // _WITHOUT_WAITV_NS % count
            until = now + _WITHOUT_WAITV_NS
            sleep(self._addresses[some], self.expected[some], until if deadline is None else min(until, deadline))
            return True
        until = now + (SLICE_NS if count <= MOST_WORDS else _WITHOUT_WAITV_NS)
        if deadline is not None and deadline < until:
            until = deadline
        self._time[0], self._time[1] = divmod(until, 1_000_000_000)
        at, fields = 0, self._fields
        for expected in self.expected[:MOST_WORDS]:
            fields[at] = expected
            at += 3
        if _syscall(_WAITV, self._first, at // 3, 0, self._timeout, _CLOCK_MONOTONIC, 0) < 0 and ffi.errno in _FAULTS:
            raise _error("futex_waitv")
        return True


_FAULTS = frozenset((errno.EFAULT, errno.EINVAL, errno.ENOMEM, errno.ENOSYS, errno.EPERM))
"""Others are usual: the word has another value (EAGAIN), a signal (EINTR), the end of the time (ETIMEDOUT)."""


@lru_cache(maxsize=1)
def _has_waitv() -> bool:
    """Whether the kernel has futex_waitv (Linux 5.16), and no sandbox refuses it: asked with no words, EINVAL."""
    return bool(_syscall(_WAITV, 0, 0, 0, 0, 0, 0) < 0 and ffi.errno == errno.EINVAL)


def _error(call: str) -> OSError:
    code = int(ffi.errno)
    return OSError(code, f"{call}: {os.strerror(code)}")
