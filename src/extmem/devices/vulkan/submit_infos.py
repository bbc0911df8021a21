"""The structs of vkQueueSubmit and vkQueueSubmit2 for batches.

How this works. With synchronization2 a batch is a VkSubmitInfo2, which has a stage mask for each signal. Without it, it
is a VkSubmitInfo with the values of timelines in the chain; so is a batch with the values of D3D12 fences, whose struct
VkSubmitInfo2 does not take. A stage mask that VkSubmitInfo cannot state becomes ALL_COMMANDS, which orders more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from extmem import vk
from extmem.devices.sync import SemaphoreSignal, SemaphoreWait
from extmem.vk.abi import ffi, to_c

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.sync import Batch
    from extmem.devices.vulkan.logical import LogicalDevice

__all__ = ["Operation", "Submit", "operations_of", "submit_call"]

_S = vk.StructureType
_INFO, _INFO_2 = int(_S.SUBMIT_INFO), int(_S.SUBMIT_INFO_2)
_VALUES, _SEMAPHORE = int(_S.TIMELINE_SEMAPHORE_SUBMIT_INFO), int(_S.SEMAPHORE_SUBMIT_INFO)
_BUFFER = int(_S.COMMAND_BUFFER_SUBMIT_INFO)
_ALL = int(vk.PipelineStageFlagBits.ALL_COMMANDS)


Operation: TypeAlias = SemaphoreWait | SemaphoreSignal


def operations_of(batch: Batch) -> list[Operation]:
    """Return the waits and the signals of a batch."""
    return [*batch.waits, *batch.signals]


class Submit(msgspec.Struct, frozen=True):
    """A call that submits: its command and arguments, which keep what they lead to."""

    command: Any
    arguments: tuple[Any, ...]
    keep: list[Any]


def submit_call(
    device: LogicalDevice, queue: Any, batches: Sequence[Batch], buffers: Sequence[Sequence[int]], fence: int
) -> Submit:
    """Return the call that submits the batches. buffers: the VkCommandBuffers of each. fence: VkFence; 0 for none."""
    keep: list[Any] = []
    submit_2 = device.submit_2
    old = submit_2 is None or any(
        isinstance(link, vk.D3D12FenceSubmitInfoKHR) for batch in batches for link in batch.chain
    )
    infos = ffi.new(f"VkSubmitInfo{'' if old else '2'}[]", max(1, len(batches)))
    for index, batch in enumerate(batches):
        (_fill if old else _fill_2)(infos[index], batch, buffers[index], keep)
    keep.append(infos)
    command = device.commands.vkQueueSubmit if old else submit_2
    return Submit(command, (queue, len(batches), infos if batches else ffi.NULL, fence), keep)


def _chained(batch: Batch, keep: list[Any], first: Any = ffi.NULL) -> Any:
    """Return the pNext chain of a batch, with `first` at its end."""
    chain = first
    for link in batch.chain:
        built = to_c(link)
        built.cdata.pNext = chain
        chain = built.cdata
        keep.append(built)
    return chain


def _fill(info: Any, batch: Batch, buffers: Sequence[int], keep: list[Any]) -> None:
    waits, signals = batch.waits, batch.signals
    values = ffi.NULL
    if any(one.semaphore.timeline for one in operations_of(batch)):
        waited = ffi.new("uint64_t[]", [wait.value for wait in waits]) if waits else ffi.NULL
        signaled = ffi.new("uint64_t[]", [signal.value for signal in signals]) if signals else ffi.NULL
        counted = (len(waits), waited, len(signals), signaled)
        values = ffi.new("VkTimelineSemaphoreSubmitInfo *", (_VALUES, ffi.NULL, *counted))
        keep += [waited, signaled, values]
    wait_for = masks = commands = signal_to = ffi.NULL
    if waits:
        wait_for = ffi.new("uint64_t[]", [wait.semaphore.raw for wait in waits])
        masks = ffi.new("uint32_t[]", [_old_mask(wait.stage_mask) for wait in waits])
    if buffers:
        commands = ffi.new("VkCommandBuffer[]", [ffi.cast("VkCommandBuffer", raw) for raw in buffers])
    if signals:
        signal_to = ffi.new("uint64_t[]", [signal.semaphore.raw for signal in signals])
    keep += [wait_for, masks, commands, signal_to]
    info.sType, info.pNext = _INFO, _chained(batch, keep, values)
    info.waitSemaphoreCount, info.pWaitSemaphores, info.pWaitDstStageMask = len(waits), wait_for, masks
    info.commandBufferCount, info.pCommandBuffers = len(buffers), commands
    info.signalSemaphoreCount, info.pSignalSemaphores = len(signals), signal_to


def _old_mask(mask: int) -> int:
    return mask if 0 < mask < 1 << 32 else _ALL


def _fill_2(info: Any, batch: Batch, buffers: Sequence[int], keep: list[Any]) -> None:
    sides = []
    both: tuple[Sequence[Operation], ...] = (batch.waits, batch.signals)
    for operations in both:
        array = ffi.new("VkSemaphoreSubmitInfo[]", max(1, len(operations)))
        for index, one in enumerate(operations):
            value = one.value if one.semaphore.timeline else 0
            array[index] = (_SEMAPHORE, ffi.NULL, one.semaphore.raw, value, one.stage_mask, 0)
        sides.append(array)
    commands = ffi.new("VkCommandBufferSubmitInfo[]", max(1, len(buffers)))
    for index, raw in enumerate(buffers):
        commands[index] = (_BUFFER, ffi.NULL, ffi.cast("VkCommandBuffer", raw), 0)
    keep += [*sides, commands]
    info.sType, info.pNext, info.flags = _INFO_2, _chained(batch, keep), 0
    info.waitSemaphoreInfoCount, info.pWaitSemaphoreInfos = len(batch.waits), sides[0]
    info.commandBufferInfoCount, info.pCommandBufferInfos = len(buffers), commands
    info.signalSemaphoreInfoCount, info.pSignalSemaphoreInfos = len(batch.signals), sides[1]
