"""Machine code that the library brings along, and memory that is never unmapped. For C functions that C libraries lack.

How this works. The code of a listing is copied into pages of its own, which are then made executable: they are never
writable and executable at once. CUDA may call the code while the interpreter ends, so nothing here is unmapped.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from extmem import vk
from extmem.devices.host._libc import ffi
from extmem.errors import OutOfMemoryError, UnsupportedError

__all__ = ["SIZE", "load", "mapped"]

SIZE: Final = 65_536
"""Bytes that are mapped at once: a whole number of pages on every machine."""
_MPROTECT: Final = {"x86_64": 10, "aarch64": 226}
"""The number of mprotect(2) on each machine."""
_READ_WRITE, _READ_EXECUTE, _PRIVATE_ANONYMOUS = 3, 5, 0x22
_FAILED: Final = (1 << 64) - 1


def load(
    listings: Mapping[str, bytes], what: str, remedy: str = "signal on the host, after a wait for the stream"
) -> int:
    """Return the address of the code for this machine. listings: by machine. what: is done by it, and
    remedy: is done without it, for errors.

    Errors: UnsupportedError on other machines, and where no code may be mapped; OutOfMemoryError.
    """
    machine = platform.machine()
    code = listings.get(machine, b"")
    if not code:
        raise UnsupportedError(
            f"{what} on {' and '.join(listings)}, and this machine is {machine}; {remedy}",
            requires_one_of=list(listings),
        )
    address, memory = mapped("machine code")
    memory[: len(code)] = code
    if _libc().syscall(_MPROTECT[machine], address, SIZE, _READ_EXECUTE, 0, 0, 0):
        raise UnsupportedError(
            f"this system refuses executable memory (mprotect: errno {int(ffi.errno)}), and with it {what}; allow it "
            f"(execmem), or {remedy}",
            requires_one_of=["executable memory"],
        )
    return address


def mapped(what: str) -> tuple[int, memoryview]:
    """Map `SIZE` bytes that are never unmapped. Return their address, and the bytes. Errors: OutOfMemoryError."""
    address = int(_libc().mmap(0, SIZE, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0))
    if address == _FAILED:
        raise OutOfMemoryError(
            f"mmap of {SIZE} bytes for {what} failed (errno {int(ffi.errno)}); free some memory",
            result=int(vk.Result.ERROR_OUT_OF_HOST_MEMORY),
            command="cuLaunchHostFunc",
        )
    return address, memoryview(ffi.buffer(ffi.cast("char *", address), SIZE)).cast("B")


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ffi.dlopen(None)
