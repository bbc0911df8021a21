"""Moving bytes: between host and payload, by the device's own commands.

How this works. One queue, one command buffer, one fence and one staging buffer serve a device, made when first needed
and used under a lock. Host bytes go through the staging buffer in pieces. Memory that other processes share belongs
to VK_QUEUE_FAMILY_EXTERNAL while nobody uses it: each use acquires it first and releases it at the end, as queue family
ownership transfers ask, so that what the device cached is written back and what others wrote is seen.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.vulkan.recording import CommandRecorder
from extmem.errors import DriverError
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.vulkan.allocation import VulkanAllocation
    from extmem.devices.vulkan.driver import VulkanDriver

__all__ = ["Transfer"]

_STAGING = 16 << 20
_FOREVER = (1 << 64) - 1
_TRIES = 4
_LOST = int(vk.Result.ERROR_DEVICE_LOST)
_Access = vk.AccessFlagBits
_Stage = vk.PipelineStageFlagBits
_EXTERNAL = int(vk.QUEUE_FAMILY_EXTERNAL)
_MOVES = _Access.TRANSFER_READ | _Access.TRANSFER_WRITE
_HOST = _Access.HOST_READ | _Access.HOST_WRITE


class Transfer:
    """What a device moves bytes with. Ownership: everything is given back by `close`."""

    def __init__(self, driver: VulkanDriver) -> None:
        self._driver = driver
        self._commands = driver.commands
        self._lock = threading.RLock()
        self._pool = 0
        self._fence = 0
        self._signaled = self._running = False
        """Whether the fence must be reset; whether what was submitted may still run."""
        self._buffer: Any = None
        self._staging: VulkanAllocation | None = None
        queue = ffi.new("VkQueue *")
        self._commands.vkGetDeviceQueue(driver.handle, driver.queue_family, driver.queue_index, queue)
        self._queue = queue[0]

    # What is moved.

    def write(self, allocation: VulkanAllocation, offset: int, data: memoryview) -> None:
        """Host → payload."""
        with self._lock:
            staging = self._staged()
            window = ffi.buffer(ffi.cast("char *", staging.map().address), _STAGING)
            for start in range(0, data.nbytes, _STAGING):
                piece = data[start : start + _STAGING]
                window[0 : piece.nbytes] = piece
                self._driver.flush(staging, 0, piece.nbytes)
                self._copy(staging, 0, allocation, offset + start, piece.nbytes)

    def read(self, allocation: VulkanAllocation, offset: int, into: memoryview) -> None:
        """Payload → host."""
        with self._lock:
            staging = self._staged()
            window = memoryview(ffi.buffer(ffi.cast("char *", staging.map().address), _STAGING))
            for start in range(0, into.nbytes, _STAGING):
                piece = into[start : start + _STAGING]
                self._copy(allocation, offset + start, staging, 0, piece.nbytes)
                self._driver.invalidate(staging, 0, piece.nbytes)
                piece[:] = window[: piece.nbytes]

    def fill(self, allocation: VulkanAllocation, offset: int, size: int, value: int) -> None:
        """The same byte everywhere. vkCmdFillBuffer takes multiples of 4; what is over is written."""
        if offset % 4:
            raise ValueError(f"a fill begins at a multiple of 4 bytes, not at {offset}")
        buffer = self._driver.buffer_of(allocation)
        whole = size & ~3
        if whole:
            self.run(lambda recorder: recorder.fill_buffer(buffer, offset, whole, value * 0x0101_0101), [allocation])
        if size > whole:
            self.write(allocation, offset + whole, memoryview(bytes([value]) * (size - whole)))

    def _copy(self, source: VulkanAllocation, start: int, target: VulkanAllocation, at: int, size: int) -> None:
        first, second = self._driver.buffer_of(source), self._driver.buffer_of(target)
        self.run(lambda recorder: recorder.copy_buffer(first, start, second, at, size), [source, target])

    # How.

    def run(self, record: Callable[[CommandRecorder], None], used: Sequence[VulkanAllocation] = ()) -> None:
        """Record, submit, wait. `used`: whose ownership is acquired before and released after, unless it is held."""
        with self._lock:
            self._finish()
            shared = [a for a in used if a.handle_types and a.owner != "held"]
            try:
                recorder = CommandRecorder(self._commands, self._begin())
                self._border(recorder, [a for a in shared if a.owner == "external"], acquire=True)
                record(recorder)
                self._border(recorder, shared, acquire=False)
                self._submit()
            except BaseException:
                self._forget_buffer()
                raise
            # From here on it happens, whether or not we learn of its end.
            for allocation in shared:
                allocation.owner = "external"
            self._finish()

    def _border(self, recorder: CommandRecorder, allocations: list[VulkanAllocation], *, acquire: bool) -> None:
        """Ownership from or to VK_QUEUE_FAMILY_EXTERNAL; besides, what the host has written or is to see."""
        ours = self._driver.queue_family
        sides = (_EXTERNAL, ours) if acquire else (ours, _EXTERNAL)
        nothing = _Access(0)
        barriers = [
            vk.BufferMemoryBarrier(
                nothing if acquire else _MOVES,
                _MOVES if acquire else nothing,
                *sides,
                self._driver.buffer_of(allocation).live,
                0,
                int(vk.WHOLE_SIZE),
            )
            for allocation in allocations
        ]
        memory = vk.MemoryBarrier(_HOST, _MOVES) if acquire else vk.MemoryBarrier(_MOVES, _HOST)
        before = _Stage.TOP_OF_PIPE | _Stage.HOST if acquire else _Stage.TRANSFER
        after = _Stage.TRANSFER if acquire else _Stage.BOTTOM_OF_PIPE | _Stage.HOST
        recorder.pipeline_barrier(int(before), int(after), [memory], barriers)

    def _begin(self) -> Any:
        driver, vulkan = self._driver, self._commands
        if not self._pool:
            info = ffi.new("VkCommandPoolCreateInfo *")
            info.sType = int(vk.StructureType.COMMAND_POOL_CREATE_INFO)
            info.flags = int(vk.CommandPoolCreateFlagBits.RESET_COMMAND_BUFFER)
            info.queueFamilyIndex = driver.queue_family
            made = ffi.new("uint64_t *")
            driver.check(vulkan.vkCreateCommandPool(driver.handle, info, ffi.NULL, made), "vkCreateCommandPool")
            self._pool = int(made[0])
        if not self._fence:
            fence = ffi.new("VkFenceCreateInfo *")
            fence.sType = int(vk.StructureType.FENCE_CREATE_INFO)
            made = ffi.new("uint64_t *")
            driver.check(vulkan.vkCreateFence(driver.handle, fence, ffi.NULL, made), "vkCreateFence")
            self._fence = int(made[0])
        if self._buffer is None:
            ask = ffi.new("VkCommandBufferAllocateInfo *")
            ask.sType = int(vk.StructureType.COMMAND_BUFFER_ALLOCATE_INFO)
            ask.commandPool, ask.commandBufferCount = self._pool, 1
            found = ffi.new("VkCommandBuffer *")
            driver.check(vulkan.vkAllocateCommandBuffers(driver.handle, ask, found), "vkAllocateCommandBuffers")
            self._buffer = found[0]
        begin = ffi.new("VkCommandBufferBeginInfo *")
        begin.sType = int(vk.StructureType.COMMAND_BUFFER_BEGIN_INFO)
        begin.flags = int(vk.CommandBufferUsageFlagBits.ONE_TIME_SUBMIT)
        driver.check(vulkan.vkBeginCommandBuffer(self._buffer, begin), "vkBeginCommandBuffer")
        return self._buffer

    def _submit(self) -> None:
        driver, vulkan = self._driver, self._commands
        driver.check(vulkan.vkEndCommandBuffer(self._buffer), "vkEndCommandBuffer")
        buffers = ffi.new("VkCommandBuffer *", self._buffer)
        info = ffi.new("VkSubmitInfo *")
        info.sType = int(vk.StructureType.SUBMIT_INFO)
        info.commandBufferCount, info.pCommandBuffers = 1, buffers
        if self._signaled:
            fence = ffi.new("uint64_t *", self._fence)
            driver.check(vulkan.vkResetFences(driver.handle, 1, fence), "vkResetFences")
            self._signaled = False
        driver.check(vulkan.vkQueueSubmit(self._queue, 1, info, self._fence), "vkQueueSubmit")
        self._running = True

    def _finish(self) -> None:
        """Wait for what was submitted, if anything was.

        While it may run, nothing that it uses may be touched: so waiting is tried again where it fails. A device that
        is lost runs nothing any more.
        """
        if not self._running:
            return
        fence, result = ffi.new("uint64_t *", self._fence), 0
        for _ in range(_TRIES):
            result = self._commands.vkWaitForFences(self._driver.handle, 1, fence, 1, _FOREVER)
            if result in (0, _LOST):
                self._running, self._signaled = False, True
                break
        self._driver.check(result, "vkWaitForFences", "what was just submitted")

    def _forget_buffer(self) -> None:
        """What was being recorded is of no use: the next one begins anew."""
        if self._buffer is not None:
            buffers = ffi.new("VkCommandBuffer *", self._buffer)
            self._commands.vkFreeCommandBuffers(self._driver.handle, self._pool, 1, buffers)
            self._buffer = None

    def _staged(self) -> VulkanAllocation:
        if self._staging is None:
            self._staging = self._driver.allocate_staging(_STAGING)
        return self._staging

    def close(self) -> None:
        """Give everything back, when what was submitted is done."""
        driver, vulkan = self._driver, self._commands
        with self._lock:
            with contextlib.suppress(DriverError):
                self._finish()
            if self._staging is not None:
                self._staging.close()
                self._staging = None
            if self._fence:
                vulkan.vkDestroyFence(driver.handle, self._fence, ffi.NULL)
            if self._pool:
                vulkan.vkDestroyCommandPool(driver.handle, self._pool, ffi.NULL)  # and its command buffer
            self._fence = self._pool = 0
            self._signaled = self._running = False
            self._buffer = None
