"""Machine code in memory that is never unmapped, for functions that threads of the driver or of a framework call.

A function in Python would need the GIL there. The code's memory is never writable and executable at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from extmem import vk
from extmem.devices.host._libc import ffi
from extmem.errors import OutOfMemoryError, UnsupportedError

__all__ = ["MPROTECT", "PAGE", "executable", "mapped"]

PAGE: Final = 65_536
"""Bytes that are mapped at once: a whole number of pages on every machine."""
MPROTECT: Final = {"x86_64": 10, "aarch64": 226}
"""The number of mprotect(2) on each machine."""
_READ_WRITE, _READ_EXECUTE, _PRIVATE_ANONYMOUS = 3, 5, 0x22
_FAILED: Final = (1 << 64) - 1


def mapped(what: str) -> tuple[int, memoryview]:
    """Map memory that is never unmapped: its address, and its bytes. Errors: OutOfMemoryError. what: the command."""
    address = int(_libc().mmap(0, PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0))
    if address == _FAILED:
        raise OutOfMemoryError(
            f"mmap of {PAGE} bytes for {what} failed (errno {int(ffi.errno)}); free some memory",
            result=int(vk.Result.ERROR_OUT_OF_HOST_MEMORY),
            command=what,
        )
    return address, memoryview(ffi.buffer(ffi.cast("char *", address), PAGE)).cast("B")


def executable(code: bytes, machine: str, what: str) -> int:
    """Return the address of a copy of the code. Errors: UnsupportedError where no code may be mapped; as `mapped`."""
    address, memory = mapped(what)
    memory[: len(code)] = code
    if _libc().syscall(MPROTECT[machine], address, PAGE, _READ_EXECUTE, 0, 0, 0):
        raise UnsupportedError(
            f"this system refuses executable memory (mprotect: errno {int(ffi.errno)}), which {what} needs; allow it "
            "(execmem)",
            requires_one_of=["executable memory"],
        )
    return address


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ffi.dlopen(None)
