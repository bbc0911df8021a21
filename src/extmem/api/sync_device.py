"""`SyncDevice`: the part of `Device` for semaphores, timelines, fences and submissions.

Each command of the specification is one method, as for memory; `timeline` and `fence` are the everyday calls. A program
that shares memory alone loads none of the modules behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extmem.arguments import a_type
from extmem.core import sync_operations
from extmem.core.device_state import DeviceState
from extmem.owning import late_imports, unsettled, work_off

if TYPE_CHECKING:
    from extmem import vk
    from extmem.api.capabilities import Capabilities
    from extmem.api.fence import Fence
    from extmem.api.semaphore import Semaphore
    from extmem.api.timeline import Timeline
    from extmem.handles import FdHandle, KmtHandle, NtHandle

__all__ = ["SyncDevice"]


def _classes() -> Any:
    """Return the module with the classes of semaphores and fences."""
    with late_imports():
        from extmem.api import sync_objects

    return sync_objects


class SyncDevice(DeviceState):
    """The commands and calls of a device for semaphores, timelines and fences. `Device` is one."""

    # Capabilities.

    @property
    def capabilities(self) -> Capabilities:
        """How this device shares timelines, and how its queues wait for them."""
        with late_imports():
            from extmem.api.capabilities import capabilities_of

        with self.use():
            return capabilities_of(self)

    def get_physical_device_external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        """Return what semaphores can be exported and imported as; without feature bits if the type is unsupported.

        Chain vk.SemaphoreTypeCreateInfo to ask for timelines: a driver may export binary semaphores alone.
        """
        return sync_operations.sync_facts.semaphore_properties(self, info)

    def get_physical_device_external_fence_properties(
        self, info: vk.PhysicalDeviceExternalFenceInfo
    ) -> vk.ExternalFenceProperties:
        """Return what fences can be exported and imported as; without feature bits if the type is unsupported."""
        return sync_operations.sync_facts.fence_properties(self, info)

    # Semaphores.

    def create_semaphore(self, info: vk.SemaphoreCreateInfo) -> Semaphore:
        """vkCreateSemaphore: return a `Semaphore`; a `Timeline` for VK_SEMAPHORE_TYPE_TIMELINE. `close()` destroys it.

        With VkExportSemaphoreWin32HandleInfoKHR it has a name, security and rights. Without that struct its NT handles
        have all rights (0x1F0003).
        Errors: RuleViolation; NameTakenError and other refusals of the object manager; OutOfMemoryError, DriverError;
        UnsupportedError.
        """
        if unsettled:
            work_off()
        made: Semaphore = _classes().semaphore_of(sync_operations.sync_creating.create_semaphore(self, info))
        return made

    def destroy_semaphore(self, semaphore: Semaphore) -> None:
        """vkDestroySemaphore. As `semaphore.close()`, but a semaphore that submitted work uses is refused.

        Errors: RuleViolation (VUID-vkDestroySemaphore-semaphore-05149). A closed one is ignored.
        """
        sync_operations.host_waits.check_destroy_semaphore(self, semaphore)
        semaphore.close()

    def import_semaphore_fd(self, info: vk.ImportSemaphoreFdInfoKHR) -> None:
        """vkImportSemaphoreFdKHR: replace the payload of a semaphore, for good or until the next wait (TEMPORARY).

        The fd is consumed if and only if this succeeds. fd -1 with SYNC_FD is a payload that is signaled already.
        Errors: RuleViolation; DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE and what the fd is instead;
        ObjectTypeError for the fd of a fence; DescriptorError. After an error nothing has changed.
        """
        sync_operations.sync_importing.import_semaphore_fd(self, info)

    def import_semaphore_win32_handle(self, info: vk.ImportSemaphoreWin32HandleInfoKHR) -> None:
        """vkImportSemaphoreWin32HandleKHR: as `import_semaphore_fd`, from an NT handle, a KMT number or a name.

        The caller keeps the handle. Errors: RuleViolation; the refusals of the object manager (NameNotFoundError,
        AccessDeniedError, InvalidHandleError, ObjectTypeError), with the rule that each one decides in `violations`.
        """
        sync_operations.sync_importing.import_semaphore_win32(self, info)

    def get_semaphore_fd(self, info: vk.SemaphoreGetFdInfoKHR) -> FdHandle | int:
        """vkGetSemaphoreFdKHR: return a new fd at each call, owned by the caller; -1 for SYNC_FD of a payload that is
        signaled already.

        An export as SYNC_FD acts on the semaphore like a wait (S5).
        Errors: RuleViolation (VUID-VkSemaphoreGetFdInfoKHR-handleType-01135 for SYNC_FD without a signal);
        OutOfMemoryError without a free file descriptor.
        """
        return sync_operations.sync_exporting.get_semaphore_fd(self, info)

    def get_semaphore_win32_handle(self, info: vk.SemaphoreGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
        """vkGetSemaphoreWin32HandleKHR: return an NT handle that the caller closes, or a KMT number.

        At most one call for each payload and NT type (VUID-VkSemaphoreGetWin32HandleInfoKHR-handleType-01127). To get
        more handles, duplicate the handle, or use `export_handle`. Errors: RuleViolation; UnsupportedError; QuotaError.
        """
        return sync_operations.sync_exporting.get_semaphore_win32(self, info)

    def get_semaphore_counter_value(self, semaphore: Semaphore) -> int:
        """vkGetSemaphoreCounterValue: return the value of a timeline.

        Errors: RuleViolation (VUID-vkGetSemaphoreCounterValue-semaphore-03255) for a binary semaphore.
        """
        return sync_operations.host_waits.counter_value(self, semaphore)

    def wait_semaphores(self, info: vk.SemaphoreWaitInfo, timeout_ns: int) -> bool:
        """vkWaitSemaphores: return whether all values (with VK_SEMAPHORE_WAIT_ANY_BIT: any) were reached in time.

        timeout_ns: nanoseconds; 0 looks without waiting, 2**64 - 1 is no limit. False is VK_TIMEOUT.
        Errors: RuleViolation; PeerGoneError, as `Timeline.wait`.
        """
        return sync_operations.host_waits.wait_semaphores(self, info, timeout_ns)

    def signal_semaphore(self, info: vk.SemaphoreSignalInfo) -> None:
        """vkSignalSemaphore: set the value of a timeline. Errors: as `Timeline.signal`."""
        sync_operations.host_waits.signal_semaphore(self, info)

    # Fences.

    def create_fence(self, info: vk.FenceCreateInfo) -> Fence:
        """vkCreateFence. `close()` destroys it. Errors: as `create_semaphore`."""
        if unsettled:
            work_off()
        made: Fence = _classes().Fence(*sync_operations.sync_creating.create_fence(self, info))
        return made

    def destroy_fence(self, fence: Fence) -> None:
        """vkDestroyFence. As `fence.close()`, but a fence that submitted work is to signal is refused.

        Errors: RuleViolation (VUID-vkDestroyFence-fence-01120). A closed one is ignored.
        """
        sync_operations.host_waits.check_destroy_fence(self, fence)
        fence.close()

    def import_fence_fd(self, info: vk.ImportFenceFdInfoKHR) -> None:
        """vkImportFenceFdKHR: replace the payload of a fence, for good or until the next reset (TEMPORARY).

        Ownership and errors: as `import_semaphore_fd`.
        """
        sync_operations.sync_importing.import_fence_fd(self, info)

    def import_fence_win32_handle(self, info: vk.ImportFenceWin32HandleInfoKHR) -> None:
        """vkImportFenceWin32HandleKHR. As `import_semaphore_win32_handle`."""
        sync_operations.sync_importing.import_fence_win32(self, info)

    def get_fence_fd(self, info: vk.FenceGetFdInfoKHR) -> FdHandle | int:
        """vkGetFenceFdKHR: return a new fd, owned by the caller; -1 for SYNC_FD of a fence that is signaled already.

        An export as SYNC_FD acts on the fence like a reset (S5). Errors: as `get_semaphore_fd`.
        """
        return sync_operations.sync_exporting.get_fence_fd(self, info)

    def get_fence_win32_handle(self, info: vk.FenceGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
        """vkGetFenceWin32HandleKHR. As `get_semaphore_win32_handle`."""
        return sync_operations.sync_exporting.get_fence_win32(self, info)

    def get_fence_status(self, fence: Fence) -> bool:
        """vkGetFenceStatus: return whether the fence is signaled (VK_SUCCESS), or not (VK_NOT_READY)."""
        return sync_operations.host_waits.fence_status(self, fence)

    def wait_for_fences(self, fences: Sequence[Fence], timeout_ns: int, *, wait_all: bool = True) -> bool:
        """vkWaitForFences: return whether all (or any) of the fences were signaled in time; False is VK_TIMEOUT.

        timeout_ns: nanoseconds; 0 looks without waiting, 2**64 - 1 is no limit.
        Errors: RuleViolation; PeerGoneError, as `Fence.wait`.
        """
        return sync_operations.host_waits.wait_for_fences(self, fences, timeout_ns, wait_all=wait_all)

    def reset_fences(self, fences: Sequence[Fence]) -> None:
        """vkResetFences: end temporary imports, and make the fences unsignaled. All are checked before the first.

        Errors: RuleViolation (VUID-vkResetFences-pFences-01123) for one that submitted work is to signal.
        """
        sync_operations.host_waits.reset_fences(self, fences)

    # Submissions.

    def queue_submit(self, submits: Sequence[vk.SubmitInfo], fence: Fence | None = None) -> None:
        """vkQueueSubmit: submit command buffers of another binding, with waits and signals of semaphores; return.

        What it uses is held until the work is done. On a device without queues (the host), waits block this thread,
        without a limit, and signals are made in it. Such a wait ends with the signal, with an exception of a signal
        handler (Ctrl-C), or with PeerGoneError if the signaler has ended; closing the semaphore does not end it.
        Errors: RuleViolation; AccessDeniedError for a signal of a semaphore that was imported for waiting only;
        DriverError (VK_TIMEOUT of a keyed mutex: nothing was submitted), OutOfMemoryError.
        """
        sync_operations.submitting.queue_submit(self, submits, fence)

    def queue_submit2(self, submits: Sequence[vk.SubmitInfo2], fence: Fence | None = None) -> None:
        """vkQueueSubmit2: as `queue_submit`, with the values of timelines in VkSemaphoreSubmitInfo."""
        sync_operations.submitting.queue_submit2(self, submits, fence)

    # The high-level API.

    def timeline(
        self,
        initial: int = 0,
        *,
        name: str | None = None,
        access: int | None = None,
        security: str | None = None,
        inherit: bool = False,
        handle_types: int | None = None,
    ) -> Timeline:
        """Return a new timeline that can be shared. The caller closes it.

        initial: its first value, from 0 to 2**64 - 1.
        name: the name by which `extmem.open_timeline` opens it, in any process. It exists as long as this timeline, or
            any handle or import of it.
        access: rights that others get: `Access.READ` to wait, `Access.READ_WRITE` (default) to wait and to signal. On
            the host device the kernel enforces it.
        security: SDDL for the shared object, used instead of `access`. Default: only this user has access.
        inherit: whether child processes of `extmem.process` inherit handles of it.
        handle_types: bits of vk.ExternalSemaphoreHandleTypeFlagBits; default OPAQUE_WIN32 | OPAQUE_FD, as far as the
            device supports them.
        Errors: NameTakenError, NameInvalidError, SecurityDescriptorError, QuotaError, OutOfMemoryError, RuleViolation,
        UnsupportedError; TypeError; ValueError for an initial value beyond 64 bits.
        """
        if security is not None and not isinstance(security, str):
            raise TypeError(f"security is {security!r}, {a_type(security)}; give SDDL as a str, or None")
        if unsettled:
            work_off()
        held = sync_operations.sync_creating.create_timeline(
            self,
            initial,
            name=name,
            access=access,
            security=security,
            inherit=inherit,
            handle_types=handle_types,
        )
        made: Timeline = _classes().Timeline(*held)
        return made

    def fence(self, signaled: bool = False) -> Fence:
        """Return a new fence for `commands` and `queue_submit`. The caller closes it.

        signaled: whether it is at first. It cannot be exported: see `create_fence` with vk.ExportFenceCreateInfo.
        Errors: TypeError for a value that is not a bool; OutOfMemoryError, DriverError.
        """
        classes = _classes()
        made: Fence = classes.Fence(*sync_operations.sync_creating.create_fence(self, classes.fence_info(signaled)))
        return made
