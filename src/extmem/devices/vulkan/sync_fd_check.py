"""The check of a semaphore's or fence's fd: no unproven one reaches a device in use. `fd_check` does that for memory.

How this works. One driver answers the import of a bad fd with VK_ERROR_INITIALIZATION_FAILED, and refuses every
vkCreateSemaphore of the process from then on. So an fd is examined first: it must be a file of the kind that this
driver exports for the type, of which a sample is made once. An fd that this library did not export is proved next: it
is imported on a VkDevice made for nothing else. A driver takes a binary semaphore's fd for a timeline's without an
error, so neither step can tell the two apart: the semaphore type comes from the descriptor.

A SYNC_FD is a file of the kernel (sync_file), whatever driver made it, and is proved in any case.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from extmem import vk
from extmem.devices.types import ExaminedFd
from extmem.devices.vulkan.file_kind import FILE_TYPES, FileKind, file_kind
from extmem.devices.vulkan.logical import LogicalDevice
from extmem.devices.vulkan.sync_capabilities import fence_properties, semaphore_properties
from extmem.devices.vulkan.sync_files import is_sync_file
from extmem.devices.vulkan.sync_handle_types import OPAQUE_FD, as_driver_gets, sync_fd_of
from extmem.devices.vulkan.sync_words import ObjectKindNames, refusal
from extmem.errors import DriverError
from extmem.vk.handle_types import NO_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.owning import OwnedFd
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["SyncFdCheck"]

_EXPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE)
_IMPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE)
_NOT_THE_FD: Final = frozenset(
    (vk.Result.ERROR_OUT_OF_HOST_MEMORY, vk.Result.ERROR_TOO_MANY_OBJECTS, vk.Result.ERROR_DEVICE_LOST)
)
"""Results of an import that the fd does not cause."""
_DRIVER_FILES = ("/memfd:", "/dev/", "anon_inode:")
"""Beginnings of the links of files that drivers export."""


class Target(Protocol):
    """A semaphore or fence that a payload is imported into (`sync_objects`)."""

    kind: ClassVar[ObjectKindNames]
    timeline: bool

    def export_fd_bit(self, handle_type: SyncHandleType | int) -> OwnedFd | None:
        """Export its payload."""

    def import_unchecked(self, fd: int, handle_type: SyncHandleType | int, *, temporary: bool) -> None:
        """Import a copy of the fd."""

    def close(self) -> None:
        """Destroy it."""


class SyncFdCheck:
    """The checks of one device, and what it has found out about the files of its driver."""

    def __init__(self, device: LogicalDevice, create: Callable[[LogicalDevice, bool, bool, int], Target]) -> None:
        """create: makes a fence or a semaphore on a device: (device, fence, timeline, export types)."""
        self._device = device
        self._create = create
        self._own: dict[tuple[bool, bool], FileKind | None] = {}

    def own(self, *, fence: bool, timeline: bool) -> FileKind | None:
        """What this driver's OPAQUE_FD exports of the kind are; None where it exports none, and is not asked to.

        Errors: DriverError, OutOfMemoryError.
        """
        key = fence, timeline
        if key not in self._own:
            own: FileKind | None = None
            if self._features(OPAQUE_FD, fence, timeline) & _EXPORTABLE:
                sample = self._create(self._device, fence, timeline, OPAQUE_FD)
                try:
                    fd = sample.export_fd_bit(OPAQUE_FD)
                    if fd is not None:
                        own = file_kind(fd.fd)
                        fd.close()
                finally:
                    sample.close()
            self._own[key] = own
        return self._own[key]

    def _features(self, handle_type: SyncHandleType | int, fence: bool, timeline: bool) -> int:
        physical = self._device.physical
        if fence:
            return int(fence_properties(physical, handle_type).external_fence_features)
        return int(semaphore_properties(physical, handle_type, timeline=timeline).external_semaphore_features)

    def examine(
        self, fd: int, handle_type: SyncHandleType | int, target: Target, *, trusted: bool = False
    ) -> ExaminedFd:
        """Return what an fd is, and whether it may be imported into such an object; see `SyncBackend`."""
        return self.examine_for(fd, handle_type, target.kind, timeline=target.timeline, trusted=trusted)

    def examine_for(
        self, fd: int, handle_type: SyncHandleType | int, kind: ObjectKindNames, *, timeline: bool, trusted: bool
    ) -> ExaminedFd:
        """See `examine`. Errors: as `own`."""
        fence, handle_type = kind.noun == "fence", as_driver_gets(handle_type)
        try:
            status = os.fstat(fd) if fd >= 0 else None
        except OSError:
            status = None
        if status is None:
            return ExaminedFd(fd, NO_TYPES, "closed", f"fd {fd} is not an open file descriptor", self_describing=False)
        file_type = FILE_TYPES.get(stat.S_IFMT(status.st_mode), "other")
        problem = self._problem(fd, handle_type, fence, timeline, trusted)
        return ExaminedFd(
            fd,
            NO_TYPES,  # the types of memory; the caller knows which type it was examined as
            file_type,
            problem,
            writable=True,
            identity=(status.st_dev, status.st_ino),
            self_describing=False,
            trusted=trusted and not problem,
        )

    def _problem(self, fd: int, handle_type: SyncHandleType | int, fence: bool, timeline: bool, trusted: bool) -> str:
        """Why this fd cannot be a payload of that type; empty where it may be one. trusted: its link is not read."""
        name, noun = self._device.name, "fence" if fence else "timeline semaphore" if timeline else "binary semaphore"
        if not self._features(handle_type, fence, timeline) & _IMPORTABLE:
            return f"{name} does not import {noun}s of handle type {handle_type:#x}"
        if handle_type == sync_fd_of(fence=fence):
            return self._problem_of_sync_file(fd)
        own = self.own(fence=fence, timeline=timeline)
        seen = file_kind(fd, link=not trusted)
        if own is None:
            if trusted or (seen.mode not in (stat.S_IFIFO, stat.S_IFSOCK) and seen.link.startswith(_DRIVER_FILES)):
                return ""
            return f"fd {fd} is {seen}, which no driver exports as a {noun}"
        difference = seen.difference(own)
        if not difference and (trusted or seen.link == own.link):
            return ""
        how = f" ({difference})" if difference and seen.link == own.link else ""
        return f"fd {fd} is {seen or 'another file'}{how}, and what {name} exports of a {noun} is {own}"

    def _problem_of_sync_file(self, fd: int) -> str:
        seen = file_kind(fd)
        return "" if is_sync_file(seen.link) else f"fd {fd} is {seen}, and not a sync_file of the kernel"

    def prove(self, fd: int, handle_type: SyncHandleType | int, target: Target, *, temporary: bool) -> None:
        """Import the fd on a device of its own, which is destroyed then. The fd stays the caller's.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where the fd is refused; errors that the fd does not
        cause (OutOfMemoryError, DriverError with VK_ERROR_DEVICE_LOST) as they are.
        """
        refused: DriverError | None = None
        witness = LogicalDevice(self._device.physical)
        try:
            other = self._create(witness, target.kind.noun == "fence", target.timeline, 0)
            try:
                other.import_unchecked(fd, handle_type, temporary=temporary)
            except DriverError as error:
                refused = error
            finally:
                other.close()
        finally:
            witness.close()
        if refused is None:
            return
        if refused.result in _NOT_THE_FD:
            raise refused
        problem = f"the fd was tried on a device of its own and refused there ({refused})"
        raise refusal(self._device.name, target.kind, problem) from refused
