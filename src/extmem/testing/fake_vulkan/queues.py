"""Command pools and buffers, and submissions, which `execution` runs; waiting for a fence reports the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from extmem import vk
from extmem.testing.fake_vulkan.execution import advance, is_pending, start_pump
from extmem.testing.fake_vulkan.objects import Batch, CommandBuffer, Device, Fence, Pool, Queue, Semaphore, Wait
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

_RESETTABLE = int(vk.CommandPoolCreateFlagBits.RESET_COMMAND_BUFFER)
_ONCE = int(vk.CommandBufferUsageFlagBits.ONE_TIME_SUBMIT)
_VALUES = int(vk.StructureType.TIMELINE_SEMAPHORE_SUBMIT_INFO)
_D3D12 = int(vk.StructureType.D3D12_FENCE_SUBMIT_INFO_KHR)
_STRUCTS = {_VALUES: "VkTimelineSemaphoreSubmitInfo", _D3D12: "VkD3D12FenceSubmitInfoKHR"}


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
    """Submit batches; those without waits have run when this returns. They count as pending until their fence is waited
    for.
    """
    queue = fake.get(handle, Queue)
    batches = []
    for info in infos[0:count] if count else ():
        chain = _chain(info)
        values, d3d12 = chain.get(_VALUES), chain.get(_D3D12)
        waits, signals = [], []
        for index in range(info.waitSemaphoreCount):
            semaphore = fake.get(info.pWaitSemaphores[index], Semaphore, queue.parent)
            if not info.pWaitDstStageMask[index]:
                fake.misuse(f"the stage mask of the wait for {semaphore} is 0")
            waits.append((semaphore, _value(fake, semaphore, values, d3d12, "wait", index)))
        for index in range(info.signalSemaphoreCount):
            semaphore = fake.get(info.pSignalSemaphores[index], Semaphore, queue.parent)
            signals.append((semaphore, _value(fake, semaphore, values, d3d12, "signal", index)))
        batches.append((waits, list(info.pCommandBuffers[0 : info.commandBufferCount]), signals))
    return _submit(fake, queue, batches, fence)


def vkQueueSubmit2(fake: FakeVulkan, handle: Any, count: int, infos: Any, fence: int) -> int:
    """As vkQueueSubmit."""
    queue = fake.get(handle, Queue)
    if "synchronization2" not in queue.parent.features:
        fake.misuse("the feature synchronization2 is not enabled")
    batches = []
    for info in infos[0:count] if count else ():
        sides = []
        for array, length in (
            (info.pWaitSemaphoreInfos, info.waitSemaphoreInfoCount),
            (info.pSignalSemaphoreInfos, info.signalSemaphoreInfoCount),
        ):
            side = []
            for one in array[0:length] if length else ():
                semaphore = fake.get(one.semaphore, Semaphore, queue.parent)
                side.append((semaphore, int(one.value) if semaphore.timeline else None))
            sides.append(side)
        buffers = [one.commandBuffer for one in info.pCommandBufferInfos[0 : info.commandBufferInfoCount]]
        batches.append((sides[0], buffers, sides[1]))
    return _submit(fake, queue, batches, fence)


def _chain(info: Any) -> dict[int, Any]:
    found, link = {}, info.pNext
    while link != ffi.NULL:
        base = ffi.cast("VkBaseOutStructure *", link)
        kind = _STRUCTS.get(int(base.sType))
        found[int(base.sType)] = ffi.cast(f"{kind} *", link) if kind is not None else link
        link = base.pNext
    return found


def _value(fake: FakeVulkan, semaphore: Semaphore, values: Any, d3d12: Any, side: str, index: int) -> int | None:
    """Return the value that a batch waits for or signals (`side`); None for a binary signal."""
    if semaphore.timeline:
        if values is None or index >= getattr(values, f"{side}SemaphoreValueCount"):
            raise fake.wrong(f"{semaphore} is a timeline, and VkTimelineSemaphoreSubmitInfo has no value for it")
        return int(getattr(values, f"p{side.capitalize()}SemaphoreValues")[index])
    if semaphore.page.kind != "timeline":
        return None
    # A fence of Direct3D 12 in a binary semaphore.
    if d3d12 is None or index >= getattr(d3d12, f"{side}SemaphoreValuesCount"):
        raise fake.wrong(f"{semaphore} is a fence of Direct3D 12, and VkD3D12FenceSubmitInfoKHR has no value for it")
    return int(getattr(d3d12, f"p{side.capitalize()}SemaphoreValues")[index])


Side: TypeAlias = list[tuple[Semaphore, int | None]]


def _submit(fake: FakeVulkan, queue: Queue, batches: list[tuple[Side, list[Any], Side]], fence: int) -> int:
    signal = fake.get(fence, Fence, queue.parent) if fence else None
    if signal is not None and (signal.page.number or signal.waiting or is_pending(fake, signal)):
        fake.misuse(f"{signal} is submitted, and was not reset")
    made: list[Batch] = []
    for waits, raws, signals in batches:
        batch = Batch(buffers=[_submitted(fake, queue, raw) for raw in raws])
        for semaphore, value in waits:
            batch.waits.append(_waited(fake, semaphore, value))
            batch.uses.add(semaphore)
        for semaphore, value in signals:
            if value is None and semaphore.page.number and not semaphore.page.shared:
                waited = any(
                    wait.page is semaphore.page for one in (*queue.batches, *made, batch) for wait in one.waits
                )
                if not waited:
                    fake.misuse(f"{semaphore} is signaled, and is signaled already")
            batch.signals.append((semaphore.page.use(), value))
            batch.uses.add(semaphore)
        made.append(batch)
    if signal is not None:
        last = Batch(signals=[(signal.page.use(), None)])
        last.uses.add(signal)
        made.append(last)
        # Everything that was submitted before it is done, too, when it is signaled.
        signal.waiting = [*queue.pending]
    queue.batches += made
    advance(fake)
    start_pump(fake)
    return 0


def _submitted(fake: FakeVulkan, queue: Queue, raw: Any) -> CommandBuffer:
    buffer = fake.get(raw, CommandBuffer)
    if buffer.state != "executable":
        raise fake.wrong(f"{buffer} is submitted, and is {buffer.state}")
    if buffer.parent.family != queue.family:
        fake.misuse(f"{buffer} is for family {buffer.parent.family}, and the queue of family {queue.family}")
    buffer.state = "pending"
    buffer.submissions += 1
    queue.pending = [(one, number) for one, number in queue.pending if one.state == "pending"]
    queue.pending.append((buffer, buffer.submissions))
    return buffer


def _waited(fake: FakeVulkan, semaphore: Semaphore, value: int | None) -> Wait:
    """Return the wait for the current payload. A temporary one belongs to the wait from now on."""
    wait = Wait(semaphore.page.use(), value)
    semaphore.restore()
    return wait
