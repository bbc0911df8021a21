"""What the Vulkan device's memory is to the layers above: a VkDeviceMemory and what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from extmem import vk
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import HandleStateError, UnsupportedError
from extmem.owning import Owner
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Mapping
    from extmem.devices.host.system import FileMapping
    from extmem.devices.resources import NativeResource
    from extmem.devices.vulkan.backend import VulkanBackend
    from extmem.owning import OwnedFd
    from extmem.sharing.payload import PayloadFd

__all__ = ["VulkanAllocation", "ours"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_WHOLE_SIZE = int(vk.WHOLE_SIZE)
_KMT = int(HandleType.OPAQUE_WIN32_KMT)
_SHARED = int(HandleType.OPAQUE_FD | HandleType.DMA_BUF | HandleType.OPAQUE_WIN32 | HandleType.OPAQUE_WIN32_KMT)

QueueOwner = Literal["here", "external", "held"]


class VulkanAllocation:
    """A VkDeviceMemory. Ownership: freed by `close`, with the buffer that bytes are moved through and the fd, if any.

    Imported host memory (`mapped_at`) is mapped already, where its owner has it; so it is never mapped by the device.
    """

    __slots__ = (
        "_at",
        "_exported",
        "_keep",
        "_mapped",
        "_memory",
        "_number",
        "dedicated",
        "backend",
        "exporting",
        "handle_types",
        "memory_type_index",
        "owner",
        "payload",
        "raw",
        "size",
        "stated_identity",
        "transfer",
    )

    def __init__(
        self,
        backend: VulkanBackend,
        memory: VkObject | int,
        size: int,
        memory_type_index: int,
        handle_types: int,
        dedicated: NativeResource | None = None,
        payload: PayloadFd | None = None,
        *,
        stated_identity: int = 0,
        owner: QueueOwner = "here",
        exporting: bool = True,
    ) -> None:
        """memory: what owns the VkDeviceMemory; or one that somebody else allocated and frees."""
        self.backend = backend
        self._memory = memory if isinstance(memory, VkObject) else None
        self.raw = memory.raw if isinstance(memory, VkObject) else memory
        """VkDeviceMemory; 0 once freed."""
        self.size = size
        self.memory_type_index = memory_type_index
        self.handle_types = handle_types
        """External types as the driver knows them."""
        self.dedicated = dedicated
        self.payload = payload
        """What it was imported from, if the object manager gave that; closed with it."""
        self.stated_identity = stated_identity
        self.owner: QueueOwner = owner
        """Who owns the payload in the sense of queue family ownership: this device since it was allocated; whoever uses
        it next (VK_QUEUE_FAMILY_EXTERNAL); or this device by barriers of the program's own, until they release it."""
        self.transfer: NativeResource | None = None
        """A buffer over all of it, made when bytes are first moved."""
        self.exporting = exporting
        """Whether the driver may be asked for handles of it: false for what was imported and is not exported again."""
        self._keep: tuple[FileMapping, PayloadFd] | None = None
        """What owns the bytes of imported host memory."""
        self._exported: OwnedFd | None = None
        """A descriptor or NT handle that the driver gave and that `fd` lends out; None before it was asked."""
        self._number = 0
        """A KMT number, instead of those."""
        self._at = ffi.new("uintptr_t *")
        """Where it is mapped, until vkFreeMemory; 0 before. vkMapMemory writes it, perhaps more than once."""
        self._mapped = False
        """Whether `_at` is final: other threads read it only then."""

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
    def is_theirs(self) -> bool:
        """Whether another binding allocated it, and frees it."""
        return self._memory is None

    @property
    def keeper(self) -> Owner:
        """What commands that use the memory hold until they are done. One of somebody else's memory keeps nothing."""
        return self._memory if self._memory is not None else _THEIRS

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
        with self.backend.making:
            if types & -types == _KMT:
                self._number = self._number or self.backend.get_number(raw)
                return self._number
            if self._exported is None:
                self._exported = self.backend.get_handle(raw, types & -types)
            return self._exported.fd

    @property
    def identity(self) -> tuple[int, int] | None:
        """None: the kernel does not tell a driver's payloads apart."""
        return None

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return not self.raw

    def mapped_at(self, mapping: FileMapping, payload: PayloadFd) -> None:
        """It is a host payload's memory, which `mapping` has mapped. Both are given back with it."""
        self._keep = (mapping, payload)
        if self._memory is not None:
            self._memory.owe(((id, mapping),))  # it ends after the VkDeviceMemory, also where both are lost
        self.address = mapping.address

    # An allocation is its own mapping.

    @property
    def address(self) -> int:
        """Where it is mapped; 0 before. Set for host memory, which its owner has mapped there."""
        return int(self._at[0])

    @address.setter
    def address(self, value: int) -> None:
        self._at[0] = value
        self._mapped = True

    @property
    def mapped(self) -> bool:
        """Whether vkMapMemory was called, or it is host memory."""
        return self._mapped

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. An allocation is its own mapping."""
        if self._mapped:
            self.live  # noqa: B018  (raises once freed)
            return self
        backend = self.backend
        if not backend.host_visible[self.memory_type_index]:
            raise UnsupportedError(
                f"memory type {self.memory_type_index} of {backend.name} cannot be seen by the host; use "
                "memory.read() and memory.write(), or allocate with a HOST_VISIBLE memory_type",
                requires_one_of=["a HOST_VISIBLE memory type", "DeviceMemory.read and write"],
            )
        with backend.making:
            if not self._at[0]:
                at = ffi.cast("void **", self._at)
                result = backend.commands.vkMapMemory(backend.handle, self.live, 0, _WHOLE_SIZE, 0, at)
                if result:
                    self._at[0] = 0
                    fail(result, "vkMapMemory", backend.name, f"{self.size} bytes")
            self._mapped = True
        return self

    def release_ownership(self) -> None:
        """See `ReleasesOwnership`. Releases nothing where the caller's dedicated buffer is unbound and so unused."""
        if not self.backend.obstacle(self):
            self.backend.transfer.run(lambda recorder: None, [self])

    def close(self) -> None:
        """vkFreeMemory, which unmaps. Safe to call twice, and again after an exception."""
        self.raw = 0
        if self.transfer is not None:
            self.backend.destroy(self.transfer)
        if self._memory is not None:
            self._memory.end()
        if self._exported is not None:
            self._exported.settle()
        if self.payload is not None:
            self.payload.close()
        if self._keep is not None:
            self._keep[1].close()
            self._keep = None


_THEIRS = Owner()
"""In place of what owns a VkDeviceMemory, for one that somebody else frees."""


def ours(allocation: Allocation) -> VulkanAllocation:
    """The allocation as a Vulkan device's. TypeError for another's."""
    if not isinstance(allocation, VulkanAllocation):
        raise TypeError(f"{allocation!r} is no allocation of a Vulkan device")
    return allocation
