"""Changes of a timeline's page by the broker: its creator, and marks that tell waiters of the end of a signaler.

How this works. The page (`sharing.timeline_page`) is read and written through its fd, and never accessed in memory: a
page that the kernel cannot provide is then an error, and not a signal that ends the broker. It is mapped only for the
call that adds 1 to the sequence and wakes the waiters (FUTEX_WAKE_OP), which returns EFAULT in that case. Only what
differs is written, the state last, because signalers may write at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from extmem.owning import late_imports
from extmem.sharing import timeline_page

__all__ = ["Edit", "change", "is_page", "prepare", "value_of"]

_SIZE: Final = timeline_page.PAGE_SIZE
_ENTRY: Final = 16
_PARTS: Final = (
    *((start, start + _ENTRY) for start in range(timeline_page.TABLE, timeline_page.TABLE + 32 * _ENTRY, _ENTRY)),
    (timeline_page.WHO, timeline_page.MARKS + 4),
    (timeline_page.STATE, timeline_page.WHO),
)
"""What may be written, in this order: the signalers, the details, the state. Neither value nor sequence."""
_FUTEX: Final = {"x86_64": 202, "ppc64le": 221, "s390x": 238, "i686": 240, "armv7l": 240}
"""The number of futex(2); 98 on all other architectures."""
_FUTEX_WAKE_OP: Final = 5
_ALL: Final = 0x7FFF_FFFF
_ADD_ONE: Final = 1 << 28 | 1 << 12  # FUTEX_OP_ADD of 1; then nobody else is woken
_PROT_READ, _PROT_WRITE, _MAP_SHARED = 1, 2, 1

_libc: Any = None


Edit: TypeAlias = Callable[[memoryview], bool]


def is_page(fd: int) -> bool:
    """Return whether the file is large enough for a page of a timeline."""
    return os.fstat(fd).st_size >= _SIZE


def prepare() -> None:
    """Load what `change` needs, so that the first death is told as fast as later ones."""
    global _libc
    if _libc is not None:
        return
    with late_imports():
        import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, *[ctypes.c_long] * 3, ctypes.c_void_p, ctypes.c_long]
    libc.syscall.restype = ctypes.c_long
    _libc = libc


def change(fd: int, edit: Edit, offset: int = 0) -> bool:
    """Change a page: `edit` gets a copy of it, and returns whether the waiters must be woken. Return that.

    offset: where the page is in the file.
    Errors: OSError where the page cannot be read or written.
    """
    before = os.pread(fd, _SIZE, offset)
    if len(before) < _SIZE:
        return False
    after = bytearray(before)
    wake = edit(memoryview(after))
    for start, end in _PARTS:
        if after[start:end] != before[start:end]:
            os.pwrite(fd, after[start:end], offset + start)
    if wake:
        _wake(fd, offset)
    return wake


def value_of(fd: int) -> int | None:
    """Return the value of the page; None where it cannot be read."""
    try:
        page = os.pread(fd, _SIZE, 0)
    except OSError:
        return None
    return timeline_page.read(memoryview(page)).value if len(page) == _SIZE else None


def _wake(fd: int, offset: int) -> None:
    """Add 1 to the sequence, and wake all waiters. OSError."""
    prepare()
    address = _libc.mmap(None, _SIZE, _PROT_READ | _PROT_WRITE, _MAP_SHARED, fd, offset)
    if address in (None, (1 << 64) - 1, (1 << 32) - 1):
        raise _error()
    try:
        word = address + timeline_page.SEQUENCE
        if _libc.syscall(_FUTEX.get(os.uname().machine, 98), word, _FUTEX_WAKE_OP, _ALL, 0, word, _ADD_ONE) < 0:
            raise _error()
    finally:
        _libc.munmap(address, _SIZE)


def _error() -> OSError:
    import ctypes

    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
