"""`HostWords`: the host's timelines that a Vulkan device uses: host words of its timelines, and payloads of the host.

How this works. The host device makes, opens and waits for them (`devices.host.sync`). A word that is opened from a
companion page of a payload is an import of that page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem.devices.host import late
from extmem.devices.sync import SemaphoreSpec, SyncSource
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.host.page_signals import PageSignals
    from extmem.devices.sync import NativeSemaphore
    from extmem.devices.types import ExaminedFd
    from extmem.sharing.payload import Page

__all__ = ["HostWords", "page_of"]

_NEW = SemaphoreSpec(timeline=True, export_types=SEMAPHORE_OPAQUE_FD)


def page_of(word: NativeSemaphore) -> PageSignals:
    """Return the page of a host word, or of a timeline of the host. The caller holds the word meanwhile."""
    timeline: Any = word
    page: PageSignals = timeline.page
    return page


class HostWords:
    """The timelines of the host, for one Vulkan device."""

    def __init__(self, *, driver_shares_timelines: bool) -> None:
        self.driver_shares_timelines = driver_shares_timelines
        """Whether timelines that are shared are the driver's; else they are the host's."""

    def new(self, spec: SemaphoreSpec) -> NativeSemaphore:
        """Return a new timeline of the host. Errors: OutOfMemoryError."""
        return late.sync.create_semaphore(spec)

    def new_word(self, spec: SemaphoreSpec) -> NativeSemaphore:
        """Return the host word of a new timeline of the driver. Errors: OutOfMemoryError."""
        return late.sync.create_word(spec)

    def examined(self, fd: int) -> ExaminedFd | None:
        """Return what an fd is, if it is a timeline of the host; else None."""
        examined = late.sync.examine(fd, SEMAPHORE_OPAQUE_FD, timeline=True)
        return None if examined.problem else examined

    def opened_payload(self, source: SyncSource) -> NativeSemaphore | None:
        """Return the timeline that a payload is, if the host made it; else None.

        Errors: those of the host's import, for a payload of the host.
        """
        if source.temporary or (source.payload is None and source.fd is None):
            return None
        if source.payload is not None:
            if not late.sync.is_timeline(source.payload):
                return None
        elif source.fd is None or self.examined(source.fd.fd) is None:
            return None
        return self._opened(source)

    def opened_page(self, page: Page) -> NativeSemaphore | None:
        """Return the host word that a companion page of a driver's timeline is; None for a page that is none."""
        return late.sync.open_word(page)

    def _opened(self, source: SyncSource) -> NativeSemaphore:
        opened = late.sync.create_semaphore(_NEW)
        try:
            opened.import_payload(source)
        except BaseException:
            opened.close()
            raise
        return opened

    def wait(self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0) -> bool:
        """Wait for timelines of the host; see `SyncBackend.wait_semaphores`."""
        return not waits or late.sync.wait_semaphores(waits, any_of=any_of, timeout_ns=timeout_ns)
