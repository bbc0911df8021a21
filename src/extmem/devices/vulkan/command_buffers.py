"""`CommandBuffers`: command buffers that are recorded, submitted, and used again when their submission is done."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.vulkan.commands import VulkanRecorder
from extmem.devices.vulkan.owners import VkObject
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.devices.backend import Recorder
    from extmem.devices.vulkan.logical import LogicalDevice

__all__ = ["CommandBuffers"]

_S = vk.StructureType
_Access, _Stage = vk.AccessFlagBits, vk.PipelineStageFlagBits
_MOVES = int(_Access.TRANSFER_READ | _Access.TRANSFER_WRITE)
_HOST = int(_Access.HOST_READ | _Access.HOST_WRITE)
_TRANSFER = int(_Stage.TRANSFER)
_AROUND = int(_Stage.TRANSFER | _Stage.HOST)


def _barrier(stages: tuple[int, int], before: int, after: int) -> tuple[Any, ...]:
    """Return the arguments of vkCmdPipelineBarrier for a memory barrier, made once: each submission has two."""
    barrier = ffi.new("VkMemoryBarrier *", (int(_S.MEMORY_BARRIER), ffi.NULL, before, after))
    return (*stages, 0, 1, barrier, 0, ffi.NULL, 0, ffi.NULL)


_FIRST = _barrier((int(_Stage.TOP_OF_PIPE | _Stage.HOST), _TRANSFER), _HOST, _MOVES)
_AFTER_OTHERS = _barrier((_AROUND, _TRANSFER), _HOST | _MOVES, _MOVES)
_LAST = _barrier((_TRANSFER, _AROUND), _MOVES, _HOST | _MOVES)
_BEGIN = ffi.new(
    "VkCommandBufferBeginInfo *",
    (int(_S.COMMAND_BUFFER_BEGIN_INFO), ffi.NULL, int(vk.CommandBufferUsageFlagBits.ONE_TIME_SUBMIT)),
)


class CommandBuffers:
    """The command buffers of one device. The caller ensures that one thread records at a time."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device
        self._pool: VkObject | None = None
        self._free: deque[Any] = deque()
        """Command buffers, each an array of one VkCommandBuffer. They end with the pool."""

    def recorded(self, record: Callable[[Recorder], None], *, follows: bool) -> tuple[Any, int]:
        """Record commands. Return the command buffer, for `give_back`, and its VkCommandBuffer as a number.

        follows: whether submitted work may still run; then the commands see what it wrote. Errors: those of `record`;
        OutOfMemoryError, DriverError.
        """
        device, commands = self._device, self._device.commands
        buffer = self._free.popleft() if self._free else self._allocate()
        try:
            device.check(commands.vkBeginCommandBuffer(buffer[0], _BEGIN), "vkBeginCommandBuffer")
            commands.vkCmdPipelineBarrier(buffer[0], *(_AFTER_OTHERS if follows else _FIRST))
            record(VulkanRecorder(commands, buffer[0]))
            commands.vkCmdPipelineBarrier(buffer[0], *_LAST)
            device.check(commands.vkEndCommandBuffer(buffer[0]), "vkEndCommandBuffer")
        except BaseException:
            if self._pool is not None:  # its recording failed: it is freed, and not begun again
                commands.vkFreeCommandBuffers(device.handle, self._pool.raw, 1, buffer)
            raise
        return buffer, int(ffi.cast("uintptr_t", buffer[0]))

    def _allocate(self) -> Any:
        device, commands = self._device, self._device.commands
        if self._pool is None:
            reset = int(vk.CommandPoolCreateFlagBits.RESET_COMMAND_BUFFER)
            info = ffi.new(
                "VkCommandPoolCreateInfo *", (int(_S.COMMAND_POOL_CREATE_INFO), ffi.NULL, reset, device.queue_family)
            )
            made, owner = ffi.new("uint64_t *"), VkObject(device.owner)
            making = owner.make(
                commands.vkCreateCommandPool, (device.handle, info, ffi.NULL, made), made, commands.vkDestroyCommandPool
            )
            device.check(making.result, "vkCreateCommandPool")
            self._pool = owner
        request = ffi.new(
            "VkCommandBufferAllocateInfo *", (int(_S.COMMAND_BUFFER_ALLOCATE_INFO), ffi.NULL, self._pool.raw, 0, 1)
        )
        buffer = ffi.new("VkCommandBuffer *")
        device.check(commands.vkAllocateCommandBuffers(device.handle, request, buffer), "vkAllocateCommandBuffers")
        return buffer

    def give_back(self, buffers: list[Any]) -> None:
        """Use these again, whose submission is done; the list is empty afterwards. Any thread may call this."""
        while buffers:
            self._free.append(buffers[-1])
            buffers.pop()

    def close(self) -> None:
        """Destroy the pool, with all command buffers. Safe to repeat."""
        self._free.clear()
        if self._pool is not None:
            self._pool.settle()
            self._pool = None
