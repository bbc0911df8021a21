"""`VulkanFence`: a VkFence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.vulkan.sync_sharing import SharedSync
from extmem.devices.vulkan.sync_words import ObjectKindNames
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.sync import FenceSpec
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.sync_fd_check import SyncFdCheck

__all__ = ["VulkanFence"]

_CREATE = int(vk.StructureType.FENCE_CREATE_INFO)
_SIGNALED = int(vk.FenceCreateFlagBits.SIGNALED)
_NOT_READY = int(vk.Result.NOT_READY)


class VulkanFence(SharedSync):
    """A fence of the driver. See `NativeFence`."""

    kind = ObjectKindNames("Fence")
    timeline = False

    def __init__(self, device: LogicalDevice, fds: SyncFdCheck, spec: FenceSpec) -> None:
        super().__init__(device, fds, int(spec.export_types), spec.terms)
        self._make(self._create_info(spec.signaled))

    def _create_info(self, signaled: bool) -> object:
        chain = self._export_info(ffi.NULL)
        self._keep = chain  # a pointer in a struct keeps nothing
        return ffi.new("VkFenceCreateInfo *", (_CREATE, chain, _SIGNALED if signaled else 0))

    def status(self) -> bool:
        """See `NativeFence`."""
        with self.keeper.use():
            result = self.device.commands.vkGetFenceStatus(self.device.handle, self.live)
        if result == _NOT_READY:
            return False
        self.device.check(result, "vkGetFenceStatus")
        return True

    def reset(self) -> None:
        """See `NativeFence`. The driver restores the permanent payload."""
        with self.keeper.use():
            device = self.device
            fences = ffi.new("uint64_t *", self.live)
            device.check(device.commands.vkResetFences(device.handle, 1, fences), "vkResetFences")
        self.abandoned = None
        self.restored()
