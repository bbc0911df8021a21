"""A wrong and a right example for each rule about file descriptors and host pointers. Data for `extmem explain`.

The names used: T is vk.ExternalMemoryHandleTypeFlagBits; device an open device; size and index the exporter's
allocation size and memory type; fd an open memory fd, dma_buf another; address the start of a mapped page; memory was
exported as OPAQUE_FD; buffer and image were created for external memory. Tests run every one of them.
"""

from __future__ import annotations

__all__ = ["FD", "HOST"]

_ALLOCATE = "VUID-VkMemoryAllocateInfo-"
_DEDICATED = "VUID-VkMemoryDedicatedAllocateInfo-"
_IMPORT = "VUID-VkImportMemoryFdInfoKHR-"
_GET = "VUID-VkMemoryGetFdInfoKHR-"
_ASK = "VUID-vkGetMemoryFdPropertiesKHR-"
_BY_FD = """\
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""
_BY_DMA_BUF = """\
imported = vk.ImportMemoryFdInfoKHR(T.DMA_BUF, dma_buf)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""
_GET_FD = "device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, T.OPAQUE_FD))"
_UPDATED = """\
# Same GPU, but its driver was updated since the exporter started.
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd)
updated_device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""

FD: dict[str, tuple[str, str]] = {
    _ALLOCATE + "allocationSize-01742": (
        """\
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd)
device.allocate_memory(vk.MemoryAllocateInfo(100 * 100 * 4, index, imported))  # a guess""",
        "# The size and the memory type that the exporter sent with the fd.\n" + _BY_FD,
    ),
    _ALLOCATE + "memoryTypeIndex-00648": (
        """\
# Any memory type, although the dma-buf comes from a camera.
imported = vk.ImportMemoryFdInfoKHR(T.DMA_BUF, dma_buf)
device.allocate_memory(vk.MemoryAllocateInfo(size, 0, imported))""",
        """\
allowed = device.get_memory_fd_properties(T.DMA_BUF, dma_buf).memory_type_bits
index = (allowed & -allowed).bit_length() - 1  # the lowest type that is allowed
imported = vk.ImportMemoryFdInfoKHR(T.DMA_BUF, dma_buf)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _DEDICATED + "image-01878": (
        """\
# The exporter's image is twice as wide.
dedicated = vk.MemoryDedicatedAllocateInfo(image=narrow_image)
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd, dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
dedicated = vk.MemoryDedicatedAllocateInfo(image=image)  # created as the exporter's was
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd, dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _DEDICATED + "buffer-01879": (
        """\
# The exporter's buffer has another usage.
dedicated = vk.MemoryDedicatedAllocateInfo(buffer=other_buffer)
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd, dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
dedicated = vk.MemoryDedicatedAllocateInfo(buffer=buffer)  # created as the exporter's was
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd, dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _IMPORT + "handleType-09862": (
        "# The program did not query whether this device can import the type.\n" + _BY_DMA_BUF,
        """\
query = vk.PhysicalDeviceExternalBufferInfo(0, vk.BufferUsageFlagBits.TRANSFER_DST, T.DMA_BUF)
answer = device.get_physical_device_external_buffer_properties(query).external_memory_properties
if answer.external_memory_features & vk.ExternalMemoryFeatureFlagBits.IMPORTABLE:
    imported = vk.ImportMemoryFdInfoKHR(T.DMA_BUF, dma_buf)
    device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _IMPORT + "fd-00668": (
        """\
# Any device, although the payload is on another GPU.
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd)
other_device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# The device with the exporter's UUID.\n" + _BY_FD,
    ),
    _IMPORT + "handleType-00669": (
        """\
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_WIN32, fd)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_FD,
    ),
    _IMPORT + "handleType-00670": (
        """\
imported = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD)  # fd is -1 by default
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_FD,
    ),
    _IMPORT + "fd-01746": (_UPDATED, "# Device UUID and driver UUID are the exporter's.\n" + _BY_FD),
    _IMPORT + "fd-01520": (_UPDATED, "# Between unequal drivers, share a dma-buf instead.\n" + _BY_DMA_BUF),
    _GET + "handleType-00671": (
        """\
# The memory was allocated for export as OPAQUE_FD only.
device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, T.DMA_BUF))""",
        _GET_FD,
    ),
    _GET + "handleType-00672": (
        "device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, T.OPAQUE_WIN32))",
        _GET_FD,
    ),
    _ASK + "fd-00673": (
        "device.get_memory_fd_properties(T.DMA_BUF, -1)",
        "device.get_memory_fd_properties(T.DMA_BUF, dma_buf)",
    ),
    _ASK + "handleType-00674": (
        "device.get_memory_fd_properties(T.OPAQUE_FD, fd)",
        "# Opaque payloads are imported with the exporter's size and memory type, without a query.\n" + _BY_FD,
    ),
}

_HOST = "VUID-VkImportMemoryHostPointerInfoEXT-"
_ASK_HOST = "VUID-vkGetMemoryHostPointerPropertiesEXT-"
_BY_POINTER = """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""
_QUERY = "device.get_memory_host_pointer_properties(T.HOST_ALLOCATION, address)"

HOST: dict[str, tuple[str, str]] = {
    _ALLOCATE + "memoryTypeIndex-01744": (
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
device.allocate_memory(vk.MemoryAllocateInfo(size, 0, imported))  # any memory type""",
        f"""\
allowed = {_QUERY}.memory_type_bits
index = (allowed & -allowed).bit_length() - 1  # the lowest type that is allowed
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _ALLOCATE + "allocationSize-01745": (
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
device.allocate_memory(vk.MemoryAllocateInfo(1000, index, imported))""",
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
device.allocate_memory(vk.MemoryAllocateInfo(4096, index, imported))  # the whole page""",
    ),
    _ALLOCATE + "pNext-02805": (
        """\
dedicated = vk.DedicatedAllocationMemoryAllocateInfoNV(buffer=buffer)
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address, dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_POINTER,
    ),
    _ALLOCATE + "pNext-02806": (
        """\
dedicated = vk.MemoryDedicatedAllocateInfo(buffer=buffer)
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address, dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_POINTER,
    ),
    _ALLOCATE + "pNext-03332": (
        """\
capture = vk.MemoryOpaqueCaptureAddressAllocateInfo(0x1000)
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address, capture)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_POINTER,
    ),
    _HOST + "handleType-01747": (
        "# The program did not query whether this device can import host memory.\n" + _BY_POINTER,
        """\
query = vk.PhysicalDeviceExternalBufferInfo(0, vk.BufferUsageFlagBits.TRANSFER_DST, T.HOST_ALLOCATION)
answer = device.get_physical_device_external_buffer_properties(query).external_memory_properties
if answer.external_memory_features & vk.ExternalMemoryFeatureFlagBits.IMPORTABLE:
    imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address)
    device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _HOST + "handleType-01748": (
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.OPAQUE_FD, address)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_POINTER,
    ),
    _HOST + "pHostPointer-01749": (
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, address + 16)  # after a header
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# The page itself; bind resources at an offset to skip the header.\n" + _BY_POINTER,
    ),
    _HOST + "handleType-01750": (
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_ALLOCATION, freed_address)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# Keep the memory at the address allocated until the memory object is freed.\n" + _BY_POINTER,
    ),
    _HOST + "handleType-01751": (
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_MAPPED_FOREIGN_MEMORY, freed_address)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
imported = vk.ImportMemoryHostPointerInfoEXT(T.HOST_MAPPED_FOREIGN_MEMORY, address)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _ASK_HOST + "handleType-01752": ("device.get_memory_host_pointer_properties(T.DMA_BUF, address)", _QUERY),
    _ASK_HOST + "pHostPointer-01753": (
        "device.get_memory_host_pointer_properties(T.HOST_ALLOCATION, address + 16)",
        _QUERY,
    ),
    _ASK_HOST + "handleType-01754": (
        "device.get_memory_host_pointer_properties(T.HOST_ALLOCATION, freed_address)",
        _QUERY,
    ),
    _ASK_HOST + "handleType-01755": (
        "device.get_memory_host_pointer_properties(T.HOST_MAPPED_FOREIGN_MEMORY, freed_address)",
        "device.get_memory_host_pointer_properties(T.HOST_MAPPED_FOREIGN_MEMORY, address)",
    ),
    "VUID-VkMemoryMapInfo-flags-09575": (
        "vk.MemoryMapInfo(vk.MemoryMapFlagBits.PLACED, host_memory, 0, size)",
        "vk.MemoryMapInfo(0, host_memory, 0, size)",
    ),
    "VUID-VkMemoryUnmapInfo-flags-09580": (
        "vk.MemoryUnmapInfo(vk.MemoryUnmapFlagBits.RESERVE, host_memory)",
        "vk.MemoryUnmapInfo(0, host_memory)",
    ),
}
