"""What moves bytes on a VkDevice: flushing, and copies by the device's own queue."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.base import Allocation, QueueFacts, Recorder
from extmem.devices.vulkan.allocation import VulkanAllocation, ours
from extmem.devices.vulkan.logical import LogicalDevice
from extmem.handles.here import HERE
from extmem.owning import Lock, Uses
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.vulkan.physical import PhysicalDevice
    from extmem.devices.vulkan.transfer import Transfer

__all__ = ["Moving"]

_Property = vk.MemoryPropertyFlagBits
_S = vk.StructureType


class Moving(LogicalDevice, abc.ABC):
    """A VkDevice whose memory is mapped, written, read and filled."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """See `LogicalDevice`."""
        super().__init__(physical, device=device, queue_family=queue_family, queue=queue)
        self._transfer: Transfer | None = None
        self.making = Lock()
        """Held while something is made that is made once: a mapping, an exported handle, what moves bytes."""

    def memory_types(self) -> tuple[vk.MemoryType, ...]:
        """The physical device's memory types."""
        return tuple(self.physical.memory_properties.memory_types)

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """See `Driver`."""
        self._ranges("vkFlushMappedMemoryRanges", ours(allocation), offset, size)

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """See `Driver`."""
        self._ranges("vkInvalidateMappedMemoryRanges", ours(allocation), offset, size)

    def _ranges(self, command: str, allocation: VulkanAllocation, offset: int, size: int) -> None:
        flags = self.memory_types()[allocation.memory_type_index].property_flags
        if flags & _Property.HOST_COHERENT or not allocation.mapped:
            return
        atom = int(self.physical.properties.limits.non_coherent_atom_size)
        start = offset - offset % atom
        end = min(allocation.size, -(-(offset + size) // atom) * atom)
        area = ffi.new(
            "VkMappedMemoryRange *", (int(_S.MAPPED_MEMORY_RANGE), ffi.NULL, allocation.live, start, end - start)
        )
        self.check(getattr(self.commands, command)(self.handle, 1, area), command)

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """See `Driver`."""
        self._moving(allocation, offset, data.nbytes).write(ours(allocation), offset, data)

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """See `Driver`."""
        self._moving(allocation, offset, into.nbytes).read(ours(allocation), offset, into)

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """See `Driver`."""
        self._moving(allocation, offset, size).fill(ours(allocation), offset, size, value)

    def _moving(self, allocation: Allocation, offset: int, size: int) -> Transfer:
        if offset < 0 or size < 0 or offset + size > allocation.size:
            raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
        return self.transfer

    @property
    @abc.abstractmethod
    def transfer(self) -> Transfer:
        """What moves bytes, made at the first use."""

    @property
    def queue_facts(self) -> QueueFacts:
        """See `Driver`."""
        families = self.physical.queue_families
        return QueueFacts(
            self.queue_family,
            len(families),
            self.physical.instance.api_version,
            self.enabled,
            families[self.queue_family].flags,
        )

    def submit(self, record: Callable[[Recorder], None], uses: Uses) -> None:
        """See `Driver`."""
        self.transfer.run(record, uses=uses)

    def finish_submitted(self) -> None:
        """See `FinishesLater`."""
        if self._transfer is not None and self.pid == HERE.pid:
            self._transfer.finish()

    def close(self) -> None:
        """See `LogicalDevice.close`. Errors: DriverError while commands run; safe to repeat."""
        if self._transfer is not None and self.pid == HERE.pid:
            self._transfer.close()
        self._transfer = None
        super().close()
