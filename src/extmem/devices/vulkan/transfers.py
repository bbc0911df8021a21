"""Transfers: bytes between the host and payloads, by the host's mapping or by the device's own commands.

How this works. Bytes are copied by the device's queue (`submission`), through one staging buffer, which is made at the
first use. Memory that no transfer buffer can be bound to is mapped instead, where the host can see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.types import QueueFacts
from extmem.devices.vulkan.memory import QueueOwner, VulkanAllocation, native_allocation
from extmem.devices.vulkan.submission import Submissions
from extmem.devices.vulkan.transfer_buffers import TransferBuffers
from extmem.errors import UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import late_imports
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Recorder
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.memory import Memories
    from extmem.devices.vulkan.resources import Resources
    from extmem.devices.vulkan.sync import VulkanSyncBackend
    from extmem.owning import Uses

__all__ = ["Transfers"]

_Property = vk.MemoryPropertyFlagBits
_RANGE = int(vk.StructureType.MAPPED_MEMORY_RANGE)
_FROM, _TO = int(vk.BufferUsageFlagBits.TRANSFER_SRC), int(vk.BufferUsageFlagBits.TRANSFER_DST)
_STAGING_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_STAGING = 16 << 20
"""Bytes of the staging buffer."""
_PIECE = 1 << 20
"""Bytes that a fill by the host writes at once."""


class Transfers:
    """What moves bytes on one VkDevice, and submits a program's commands."""

    def __init__(self, device: LogicalDevice, memories: Memories, resources: Resources) -> None:
        self._device = device
        self._memories = memories
        self._resources = resources
        self.buffers = TransferBuffers(device, resources)
        self._submissions: Submissions | None = None
        self._staging: VulkanAllocation | None = None
        self._sync: VulkanSyncBackend | None = None

    @property
    def sync(self) -> VulkanSyncBackend:
        """Semaphores, fences, and submissions of batches, made at the first use."""
        self._device.check_open()
        found = self._sync
        if found is None:
            with self._device.making:
                found = self._sync
                if found is None:
                    with late_imports():
                        from extmem.devices.vulkan.sync import VulkanSyncBackend

                    found = self._sync = VulkanSyncBackend(self._device)
        return found

    def _drain(self) -> None:
        """Wait for batches that were submitted. Errors: as `BatchQueue.drain`."""
        if self._sync is not None:
            self._sync.drain()

    @property
    def submissions(self) -> Submissions:
        """The device's queue, made at the first use."""
        self._device.check_open()
        with self._device.making:
            if self._submissions is None:
                self._submissions = Submissions(self._device, self.buffers, self._drain)
            return self._submissions

    # Mapped memory.

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        self._ranges("vkFlushMappedMemoryRanges", native_allocation(allocation), offset, size)

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        self._ranges("vkInvalidateMappedMemoryRanges", native_allocation(allocation), offset, size)

    def _ranges(self, command: str, allocation: VulkanAllocation, offset: int, size: int) -> None:
        device = self._device
        flags = device.memory_types[allocation.memory_type_index].property_flags
        if flags & _Property.HOST_COHERENT or not allocation.mapped:
            return
        atom = int(device.physical.properties.limits.non_coherent_atom_size)
        start = offset - offset % atom
        end = min(allocation.size, -(-(offset + size) // atom) * atom)
        area = ffi.new("VkMappedMemoryRange *", (_RANGE, ffi.NULL, allocation.live, start, end - start))
        device.check(getattr(device.commands, command)(device.handle, 1, area), command)

    # Copies.

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        target = _check_range(allocation, offset, data.nbytes)
        window = self._window(target, _TO, offset, data.nbytes)
        if window is None:
            self._write(target, offset, data)
            return
        window[:] = data
        self.flush(target, offset, data.nbytes)

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        source = _check_range(allocation, offset, into.nbytes)
        window = self._window(source, _FROM, offset, into.nbytes)
        if window is None:
            self._read(source, offset, into)
            return
        self.invalidate(source, offset, into.nbytes)
        into[:] = window

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        target = _check_range(allocation, offset, size)
        window = self._window(target, _TO, offset, size)
        if window is None:
            self._fill(target, offset, size, value)
            return
        for start in range(0, size, _PIECE):
            part = window[start : start + _PIECE]
            part[:] = bytes([value]) * part.nbytes
        self.flush(target, offset, size)

    def _window(self, allocation: VulkanAllocation, usage: int, offset: int, size: int) -> memoryview | None:
        """The bytes as the host sees them, where no buffer can copy them; None where one can.

        Errors: UnsupportedError where neither is possible. Memory that another binding allocated is not mapped.
        """
        obstacle = self.buffers.obstacle(allocation, usage, offset + size)
        small = "" if obstacle else self.buffers.too_small(allocation)
        if not obstacle and not small:
            return None
        self._device.check_open()
        if not allocation.mapped and (
            not self._device.host_visible[allocation.memory_type_index] or allocation.is_foreign
        ):
            only = small or f"is dedicated to a buffer, {obstacle}. It can be copied by that buffer alone"
            raise UnsupportedError(
                f"this memory {only}, since "
                + ("another binding may have mapped it" if allocation.is_foreign else "the host does not see it"),
                requires_one_of=["a bound buffer with TRANSFER_SRC and TRANSFER_DST", "a HOST_VISIBLE memory type"],
            )
        self._drain()
        if self._submissions is not None:
            self._submissions.finish()
        whole = ffi.buffer(ffi.cast("char *", allocation.map().address), allocation.size)
        return memoryview(whole)[offset : offset + size]

    def _write(self, allocation: VulkanAllocation, offset: int, data: memoryview) -> None:
        with self.submissions.lock:
            staging, window = self._staged()
            for start in range(0, data.nbytes, _STAGING):
                piece = data[start : start + _STAGING]
                window[: piece.nbytes] = piece
                self.flush(staging, 0, piece.nbytes)
                self._copy(staging, 0, allocation, offset + start, piece.nbytes)

    def _read(self, allocation: VulkanAllocation, offset: int, into: memoryview) -> None:
        with self.submissions.lock:
            staging, window = self._staged()
            for start in range(0, into.nbytes, _STAGING):
                piece = into[start : start + _STAGING]
                self._copy(allocation, offset + start, staging, 0, piece.nbytes)
                self.invalidate(staging, 0, piece.nbytes)
                piece[:] = window[: piece.nbytes]

    def _fill(self, allocation: VulkanAllocation, offset: int, size: int, value: int) -> None:
        """vkCmdFillBuffer takes multiples of 4; the bytes before and after these are written."""
        before = min(-offset % 4, size)
        if before:
            self._write(allocation, offset, memoryview(bytes([value]) * before))
            offset, size = offset + before, size - before
        buffer = self.buffers.buffer_of(allocation)
        whole = size & ~3
        if whole:
            word = value * 0x0101_0101
            self.submissions.run(lambda recorder: recorder.fill_buffer(buffer, offset, whole, word), [allocation])
        if size > whole:
            self._write(allocation, offset + whole, memoryview(bytes([value]) * (size - whole)))

    def _copy(self, source: VulkanAllocation, start: int, target: VulkanAllocation, at: int, size: int) -> None:
        first, second = self.buffers.buffer_of(source), self.buffers.buffer_of(target)
        self.submissions.run(lambda recorder: recorder.copy_buffer(first, start, second, at, size), [source, target])

    def _staged(self) -> tuple[VulkanAllocation, memoryview]:
        """The staging buffer's memory, and its bytes."""
        if self._staging is None:
            self._staging = self._allocate_staging()
        address = ffi.cast("char *", self._staging.map().address)
        return self._staging, memoryview(ffi.buffer(address, _STAGING))

    def _allocate_staging(self) -> VulkanAllocation:
        """Memory that the host sees, cached if there is such, with a buffer over it."""
        buffer = self._resources.create_buffer(vk.BufferCreateInfo(size=_STAGING, usage=_STAGING_USAGE))
        try:
            types, bits = self._device.memory_types, buffer.requirements.memory_type_bits
            visible = [i for i in range(len(types)) if bits >> i & 1 and self._device.host_visible[i]]
            cached = [i for i in visible if types[i].property_flags & _Property.HOST_CACHED]
            allocation = self._memories.allocate(buffer.requirements.size, (cached or visible)[0], b"")
        except BaseException:
            buffer.destroy()
            raise
        allocation.transfer = buffer
        try:
            self._resources.bind(allocation, 0, buffer)
        except BaseException:
            allocation.close()
            raise
        return allocation

    # Commands.

    def queue_facts(self) -> QueueFacts:
        device = self._device
        families = device.physical.queue_families
        return QueueFacts(
            device.queue_family,
            len(families),
            device.physical.instance.api_version,
            device.enabled,
            families[device.queue_family].flags,
            frozenset({device.queue_family}) if device.owned else None,
        )

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        after: list[tuple[VulkanAllocation, QueueOwner]] = [
            (native_allocation(allocation), "held" if is_acquired else "external") for allocation, is_acquired in owners
        ]
        self.submissions.run(record, uses=uses, owners=after)

    def owns(self, allocation: Allocation) -> bool:
        """See `ReleasesOwnership`."""
        return native_allocation(allocation).owner == "here"

    def release_ownership(self, allocation: Allocation) -> None:
        """See `ReleasesOwnership`. Nothing is released where the caller's dedicated buffer is unbound and so unused."""
        if not self.buffers.obstacle(native_allocation(allocation)):
            self.submissions.run(lambda recorder: None, [native_allocation(allocation)])

    def finish_submitted(self) -> None:
        if self._device.pid == current_process.pid:
            self._drain()
            if self._submissions is not None:
                self._submissions.finish()

    def close(self) -> None:
        """Release everything, when what was submitted is done. Safe to repeat, also after an exception.

        Errors: DriverError while commands run: nothing was released then.
        """
        if self._device.pid == current_process.pid:
            if self._sync is not None:
                self._sync.close()
            if self._submissions is not None:
                self._submissions.close()
                if self._staging is not None:
                    self._staging.close()
        self._submissions = self._staging = self._sync = None


def _check_range(allocation: Allocation, offset: int, size: int) -> VulkanAllocation:
    """The allocation, if these bytes are inside of it. Errors: ValueError."""
    if offset < 0 or size < 0 or offset + size > allocation.size:
        raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
    return native_allocation(allocation)
