"""The function that CUDA calls on the host when a stream reaches a signal: it raises a value and wakes its waiters.

How this works. A value that a GPU writes wakes nobody: the futex of the page needs a call of the kernel. CUDA calls a C
function on a thread of its own when the stream reaches it (cuLaunchHostFunc). A function in Python would need the GIL
there. It would wait until the program's threads release it (5 ms and more), and for ever if one of them waits for the
stream with the GIL held. No C library has a function of one argument that raises a value and wakes a futex. So the
function is machine code: the two listings below, which `tests/unit/devices/cuda/test_host_function.py` executes. It
takes the address of a record::

    0         8         16         24
    +---------+---------+----------+---------+
    | u64 *at | value   | u32 *seq | done    |
    +---------+---------+----------+---------+

It sets *at to the maximum of *at and `value` (atomically), adds 1 to *seq (atomically), wakes all who sleep on *seq
(FUTEX_WAKE), and sets `done` to 1. Its last access to the page is before that.

Code and records are mapped when the first stream signals a page, and are never unmapped: CUDA may call the function
while the interpreter ends. Records are used again once they are done. The code's memory is never writable and
executable at once.
"""

from __future__ import annotations

import platform
import struct
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

from extmem import vk
from extmem.devices.host._libc import ffi
from extmem.errors import OutOfMemoryError, UnsupportedError
from extmem.owning import Lock

__all__ = ["Call", "function_address", "prepare", "release"]

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
_MACHINES: Final = {"x86_64": (_X86_64, 10), "aarch64": (_AARCH64, 226)}
"""For each machine: the code, and the number of mprotect(2)."""

_PAGE: Final = 65_536
"""Bytes that are mapped at once: a whole number of pages on every machine."""
_RECORD: Final = struct.Struct("=QQQQ")
_DONE: Final = 24
_READ_WRITE, _READ_EXECUTE, _PRIVATE_ANONYMOUS = 3, 5, 0x22
_FAILED: Final = (1 << 64) - 1


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
        return self.memory[self.at + _DONE] != 0

    def cancel(self) -> None:
        """State that the function is not going to be called."""
        self.memory[self.at + _DONE] = 1


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
    _RECORD.pack_into(call.memory, call.at, at, value, sequence, 0)
    return call


release: Final = _free.append
"""Let the record of a call that is done be used again."""


@lru_cache(maxsize=1)
def function_address() -> int:
    """The address of the function (CUhostFn).

    Errors: UnsupportedError on machines without CUDA, and where no code may be mapped.
    """
    machine = platform.machine()
    code, mprotect = _MACHINES.get(machine, (b"", 0))
    if not code:
        raise UnsupportedError(
            f"streams signal values to the host on {' and '.join(_MACHINES)}, and this machine is {machine}; signal on "
            "the host, after a wait for the stream",
            requires_one_of=list(_MACHINES),
        )
    address, memory = _mapped()
    memory[: len(code)] = code
    if _libc().syscall(mprotect, address, _PAGE, _READ_EXECUTE, 0, 0, 0):
        raise UnsupportedError(
            f"this system refuses executable memory (mprotect: errno {int(ffi.errno)}), which CUDA's host functions "
            "need; allow it (execmem), or signal on the host, after a wait for the stream",
            requires_one_of=["executable memory"],
        )
    return address


def _new_records() -> Iterator[Call]:
    address, memory = _mapped()
    for at in range(0, _PAGE, _RECORD.size):
        yield Call(address + at, memory, at)


def _mapped() -> tuple[int, memoryview]:
    """Map memory that is never unmapped: its address, and its bytes."""
    address = int(_libc().mmap(0, _PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0))
    if address == _FAILED:
        raise OutOfMemoryError(
            f"mmap of {_PAGE} bytes for calls of host functions failed (errno {int(ffi.errno)}); free some memory",
            result=int(vk.Result.ERROR_OUT_OF_HOST_MEMORY),
            command="cuLaunchHostFunc",
        )
    return address, memoryview(ffi.buffer(ffi.cast("char *", address), _PAGE)).cast("B")


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ffi.dlopen(None)
