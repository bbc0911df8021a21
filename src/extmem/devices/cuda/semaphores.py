"""`CudaSemaphore`: a semaphore of the CUDA device. CUDA makes none, so it is a page of the host, or imported.

How this works. A new timeline is a page of the host (`devices.host`), made at its first use. Streams wait for its word
and write it. An import replaces it by another page, or by the semaphore of a driver, and then a timeline's companion
page is what the host reads and waits for: CUDA has neither a wait of the host nor a query. What streams use of it
(`StreamSemaphore`) is made when the first stream uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.cuda.external_semaphores import import_semaphore, type_name
from extmem.devices.cuda.handle_types import WIN32_IS_NATIVE
from extmem.devices.cuda.owners import Undo
from extmem.devices.cuda.stream_semaphores import StreamSemaphore
from extmem.devices.fd_copies import copy_of
from extmem.devices.host import sync_system
from extmem.devices.host.timeline_semaphore import HostTimeline
from extmem.devices.sync import SemaphoreSpec, SyncSource
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.owning import Held, OwnedFd
from extmem.vk.handle_types import SEMAPHORE_OPAQUE_FD, SyncHandleType

if TYPE_CHECKING:
    from extmem.devices.cuda.handle_types import TimelinePage
    from extmem.devices.cuda.sync_parts import SyncParts
    from extmem.sharing.payload import Page, PayloadFd

__all__ = ["CudaSemaphore", "native_semaphore"]


class CudaSemaphore(Held):
    """See `NativeSemaphore`. Ownership: its parts are released by `close` and the end of the last hold."""

    __slots__ = ("_file", "_host", "_on_streams", "_payload", "_spec", "_sync", "stated_identity", "timeline")

    temporary = False
    """False: CUDA has no temporary imports."""

    def __init__(self, sync: SyncParts, spec: SemaphoreSpec) -> None:
        super().__init__()
        self._sync = sync
        self._spec = spec
        self.timeline = spec.timeline
        self.stated_identity = 0
        self._host: HostTimeline | None = None
        """The page that the host reads and waits for: the payload, or a companion page."""
        self._file: OwnedFd | None = None
        """A copy of the imported fd, for a semaphore that came by fd."""
        self._payload: PayloadFd | None = None
        """The imported payload's files, for a semaphore of a driver that came by the object manager."""
        self._on_streams: StreamSemaphore | None = None

    @property
    def keeper(self) -> Held:
        """See `NativeSync`."""
        return self

    @property
    def raw(self) -> int:
        """The CUexternalSemaphore of a driver's semaphore; 0 for a page of the host."""
        return self._on_streams.external if self._on_streams is not None else 0

    @property
    def page(self) -> TimelinePage | None:
        """The page that the host reads and waits for; None for a driver's semaphore without one, and binary ones."""
        if self._host is None and (self._imported or not self.timeline or self.closing):
            return None
        return self.host.page

    @property
    def _imported(self) -> bool:
        """Whether it is a driver's."""
        return self._on_streams is not None and bool(self._on_streams.external)

    @property
    def host(self) -> HostTimeline:
        """The page that the host reads and waits for.

        Errors: UnsupportedError for a driver's semaphore without one; HandleStateError once closed.
        """
        if self.closing:
            raise self.gone()
        if self._host is not None:
            return self._host
        if self._imported:
            raise UnsupportedError(
                f"CUDA has no host wait, no query and no host signal for {'this timeline' if self.timeline else 'it'}: "
                "it is a driver's, and came without a companion page; wait for a stream that waits for it, or use it "
                "on the device that made it",
                requires_one_of=["a timeline of extmem", "a stream"],
            )
        if not self.timeline:
            raise UnsupportedError(
                f"{self._sync.device.name} by CUDA makes no binary semaphores; import one of the Vulkan device, or "
                "make a timeline",
                requires_one_of=["an import", "a timeline"],
            )
        with self._sync.making:
            if self._host is None:
                self._host = HostTimeline.create(self._spec)
            return self._host

    @property
    def fd(self) -> int | None:
        """See `NativeSync`."""
        if self._payload is not None:
            return self._payload.fd if self._payload.fd >= 0 else None
        if self._file is not None:
            return self._file.fd
        return None if self._imported else self.host.fd

    @property
    def pages(self) -> Sequence[Page]:
        """See `NativeSync`."""
        return self._payload.pages if self._payload is not None else ()

    def counter(self) -> int:
        """See `NativeSemaphore`. Of a driver's timeline: what the companion page says."""
        return self.host.counter()

    def signal(self, value: int) -> None:
        """See `NativeSemaphore`. A driver's timeline is signaled by a stream of the library's own."""
        if not self._imported:
            self.host.signal(value)
            return
        with self.use():
            self._sync.signal_at_once(self.on_streams(), value)

    def on_streams(self) -> StreamSemaphore:
        """What streams use of it. Errors: as `host`; UnsupportedError if the GPU cannot wait for pages; DriverError."""
        found = self._on_streams
        if found is None:
            page = self.host.page
            sync = self._sync
            with sync.making, sync.device.gpu.current:
                if self._on_streams is None:
                    registered = sync.pages.take(page)
                    undo: Undo = [(sync.pages.give_back, registered)]
                    self._on_streams = StreamSemaphore(
                        sync.device, sync.streams.calls, undo, page=page, pointer=registered.pointer
                    )
                found = self._on_streams
        return found

    def import_payload(self, source: SyncSource) -> None:
        """See `NativeSync`. Errors: UnsupportedError for types and temporary imports, which CUDA does not have."""
        sync = self._sync
        sync.device.check_open()
        sync.streams.finish()
        if source.temporary:
            raise UnsupportedError(
                "VK_SEMAPHORE_IMPORT_TEMPORARY_BIT: CUDA keeps what it imports until it is destroyed; import it "
                "permanently, into a semaphore of its own",
                requires_one_of=["a permanent import"],
            )
        if source.host:
            host = HostTimeline.create(SemaphoreSpec(True))
            host.import_payload(source)
            self._replace(host)
            return
        handle_type = source.handle_type
        if source.payload is not None and not WIN32_IS_NATIVE:
            handle_type = SEMAPHORE_OPAQUE_FD  # whatever the program has imported it by, the object manager has its fd
        name = type_name(handle_type, timeline=source.timeline)
        if source.timeline and source.payload is not None and source.payload.pages:
            companion = _opened_companion(source.payload.pages[0])
        else:
            companion = None
        file = copy_of(source.fd.fd) if source.fd is not None else None
        undo = Undo()
        gpu = sync.device.gpu
        with gpu.current:
            try:
                external = int(import_semaphore(sync.device, name, source, undo))
                page = companion.page if companion is not None else None
                made = StreamSemaphore(sync.device, sync.streams.calls, undo, external=external, kind=name, page=page)
            except BaseException:
                gpu.undo(undo)
                raise
        self._replace(companion, made, file, source.payload)
        self.stated_identity = source.identity

    def _replace(
        self,
        host: HostTimeline | None,
        made: StreamSemaphore | None = None,
        file: OwnedFd | None = None,
        payload: PayloadFd | None = None,
    ) -> None:
        before = self._on_streams, self._host, self._file, self._payload
        self._on_streams, self._host, self._file, self._payload = made, host, file, payload
        for one in before:
            if one is not None:
                one.close()

    def export_fd(self, handle_type: SyncHandleType) -> OwnedFd | None:
        """See `NativeSync`. CUDA exports nothing: the fd of an imported semaphore is duplicated."""
        if not self._imported:
            return self.host.export_fd(handle_type)
        fd = self.fd
        if fd is None:
            raise UnsupportedError(
                "CUDA exports no semaphores, and this one was imported without an fd; export it where it was made",
                requires_one_of=["the device that made it"],
            )
        return copy_of(fd)

    def export_win32(self, handle_type: SyncHandleType) -> int:
        """See `NativeSync`. Errors: UnsupportedError for a driver's."""
        if not self._imported:
            return self.host.export_win32(handle_type)
        raise UnsupportedError(
            "CUDA exports no semaphores; export this one where it was made, or duplicate a handle of it",
            requires_one_of=["the device that made it"],
        )

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError("this semaphore is closed; create or open another one")

    def close(self) -> None:
        """See `NativeSync`. A driver's semaphore is destroyed once no work of a stream uses it."""
        self.end()

    def give_back(self) -> None:
        """See `Held`."""
        self._replace(None)
        with contextlib.suppress(DriverError):  # it is tried again by the next call, and when the device is closed
            self._sync.work_off()


def _opened_companion(page: Page) -> HostTimeline:
    """Return the companion page of a driver's timeline as a timeline of the host, with a copy of its fd or handle.

    Errors: DriverError for another file; OutOfMemoryError.
    """
    examined = sync_system.examine_timeline(page.handle)
    if examined.problem:
        raise DriverError(
            f"the companion page of a timeline: {examined.problem}",
            result=int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE),
            command="cuImportExternalSemaphore",
        )
    writable = page.writable and examined.writable
    return HostTimeline.of_page(sync_system.copy_of_page(page.handle), writable=writable)


def native_semaphore(semaphore: object) -> CudaSemaphore:
    """The semaphore as a CUDA device's. Errors: TypeError for another device's."""
    if not isinstance(semaphore, CudaSemaphore):
        raise TypeError(f"{semaphore!r} is not a semaphore of a CUDA device; import it on that device first")
    return semaphore
