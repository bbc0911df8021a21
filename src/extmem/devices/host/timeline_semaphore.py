"""`HostTimeline`: a timeline semaphore of the host device, a page that processes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from extmem.devices.fd_copies import copy_of
from extmem.devices.host import system
from extmem.devices.host.event_object import source_fd
from extmem.devices.host.page_signals import no_right
from extmem.devices.host.page_waits import wait_pages
from extmem.devices.host.sync_errors import no_win32, refusal
from extmem.devices.host.sync_system import TimelinePage, create_page, examine_timeline, open_page
from extmem.devices.sync import SemaphoreSpec, SyncSource
from extmem.errors import HandleStateError
from extmem.owning import Held, OwnedFd
from extmem.sharing.payload import Page, PayloadFd
from extmem.vk.handle_types import SyncHandleType

__all__ = ["HostTimeline", "wait_timelines"]


class HostTimeline(Held):
    """See `NativeSemaphore`. `signal`, `counter` and `wait` use the page and nothing else."""

    __slots__ = ("_page", "_source")

    timeline = True
    raw = 0
    """0: there is no driver."""
    stated_identity = 0
    """0: the kernel identifies memory files."""
    temporary = False
    """False: timelines are imported permanently only."""
    pages: Sequence[Page] = ()
    """None: the payload is a page."""

    def __init__(self, source: OwnedFd | PayloadFd, page: TimelinePage) -> None:
        """source: the file of the page, or an import's hold on it, which the semaphore owns from now on."""
        super().__init__()
        self._source: OwnedFd | PayloadFd | None = source
        self._page: TimelinePage | None = page
        page.add_user()

    @classmethod
    def create(cls, spec: SemaphoreSpec) -> HostTimeline:
        """Create one with a payload of its own. Errors: OutOfMemoryError; ValueError for a long descriptor."""
        file = create_page(spec.initial_value, spec.descriptor, spec.terms)
        return cls(file, open_page(file))

    @classmethod
    def of_page(cls, file: OwnedFd, *, writable: bool) -> HostTimeline:
        """Return the timeline of a page's file, which it owns."""
        return cls(file, open_page(file, writable))

    @property
    def keeper(self) -> Held:
        """See `NativeSync`."""
        return self

    @property
    def page(self) -> TimelinePage:
        """The page. HandleStateError once closed."""
        page = self._page
        if page is None:
            raise self.gone()
        return page

    @property
    def fd(self) -> int:
        """The file of the page, borrowed. HandleStateError once closed."""
        source = self._source
        if source is None:
            raise self.gone()
        return source.fd

    def counter(self) -> int:
        """See `NativeSemaphore`. A process with the right to signal can have written any number."""
        return self.page.value

    def signal(self, value: int) -> None:
        """See `NativeSemaphore`, and `TimelinePage.signal`."""
        page = self._page
        if page is None:
            raise self.gone()
        page.signal(value)

    def wait(self, value: int, deadline: int | None = None) -> bool:
        """Wait until the value is reached. See `TimelinePage.wait`."""
        page = self._page
        if page is None:
            raise self.gone()
        return page.wait(value, deadline)

    def check_right(self) -> None:
        """Raise AccessDeniedError without the right to signal."""
        if not self.page.writable:
            raise no_right()

    def import_payload(self, source: SyncSource) -> None:
        """See `NativeSync`. Without the right to signal, the page is mapped for reading only."""
        payload = source.payload
        if payload is None:
            file: OwnedFd | PayloadFd = copy_of(source_fd(source, "semaphore"))
        else:
            file = payload
        examined = examine_timeline(file.fd)
        if examined.problem:
            raise refusal(examined.problem, "semaphore")
        writable = examined.writable and source.writable
        opened = file if isinstance(file, OwnedFd) else file.shared
        if opened is None:
            raise HandleStateError("this payload's descriptor is closed; import the payload again")
        page, before = open_page(opened, writable), self._page
        page.add_user()
        self._page, self._source = page, file
        if before is not None:
            before.drop_user()

    def export_fd(self, handle_type: SyncHandleType) -> OwnedFd:
        """See `NativeSync`. Its fd has the right to signal if this semaphore has it."""
        return system.duplicate(self.fd, writable=self.page.writable)

    def export_win32(self, handle_type: SyncHandleType) -> NoReturn:
        """Raise UnsupportedError: this system has no HANDLEs; the object manager shares the fd."""
        raise no_win32()

    def close(self) -> None:
        """See `NativeSync`."""
        self.end()

    def give_back(self) -> None:
        """See `Held`. The page is unmapped when the methods that use it have ended."""
        page, self._page = self._page, None
        self._source = None
        if page is not None:
            page.drop_user()

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError("this timeline is closed; create or open another one")


def wait_timelines(waits: Sequence[tuple[HostTimeline, int]], *, any_of: bool, deadline: int | None) -> bool:
    """See `wait_pages`."""
    return wait_pages([(semaphore.page, value) for semaphore, value in waits], any_of=any_of, deadline=deadline)
