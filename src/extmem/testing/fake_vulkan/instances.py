"""Commands of the loader and of instances: creating an instance, and querying the physical devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Instance, Physical
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

_S = vk.StructureType
_DRIVER_PROPERTIES = 1000196000
_INCOMPLETE = int(vk.Result.INCOMPLETE)


def version(pair: tuple[int, int]) -> int:
    """VK_MAKE_API_VERSION."""
    return pair[0] << 22 | pair[1] << 12


def out_chain(struct: Any) -> dict[int, Any]:
    """Return the structs of the pNext chain, which the command fills in, by sType."""
    chain, link = {}, struct.pNext
    while link != ffi.NULL:
        base = ffi.cast("VkBaseOutStructure *", link)
        chain[int(base.sType)] = link
        link = base.pNext
    return chain


def listed(count: Any, into: Any, values: list[Any], fill: Any) -> int:
    """Fill in the count and array of an enumerating command; return 0 or VK_INCOMPLETE."""
    if into == ffi.NULL:
        count[0] = len(values)
        return 0
    room = int(count[0])
    count[0] = min(room, len(values))
    for index in range(count[0]):
        fill(into, index, values[index])
    return _INCOMPLETE if room < len(values) else 0


def _extension(into: Any, index: int, name: str) -> None:
    into[index].extensionName = name.encode()
    into[index].specVersion = 1


def vkEnumerateInstanceVersion(fake: FakeVulkan, out: Any) -> int:
    """Return the loader's version. A loader of 1.0 has no such command; see `FakeVulkan.missing`."""
    out[0] = version(fake.loader_version)
    return 0


def vkEnumerateInstanceExtensionProperties(fake: FakeVulkan, layer: Any, count: Any, into: Any) -> int:
    """Return no extensions."""
    return listed(count, into, [], _extension)


def vkCreateInstance(fake: FakeVulkan, info: Any, allocator: Any, out: Any) -> int:
    """Create the instance and its physical devices."""
    if info.pApplicationInfo == ffi.NULL or info.pApplicationInfo.apiVersion < version((1, 1)):
        raise fake.wrong(
            "an instance of Vulkan 1.0: external memory needs 1.1", int(vk.Result.ERROR_INCOMPATIBLE_DRIVER)
        )
    instance = Instance(None)
    out[0] = ffi.cast("VkInstance", fake.add(instance))
    for gpu in fake.gpus:
        fake.add(Physical(instance, gpu))
    return 0


def vkDestroyInstance(fake: FakeVulkan, handle: Any, allocator: Any) -> None:
    """Destroy the instance, whose devices must be destroyed before."""
    instance = fake.get(handle, Instance)
    for physical in fake.children(instance):
        left = [child for child in fake.children(physical) if isinstance(child, Device)]
        if left:
            fake.misuse(f"{instance} is destroyed while {', '.join(map(str, left))} live")
        fake.end(physical)
    fake.end(instance)


def vkEnumeratePhysicalDevices(fake: FakeVulkan, handle: Any, count: Any, into: Any) -> int:
    """Return every GPU, in the order of `FakeVulkan.gpus`."""
    numbers = [p.number for p in fake.children(fake.get(handle, Instance)) if isinstance(p, Physical)]

    def fill(array: Any, index: int, number: int) -> None:
        array[index] = ffi.cast("VkPhysicalDevice", number)

    return listed(count, into, numbers, fill)


def vkEnumerateDeviceExtensionProperties(fake: FakeVulkan, handle: Any, layer: Any, count: Any, into: Any) -> int:
    """Return the extensions of the `Gpu`."""
    return listed(count, into, list(fake.get(handle, Physical).gpu.extensions), _extension)


def vkGetPhysicalDeviceProperties(fake: FakeVulkan, handle: Any, out: Any) -> None:
    """Return name, type, version, and the limits that extmem uses."""
    gpu = fake.get(handle, Physical).gpu
    out.apiVersion = version(gpu.api_version)
    out.driverVersion, out.vendorID, out.deviceID = 1, 0xFA4E, 1
    out.deviceType = gpu.device_type
    out.deviceName = gpu.name.encode()
    limits = out.limits
    limits.maxMemoryAllocationCount = gpu.max_allocations
    limits.maxFramebufferWidth = limits.maxFramebufferHeight = 16384
    limits.nonCoherentAtomSize = gpu.non_coherent_atom
    limits.minMemoryMapAlignment = 64
    limits.bufferImageGranularity = 1
    limits.maxImageDimension2D = 16384


def vkGetPhysicalDeviceProperties2(fake: FakeVulkan, handle: Any, out: Any) -> None:
    """Return the same, and identity, driver and host pointers where the chain has their structs."""
    gpu = fake.get(handle, Physical).gpu
    vkGetPhysicalDeviceProperties(fake, handle, out.properties)
    chain = out_chain(out)
    if int(_S.PHYSICAL_DEVICE_ID_PROPERTIES) in chain:
        ids = ffi.cast("VkPhysicalDeviceIDProperties *", chain[int(_S.PHYSICAL_DEVICE_ID_PROPERTIES)])
        ids.deviceUUID, ids.driverUUID = list(gpu.device_uuid), list(gpu.driver_uuid)
        ids.deviceLUIDValid = gpu.luid is not None
        ids.deviceLUID = list(gpu.luid or bytes(8))
        ids.deviceNodeMask = gpu.node_mask
    if _DRIVER_PROPERTIES in chain:
        driver = ffi.cast("VkPhysicalDeviceDriverProperties *", chain[_DRIVER_PROPERTIES])
        driver.driverName, driver.driverInfo = gpu.driver_name.encode(), gpu.driver_info.encode()
    timelines = int(_S.PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_PROPERTIES)
    if timelines in chain:
        limit = ffi.cast("VkPhysicalDeviceTimelineSemaphoreProperties *", chain[timelines])
        limit.maxTimelineSemaphoreValueDifference = gpu.max_timeline_difference
    host = int(_S.PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT)
    if host in chain:
        pointers = ffi.cast("VkPhysicalDeviceExternalMemoryHostPropertiesEXT *", chain[host])
        pointers.minImportedHostPointerAlignment = gpu.host_pointer_alignment


def vkGetPhysicalDeviceMemoryProperties2(fake: FakeVulkan, handle: Any, out: Any) -> None:
    """Return memory types and heaps. Heap 0 is device-local."""
    gpu, properties = fake.get(handle, Physical).gpu, out.memoryProperties
    properties.memoryTypeCount, properties.memoryHeapCount = len(gpu.memory_types), len(gpu.heaps)
    for index, memory_type in enumerate(gpu.memory_types):
        properties.memoryTypes[index].propertyFlags = memory_type.flags
        properties.memoryTypes[index].heapIndex = memory_type.heap
    for index, size in enumerate(gpu.heaps):
        properties.memoryHeaps[index].size = size
        properties.memoryHeaps[index].flags = int(vk.MemoryHeapFlagBits.DEVICE_LOCAL) if index == 0 else 0


def vkGetPhysicalDeviceQueueFamilyProperties(fake: FakeVulkan, handle: Any, count: Any, into: Any) -> None:
    """Return the queue families."""

    def fill(array: Any, index: int, family: Any) -> None:
        array[index].queueFlags, array[index].queueCount = family.flags, family.count

    listed(count, into, list(fake.get(handle, Physical).gpu.families), fill)


def vkGetDeviceProcAddr(fake: FakeVulkan, handle: Any, name: Any) -> Any:
    """Return the command's address; NULL for a command that does not exist."""
    try:
        return fake.device_entry(fake.get(handle, Device), bytes(ffi.string(name)).decode())
    except Refusal:
        return ffi.NULL


def vkGetInstanceProcAddr(fake: FakeVulkan, handle: Any, name: Any) -> Any:
    """Return the command's address; NULL for a command that does not exist."""
    return fake.entry(bytes(ffi.string(name)).decode())
