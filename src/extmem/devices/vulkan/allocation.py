"""What the Vulkan device's memory is to the layers above: a VkDeviceMemory and what belongs to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from extmem import vk
from extmem.errors import HandleStateError, UnsupportedError

if TYPE_CHECKING:
    from extmem.broker.descriptors import PayloadFd
    from extmem.devices.base import Mapping, NativeResource
    from extmem.devices.vulkan.driver import VulkanDriver

__all__ = ["VulkanAllocation", "VulkanMapping"]

_FDS = int(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD | vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF)

Owner = Literal["here", "external", "held"]


class VulkanMapping(NamedTuple):
    """An allocation's bytes in this process; vkFreeMemory ends it."""

    address: int
    size: int
    writable: bool = True


class VulkanAllocation:
    """A VkDeviceMemory. Ownership: freed by `close`, with the buffer that bytes are moved through and the fd, if any.

    Imported host memory (`mapped_at`) is mapped already, where its owner has it; so it is never mapped by the device.
    """

    __slots__ = (
        "_fd",
        "_mapping",
        "_payload",
        "dedicated",
        "driver",
        "handle_types",
        "keep",
        "memory_type_index",
        "owned",
        "owner",
        "raw",
        "size",
        "stated_identity",
        "transfer",
        "writable",
    )

    def __init__(
        self,
        driver: VulkanDriver,
        raw: int,
        size: int,
        memory_type_index: int,
        handle_types: int,
        dedicated: NativeResource | None = None,
        payload: PayloadFd | None = None,
        *,
        identity: int = 0,
        owner: Owner = "here",
        owned: bool = True,
    ) -> None:
        """owned: whether `close` frees the VkDeviceMemory; one that somebody else allocated is left to them."""
        self.owned = owned
        self.driver = driver
        self.raw = raw
        """VkDeviceMemory; 0 once freed."""
        self.size = size
        self.memory_type_index = memory_type_index
        self.handle_types = handle_types
        """External types as the driver knows them."""
        self.dedicated = dedicated
        self.stated_identity = identity
        self.owner: Owner = owner
        """Who owns the payload in the sense of queue family ownership: this device since it was allocated; whoever
        uses it next (VK_QUEUE_FAMILY_EXTERNAL); or this device by barriers of the program's own, until they release it.
        """
        self.transfer: NativeResource | None = None
        """A buffer over all of it, made when bytes are first moved."""
        self.keep: object = None
        """What owns the bytes of imported host memory."""
        self.writable = payload.writable if payload is not None else True
        self._payload = payload
        self._fd = -1
        self._mapping: VulkanMapping | None = None

    @property
    def live(self) -> int:
        """VkDeviceMemory. HandleStateError once freed."""
        if not self.raw:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self.raw

    @property
    def fd(self) -> int | None:
        """The payload's fd, borrowed: as it came, or exported by the driver when first asked for."""
        raw = self.live
        if self._payload is not None:
            return self._payload.fd
        types = self.handle_types & _FDS
        if not types:
            return None
        if self._fd < 0:
            self._fd = self.driver.get_fd(raw, types & -types)
        return self._fd

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
        self._mapping = VulkanMapping(address, self.size)
        self.keep = keep

    @property
    def mapped(self) -> bool:
        """Whether vkMapMemory was called, or it is host memory."""
        return self._mapping is not None

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`."""
        raw = self.live
        mapping = self._mapping
        if mapping is None:
            if not self.driver.host_visible(self.memory_type_index):
                raise UnsupportedError(
                    f"memory type {self.memory_type_index} of {self.driver.name} cannot be seen by the host; use "
                    "memory.read() and memory.write(), or allocate with a HOST_VISIBLE memory_type",
                    requires_one_of=["a HOST_VISIBLE memory type", "DeviceMemory.read and write"],
                )
            mapping = self._mapping = VulkanMapping(self.driver.map(raw, self.size), self.size)
        return mapping

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
        if self._fd >= 0:
            os.close(self._fd)
        if self._payload is not None:
            self._payload.close()
        self._payload = self._mapping = self.keep = None
