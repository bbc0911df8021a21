"""The function that CUDA calls on the host when a stream reaches a signal: it raises a value and wakes its waiters.

How this works. A value that a GPU writes wakes nobody: the futex of the page needs a call of the kernel. CUDA calls a C
function on a thread of its own when the stream reaches it (cuLaunchHostFunc). A function in Python would need the GIL
there. It would wait until the program's threads release it (5 ms and more), and for ever if one of them waits for the
stream with the GIL held. No C library has a function of one argument that raises a value and wakes a futex. So the
function is machine code: the two listings below, which `tests/unit/devices/cuda/test_host_function.py` executes. It
takes the address of a record::

    0         8         16         24        32
    +---------+---------+----------+---------+---------+
    | u64 *at | value   | u32 *seq | done    | given   |
    +---------+---------+----------+---------+---------+

It sets *at to the maximum of *at and `value` (atomically), adds 1 to *seq (atomically), wakes all who sleep on *seq
(FUTEX_WAKE), and sets `done` to 1. Its last access to the page is before that. `given` is for `call_sequence`, which
sets it to 1 before it gives the call to a stream.

Records are mapped when the first stream signals a page, and are never unmapped: CUDA may call the function while the
interpreter ends. Records are used again once they are done.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from extmem.devices.cuda import machine_code
from extmem.owning import Lock

__all__ = ["DONE", "GIVEN", "Call", "function_address", "prepare", "release"]

_X86_64: Final = bytes.fromhex(
    "f30f1efa"  #          endbr64
    "488b17"  #            mov    rdx, [rdi]
    "488b4f08"  #          mov    rcx, [rdi + 8]
    "488b02"  #            mov    rax, [rdx]
    "4839c8"  #         1: cmp    rax, rcx
    "7307"  #              jae    2f
    "f0480fb10a"  #        lock cmpxchg [rdx], rcx
    "75f4"  #              jne    1b
    "4989f8"  #         2: mov    r8, rdi
    "498b7810"  #          mov    rdi, [r8 + 16]
    "f0ff07"  #            lock inc dword [rdi]
    "be01000000"  #        mov    esi, 1               (FUTEX_WAKE)
    "baffffff7f"  #        mov    edx, 0x7fffffff      (everybody)
    "b8ca000000"  #        mov    eax, 202             (futex)
    "0f05"  #              syscall
    "49c7401801000000"  #  mov    qword [r8 + 24], 1
    "c3"  #                ret
)
_AARCH64: Final = bytes.fromhex(
    "5f2403d5"  #    bti   c
    "010040f9"  #    ldr   x1, [x0]
    "020440f9"  #    ldr   x2, [x0, #8]
    "23fc5fc8"  # 1: ldaxr x3, [x1]
    "7f0002eb"  #    cmp   x3, x2
    "62000054"  #    b.hs  2f
    "22fc04c8"  #    stlxr w4, x2, [x1]
    "84ffff35"  #    cbnz  w4, 1b
    "e90300aa"  # 2: mov   x9, x0
    "200940f9"  #    ldr   x0, [x9, #16]
    "03fc5f88"  # 3: ldaxr w3, [x0]
    "63040011"  #    add   w3, w3, #1
    "03fc0488"  #    stlxr w4, w3, [x0]
    "a4ffff35"  #    cbnz  w4, 3b
    "21008052"  #    mov   w1, #1               (FUTEX_WAKE)
    "0200b012"  #    mov   w2, #0x7fffffff      (everybody)
    "480c8052"  #    mov   w8, #98              (futex)
    "010000d4"  #    svc   #0
    "23008052"  #    mov   w3, #1
    "29610091"  #    add   x9, x9, #24
    "23fd9fc8"  #    stlr  x3, [x9]
    "c0035fd6"  #    ret
)

_RECORD: Final = struct.Struct("=QQQQQ24x")
DONE: Final = 24
"""The offset of `done` in a record."""
GIVEN: Final = 32
"""The offset of `given` in a record."""


class Call(NamedTuple):
    """A record: one call of the function."""

    address: int
    """What the function takes."""
    memory: memoryview
    """The memory of all records of its mapping."""
    at: int
    """The offset of the record there."""

    @property
    def done(self) -> bool:
        """Whether the function has returned, or is not going to be called."""
        return self.memory[self.at + DONE] != 0

    def cancel(self) -> None:
        """State that the function is not going to be called."""
        self.memory[self.at + DONE] = 1

    @property
    def given(self) -> bool:
        """Whether `call_sequence` has begun with the calls that give it to a stream. It cancels it if one fails."""
        return self.memory[self.at + GIVEN] != 0


_free: Final[deque[Call]] = deque()
_lock: Final = Lock()


def prepare(at: int, value: int, sequence: int) -> Call:
    """Return a record for one call: raise the u64 at address `at` to `value`, and wake who sleeps on `sequence`.

    The caller keeps the memory of both mapped until the call is done, and then passes the record to `release`.
    Errors: OutOfMemoryError.
    """
    while True:
        try:
            call = _free.popleft()
            break
        except IndexError:
            with _lock:
                if not _free:
                    _free.extend(_new_records())
    _RECORD.pack_into(call.memory, call.at, at, value, sequence, 0, 0)
    return call


release: Final = _free.append
"""Let the record of a call that is done be used again."""


@lru_cache(maxsize=1)
def function_address() -> int:
    """The address of the function (CUhostFn).

    Errors: UnsupportedError on machines without CUDA, and where no code may be mapped.
    """
    return machine_code.load({"x86_64": _X86_64, "aarch64": _AARCH64}, "streams signal values to the host")


def _new_records() -> Iterator[Call]:
    address, memory = machine_code.mapped("calls of host functions")
    for at in range(0, machine_code.SIZE, _RECORD.size):
        yield Call(address + at, memory, at)
