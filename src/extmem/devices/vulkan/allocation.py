"""What the Vulkan device's memory is to the layers above: a VkDeviceMemory and what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from extmem import vk
from extmem.broker.descriptors import close_descriptor
from extmem.devices.vulkan.call import fail
from extmem.errors import HandleStateError, UnsupportedError

if TYPE_CHECKING:
    from extmem.broker.descriptors import PayloadFd
    from extmem.devices.base import Allocation, Mapping, NativeResource
    from extmem.devices.vulkan.driver import VulkanDriver

__all__ = ["VulkanAllocation", "ours"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_WHOLE_SIZE = int(vk.WHOLE_SIZE)
_KMT = int(HandleType.OPAQUE_WIN32_KMT)
_SHARED = int(HandleType.OPAQUE_FD | HandleType.DMA_BUF | HandleType.OPAQUE_WIN32 | HandleType.OPAQUE_WIN32_KMT)

Owner = Literal["here", "external", "held"]


class VulkanAllocation(msgspec.Struct, eq=False):
    """A VkDeviceMemory. Ownership: freed by `close`, with the buffer that bytes are moved through and the fd, if any.

    Imported host memory (`mapped_at`) is mapped already, where its owner has it; so it is never mapped by the device.
    (A Struct because it is made in C: every import makes one.)
    """

    driver: VulkanDriver
    raw: int
    """VkDeviceMemory; 0 once freed."""
    size: int
    memory_type_index: int
    handle_types: int
    """External types as the driver knows them."""
    dedicated: NativeResource | None = None
    payload: PayloadFd | None = None
    """What it was imported from, if the object manager gave that; closed with it."""
    stated_identity: int = 0
    owner: Owner = "here"
    """Who owns the payload in the sense of queue family ownership: this device since it was allocated; whoever uses it
    next (VK_QUEUE_FAMILY_EXTERNAL); or this device by barriers of the program's own, until they release it."""
    owned: bool = True
    """Whether `close` frees the VkDeviceMemory; one that somebody else allocated is left to them."""
    transfer: NativeResource | None = None
    """A buffer over all of it, made when bytes are first moved."""
    keep: object = None
    """What owns the bytes of imported host memory."""
    exported: int = -1
    """An fd or NT handle that the driver gave and that `fd` lends out, or a KMT number; -1 before anybody asked."""
    exporting: bool = True
    """Whether the driver may be asked for handles of it: false for what was imported and is not exported again."""
    address: int = 0
    """Where it is mapped, until vkFreeMemory; 0 before."""

    @property
    def writable(self) -> bool:
        """Whether the payload came with the right to write."""
        return self.payload is None or self.payload.writable

    @property
    def live(self) -> int:
        """VkDeviceMemory. HandleStateError once freed."""
        if not self.raw:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self.raw

    @property
    def fd(self) -> int | None:
        """The payload's fd, borrowed: as it came, or exported by the driver when first asked for.

        On Windows its NT handle, or KMT number. A driver is asked once for each memory: it may be asked no more often
        (VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663).
        """
        raw = self.live
        if self.payload is not None and not self.exporting:
            return self.payload.fd
        types = self.handle_types & _SHARED
        if not types:
            return None
        if self.exported < 0:
            self.exported = self.driver.get_handle(raw, types & -types)
        return self.exported

    @property
    def identity(self) -> tuple[int, int] | None:
        """None: the kernel does not tell a driver's payloads apart."""
        return None

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return not self.raw

    def mapped_at(self, address: int, keep: object) -> None:
        """It is host memory, which `keep` has mapped there."""
        self.address, self.keep = address, keep

    @property
    def mapped(self) -> bool:
        """Whether vkMapMemory was called, or it is host memory."""
        return self.address != 0

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. An allocation is its own mapping."""
        raw = self.raw or self.live
        if self.address:
            return self
        driver = self.driver
        if not driver.host_visible[self.memory_type_index]:
            raise UnsupportedError(
                f"memory type {self.memory_type_index} of {driver.name} cannot be seen by the host; use "
                "memory.read() and memory.write(), or allocate with a HOST_VISIBLE memory_type",
                requires_one_of=["a HOST_VISIBLE memory type", "DeviceMemory.read and write"],
            )
        call = driver.mappings.pop("set", None) or driver.mappings.make()
        result = driver.commands.vkMapMemory(driver.handle, raw, 0, _WHOLE_SIZE, 0, call.at)
        if result:
            fail(result, "vkMapMemory", driver.name, f"{self.size} bytes")
        self.address = call.address[0]
        driver.mappings["set"] = call
        return self

    def hand_over(self) -> None:
        """See `HandsOver`."""
        self.driver.transfer.run(lambda recorder: None, [self])

    def close(self) -> None:
        """vkFreeMemory, which unmaps. Safe to call twice."""
        raw, self.raw = self.raw, 0
        if not raw:
            return
        transfer, self.transfer = self.transfer, None
        if transfer is not None:
            self.driver.destroy(transfer)
        if self.owned:
            self.driver.free_memory(raw)
        if self.exported >= 0 and not self.handle_types & _KMT:  # a number owns nothing
            close_descriptor(self.exported)
        if self.payload is not None:
            self.payload.close()
        self.payload = self.keep = None
        self.address = 0


def ours(allocation: Allocation) -> VulkanAllocation:
    """The allocation as a Vulkan device's. TypeError for another's."""
    if not isinstance(allocation, VulkanAllocation):
        raise TypeError(f"{allocation!r} is no allocation of a Vulkan device")
    return allocation
