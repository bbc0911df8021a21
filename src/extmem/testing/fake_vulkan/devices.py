"""Creating and destroying devices, and their queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import CommandBuffer, Device, Memory, Physical, Queue, SyncObject
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

_FEATURES = {
    int(vk.StructureType.PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES): (
        "timelineSemaphore",
        "VkPhysicalDeviceTimelineSemaphoreFeatures *",
        "VK_KHR_timeline_semaphore",
    ),
    int(vk.StructureType.PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES): (
        "synchronization2",
        "VkPhysicalDeviceSynchronization2Features *",
        "VK_KHR_synchronization2",
    ),
}
"""The name, struct and extension of each feature, by sType."""


def vkCreateDevice(fake: FakeVulkan, handle: Any, info: Any, allocator: Any, out: Any) -> int:
    """Create the device and its queues. Extensions and queues that the GPU does not have are refused."""
    physical = fake.get(handle, Physical)
    names = [bytes(ffi.string(info.ppEnabledExtensionNames[i])).decode() for i in range(info.enabledExtensionCount)]
    if not set(names) <= set(physical.gpu.extensions):
        raise Refusal(int(vk.Result.ERROR_EXTENSION_NOT_PRESENT))
    families: dict[int, int] = {}
    for create_info in info.pQueueCreateInfos[0 : info.queueCreateInfoCount]:
        number, count = int(create_info.queueFamilyIndex), int(create_info.queueCount)
        if number >= len(physical.gpu.families) or not 0 < count <= physical.gpu.families[number].count:
            raise fake.wrong(f"{count} queues of family {number}, which the GPU does not have")
        families[number] = count
    device = Device(physical, physical.gpu, frozenset(names), families, features=_features(fake, info, set(names)))
    out[0] = ffi.cast("VkDevice", fake.add(device))
    for family, count in families.items():
        for index in range(count):
            fake.add(Queue(device, family, index))
    return 0


def _features(fake: FakeVulkan, info: Any, extensions: set[str]) -> frozenset[str]:
    """Return the names of the features that the chain enables. Each needs its extension."""
    enabled, link = set(), info.pNext
    while link != ffi.NULL:
        base = ffi.cast("VkBaseOutStructure *", link)
        name, struct, extension = _FEATURES.get(int(base.sType), ("", "", ""))
        if name and getattr(ffi.cast(struct, link), name):
            if extension not in extensions:
                fake.misuse(f"the feature {name} is enabled without {extension}")
            enabled.add(name)
        link = base.pNext
    return frozenset(enabled)


def vkDestroyDevice(fake: FakeVulkan, handle: Any, allocator: Any) -> None:
    """Destroy the device. Its objects must be destroyed and its work finished before."""
    device = fake.get(handle, Device)
    left = [child for child in fake.children(device) if not isinstance(child, Queue)]
    if left:
        fake.misuse(f"{device} is destroyed while {', '.join(map(str, left))} live")
    for child in fake.children(device):
        for buffer in fake.children(child):
            fake.end(buffer)
        if isinstance(child, Memory):
            child.payload.close()
        if isinstance(child, SyncObject):
            child.close()
        fake.end(child)
    fake.end(device)
    if fake.poisoned_by == device.number:
        fake.poisoned_by = 0
    if fake.semaphores_poisoned_by == device.number:
        fake.semaphores_poisoned_by = 0


def vkGetDeviceQueue(fake: FakeVulkan, handle: Any, family: int, index: int, out: Any) -> None:
    """Return one of the queues that the device was created with."""
    device = fake.get(handle, Device)
    for queue in fake.children(device):
        if isinstance(queue, Queue) and (queue.family, queue.index) == (family, index):
            out[0] = ffi.cast("VkQueue", queue.number)
            return
    raise fake.wrong(f"queue {index} of family {family}, which {device} was made without")


def vkDeviceWaitIdle(fake: FakeVulkan, handle: Any) -> int:
    """Complete everything that was submitted."""
    device = fake.get(handle, Device)
    for buffer in fake.living(CommandBuffer):
        if buffer.parent.parent is device:
            complete(buffer)
    return 0


def complete(buffer: CommandBuffer) -> None:
    """Set the state of a submitted command buffer to that after its execution."""
    if buffer.state == "pending":
        buffer.state = "invalid" if buffer.once else "executable"
