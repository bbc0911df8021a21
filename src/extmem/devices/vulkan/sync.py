"""Semaphores and fences of a Vulkan device: its part of `SyncBackend`.

How this works. `semaphores` and `fences` are the objects, `sync_fd_check` checks what is imported into them, and
`sync_submission` submits what waits for and signals them. This module is imported when a program first uses a semaphore
or a fence of the device.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import msgspec

from extmem import vk
from extmem.devices.sync import FenceSpec, SemaphoreSpec
from extmem.devices.vulkan.fences import VulkanFence
from extmem.devices.vulkan.handle_types import WIN32_IS_NATIVE
from extmem.devices.vulkan.host_words import HostWords
from extmem.devices.vulkan.results import fail
from extmem.devices.vulkan.semaphores import VulkanSemaphore
from extmem.devices.vulkan.sync_capabilities import (
    fence_properties,
    max_timeline_difference,
    semaphore_properties,
    sync_extension_of,
)
from extmem.devices.vulkan.sync_fd_check import SyncFdCheck
from extmem.devices.vulkan.sync_handle_types import OPAQUE_FD, OPAQUE_WIN32
from extmem.devices.vulkan.sync_submission import BatchQueue
from extmem.errors import DriverError, PeerGoneError
from extmem.owning import Uses
from extmem.vk.abi import ffi
from extmem.vk.handle_types import FenceHandleType, SemaphoreHandleType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.sync import NativeFence, NativeSemaphore
    from extmem.devices.types import ExaminedFd
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.sync_objects import VulkanSync
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["VulkanSyncBackend"]

_SHARED = OPAQUE_WIN32 if WIN32_IS_NATIVE else OPAQUE_FD
_WAIT = int(vk.StructureType.SEMAPHORE_WAIT_INFO)
_ANY = int(vk.SemaphoreWaitFlagBits.ANY)
_TIMEOUT = int(vk.Result.TIMEOUT)
_BOTH = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE | vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE)
_MIXED_SLICE_NS = 1_000_000
_WORD_SLICE_NS = 100_000_000


class VulkanSyncBackend:
    """The semaphores and fences of one VkDevice. See `SyncBackend`, which documents its members."""

    def __init__(self, device: LogicalDevice) -> None:
        self.device = device
        self.timelines = "driver" if self._shares_timelines() else "host"
        self.max_timeline_difference = max_timeline_difference(device.physical)
        self._words = HostWords(driver_shares_timelines=self.timelines == "driver")
        self._fds = SyncFdCheck(device, self._create)
        self.batches = BatchQueue(device, self._words)
        self.submit_batches = self.batches.submit

    def _shares_timelines(self) -> bool:
        device = self.device
        if "timelineSemaphore" not in device.features or self.missing_for(_SHARED, fence=False):
            return False
        properties = semaphore_properties(device.physical, _SHARED, timeline=True)
        return int(properties.external_semaphore_features) & _BOTH == _BOTH

    def missing_for(self, handle_type: SyncHandleType | int, *, fence: bool) -> str:
        """The extension that the device was created without, and the type needs; empty if none."""
        needed = sync_extension_of(int(handle_type), fence=fence)
        return "" if needed in self.device.enabled else needed

    # Capabilities.

    def external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        chained = vk.find(info, vk.SemaphoreTypeCreateInfo)
        timeline = chained is not None and chained.semaphore_type == vk.SemaphoreType.TIMELINE
        return semaphore_properties(self.device.physical, int(info.handle_type), timeline=timeline)

    def external_fence_properties(self, info: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
        return fence_properties(self.device.physical, int(info.handle_type))

    # Objects.

    def create_semaphore(self, spec: SemaphoreSpec) -> VulkanSemaphore:
        """See `SyncBackend`. A timeline that is exported is the host's if the driver's cannot be."""
        self.device.check_open()
        return VulkanSemaphore(self.device, self._fds, self._words, spec)

    def create_fence(self, spec: FenceSpec) -> VulkanFence:
        self.device.check_open()
        return VulkanFence(self.device, self._fds, spec)

    def _create(
        self, device: LogicalDevice, fence: bool, timeline: bool, export_types: SyncHandleType | int
    ) -> VulkanSync:
        """Create an object for the check of an fd, without a host word."""
        if fence:
            return VulkanFence(device, self._fds, FenceSpec(export_types=FenceHandleType(export_types)))
        spec = SemaphoreSpec(timeline, export_types=SemaphoreHandleType(export_types))
        return VulkanSemaphore(device, self._fds, None, spec)

    def examine_sync_fd(
        self,
        fd: int,
        handle_type: SyncHandleType,
        *,
        fence: bool = False,
        timeline: bool = False,
        trusted: bool = False,
    ) -> ExaminedFd:
        """See `SyncBackend`. A host timeline is examined as such: it describes itself."""
        if timeline and not fence:
            host = self._words.examined(fd)
            if host is not None:
                return msgspec.structs.replace(host, trusted=trusted)
        kind = VulkanFence.kind if fence else VulkanSemaphore.kind
        return self._fds.examine_for(fd, handle_type, kind, timeline=timeline, trusted=trusted)

    # Waits.

    def wait_semaphores(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        """See `SyncBackend`. Timelines with a host word are waited for by it, the others by vkWaitSemaphores.

        The driver's counter is looked at, too, since a program without extmem can signal a timeline, and raises no
        word. Errors: PeerGoneError for a value that is not reached, and whose signaler has ended.
        """
        deadline = time.monotonic_ns() + timeout_ns
        with Uses() as uses:
            natives = [(_native(semaphore), value) for semaphore, value in waits]
            for semaphore, _ in natives:
                uses.add(semaphore.keeper)
            is_over = False
            while True:
                left = [(semaphore, value) for semaphore, value in natives if not semaphore.has_reached(value)]
                if not left or (any_of and len(left) < len(natives)):
                    return True
                if is_over:
                    return False
                remaining = max(0, deadline - time.monotonic_ns())
                is_over = not remaining  # without time it looks whether a signaler has ended
                self._wait_once(left, any_of, remaining)

    def _wait_once(self, waits: list[tuple[VulkanSemaphore, int]], any_of: bool, remaining: int) -> None:
        """Wait for a moment; the caller looks at the counters afterwards."""
        words = [(word, value) for semaphore, value in waits if (word := semaphore.host_word) is not None]
        driver = [(semaphore, value) for semaphore, value in waits if semaphore.host_word is None]
        if words and (not driver or not any_of):
            try:
                self._words.wait(words, any_of=any_of, timeout_ns=min(remaining, _WORD_SLICE_NS))
            except PeerGoneError:
                # The GPU may have reached the value after the end of the process that would have told of it.
                if not any(semaphore.has_reached(value) for semaphore, value in waits):
                    raise
        else:
            slice_ns = min(remaining, _MIXED_SLICE_NS) if words else remaining
            self._wait_for_driver(driver, any_of, slice_ns)

    def _wait_for_driver(self, waits: list[tuple[VulkanSemaphore, int]], any_of: bool, timeout_ns: int) -> None:
        device = self.device
        raws = ffi.new("uint64_t[]", [semaphore.live for semaphore, _ in waits])
        values = ffi.new("uint64_t[]", [value for _, value in waits])
        info = ffi.new("VkSemaphoreWaitInfo *", (_WAIT, ffi.NULL, _ANY if any_of else 0, len(waits), raws, values))
        result = device.timeline_commands[1](device.handle, info, timeout_ns)
        if result not in (0, _TIMEOUT):
            fail(result, "vkWaitSemaphores", device.name)

    def wait_fences(self, fences: Sequence[NativeFence], *, any_of: bool = False, timeout_ns: int = 0) -> bool:
        device = self.device
        device.check_open()
        with Uses() as uses:
            for fence in fences:
                uses.add(fence.keeper)
            _check_promised(fences, any_of)
            raws = ffi.new("uint64_t[]", [fence.raw for fence in fences])
            result = device.commands.vkWaitForFences(device.handle, len(fences), raws, not any_of, timeout_ns)
        if result not in (0, _TIMEOUT):
            fail(result, "vkWaitForFences", device.name)
        return bool(result == 0)

    # The end.

    def drain(self) -> None:
        """Wait until nothing is submitted. Errors: DriverError, as `BatchQueue.drain`."""
        self.batches.drain()

    def close(self) -> None:
        """Release what submissions needed, when they are done. Safe to repeat. Errors: as `drain`."""
        self.batches.close()


def _check_promised(fences: Sequence[NativeFence], any_of: bool) -> None:
    """Raise the reason why one of the fences (any: each of them) is not going to be signaled."""
    reasons = [reason for fence in fences if (reason := cast("VulkanFence", fence).abandoned) is not None]
    if not reasons or (any_of and len(reasons) < len(fences)):
        return
    text = (
        f"vkWaitForFences: the submission that was to signal a fence was not made ({reasons[0]}); submit it again when "
        "what it waits for can happen"
    )
    if isinstance(reasons[0], PeerGoneError):
        raise PeerGoneError(text)
    raise DriverError(text, result=int(vk.Result.ERROR_UNKNOWN), command="vkWaitForFences")


def _native(semaphore: Any) -> VulkanSemaphore:
    """The semaphore as a Vulkan device's. Errors: TypeError for another device's."""
    if not isinstance(semaphore, VulkanSemaphore):
        raise TypeError(f"{semaphore!r} is not a semaphore of a Vulkan device")
    return semaphore
