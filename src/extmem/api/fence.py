"""`Fence`: a VkFence, which tells the host that submitted work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

from extmem import _pickles, vk
from extmem.core import sync_operations
from extmem.core.sync_object import FenceObject

if TYPE_CHECKING:
    from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__ = ["Fence"]


class Fence(FenceObject):
    """A fence of a device (VkFence). Made by `Device.fence` and `Device.create_fence`; `close()` destroys it.

    A submission signals it when all of its work is done; the host waits, and resets it for the next one.

    Ownership, threads, pickling and errors: as for `Semaphore`.
    """

    __slots__ = ()

    @property
    def device(self) -> Any:  # not `Device`: that module imports this one, for what its methods return
        """The `Device` that it belongs to."""
        return super().device

    @property
    def signaled(self) -> bool:
        """Whether it is signaled (vkGetFenceStatus)."""
        with self.use() as record:
            return sync_operations.host_waits.status_of(record)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is signaled (vkWaitForFences). The wait changes nothing: it stays signaled until `reset`.

        timeout: seconds, 0 to check without waiting; None for no limit. Ctrl-C ends the wait.
        Errors: WaitTimeoutError (a TimeoutError); PeerGoneError for a fence of the host whose signaler has ended.
        """
        with self.use() as record:
            sync_operations.host_waits.wait_fence(record, timeout)

    def reset(self) -> None:
        """Make it unsignaled (vkResetFences). A temporary import ends, and the permanent payload is reset (S10).

        Errors: RuleViolation (VUID-vkResetFences-pFences-01123) while submitted work is to signal it.
        """
        sync_operations.host_waits.reset_fences(self.device, [self])

    @overload
    def export_handle(self, handle_type: None = None) -> NtHandle | KmtHandle | FdHandle: ...

    @overload
    def export_handle(self, handle_type: Literal[vk.ExternalFenceHandleTypeFlagBits.OPAQUE_WIN32]) -> NtHandle: ...

    @overload
    def export_handle(self, handle_type: Literal[vk.ExternalFenceHandleTypeFlagBits.OPAQUE_WIN32_KMT]) -> KmtHandle: ...

    @overload
    def export_handle(self, handle_type: Literal[vk.ExternalFenceHandleTypeFlagBits.OPAQUE_FD]) -> FdHandle: ...

    @overload
    def export_handle(
        self, handle_type: vk.ExternalFenceHandleTypeFlagBits | None
    ) -> NtHandle | KmtHandle | FdHandle | int: ...

    def export_handle(
        self, handle_type: vk.ExternalFenceHandleTypeFlagBits | None = None
    ) -> NtHandle | KmtHandle | FdHandle | int:
        """Return a new handle to the payload, owned by the caller. As `Semaphore.export_handle`.

        Errors: RuleViolation (VUID-VkFenceGetWin32HandleInfoKHR-handleType-01448,
        VUID-VkFenceGetFdInfoKHR-handleType-01453) for a type that it was not created for.
        """
        with self.use() as record:
            handle: NtHandle | KmtHandle | FdHandle | int = sync_operations.sync_exporting.export_handle(
                self, record, handle_type
            )
            return handle

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickles.reduce_sync(self)
