"""`HostWords`: the host's timelines that a Vulkan device uses: host words of its timelines, and payloads of the host.

How this works. The host device makes, opens and waits for them (`devices.host.sync`). A word that is opened from a
companion page of a payload is an import of that page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem.devices import host
from extmem.devices.sync import SemaphoreSpec, SyncSource
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from extmem.devices.sync import NativeSemaphore, SyncBackend
    from extmem.devices.types import ExaminedFd
    from extmem.sharing.payload import Page
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["HostWords"]

_NEW = SemaphoreSpec(timeline=True, export_types=SEMAPHORE_OPAQUE_FD)


class HostWords:
    """The timelines of the host, for one Vulkan device."""

    def __init__(self, *, driver_shares_timelines: bool) -> None:
        self.driver_shares_timelines = driver_shares_timelines
        """Whether timelines that are shared are the driver's; else they are the host's."""
        self._host: SyncBackend = host.sync()

    def new(self, spec: SemaphoreSpec) -> NativeSemaphore:
        """Return a new timeline of the host. Errors: OutOfMemoryError."""
        return self._host.create_semaphore(spec)

    def examined(self, fd: int, handle_type: SyncHandleType, *, trusted: bool = False) -> ExaminedFd | None:
        """Return what an fd is, if it is a timeline of the host; else None."""
        examined = self._host.examine_sync_fd(fd, handle_type, timeline=True, trusted=trusted)
        return None if examined.problem else examined

    def opened_payload(self, source: SyncSource) -> NativeSemaphore | None:
        """Return the timeline that a payload is, if the host made it; else None.

        Errors: those of the host's import, for a payload of the host.
        """
        if source.temporary:
            return None
        if source.payload is not None:
            fd = source.payload.fd
        elif source.fd is not None and source.fd.descriptor:
            fd = source.fd.fd
        else:
            return None
        examined = self.examined(fd, source.handle_type)
        if examined is None:
            return None
        return self._opened(source if source.payload is not None else source._replace(fd=examined))

    def opened_page(self, page: Page) -> NativeSemaphore:
        """Return the host word that a companion page of a driver's timeline is."""
        examined = self._host.examine_sync_fd(page.handle, SEMAPHORE_OPAQUE_FD, timeline=True)
        source = SyncSource(SEMAPHORE_OPAQUE_FD, timeline=True, fd=examined, writable=page.writable)
        return self._opened(source)

    def _opened(self, source: SyncSource) -> NativeSemaphore:
        opened = self._host.create_semaphore(_NEW)
        try:
            opened.import_payload(source)
        except BaseException:
            opened.close()
            raise
        return opened

    def raising(self, word: NativeSemaphore) -> Callable[[int], object]:
        """Return the function that raises a word or a timeline of the host to a value, unless it has reached it."""
        raise_to: Callable[[int], object] = word.raise_to  # type: ignore[attr-defined]  # the host's own have it
        return raise_to

    def wait(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        """Wait for timelines of the host; see `SyncBackend.wait_semaphores`."""
        return not waits or self._host.wait_semaphores(waits, any_of=any_of, timeout_ns=timeout_ns)
