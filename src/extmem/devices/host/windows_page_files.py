"""Files of the companion pages of memory on Windows: sections with a random path, which the payload's description has.

The payload's security is that of the page. A section has no seals, so whoever has the right to write the payload can
open its pages for writing by their path: readers check a private copy.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("sections are Windows's; extmem.devices.host picks what the platform has")

from extmem.handles._win32 import calls, sections
from extmem.manager.windows import status_errors, sync_payloads
from extmem.owning import OwnedDescriptor, OwnedFd

__all__ = ["create_page_file", "page_file_size", "read_page_file"]


def create_page_file(contents: bytes | memoryview, *, final: bool, sddl: str | None = None) -> OwnedFd:
    """Create a page with these contents, and return its handle, which the caller owns.

    final: unused; see the module. sddl: the security of its payload. Errors: SecurityDescriptorError, OutOfMemoryError.
    """
    made = OwnedDescriptor(sync_payloads.create_memory_page(sddl, len(contents)))
    try:
        sections.poke(made.fd, 0, bytes(contents))
    except calls.StatusError as error:
        made.close()
        raise _failed(error) from None
    return made


def page_file_size(fd: int) -> int:
    """Return the bytes of a page, rounded up to whole pages; 0 for a section that is backed by a file."""
    try:
        size, anonymous = sections.facts(fd)
    except calls.StatusError as error:
        raise _failed(error) from None
    return size if anonymous else 0


def read_page_file(fd: int, size: int) -> bytes:
    """Return a private copy of the first `size` bytes. Errors: OutOfMemoryError."""
    if size <= 0:
        return b""
    try:
        return sections.peek(fd, 0, size)
    except calls.StatusError as error:
        raise _failed(error) from None


def _failed(error: calls.StatusError) -> Exception:
    return status_errors.out_of_memory(
        error, "NtMapViewOfSection", "a view of a companion page"
    ) or status_errors.other(error, "A companion page cannot be mapped.")
