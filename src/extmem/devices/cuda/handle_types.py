"""The handle type by which CUDA exports its own memory: a POSIX descriptor on Linux, an NT handle on Windows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from extmem.errors import DriverError, UnsupportedError
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.devices.host.timeline_semaphore import HostTimeline
    from extmem.sharing.payload import Page
    from extmem.sharing.terms import ShareTerms

__all__ = [
    "ATTRIBUTE",
    "CAPABILITY",
    "KIND",
    "WIN32_IS_NATIVE",
    "WORDS",
    "Terms",
    "make_private",
    "open_companion",
    "page_of",
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

    def page_of(timeline: HostTimeline) -> TimelinePage:
        """Raise UnsupportedError: waiters on Windows have events, which a stream cannot set."""
        raise UnsupportedError(
            "streams wait for timelines of the host and signal them on Linux only; on Windows use a timeline of the "
            "Vulkan driver, or a fence of Direct3D",
            requires_one_of=["a timeline of a Vulkan driver"],
        )

    def open_companion(page: Page) -> HostTimeline:
        """As `page_of`."""
        raise UnsupportedError("companion pages are of Linux's drivers", requires_one_of=["Linux"])
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

    def page_of(timeline: HostTimeline) -> TimelinePage:
        """Return the page of a timeline of the host. HandleStateError once it is closed."""
        return timeline.page

    def open_companion(page: Page) -> HostTimeline:
        """Return the companion page of a driver's timeline as a timeline of the host. Its file is copied.

        Errors: DriverError for a file that is not such a page; OutOfMemoryError.
        """
        with late_imports():
            from extmem import vk
            from extmem.devices.fd_copies import copy_of
            from extmem.devices.host import sync_check
            from extmem.devices.host.timeline_page import open_page
            from extmem.devices.host.timeline_semaphore import HostTimeline

        examined = sync_check.examine_page(page.handle)
        if examined.problem:
            raise DriverError(
                f"the companion page of a timeline: {examined.problem}",
                result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
                command="cuImportExternalSemaphore",
            )
        file = copy_of(page.handle)
        return HostTimeline(file, open_page(file, page.writable and examined.writable))
