"""The handle type by which CUDA exports its own memory: a POSIX descriptor on Linux, an NT handle on Windows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extmem.sharing.terms import ShareTerms

__all__ = [
    "ATTRIBUTE",
    "CAPABILITY",
    "KIND",
    "WIN32_IS_NATIVE",
    "WORDS",
    "Terms",
    "make_private",
    "recognisable",
    "same_payload",
]

WIN32_IS_NATIVE = sys.platform == "win32"
"""Whether handles of this platform are NT and KMT handles, not descriptors."""

if sys.platform == "win32":
    from extmem.devices.cuda.win32 import Terms, make_private, recognisable, same_payload

    KIND, WORDS, CAPABILITY = "CU_MEM_HANDLE_TYPE_WIN32", "NT handles", "win32_handle"
    ATTRIBUTE = "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_WIN32_HANDLE_SUPPORTED"
    TimelinePage = Any
else:
    import os

    if TYPE_CHECKING:
        from extmem.devices.host.timeline_page import TimelinePage as TimelinePage

    KIND, WORDS, CAPABILITY = "CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR", "POSIX descriptors", "posix_fd"
    ATTRIBUTE = "CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED"

    class Terms:
        """The security of new memory: none, since every process with the descriptor may use it."""

        address = 0

        def __init__(self, terms: ShareTerms | None) -> None:
            """terms: unused: they are the object manager's."""

    def make_private(fd: int) -> None:
        """Make the descriptor close-on-exec. Errors: OSError."""
        os.set_inheritable(fd, False)

    def recognisable(fd: int) -> object:
        """Return None: the kernel identifies files (`host.identity_of`)."""
        return None

    def same_payload(held: object, fd: int) -> bool:
        """True for files of one number."""
        return True
