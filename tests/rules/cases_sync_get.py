"""Cases: exporting payloads of semaphores and fences."""

from __future__ import annotations

from msgspec.structs import replace

from extmem import rules
from extmem.rules import GetSyncFacts, Unsubmitted
from tests.rules.sync_world import (
    BINARY,
    BOTH,
    CLOSED_DEVICE,
    DEVICE,
    FENCE,
    F,
    S,
    can,
    get_fd,
    get_fence_fd,
    get_fence_win32,
    get_win32,
    timeline,
)
from tests.rules.world import case

FD, WIN32 = "VkSemaphoreGetFdInfoKHR", "VkSemaphoreGetWin32HandleInfoKHR"
FENCE_FD, FENCE_WIN32 = "VkFenceGetFdInfoKHR", "VkFenceGetWin32HandleInfoKHR"
NO_MORE = replace(DEVICE, binary_types=can(BOTH, *S), fence_types=can(BOTH, *F))
"""A device that exports nothing from imported payloads."""
FACTS, FENCE_FACTS = GetSyncFacts(DEVICE, BINARY), GetSyncFacts(DEVICE, FENCE)

case(f"{FD}-handleType-01132", lambda: get_fd(export_types=0), lambda: get_fd(export_types=None))
case(
    f"{FD}-semaphore-01133",
    lambda: get_fd(S.SYNC_FD, import_type=int(S.OPAQUE_FD), device=NO_MORE),
    lambda: get_fd(S.SYNC_FD, import_type=int(S.OPAQUE_FD)),
)
case(
    f"{FD}-handleType-01134",
    lambda: get_fd(S.SYNC_FD, waiting_queue=1),
    lambda: get_fd(S.OPAQUE_FD, waiting_queue=1),
)
case(
    f"{FD}-handleType-01135",
    lambda: get_fd(S.SYNC_FD, signaled=False),
    lambda: get_fd(S.OPAQUE_FD, signaled=False),
    f"{FD}-handleType-03254",
)
case(
    f"{FD}-handleType-01136",
    lambda: get_fd(S.OPAQUE_WIN32, export_types=int(S.OPAQUE_WIN32)),
    lambda: get_fd(S.OPAQUE_FD),
)
case(
    f"{FD}-handleType-03253",
    lambda: get_fd(S.SYNC_FD, timeline=True, signaled=False),
    lambda: get_fd(S.OPAQUE_FD, timeline=True, signaled=False),
)
case(
    f"{FD}-handleType-03254",
    lambda: get_fd(S.SYNC_FD, unsubmitted=(Unsubmitted("timeline 1", 5), Unsubmitted("semaphore 2", 0))),
    lambda: get_fd(S.SYNC_FD, signaled=None),
)
case(
    f"{WIN32}-handleType-01126",
    lambda: get_win32(export_types=int(S.OPAQUE_FD), import_type=int(S.OPAQUE_FD)),
    lambda: get_win32(export_types=int(S.OPAQUE_WIN32), import_type=int(S.OPAQUE_WIN32)),
)
case(
    f"{WIN32}-handleType-01127",
    lambda: get_win32(S.OPAQUE_WIN32, exported_nt_types=int(S.OPAQUE_WIN32)),
    lambda: get_win32(S.OPAQUE_WIN32_KMT, exported_nt_types=int(S.OPAQUE_WIN32)),
)
case(
    f"{WIN32}-semaphore-01128",
    lambda: get_win32(import_type=int(S.OPAQUE_WIN32), device=NO_MORE),
    lambda: get_win32(import_type=0, device=NO_MORE),
)
case(
    f"{WIN32}-handleType-01131",
    lambda: get_win32(S.SYNC_FD, export_types=int(S.SYNC_FD)),
    lambda: get_win32(S.D3D12_FENCE, export_types=int(S.D3D12_FENCE)),
)
case(f"{FENCE_FD}-handleType-01453", lambda: get_fence_fd(export_types=0), lambda: get_fence_fd())
case(
    f"{FENCE_FD}-handleType-01454",
    lambda: get_fence_fd(F.SYNC_FD, signaled=False),
    lambda: get_fence_fd(F.SYNC_FD, signaled=False, pending=True),
)
case(
    f"{FENCE_FD}-fence-01455",
    lambda: get_fence_fd(import_type=int(F.OPAQUE_FD), device=NO_MORE),
    lambda: get_fence_fd(import_type=int(F.OPAQUE_FD)),
)
case(
    f"{FENCE_FD}-handleType-01456",
    lambda: get_fence_fd(F.OPAQUE_WIN32_KMT, export_types=int(F.OPAQUE_WIN32_KMT)),
    lambda: get_fence_fd(F.OPAQUE_FD),
)
case(
    f"{FENCE_WIN32}-handleType-01448",
    lambda: get_fence_win32(export_types=int(F.OPAQUE_WIN32_KMT)),
    lambda: get_fence_win32(export_types=int(F.OPAQUE_WIN32)),
)
case(
    f"{FENCE_WIN32}-handleType-01449",
    lambda: get_fence_win32(exported_nt_types=int(F.OPAQUE_WIN32)),
    lambda: get_fence_win32(exported_nt_types=0),
)
case(
    f"{FENCE_WIN32}-fence-01450",
    lambda: get_fence_win32(import_type=int(F.OPAQUE_WIN32_KMT), device=NO_MORE),
    lambda: get_fence_win32(import_type=int(F.OPAQUE_WIN32_KMT)),
)
case(
    f"{FENCE_WIN32}-handleType-01452",
    lambda: get_fence_win32(F.OPAQUE_FD, export_types=int(F.OPAQUE_FD)),
    lambda: get_fence_win32(F.OPAQUE_WIN32_KMT),
)

# What the registry implies.
case(f"{FD}-pNext-pNext", lambda: get_fd(p_next=timeline()), lambda: get_fd())
case(f"{FD}-semaphore-parameter", lambda: get_fd(alive=False), lambda: get_fd(alive=True))
case(f"{FD}-handleType-parameter", lambda: get_fd(0), lambda: get_fd(1))
case("vkGetSemaphoreFdKHR-device-parameter", lambda: get_fd(device=CLOSED_DEVICE), lambda: get_fd())
case(
    "vkGetSemaphoreFdKHR-pGetFdInfo-parameter",
    lambda: rules.check_get_semaphore_fd(7, FACTS),  # type: ignore[arg-type]  # wrong on purpose
    lambda: get_fd(),
)
case(f"{WIN32}-pNext-pNext", lambda: get_win32(p_next=timeline()), lambda: get_win32())
case(f"{WIN32}-semaphore-parameter", lambda: get_win32(alive=False), lambda: get_win32(alive=True))
case(f"{WIN32}-handleType-parameter", lambda: get_win32(6), lambda: get_win32(2))
case("vkGetSemaphoreWin32HandleKHR-device-parameter", lambda: get_win32(device=CLOSED_DEVICE), lambda: get_win32())
case(
    "vkGetSemaphoreWin32HandleKHR-pGetWin32HandleInfo-parameter",
    lambda: rules.check_get_semaphore_win32_handle(None, FACTS),  # type: ignore[arg-type]  # wrong on purpose
    lambda: get_win32(),
)
case(f"{FENCE_FD}-pNext-pNext", lambda: get_fence_fd(p_next=timeline()), lambda: get_fence_fd())
case(f"{FENCE_FD}-fence-parameter", lambda: get_fence_fd(alive=False), lambda: get_fence_fd(alive=True))
case(f"{FENCE_FD}-handleType-parameter", lambda: get_fence_fd(S.SYNC_FD), lambda: get_fence_fd(F.SYNC_FD))
case("vkGetFenceFdKHR-device-parameter", lambda: get_fence_fd(device=CLOSED_DEVICE), lambda: get_fence_fd())
case(
    "vkGetFenceFdKHR-pGetFdInfo-parameter",
    lambda: rules.check_get_fence_fd(7, FENCE_FACTS),  # type: ignore[arg-type]  # wrong on purpose
    lambda: get_fence_fd(),
)
case(f"{FENCE_WIN32}-pNext-pNext", lambda: get_fence_win32(p_next=timeline()), lambda: get_fence_win32())
case(f"{FENCE_WIN32}-fence-parameter", lambda: get_fence_win32(alive=False), lambda: get_fence_win32(alive=True))
case(f"{FENCE_WIN32}-handleType-parameter", lambda: get_fence_win32(1 << 31), lambda: get_fence_win32(2))
case(
    "vkGetFenceWin32HandleKHR-device-parameter",
    lambda: get_fence_win32(device=CLOSED_DEVICE),
    lambda: get_fence_win32(),
)
case(
    "vkGetFenceWin32HandleKHR-pGetWin32HandleInfo-parameter",
    lambda: rules.check_get_fence_win32_handle("h", FENCE_FACTS),  # type: ignore[arg-type]  # wrong on purpose
    lambda: get_fence_win32(),
)
