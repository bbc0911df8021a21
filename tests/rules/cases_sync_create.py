"""Cases: creating semaphores and fences, and querying which can be shared."""

from __future__ import annotations

from msgspec.structs import replace

from extmem import rules, vk
from tests.rules.sync_world import (
    CLOSED_DEVICE,
    DEVICE,
    EXPORTABLE,
    IMPORTABLE,
    PLAIN_DEVICE,
    F,
    S,
    ask,
    ask_fence,
    can,
    create,
    create_fence,
    timeline,
)
from tests.rules.world import case, export

SEMAPHORE, FENCE = "VkSemaphoreCreateInfo", "VkFenceCreateInfo"
TYPE = "VkSemaphoreTypeCreateInfo"
QUERY, FENCE_QUERY = "VkPhysicalDeviceExternalSemaphoreInfo", "VkPhysicalDeviceExternalFenceInfo"
Export, ExportFence = vk.ExportSemaphoreCreateInfo, vk.ExportFenceCreateInfo
Named, NamedFence = vk.ExportSemaphoreWin32HandleInfoKHR, vk.ExportFenceWin32HandleInfoKHR
PAIR = S.OPAQUE_WIN32 | S.OPAQUE_WIN32_KMT
FENCE_PAIR = F.OPAQUE_WIN32 | F.OPAQUE_WIN32_KMT
APART = replace(
    DEVICE,
    binary_types=can(EXPORTABLE, S.OPAQUE_WIN32) | can(EXPORTABLE, S.OPAQUE_WIN32_KMT),
    fence_types=can(EXPORTABLE, F.OPAQUE_WIN32) | can(IMPORTABLE, F.OPAQUE_WIN32_KMT),
)

case(f"{TYPE}-timelineSemaphore-03252", lambda: create(timeline(), facts=PLAIN_DEVICE), lambda: create(timeline()))
case(
    f"{TYPE}-semaphoreType-03279",
    lambda: create(vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.BINARY, 5)),
    lambda: create(timeline(5)),
)
case(
    "VkExportSemaphoreCreateInfo-handleTypes-01124",
    lambda: create(timeline(p_next=None), Export(S.SYNC_FD)),
    lambda: create(Export(S.SYNC_FD)),
)
case(
    "VkExportSemaphoreWin32HandleInfoKHR-handleTypes-01125",
    lambda: create(Export(S.OPAQUE_WIN32_KMT), Named(name="frames")),
    lambda: create(Export(S.D3D12_FENCE), Named(name="frames")),
)
case(
    "VkExportFenceCreateInfo-handleTypes-01446",
    lambda: create_fence(ExportFence(FENCE_PAIR), facts=APART),
    lambda: create_fence(ExportFence(F.OPAQUE_WIN32), facts=APART),
)
case(
    "VkExportFenceWin32HandleInfoKHR-handleTypes-01447",
    lambda: create_fence(NamedFence(name="frames")),
    lambda: create_fence(ExportFence(F.OPAQUE_WIN32), NamedFence(name="frames")),
)

# What the registry implies.
case(
    "vkCreateSemaphore-device-parameter",
    lambda: create(facts=CLOSED_DEVICE),
    lambda: create(facts=DEVICE),
)
case(
    "vkCreateSemaphore-pCreateInfo-parameter",
    lambda: create(timeline("five")),
    lambda: create(timeline(2**64 - 1)),
)
case(f"{SEMAPHORE}-pNext-pNext", lambda: create(export()), lambda: create(Export(S.OPAQUE_FD)))
case(
    f"{SEMAPHORE}-sType-unique",
    lambda: create(Export(S.OPAQUE_FD), Export(S.OPAQUE_FD)),
    lambda: create(Export(S.OPAQUE_FD), timeline()),
)
case(f"{SEMAPHORE}-flags-zerobitmask", lambda: create(flags=1), lambda: create(flags=0))
case(
    f"{TYPE}-semaphoreType-parameter",
    lambda: create(vk.SemaphoreTypeCreateInfo(2)),
    lambda: create(vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.BINARY)),
)
case(
    "VkExportSemaphoreCreateInfo-handleTypes-parameter",
    lambda: create(Export(1 << 30)),
    lambda: create(Export(0)),
)
case(
    "VkExportSemaphoreWin32HandleInfoKHR-pAttributes-parameter",
    lambda: create(Export(S.OPAQUE_WIN32), Named("D:")),  # type: ignore[arg-type]  # wrong on purpose
    lambda: create(Export(S.OPAQUE_WIN32), Named(vk.SecurityAttributes("D:"))),
)
case("vkCreateFence-device-parameter", lambda: create_fence(facts=CLOSED_DEVICE), lambda: create_fence())
case(
    "vkCreateFence-pCreateInfo-parameter",
    lambda: rules.check_create_fence(vk.SemaphoreCreateInfo(), DEVICE),  # type: ignore[arg-type]  # wrong on purpose
    lambda: rules.check_create_fence(vk.FenceCreateInfo(), DEVICE),
)
case(f"{FENCE}-pNext-pNext", lambda: create_fence(timeline()), lambda: create_fence(ExportFence(F.OPAQUE_FD)))
case(
    f"{FENCE}-sType-unique",
    lambda: create_fence(ExportFence(F.OPAQUE_FD), ExportFence(F.OPAQUE_FD)),
    lambda: create_fence(ExportFence(F.OPAQUE_WIN32), NamedFence()),
)
case(
    f"{FENCE}-flags-parameter",
    lambda: create_fence(flags=2),
    lambda: create_fence(flags=vk.FenceCreateFlagBits.SIGNALED),
)
case(
    "VkExportFenceCreateInfo-handleTypes-parameter",
    lambda: create_fence(ExportFence(S.SYNC_FD)),  # 0x10 is no type of a fence
    lambda: create_fence(ExportFence(F.SYNC_FD)),
)
case(
    "VkExportFenceWin32HandleInfoKHR-pAttributes-parameter",
    lambda: create_fence(ExportFence(F.OPAQUE_WIN32), NamedFence(1)),  # type: ignore[arg-type]  # wrong on purpose
    lambda: create_fence(ExportFence(F.OPAQUE_WIN32), NamedFence(None)),
)
case(f"{QUERY}-pNext-pNext", lambda: ask(S.OPAQUE_FD, Export()), lambda: ask(S.OPAQUE_FD, timeline()))
case(
    f"{QUERY}-sType-unique",
    lambda: ask(S.OPAQUE_FD, timeline(), timeline()),
    lambda: ask(S.OPAQUE_FD, timeline()),
)
case(f"{QUERY}-handleType-parameter", lambda: ask(PAIR), lambda: ask(S.OPAQUE_WIN32))
case(
    "vkGetPhysicalDeviceExternalSemaphoreProperties-pExternalSemaphoreInfo-parameter",
    lambda: rules.check_external_semaphore_info("fd"),  # type: ignore[arg-type]  # wrong on purpose
    lambda: ask(),
)
case(f"{FENCE_QUERY}-pNext-pNext", lambda: ask_fence(F.OPAQUE_FD, timeline()), lambda: ask_fence())
case(f"{FENCE_QUERY}-handleType-parameter", lambda: ask_fence(S.SYNC_FD), lambda: ask_fence(F.SYNC_FD))
case(
    "vkGetPhysicalDeviceExternalFenceProperties-pExternalFenceInfo-parameter",
    lambda: rules.check_external_fence_info("fd"),  # type: ignore[arg-type]  # wrong on purpose
    lambda: ask_fence(),
)
