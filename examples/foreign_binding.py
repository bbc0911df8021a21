"""Share memory of a device that another Vulkan binding made: extmem adopts the device, the binding keeps using it.

The binding here is the PyPI package `vulkan`. Any binding works that can return its handles as numbers.
"""

import vulkan as other

import extmem
from extmem import raw, vk

FD = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD


def number(handle: object) -> int:
    return int(other.ffi.cast("uintptr_t", handle))


application = other.VkApplicationInfo(pApplicationName="renderer", apiVersion=other.VK_MAKE_VERSION(1, 1, 0))
instance = other.vkCreateInstance(other.VkInstanceCreateInfo(pApplicationInfo=application), None)
physical = other.vkEnumeratePhysicalDevices(instance)[0]
queue = other.VkDeviceQueueCreateInfo(queueFamilyIndex=0, queueCount=1, pQueuePriorities=[1.0])
extensions = ["VK_KHR_external_memory_fd"]
device = other.vkCreateDevice(
    physical, other.VkDeviceCreateInfo(pQueueCreateInfos=[queue], ppEnabledExtensionNames=extensions), None
)

handles = (number(instance), number(physical), number(device))
with raw.adopt_device(*handles, extensions=extensions, queue_family_index=0) as adopted:
    # Names, rights and rules work on the adopted device: memory that it exports can be opened by name.
    with adopted.allocate(4096, name="example-foreign") as mine, extmem.open("example-foreign") as theirs:
        mine.fill(7)
        print("another device reads", theirs.read()[:4], "of", theirs.device.name)
        print("the other binding may use VkDeviceMemory", hex(raw.vk_memory(mine)), "and VkBuffer", mine.buffer().raw)

    # The address of a pNext chain, for a call that the other binding makes itself.
    with extmem.open_device(uuid=adopted.uuid) as ours, ours.allocate(4096) as source, source.export_handle(FD) as fd:
        chain = raw.c_struct(vk.ImportMemoryFdInfoKHR(FD, fd))
        info = other.VkMemoryAllocateInfo(
            pNext=other.ffi.cast("void *", chain.address),
            allocationSize=source.allocation_size,
            memoryTypeIndex=source.memory_type_index,
        )
        imported = other.vkAllocateMemory(device, info, None)
        fd.take()  # the call has succeeded, so the driver owns the fd
        print("imported by the other binding:", source.allocation_size, "bytes")
        other.vkFreeMemory(device, imported, None)

other.vkDestroyDevice(device, None)
other.vkDestroyInstance(instance, None)
