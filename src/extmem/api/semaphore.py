"""`Semaphore`: a VkSemaphore, binary or timeline; `Timeline`, in a module of its own, is a timeline semaphore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from extmem import _pickles, vk
from extmem.core import sync_operations
from extmem.core.sync_object import SemaphoreObject

if TYPE_CHECKING:
    from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__ = ["Semaphore"]


class Semaphore(SemaphoreObject):
    """A semaphore of a device (VkSemaphore). Made by `Device.create_semaphore`; `close()` destroys it.

    A binary semaphore orders the submissions of queues: it is signaled by one, and a wait of another one consumes the
    signal. Only a timeline can be waited for and signaled by the host.

    Ownership: it has a payload, which lives as long as any semaphore, handle or name (with a handle) of any process
    refers to it. Threads: every method may be called from any thread. A semaphore that submitted work uses is
    destroyed after it. Pickling sends it to a process that `multiprocessing` starts: the receiver gets another
    semaphore with the same payload and rights.
    Errors of all: HandleStateError once closed, and in a forked child.
    """

    __slots__ = ()

    @property
    def device(self) -> Any:  # not `Device`: that module imports this one, for what its methods return
        """The `Device` that it belongs to."""
        return super().device

    @property
    def semaphore_type(self) -> vk.SemaphoreType:
        """VkSemaphoreType: BINARY or TIMELINE."""
        return vk.SemaphoreType.TIMELINE if self.descriptor.timeline else vk.SemaphoreType.BINARY

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
    ) -> NtHandle | KmtHandle | FdHandle | int: ...

    def export_handle(
        self, handle_type: vk.ExternalSemaphoreHandleTypeFlagBits | None = None
    ) -> NtHandle | KmtHandle | FdHandle | int:
        """Return a new handle to the payload, owned by the caller. Later calls return duplicates of it.

        handle_type: a type that it was created for; None: the first of NT handle, KMT handle and fd that this process
            can give: of an imported payload it gives no NT handles. SYNC_FD may return -1: the payload is signaled
            already, and there is nothing to wait for.
        Errors: UnsupportedError for an NT handle of an imported payload; RuleViolation
        (VUID-VkSemaphoreGetWin32HandleInfoKHR-handleType-01126, VUID-VkSemaphoreGetFdInfoKHR-handleType-01132) for a
        type that it was not created for, and VUID-VkSemaphoreGetFdInfoKHR-handleType-01135 for SYNC_FD without a
        signal; OutOfMemoryError without a free file descriptor; QuotaError.
        """
        with self.use() as record:
            handle: NtHandle | KmtHandle | FdHandle | int = sync_operations.sync_exporting.export_handle(
                self, record, handle_type
            )
            return handle

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickles.reduce_sync(self)
