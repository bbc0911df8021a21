"""A wrong and a right example for each rule about Win32 handles and names. Data for `extmem explain`.

The names used: T is vk.ExternalMemoryHandleTypeFlagBits; device an open device; size and index the exporter's
allocation size and memory type; handle an open NT handle, number a live KMT number; memory was exported as
OPAQUE_WIN32; buffer and image were created on the device for external memory. Tests run every one of them.
"""

from __future__ import annotations

__all__ = ["WIN32"]

_IMPORT = "VUID-VkImportMemoryWin32HandleInfoKHR-"
_GET = "VUID-VkMemoryGetWin32HandleInfoKHR-"
_ASK = "VUID-vkGetMemoryWin32HandlePropertiesKHR-"
_ALLOCATE = "VUID-VkMemoryAllocateInfo-"
_DEDICATED = "VUID-VkMemoryDedicatedAllocateInfo-"
_BARRIER = "VUID-VkImageMemoryBarrier-"

_BY_NAME = """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames")
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""
_BY_HANDLE = """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""
_HEAP = """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.D3D12_HEAP, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))"""
_GET_HANDLE = "device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, T.OPAQUE_WIN32))"

WIN32: dict[str, tuple[str, str]] = {
    _ALLOCATE + "pNext-00641": (
        """\
nv = vk.ImportMemoryWin32HandleInfoNV(handle=handle)
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle, p_next=nv)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_HANDLE,
    ),
    _ALLOCATE + "memoryTypeIndex-00645": (
        """\
# Any memory type, although the handle comes from Direct3D.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.D3D12_HEAP, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size, 0, imported))""",
        """\
allowed = device.get_memory_win32_handle_properties(T.D3D12_HEAP, handle).memory_type_bits
index = (allowed & -allowed).bit_length() - 1  # the lowest type that is allowed
imported = vk.ImportMemoryWin32HandleInfoKHR(T.D3D12_HEAP, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _ALLOCATE + "allocationSize-01743": (
        """\
# The size is computed from the image's extent, but the exporter allocated more, for alignment.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames")
device.allocate_memory(vk.MemoryAllocateInfo(100 * 100 * 4, index, imported))""",
        """\
# The size and the memory type that the exporter sent with the name. extmem.open("frames") does this for you.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames")
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _ALLOCATE + "allocationSize-00647": (
        """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.D3D12_HEAP, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size // 2, index, imported))  # half of the heap""",
        _HEAP,
    ),
    _DEDICATED + "image-01876": (
        """\
# The exporter's image is twice as wide.
dedicated = vk.MemoryDedicatedAllocateInfo(image=narrow_image)
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames", p_next=dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
dedicated = vk.MemoryDedicatedAllocateInfo(image=image)  # created as the exporter's was
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames", p_next=dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _DEDICATED + "buffer-01877": (
        """\
# The exporter's buffer has another usage.
dedicated = vk.MemoryDedicatedAllocateInfo(buffer=other_buffer)
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames", p_next=dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
dedicated = vk.MemoryDedicatedAllocateInfo(buffer=buffer)  # created as the exporter's was
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames", p_next=dedicated)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    "VUID-VkExportMemoryWin32HandleInfoKHR-handleTypes-00657": (
        """\
# A KMT number cannot have a name.
named = vk.ExportMemoryWin32HandleInfoKHR(name="frames")
export = vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32_KMT, named)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, export))""",
        """\
named = vk.ExportMemoryWin32HandleInfoKHR(name="frames")
export = vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32, named)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, export))""",
    ),
    _IMPORT + "handleType-09861": (
        """\
# The program did not query whether this device can import the type.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
query = vk.PhysicalDeviceExternalBufferInfo(0, vk.BufferUsageFlagBits.TRANSFER_DST, T.OPAQUE_WIN32)
answer = device.get_physical_device_external_buffer_properties(query).external_memory_properties
if answer.external_memory_features & vk.ExternalMemoryFeatureFlagBits.IMPORTABLE:
    imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle)
    device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _IMPORT + "handle-00659": (
        """\
# Any device, although the payload is on another GPU.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames")
other_device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# The device with the exporter's UUID.\n" + _BY_NAME,
    ),
    _IMPORT + "handleType-00660": (
        """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_FD, handle)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_HANDLE,
    ),
    _IMPORT + "handleType-01439": (
        """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32_KMT, name="frames")
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32_KMT, number)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
    ),
    _IMPORT + "handleType-01440": (
        """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32)  # neither handle nor name
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_NAME,
    ),
    _IMPORT + "handleType-00661": (
        """\
# A handle value is valid only in its own process.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, 0x1234)
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# A handle of this process: inherited, or duplicated into it by the exporter.\n" + _BY_HANDLE,
    ),
    _IMPORT + "handle-01441": (
        """\
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle, name="frames")
device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        _BY_NAME,
    ),
    _IMPORT + "handle-01518": (
        """\
# Same GPU, but its driver was updated since the exporter started.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle)
updated_device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# Device UUID and driver UUID are the exporter's.\n" + _BY_HANDLE,
    ),
    _IMPORT + "name-01519": (
        """\
# Same GPU, but its driver was updated since the exporter started.
imported = vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, name="frames")
updated_device.allocate_memory(vk.MemoryAllocateInfo(size, index, imported))""",
        "# Device UUID and driver UUID are the exporter's.\n" + _BY_NAME,
    ),
    _GET + "handleType-00662": (
        """\
# The memory was allocated for export as OPAQUE_WIN32 only.
device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, T.OPAQUE_WIN32_KMT))""",
        _GET_HANDLE,
    ),
    _GET + "handleType-00663": (
        f"first = {_GET_HANDLE}\nsecond = {_GET_HANDLE}",
        f"first = {_GET_HANDLE}\nsecond = first.duplicate()",
    ),
    _GET + "handleType-00664": (
        "device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(memory, T.OPAQUE_FD))",
        _GET_HANDLE,
    ),
    _ASK + "handle-00665": (
        "device.get_memory_win32_handle_properties(T.D3D12_HEAP, -1)  # INVALID_HANDLE_VALUE",
        "device.get_memory_win32_handle_properties(T.D3D12_HEAP, handle)",
    ),
    _ASK + "handleType-00666": (
        "device.get_memory_win32_handle_properties(T.OPAQUE_WIN32, handle)",
        "# Opaque payloads are imported with the exporter's size and memory type, without a query.\n" + _BY_HANDLE,
    ),
    "VUID-VkWin32KeyedMutexAcquireReleaseInfoKHR-pAcquireSyncs-00081": (
        """\
# The memory was imported as OPAQUE_WIN32: it has no keyed mutex.
vk.Win32KeyedMutexAcquireReleaseInfoKHR([memory], [0], [1000], [memory], [1])""",
        """\
# The memory was imported as D3D11_TEXTURE.
vk.Win32KeyedMutexAcquireReleaseInfoKHR([texture], [0], [1000], [texture], [1])""",
    ),
    _BARRIER + "dstQueueFamilyIndex-12331": (
        """\
vk.ImageMemoryBarrier(
    old_layout=vk.ImageLayout.COLOR_ATTACHMENT_OPTIMAL,
    new_layout=vk.ImageLayout.SHADER_READ_ONLY_OPTIMAL,
    src_queue_family_index=0,
    dst_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL,
    image=texture,
    subresource_range=vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1),
)""",
        """\
vk.ImageMemoryBarrier(
    old_layout=vk.ImageLayout.COLOR_ATTACHMENT_OPTIMAL,
    new_layout=vk.ImageLayout.GENERAL,
    src_queue_family_index=0,
    dst_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL,
    image=texture,
    subresource_range=vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1),
)""",
    ),
    _BARRIER + "srcQueueFamilyIndex-12332": (
        """\
vk.ImageMemoryBarrier(
    old_layout=vk.ImageLayout.SHADER_READ_ONLY_OPTIMAL,
    new_layout=vk.ImageLayout.SHADER_READ_ONLY_OPTIMAL,
    src_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL,
    dst_queue_family_index=0,
    image=texture,
    subresource_range=vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1),
)""",
        """\
vk.ImageMemoryBarrier(
    old_layout=vk.ImageLayout.GENERAL,
    new_layout=vk.ImageLayout.SHADER_READ_ONLY_OPTIMAL,
    src_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL,
    dst_queue_family_index=0,
    image=texture,
    subresource_range=vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1),
)""",
    ),
}
