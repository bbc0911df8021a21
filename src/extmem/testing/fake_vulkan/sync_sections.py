"""`PageFile` on Windows: the section of a fake semaphore's or fence's page."""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import sys
from collections.abc import Iterator

if sys.platform != "win32":
    raise ImportError("sections are Windows's; on Linux the fake driver has memory files")

from extmem.handles._win32 import calls, sections, waitables
from extmem.handles._win32.calls import StatusError

__all__ = ["CASELESS", "PageFile", "create", "opened"]

CASELESS = 0x40
"""OBJ_CASE_INSENSITIVE."""
_ID, _ID_SIZE = 1024, 16
_LOCK_MS = 10_000


class PageFile:
    """A mapped section. Owns its handle."""

    def __init__(self, fd: int, size: int) -> None:
        """Errors: StatusError; the handle stays the caller's then."""
        # A driver accesses its objects whatever rights a handle has.
        self._full = calls.duplicate(fd, sections.QUERY | sections.MAP_READ | sections.MAP_WRITE)
        try:
            self._address = sections.map_view(self._full, size, True)
        except StatusError:
            calls.close_handle(self._full)
            raise
        self.fd = fd

    def read(self, at: int, size: int) -> bytes:
        """Return bytes of the page."""
        return ctypes.string_at(self._address + at, size)

    def write(self, at: int, data: bytes) -> None:
        """Write bytes of the page."""
        ctypes.memmove(self._address + at, data, len(data))

    def is_named(self, name: str) -> bool:
        """False: drivers of Windows have no sync_files, whose name is asked for."""
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other processes: a mutex with the id in the page."""
        path = f"\\BaseNamedObjects\\extmem.fake.{self.read(_ID, _ID_SIZE).hex()}"
        mutex = waitables.create_mutex(path, flags=waitables.OPEN_IF)
        try:
            owned = waitables.wait_any([mutex], _LOCK_MS) == 0
            try:
                yield
            finally:
                if owned:
                    waitables.release_mutex(mutex)
        finally:
            calls.close_handle(mutex)

    def forget(self) -> None:
        """Unmap it, and leave the handle to the caller."""
        self.fd = -1
        self._unmap()

    def _unmap(self) -> None:
        sections.unmap(self._address)
        calls.close_handle(self._full)

    def close(self) -> None:
        """Unmap and close it."""
        self._unmap()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            calls.close_handle(fd)


def create(size: int, name: str, security: int = 0) -> PageFile:
    """Create a section. name: its full path; any other text for a nameless one.

    security: the address of a security descriptor. Errors: OSError; StatusError for a name that it cannot have.
    """
    path = name if name.startswith("\\") else None
    try:
        handle = sections.create(size, path, security, CASELESS)
    except StatusError as error:
        if path is None:
            raise OSError(str(error)) from error
        raise
    made = PageFile(handle, size)
    made.write(_ID, secrets.token_bytes(_ID_SIZE))
    return made


def opened(fd: int, size: int, names: tuple[str, ...]) -> PageFile | None:
    """Return the section of a handle, which it owns then; None, and it stays the caller's, for another object."""
    try:
        if calls.type_of(fd) != "Section":
            return None
        readable = calls.duplicate(fd, sections.QUERY)
        try:
            if sections.facts(readable).size != size:
                return None
        finally:
            calls.close_handle(readable)
        return PageFile(fd, size)
    except StatusError:
        return None
