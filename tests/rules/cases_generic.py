"""Cases: allocating, exporting, dedicating, creating."""

from __future__ import annotations

from extmem import rules, vk
from tests.rules.world import (
    CLOSED,
    DEDICATED_ONLY,
    EXPORTABLE,
    GPU,
    GPU_UUID,
    GROUP,
    OTHER_GPU,
    OTHER_UUID,
    QUEUELESS,
    SIZE,
    T,
    alloc,
    ask_buffer,
    buffer,
    buffer_info,
    can,
    case,
    export,
    fd,
    for_buffer,
    for_image,
    host,
    image,
    image_info,
    payload,
    win32,
)

INFO = "VkMemoryAllocateInfo"
DEDICATED = "VkMemoryDedicatedAllocateInfo"
QUERY = "VkPhysicalDeviceExternalBufferInfo"
WIN32, KMT = T.OPAQUE_WIN32, T.OPAQUE_WIN32_KMT
FLAG = vk.MemoryAllocateFlagBits
BOTH_DEVICES = (GPU_UUID, OTHER_UUID)

case(f"{INFO}-allocationSize-07897", lambda: alloc(size=0), lambda: alloc(size=1))
case(
    f"{INFO}-None-06657",
    lambda: alloc(fd(), host()),
    lambda: alloc(fd(), host(0)),
)
case(f"{INFO}-allocationSize-07899", lambda: alloc(export(), size=0), lambda: alloc(export(), size=1))
case(
    f"{INFO}-pNext-00639",
    lambda: alloc(export(), capabilities=can(EXPORTABLE | DEDICATED_ONLY)),
    lambda: alloc(export(), for_buffer(), dedicated=buffer(), capabilities=can(EXPORTABLE | DEDICATED_ONLY)),
)
case(
    f"{INFO}-pNext-00640",
    lambda: alloc(export(), vk.ExportMemoryAllocateInfoNV(0)),
    lambda: alloc(export()),
)
case(
    f"{INFO}-None-00643",
    lambda: alloc(
        win32(name="frames"),
        vk.MemoryAllocateFlagsInfo(FLAG.DEVICE_MASK, 0b01),
        device=GROUP,
        payload=payload(device_mask=0b11, device_group=BOTH_DEVICES),
    ),
    lambda: alloc(
        win32(name="frames"),
        vk.MemoryAllocateFlagsInfo(FLAG.DEVICE_MASK, 0b11),
        device=GROUP,
        payload=payload(device_mask=0b11, device_group=BOTH_DEVICES),
    ),
)
case(
    f"{INFO}-None-00644",
    lambda: alloc(win32(name="frames"), device=GROUP, payload=payload(device_mask=0b11)),
    lambda: alloc(win32(name="frames"), device=GROUP, payload=payload(device_group=BOTH_DEVICES)),
)
case(
    f"{INFO}-opaqueCaptureAddress-03333",
    lambda: alloc(fd(), vk.MemoryOpaqueCaptureAddressAllocateInfo(0x1000)),
    lambda: alloc(fd(0), vk.MemoryOpaqueCaptureAddressAllocateInfo(0x1000)),
)
case(
    "VkMemoryAllocateFlagsInfo-flags-10760",
    lambda: alloc(fd(), vk.MemoryAllocateFlagsInfo(FLAG.ZERO_INITIALIZE)),
    lambda: alloc(vk.MemoryAllocateFlagsInfo(FLAG.ZERO_INITIALIZE)),
)
case(
    f"{DEDICATED}-image-01432",
    lambda: alloc(vk.MemoryDedicatedAllocateInfo(0xA, 0xB)),
    lambda: alloc(vk.MemoryDedicatedAllocateInfo(0xA, 0), dedicated=image()),
)
case(
    f"{DEDICATED}-image-02964",
    lambda: alloc(for_image(), size=SIZE - 1, dedicated=image()),
    lambda: alloc(for_image(), size=SIZE, dedicated=image()),
)
case(
    f"{DEDICATED}-buffer-02965",
    lambda: alloc(for_buffer(), size=SIZE - 1, dedicated=buffer()),
    lambda: alloc(for_buffer(), size=SIZE, dedicated=buffer()),
)
case(
    f"{DEDICATED}-image-01434",
    lambda: alloc(for_image(), dedicated=image(image_info(flags=vk.ImageCreateFlagBits.SPARSE_BINDING))),
    lambda: alloc(for_image(), dedicated=image(image_info(flags=vk.ImageCreateFlagBits.MUTABLE_FORMAT))),
)
case(
    f"{DEDICATED}-buffer-01436",
    lambda: alloc(for_buffer(), dedicated=buffer(buffer_info(flags=vk.BufferCreateFlagBits.SPARSE_BINDING))),
    lambda: alloc(for_buffer(), dedicated=buffer(buffer_info(flags=vk.BufferCreateFlagBits.PROTECTED))),
)
case(
    f"{DEDICATED}-image-01797",
    lambda: alloc(for_image(), dedicated=image(image_info(flags=vk.ImageCreateFlagBits.DISJOINT))),
    lambda: alloc(for_image(), dedicated=image(image_info(flags=vk.ImageCreateFlagBits.ALIAS))),
)
case(
    "VkExportMemoryAllocateInfo-handleTypes-09860",
    lambda: alloc(export(WIN32 | KMT), capabilities=can(EXPORTABLE, 0, 0, WIN32) | can(EXPORTABLE, 0, 0, KMT)),
    lambda: alloc(export(WIN32 | KMT), capabilities=can(EXPORTABLE, 0, 0, WIN32, KMT)),
)
case(f"{QUERY}-None-09499", lambda: ask_buffer(usage=1 << 31), lambda: ask_buffer(usage=1))
case(
    f"{QUERY}-None-09500",
    lambda: ask_buffer(usage=0),
    lambda: ask_buffer(usage=0, p_next=vk.BufferUsageFlags2CreateInfo(1)),
)
case(
    "VkBufferCreateInfo-pNext-00920",
    lambda: rules.check_create_buffer(buffer_info(WIN32 | KMT), GPU, can(6, 0, 0, WIN32) | can(6, 0, 0, KMT)),
    lambda: rules.check_create_buffer(buffer_info(WIN32 | KMT), GPU, can(6, 0, 0, WIN32, KMT)),
)
case(
    "VkImageCreateInfo-pNext-00990",
    lambda: rules.check_create_image(image_info(WIN32 | KMT), GPU, can(6, 0, 0, WIN32) | can(6, 0, 0, KMT)),
    lambda: rules.check_create_image(image_info(WIN32), GPU, can(6, 0, 0, WIN32) | can(6, 0, 0, KMT)),
)


def nv_image(kinds: int) -> vk.ImageCreateInfo:
    info = image_info(kinds)
    nv = vk.ExternalMemoryImageCreateInfoNV(2)
    if info.p_next is None:
        info.p_next = nv
    else:
        info.p_next.p_next = nv
    return info


case(
    "VkImageCreateInfo-pNext-00988",
    lambda: rules.check_create_image(nv_image(WIN32), GPU, {}),
    lambda: rules.check_create_image(nv_image(0), GPU, {}),
)
case(
    "VkImageCreateInfo-pNext-01443",
    lambda: rules.check_create_image(image_info(WIN32, initial_layout=vk.ImageLayout.PREINITIALIZED), GPU, {}),
    lambda: rules.check_create_image(image_info(initial_layout=vk.ImageLayout.PREINITIALIZED), GPU, {}),
)
case("vkAllocateMemory-pAllocateInfo-01713", lambda: alloc(size=(1 << 16) + 1, index=2), lambda: alloc(index=2))
case("vkAllocateMemory-pAllocateInfo-01714", lambda: alloc(index=3), lambda: alloc(index=2))
case(
    "vkAllocateMemory-maxMemoryAllocationCount-04101",
    lambda: alloc(live_allocations=4096, max_allocations=4096),
    lambda: alloc(live_allocations=4095, max_allocations=4096),
)

# What the registry implies.
case(
    f"{DEDICATED}-image-parameter",
    lambda: alloc(for_image(), dedicated=image(alive=False)),
    lambda: alloc(for_image(), dedicated=image()),
)
case(
    f"{DEDICATED}-buffer-parameter",
    lambda: alloc(for_buffer(), dedicated=buffer(alive=False)),
    lambda: alloc(for_buffer(), dedicated=buffer()),
)
case(
    f"{DEDICATED}-commonparent",
    lambda: alloc(for_buffer(), device=OTHER_GPU, dedicated=buffer()),
    lambda: alloc(for_buffer(), device=GPU, dedicated=buffer()),
)
case(f"{INFO}-pNext-pNext", lambda: alloc(buffer_info()), lambda: alloc(vk.MemoryPriorityAllocateInfoEXT(0.5)))
case(f"{INFO}-sType-unique", lambda: alloc(export(), export()), lambda: alloc(export(), vk.MemoryAllocateFlagsInfo()))
case("vkAllocateMemory-device-parameter", lambda: alloc(device=CLOSED), lambda: alloc(device=GPU))
case("vkAllocateMemory-device-queuecount", lambda: alloc(device=QUEUELESS), lambda: alloc(device=GPU))
case("vkAllocateMemory-pAllocateInfo-parameter", lambda: alloc(size="64 KiB"), lambda: alloc(size=SIZE))
case(
    "VkExportMemoryAllocateInfo-handleTypes-parameter",
    lambda: alloc(export(1 << 30)),
    lambda: alloc(export(KMT)),
)
case(
    "VkExternalMemoryBufferCreateInfo-handleTypes-parameter",
    lambda: rules.check_create_buffer(buffer_info(1 << 30), GPU, {}),
    lambda: rules.check_create_buffer(buffer_info(WIN32), GPU, {}),
)
case(
    "VkExternalMemoryImageCreateInfo-handleTypes-parameter",
    lambda: rules.check_create_image(image_info(1 << 30), GPU, {}),
    lambda: rules.check_create_image(image_info(WIN32), GPU, {}),
)
case(
    "VkPhysicalDeviceExternalImageFormatInfo-handleType-parameter",
    lambda: rules.check_external_image_format_info(vk.PhysicalDeviceExternalImageFormatInfo(3)),
    lambda: rules.check_external_image_format_info(vk.PhysicalDeviceExternalImageFormatInfo(0)),
)
case(
    f"{QUERY}-pNext-pNext",
    lambda: ask_buffer(p_next=export()),
    lambda: ask_buffer(p_next=vk.BufferUsageFlags2CreateInfo(1)),
)
case(
    f"{QUERY}-sType-unique",
    lambda: ask_buffer(p_next=vk.BufferUsageFlags2CreateInfo(1, p_next=vk.BufferUsageFlags2CreateInfo(1))),
    lambda: ask_buffer(p_next=vk.BufferUsageFlags2CreateInfo(1)),
)
case(f"{QUERY}-flags-parameter", lambda: ask_buffer(flags=1 << 31), lambda: ask_buffer(flags=1))
case(f"{QUERY}-handleType-parameter", lambda: ask_buffer(handle_type=0), lambda: ask_buffer(handle_type=T.OPAQUE_FD))
case(
    "vkGetPhysicalDeviceExternalBufferProperties-pExternalBufferInfo-parameter",
    lambda: rules.check_external_buffer_info(export()),  # type: ignore[arg-type]  # wrong on purpose
    lambda: ask_buffer(),
)
COUNTS = (16, 2)
case(
    "vkGetDeviceQueue-queueFamilyIndex-00384",
    lambda: rules.check_get_device_queue(2, 0, COUNTS),
    lambda: rules.check_get_device_queue(1, 0, COUNTS),
)
case(
    "vkGetDeviceQueue-queueIndex-00385",
    lambda: rules.check_get_device_queue(1, 2, COUNTS),
    lambda: rules.check_get_device_queue(1, 1, COUNTS),
)
