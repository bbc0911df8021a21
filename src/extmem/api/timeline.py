"""`Timeline`: a timeline semaphore, which counts up, and on which every process and device can wait for a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast, overload

from extmem import vk
from extmem.api.semaphore import Semaphore
from extmem.core import sync_operations
from extmem.handles.process_id import current_process
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__ = ["PeerGone", "Timeline"]

_MOST = 0xFFFF_FFFF_FFFF_FFFF
_FAR = 0x7FFF_FFFF_FFFF_FFFF
"""Above this, a value can be further from the current one than maxTimelineSemaphoreValueDifference."""


class PeerGone(NamedTuple):
    """What is known of a signaler of a timeline that has ended; see `Timeline.peer_gone`."""

    pid: int
    """The process."""
    seconds: float
    """How long ago its end was noticed."""
    reached: int
    """The value of the timeline then. Higher values were signaled afterwards, by other processes."""
    closed: bool
    """Whether it closed the timeline, or its program ended normally. Otherwise it was killed, or an exception, a signal
    or `os._exit` ended it."""
    repaired: bool
    """Whether another process has signaled since. A value above `reached` need not mean then that the work is done that
    the ended process owed."""


class Timeline(Semaphore):
    """A timeline: a value of 64 bits that only grows. Made by `Device.timeline`, `extmem.open_timeline`, and
    `Device.create_semaphore` for VK_SEMAPHORE_TYPE_TIMELINE.

    A signal sets the value; a wait lasts until the value is reached, and may begin before the signal. Queues and
    streams of devices wait and signal without the host (`Device.commands`, `DeviceMemory.access`).

    If the process that would signal a value has ended, a wait for the value raises `PeerGoneError`, which names the
    process. Another process with the right to signal can then call `signal` with that value, so that the waits return;
    `peer_gone` keeps what is known of the process that ended. The normal end of a program closes its timelines: waits
    raise the error once no other process is left that has signaled the timeline, or created it.

    Values are whole numbers from 0 to 2**64 - 1. Errors of all methods, besides their own: those of `Semaphore`, and
    TypeError and ValueError for arguments.
    """

    __slots__ = ()
    _word = "timeline"
    _made_by = "Device.timeline(…) or extmem.open_timeline(…)"

    @property
    def value(self) -> int:
        """The value now (vkGetSemaphoreCounterValue). It may be higher by the time it is used."""
        record = self._facts
        page = record.page  # of a timeline of the host, which needs no driver
        if page is not None and record.pid == current_process.pid:
            value: int = page.value
            return value
        with self.use() as held:
            return held.native.counter()

    def signal(self, value: int) -> None:
        """Set the value, and end all waits for it and for lower ones (vkSignalSemaphore).

        Errors: RuleViolation (VUID-VkSemaphoreSignalInfo-value-03258, -03259, -03260) for a value that is not above the
        current one, not below that of a submitted signal, or too far from them; AccessDeniedError without the right to
        signal; ValueError beyond 64 bits.
        """
        record = self._facts
        page = record.page
        if (
            page is not None
            and record.pid == current_process.pid
            and not record.pending
            and type(value) is int
            and 0 <= value <= _FAR
            and page.raise_to(value)
        ):
            return
        with self.use() as held:
            sync_operations.host_waits.signal(held, value)

    def wait(self, value: int, timeout: float | None = None) -> None:
        """Wait until the value, or a higher one, is reached (vkWaitSemaphores). Returns at once if it is.

        timeout: seconds, 0 to check without waiting; None for no limit. Signal handlers run during the wait, so Ctrl-C
            ends it. `close` in another thread does not.
        Errors: WaitTimeoutError (a TimeoutError), with the value that was reached and who signals; PeerGoneError, which
        names the process, if the one that would signal the value has ended.
        """
        record = self._facts
        page = record.page
        if (
            page is not None
            and timeout is None
            and record.pid == current_process.pid
            and type(value) is int
            and 0 <= value <= _MOST
        ):
            page.wait(value)
            return
        with self.use() as held:
            sync_operations.host_waits.wait(held, value, timeout)

    async def wait_async(self, value: int, timeout: float | None = None) -> None:
        """`wait` for coroutines: others run meanwhile. If it is cancelled, nothing of the wait remains.

        timeout: seconds; None for no limit.

        Errors: as `wait`.
        """
        with late_imports():
            from extmem.core import async_waits

        with self.use() as record:
            await async_waits.wait(record, value, timeout)

    @property
    def peer_gone(self) -> PeerGone | None:
        """What is known of the process that has ended last, of those that could signal; None if nobody misses it.

        It stays after a repair, so that a value that a survivor signaled is not taken for finished work.
        """
        with self.use() as record:
            found = sync_operations.host_waits.peer_gone(record)
            return None if found is None else PeerGone(*found)

    @overload
    def export_handle(self, handle_type: None = None) -> NtHandle | KmtHandle | FdHandle: ...

    @overload
    def export_handle(
        self,
        handle_type: Literal[
            vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32, vk.ExternalSemaphoreHandleTypeFlagBits.D3D12_FENCE
        ],
    ) -> NtHandle: ...

    @overload
    def export_handle(
        self, handle_type: Literal[vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32_KMT]
    ) -> KmtHandle: ...

    @overload
    def export_handle(self, handle_type: Literal[vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD]) -> FdHandle: ...

    @overload
    def export_handle(
        self, handle_type: vk.ExternalSemaphoreHandleTypeFlagBits | None
    ) -> NtHandle | KmtHandle | FdHandle: ...

    def export_handle(
        self, handle_type: vk.ExternalSemaphoreHandleTypeFlagBits | None = None
    ) -> NtHandle | KmtHandle | FdHandle:
        """Return a new handle to the payload, owned by the caller: `extmem.open_timeline` takes it.

        As `Semaphore.export_handle`. A timeline is never exported as SYNC_FD, so the result is a handle.
        """
        return cast("NtHandle | KmtHandle | FdHandle", super().export_handle(handle_type))

    @property
    def repaired(self) -> bool:
        """Whether another process has signaled since one died that could signal: see `PeerGone.repaired`.

        False after a normal end: nothing is broken then.
        """
        gone = self.peer_gone
        return gone is not None and gone.repaired and not gone.closed
