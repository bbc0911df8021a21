"""What moves bytes on a VkDevice: flushing, and copies by the device's own queue."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.backend import Allocation, QueueFacts, Recorder
from extmem.devices.vulkan.logical import LogicalDevice
from extmem.devices.vulkan.memory import QueueOwner, VulkanAllocation, ours
from extmem.errors import UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Lock, Uses
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.vulkan.physical import PhysicalDevice
    from extmem.devices.vulkan.transfer import Transfer

__all__ = ["Moving"]

_Property = vk.MemoryPropertyFlagBits
_S = vk.StructureType
_FROM, _TO = int(vk.BufferUsageFlagBits.TRANSFER_SRC), int(vk.BufferUsageFlagBits.TRANSFER_DST)
_PIECE = 1 << 20
"""Bytes that a fill by the host writes at once."""


class Moving(LogicalDevice, abc.ABC):
    """A VkDevice whose memory is mapped, written, read and filled."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """See `LogicalDevice`."""
        super().__init__(physical, device=device, queue_family=queue_family, queue=queue)
        self._transfer: Transfer | None = None
        self.host_visible = tuple(bool(t.property_flags & _Property.HOST_VISIBLE) for t in self.memory_types())
        """Of each memory type, whether the host sees it."""
        self.making = Lock()
        """Held while something is made that is made once: a mapping, an exported handle, what moves bytes."""

    def memory_types(self) -> tuple[vk.MemoryType, ...]:
        """The physical device's memory types."""
        return tuple(self.physical.memory_properties.memory_types)

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """See `Backend`."""
        self._ranges("vkFlushMappedMemoryRanges", ours(allocation), offset, size)

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """See `Backend`."""
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
        """See `Backend`."""
        made = self._inside(allocation, offset, data.nbytes)
        window = self._window(made, _TO, offset, data.nbytes)
        if window is None:
            self.transfer.write(made, offset, data)
            return
        window[:] = data
        self.flush(made, offset, data.nbytes)

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """See `Backend`."""
        made = self._inside(allocation, offset, into.nbytes)
        window = self._window(made, _FROM, offset, into.nbytes)
        if window is None:
            self.transfer.read(made, offset, into)
            return
        self.invalidate(made, offset, into.nbytes)
        into[:] = window

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """See `Backend`."""
        made = self._inside(allocation, offset, size)
        window = self._window(made, _TO, offset, size)
        if window is None:
            self.transfer.fill(made, offset, size, value)
            return
        for start in range(0, size, _PIECE):
            part = window[start : start + _PIECE]
            part[:] = bytes([value]) * part.nbytes
        self.flush(made, offset, size)

    def _inside(self, allocation: Allocation, offset: int, size: int) -> VulkanAllocation:
        if offset < 0 or size < 0 or offset + size > allocation.size:
            raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
        return ours(allocation)

    def _window(self, allocation: VulkanAllocation, usage: int, offset: int, size: int) -> memoryview | None:
        """The bytes as the host sees them, where no buffer may copy them; None where one may.

        Errors: UnsupportedError where neither is possible. Memory that another binding allocated is not mapped.
        """
        obstacle = self.obstacle(allocation, usage, offset + size)
        small = "" if obstacle else self.too_small(allocation)
        if not obstacle and not small:
            return None
        self.alive()
        if not allocation.mapped and (not self.host_visible[allocation.memory_type_index] or allocation.is_theirs):
            only = small or f"is dedicated to a buffer, {obstacle}. It can be copied by that buffer alone"
            raise UnsupportedError(
                f"this memory {only}, since "
                + ("another binding may have mapped it" if allocation.is_theirs else "the host does not see it"),
                requires_one_of=["a bound buffer with TRANSFER_SRC and TRANSFER_DST", "a HOST_VISIBLE memory type"],
            )
        if self._transfer is not None:
            self._transfer.finish()
        whole = ffi.buffer(ffi.cast("char *", allocation.map().address), allocation.size)
        return memoryview(whole)[offset : offset + size]

    @abc.abstractmethod
    def too_small(self, allocation: VulkanAllocation) -> str:
        """See `Resources.too_small`."""

    @abc.abstractmethod
    def obstacle(self, allocation: VulkanAllocation, usage: int = 0, end: int = 0) -> str:
        """See `Resources.obstacle`."""

    @property
    @abc.abstractmethod
    def transfer(self) -> Transfer:
        """What moves bytes, made at the first use."""

    @property
    def queue_facts(self) -> QueueFacts:
        """See `Backend`."""
        families = self.physical.queue_families
        return QueueFacts(
            self.queue_family,
            len(families),
            self.physical.instance.api_version,
            self.enabled,
            families[self.queue_family].flags,
            frozenset({self.queue_family}) if self.owned else None,
        )

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """See `Backend`."""
        told: list[tuple[VulkanAllocation, QueueOwner]] = [
            (ours(allocation), "held" if here else "external") for allocation, here in owners
        ]
        self.transfer.run(record, uses=uses, owners=told)

    def finish_submitted(self) -> None:
        """See `FinishesLater`."""
        if self._transfer is not None and self.pid == current_process.pid:
            self._transfer.finish()

    def close(self) -> None:
        """See `LogicalDevice.close`. Errors: DriverError while commands run; safe to repeat."""
        if self._transfer is not None and self.pid == current_process.pid:
            self._transfer.close()
        self._transfer = None
        super().close()
