"""Command pools and buffers, fences, and vkQueueSubmit, which runs the work at once; waiting reports its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.testing.fake_vulkan.devices import complete
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import CommandBuffer, Device, Fence, Pool, Queue
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

_RESETTABLE = int(vk.CommandPoolCreateFlagBits.RESET_COMMAND_BUFFER)
_ONCE = int(vk.CommandBufferUsageFlagBits.ONE_TIME_SUBMIT)
_TIMEOUT = int(vk.Result.TIMEOUT)


def vkCreateCommandPool(fake: FakeVulkan, handle: Any, info: Any, allocator: Any, out: Any) -> int:
    """Create a pool for a queue family that the device was created with."""
    device = fake.get(handle, Device)
    if int(info.queueFamilyIndex) not in device.families:
        raise fake.wrong(f"a pool for queue family {info.queueFamilyIndex}, which {device} was made without")
    out[0] = fake.add(Pool(device, int(info.queueFamilyIndex), bool(info.flags & _RESETTABLE)))
    return 0


def vkDestroyCommandPool(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Destroy the pool and its command buffers."""
    device = fake.get(handle, Device)
    if raw:
        pool = fake.get(raw, Pool, device)
        for buffer in fake.children(pool):
            fake.end(buffer)
        fake.end(pool)


def vkAllocateCommandBuffers(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """Allocate primary command buffers."""
    pool = fake.get(info.commandPool, Pool, fake.get(handle, Device))
    for index in range(info.commandBufferCount):
        out[index] = ffi.cast("VkCommandBuffer", fake.add(CommandBuffer(pool)))
    return 0


def vkFreeCommandBuffers(fake: FakeVulkan, handle: Any, raw: int, count: int, buffers: Any) -> None:
    """Free command buffers, which must not be pending."""
    pool = fake.get(raw, Pool, fake.get(handle, Device))
    for buffer in buffers[0:count]:
        if buffer != ffi.NULL:
            fake.end(fake.get(buffer, CommandBuffer, pool))


def vkBeginCommandBuffer(fake: FakeVulkan, handle: Any, info: Any) -> int:
    """Begin recording; again, if its pool allows that."""
    buffer = fake.get(handle, CommandBuffer)
    if buffer.state in ("recording", "pending") or (buffer.state != "initial" and not buffer.parent.resettable):
        raise fake.wrong(f"{buffer} is begun, and is {buffer.state}")
    buffer.state, buffer.once = "recording", bool(info.flags & _ONCE)
    buffer.work, buffer.uses = [], set()
    return 0


def vkEndCommandBuffer(fake: FakeVulkan, handle: Any) -> int:
    """End recording, which must have begun."""
    buffer = fake.get(handle, CommandBuffer)
    if buffer.state != "recording":
        raise fake.wrong(f"{buffer} is ended, and is {buffer.state}")
    buffer.state = "executable"
    return 0


def vkQueueSubmit(fake: FakeVulkan, handle: Any, count: int, infos: Any, fence: int) -> int:
    """Run the work at once. It counts as pending until its fence is waited for."""
    queue = fake.get(handle, Queue)
    signal = fake.get(fence, Fence, queue.parent) if fence else None
    if signal is not None and (signal.signaled or signal.waiting):
        fake.misuse(f"{signal} is submitted, and was not reset")
    for info in infos[0:count]:
        for raw in info.pCommandBuffers[0 : info.commandBufferCount]:
            buffer = fake.get(raw, CommandBuffer)
            if buffer.state != "executable":
                raise fake.wrong(f"{buffer} is submitted, and is {buffer.state}")
            if buffer.parent.family != queue.family:
                fake.misuse(f"{buffer} is for family {buffer.parent.family}, and the queue of family {queue.family}")
            for work in buffer.work:
                work()
            buffer.state = "pending"
            if signal is not None:
                signal.waiting.append(buffer)
    if signal is not None:
        signal.signaled = True
    return 0


def vkCreateFence(fake: FakeVulkan, handle: Any, info: Any, allocator: Any, out: Any) -> int:
    """Create a fence, signalled or not."""
    out[0] = fake.add(Fence(fake.get(handle, Device), bool(info.flags & 1)))
    return 0


def vkDestroyFence(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Destroy a fence, which pending work must not signal."""
    device = fake.get(handle, Device)
    if raw:
        fence = fake.get(raw, Fence, device)
        if any(buffer.state == "pending" for buffer in fence.waiting) and not device.lost:
            fake.misuse(f"{fence} is destroyed while work that signals it may still run")
        fake.end(fence)


def vkWaitForFences(fake: FakeVulkan, handle: Any, count: int, fences: Any, every: int, timeout: int) -> int:
    """Complete what was submitted with the fences. To wait for a fence that nothing signals would never end."""
    device = fake.get(handle, Device)
    waited = [fake.get(raw, Fence, device) for raw in fences[0:count]]
    if not all(fence.signaled for fence in waited):
        fake.misuse("a fence is waited for that nothing signals")
        raise Refusal(_TIMEOUT)
    for fence in waited:
        for buffer in fence.waiting:
            complete(buffer)
    return 0


def vkResetFences(fake: FakeVulkan, handle: Any, count: int, fences: Any) -> int:
    """Reset fences, which pending work must not signal."""
    device = fake.get(handle, Device)
    for raw in fences[0:count]:
        fence = fake.get(raw, Fence, device)
        if any(buffer.state == "pending" for buffer in fence.waiting):
            fake.misuse(f"{fence} is reset while work that signals it may still run")
        fence.signaled, fence.waiting = False, []
    return 0
