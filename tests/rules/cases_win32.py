"""Cases: Win32 handles and names."""

from __future__ import annotations

from extmem import rules, vk
from tests.rules.world import (
    BAD_HANDLE,
    CLOSED,
    DRIVER_UUID,
    EXPORTABLE,
    GPU,
    GPU_UUID,
    NOT_FOUND,
    OLD_DRIVER_UUID,
    OTHER_GPU,
    OTHER_UUID,
    SIZE,
    T,
    alloc,
    ask_win32,
    buffer,
    buffer_info,
    can,
    case,
    export,
    for_buffer,
    for_image,
    foreign,
    get_win32,
    image,
    image_info,
    memory,
    on_whole,
    payload,
    win32,
)

IMPORT = "VkImportMemoryWin32HandleInfoKHR"
GET = "VkMemoryGetWin32HandleInfoKHR"
ASK = "vkGetMemoryWin32HandlePropertiesKHR"
MUTEX = "VkWin32KeyedMutexAcquireReleaseInfoKHR"
NAMED = {"name": "frames"}

case(
    "VkMemoryAllocateInfo-pNext-00641",
    lambda: alloc(win32(name="frames"), vk.ImportMemoryWin32HandleInfoNV(handle=0x1C)),
    lambda: alloc(win32(name="frames")),
)
case(
    "VkMemoryAllocateInfo-memoryTypeIndex-00645",
    lambda: alloc(win32(T.D3D12_HEAP, 0x1C), payload=foreign(T.D3D12_HEAP, 0b101)),
    lambda: alloc(win32(T.D3D12_HEAP, 0x1C), payload=foreign(T.D3D12_HEAP, 0b111)),
)
case(
    "VkMemoryAllocateInfo-allocationSize-01743",
    lambda: alloc(win32(**NAMED), size=SIZE * 2, index=2, payload=payload()),
    lambda: alloc(win32(**NAMED), payload=payload()),
    "vkAllocateMemory-pAllocateInfo-01713",
)
case(
    "VkMemoryAllocateInfo-allocationSize-00647",
    lambda: alloc(win32(T.D3D12_HEAP, 0x1C), size=4096, payload=foreign(T.D3D12_HEAP)),
    lambda: alloc(win32(T.D3D12_HEAP, 0x1C), payload=foreign(T.D3D12_HEAP)),
)
case(
    "VkMemoryDedicatedAllocateInfo-image-01876",
    lambda: alloc(
        win32(**NAMED),
        for_image(),
        dedicated=image(image_info(T.OPAQUE_WIN32, width=32)),
        payload=payload(dedicated="image", dedicated_info=image_info(T.OPAQUE_WIN32)),
    ),
    lambda: alloc(
        win32(**NAMED),
        for_image(),
        dedicated=image(image_info(T.OPAQUE_WIN32)),
        payload=payload(dedicated="image", dedicated_info=image_info(T.OPAQUE_WIN32)),
    ),
)
case(
    "VkMemoryDedicatedAllocateInfo-buffer-01877",
    lambda: alloc(
        win32(handle=0x1C),
        for_buffer(),
        dedicated=buffer(buffer_info(T.OPAQUE_WIN32)),
        payload=payload(dedicated="none"),
    ),
    lambda: alloc(
        win32(handle=0x1C),
        for_buffer(),
        dedicated=buffer(buffer_info(T.OPAQUE_WIN32)),
        payload=payload(dedicated="buffer", dedicated_info=buffer_info(T.OPAQUE_WIN32)),
    ),
)
case(
    "VkExportMemoryWin32HandleInfoKHR-handleTypes-00657",
    lambda: alloc(export(T.OPAQUE_WIN32_KMT), vk.ExportMemoryWin32HandleInfoKHR(None, 1, "frames")),
    lambda: alloc(export(T.OPAQUE_WIN32), vk.ExportMemoryWin32HandleInfoKHR(None, 1, "frames")),
)
case(
    f"{IMPORT}-handleType-09861",
    lambda: alloc(win32(**NAMED), capabilities=can(EXPORTABLE)),
    lambda: alloc(win32(**NAMED), capabilities=can()),
)
case(
    f"{IMPORT}-handle-00659",
    lambda: alloc(win32(**NAMED), device=OTHER_GPU, payload=payload()),
    lambda: alloc(win32(**NAMED), payload=payload()),
    f"{IMPORT}-name-01519",
    "VkMemoryAllocateInfo-None-00644",
)
case(
    f"{IMPORT}-handleType-00660",
    lambda: alloc(win32(T.OPAQUE_FD, 0x1C)),
    lambda: alloc(win32(T.OPAQUE_WIN32, 0x1C)),
)
case(
    f"{IMPORT}-handleType-01439",
    lambda: alloc(win32(T.OPAQUE_WIN32_KMT, None, "frames")),
    lambda: alloc(win32(T.OPAQUE_WIN32, None, "frames")),
)
case(
    f"{IMPORT}-handleType-01440",
    lambda: alloc(win32(**NAMED), refusal=NOT_FOUND),
    lambda: alloc(win32(**NAMED), payload=payload()),
)
case(
    f"{IMPORT}-handleType-00661",
    lambda: alloc(win32(handle=0x1C), refusal=BAD_HANDLE),
    lambda: alloc(win32(handle=0x1C), payload=payload()),
)
case(
    f"{IMPORT}-handle-01441",
    lambda: alloc(win32(handle=0x1C, name="frames")),
    lambda: alloc(win32(handle=0x1C)),
)
case(
    f"{IMPORT}-handle-01518",
    lambda: alloc(win32(handle=0x1C), payload=payload(driver_uuid=OLD_DRIVER_UUID)),
    lambda: alloc(win32(handle=0x1C), payload=payload(driver_uuid=DRIVER_UUID)),
)
case(
    f"{IMPORT}-name-01519",
    lambda: alloc(win32(**NAMED), payload=payload(device_uuid=OTHER_UUID)),
    lambda: alloc(win32(**NAMED), payload=payload(device_uuid=GPU_UUID)),
    f"{IMPORT}-handle-00659",
    "VkMemoryAllocateInfo-None-00644",
)
case(
    f"{GET}-handleType-00662",
    lambda: get_win32(T.OPAQUE_WIN32_KMT),
    lambda: get_win32(T.OPAQUE_WIN32_KMT, export_handle_types=int(T.OPAQUE_WIN32_KMT)),
)
case(
    f"{GET}-handleType-00663",
    lambda: get_win32(exported_nt_types=int(T.OPAQUE_WIN32)),
    lambda: get_win32(),
)
case(
    f"{GET}-handleType-00664",
    lambda: get_win32(T.OPAQUE_FD, export_handle_types=int(T.OPAQUE_FD)),
    lambda: get_win32(T.OPAQUE_WIN32),
)
case(f"{ASK}-handle-00665", lambda: ask_win32(handle=-1), lambda: ask_win32(handle=0x1C))
case(f"{ASK}-handleType-00666", lambda: ask_win32(T.OPAQUE_WIN32), lambda: ask_win32(T.D3D11_TEXTURE))


def mutex(**fields: object) -> vk.Win32KeyedMutexAcquireReleaseInfoKHR:
    known: dict[str, object] = {
        "acquire_syncs": [1],
        "acquire_keys": [0],
        "acquire_timeouts": [100],
        "release_syncs": [1],
        "release_keys": [1],
    }
    return vk.Win32KeyedMutexAcquireReleaseInfoKHR(**{**known, **fields})  # type: ignore[arg-type]  # hostile on purpose


TEXTURE = memory(import_handle_type=int(T.D3D11_TEXTURE))
DEAD = memory(import_handle_type=int(T.D3D11_TEXTURE), alive=False)
ELSEWHERE = memory(import_handle_type=int(T.D3D11_TEXTURE), device_uuid=OTHER_UUID)

case(
    f"{MUTEX}-pAcquireSyncs-00081",
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, memory(import_handle_type=int(T.OPAQUE_WIN32))]),
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, TEXTURE]),
)
case(
    f"{MUTEX}-pAcquireSyncs-parameter",
    lambda: rules.check_keyed_mutex(mutex(), [DEAD, TEXTURE]),
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, TEXTURE]),
)
case(
    f"{MUTEX}-pReleaseSyncs-parameter",
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, DEAD]),
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, TEXTURE]),
)
case(
    f"{MUTEX}-pAcquireKeys-parameter",
    lambda: rules.check_keyed_mutex(mutex(acquire_keys=[]), [TEXTURE, TEXTURE]),
    lambda: rules.check_keyed_mutex(mutex(acquire_keys=[7]), [TEXTURE, TEXTURE]),
)
case(
    f"{MUTEX}-pAcquireTimeouts-parameter",
    lambda: rules.check_keyed_mutex(mutex(acquire_timeouts=[1, 2]), [TEXTURE, TEXTURE]),
    lambda: rules.check_keyed_mutex(mutex(acquire_timeouts=[1]), [TEXTURE, TEXTURE]),
)
case(
    f"{MUTEX}-pReleaseKeys-parameter",
    lambda: rules.check_keyed_mutex(mutex(release_keys=[]), [TEXTURE, TEXTURE]),
    lambda: rules.check_keyed_mutex(mutex(release_keys=[7]), [TEXTURE, TEXTURE]),
)
case(
    f"{MUTEX}-commonparent",
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, ELSEWHERE]),
    lambda: rules.check_keyed_mutex(mutex(), [TEXTURE, TEXTURE]),
)


def barrier(**fields: object) -> list[rules.Violation]:
    texture = image(image_info(T.D3D11_TEXTURE, usage=vk.ImageUsageFlagBits.SAMPLED))
    return rules.check_image_memory_barrier(on_whole(vk.ImageMemoryBarrier, **fields), texture, GPU)


SHADER_READ = vk.ImageLayout.SHADER_READ_ONLY_OPTIMAL
case(
    "VkImageMemoryBarrier-dstQueueFamilyIndex-12331",
    lambda: barrier(dst_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL, new_layout=SHADER_READ),
    lambda: barrier(dst_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL, new_layout=vk.ImageLayout.GENERAL),
)
case(
    "VkImageMemoryBarrier-srcQueueFamilyIndex-12332",
    lambda: barrier(src_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL, old_layout=SHADER_READ),
    lambda: barrier(src_queue_family_index=vk.QUEUE_FAMILY_EXTERNAL, old_layout=vk.ImageLayout.UNDEFINED),
)

# What the registry implies.
ATTRIBUTES = "VkExportMemoryWin32HandleInfoKHR-pAttributes-parameter"
case(
    ATTRIBUTES,
    lambda: alloc(export(), vk.ExportMemoryWin32HandleInfoKHR("D:(A;;GA;;;WD)", 1)),  # type: ignore[arg-type]  # wrong on purpose
    lambda: alloc(export(), vk.ExportMemoryWin32HandleInfoKHR(vk.SecurityAttributes("D:(A;;GA;;;WD)"), 1)),
)
case(
    f"{IMPORT}-handleType-parameter",
    lambda: alloc(win32(T.OPAQUE_WIN32 | T.D3D12_HEAP, 0x1C)),
    lambda: alloc(win32(T.OPAQUE_WIN32, 0x1C)),
)
case(f"{GET}-pNext-pNext", lambda: get_win32(chain=export()), lambda: get_win32(chain=None))
case(f"{GET}-memory-parameter", lambda: get_win32(alive=False), lambda: get_win32(alive=True))
case(f"{GET}-handleType-parameter", lambda: get_win32(0), lambda: get_win32(T.OPAQUE_WIN32))
case("vkGetMemoryWin32HandleKHR-device-parameter", lambda: get_win32(device=CLOSED), lambda: get_win32(device=GPU))
case(
    "vkGetMemoryWin32HandleKHR-pGetWin32HandleInfo-parameter",
    lambda: rules.check_get_memory_win32_handle(None, GPU, memory()),  # type: ignore[arg-type]  # wrong on purpose
    lambda: get_win32(),
)
case(f"{ASK}-device-parameter", lambda: ask_win32(device=CLOSED), lambda: ask_win32(device=GPU))
case(f"{ASK}-handleType-parameter", lambda: ask_win32(1 << 30), lambda: ask_win32(T.D3D12_RESOURCE))
