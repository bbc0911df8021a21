"""Cases: importing payloads of semaphores and fences."""

from __future__ import annotations

from msgspec.structs import replace

from extmem import rules
from extmem.rules import ImportSyncFacts
from tests.rules.sync_world import (
    BINARY,
    CLOSED_DEVICE,
    DEVICE,
    FENCE,
    LUID,
    NOT_FOUND,
    OTHER_LUID,
    TEMPORARY,
    TIMELINE,
    WRONG_TYPE,
    F,
    S,
    import_fd,
    import_fence_fd,
    import_fence_win32,
    import_win32,
    of_direct3d,
    of_fence,
    payload,
    timeline,
)
from tests.rules.world import GPU_UUID, OLD_DRIVER_UUID, OTHER_UUID, case

SEMAPHORE_FD, FENCE_FD = "VkImportSemaphoreFdInfoKHR", "VkImportFenceFdInfoKHR"
SEMAPHORE, FENCES = "VkImportSemaphoreWin32HandleInfoKHR", "VkImportFenceWin32HandleInfoKHR"
FACTS = ImportSyncFacts(DEVICE, BINARY)
FENCE_FACTS = ImportSyncFacts(DEVICE, FENCE)
BOTH = S.OPAQUE_WIN32 | S.D3D12_FENCE

# By fd.
case(
    "vkImportSemaphoreFdKHR-semaphore-01142",
    lambda: import_fd(into=replace(BINARY, in_use=True)),
    lambda: import_fd(into=replace(BINARY, in_use=False, signaled=True)),
)
case(f"{SEMAPHORE_FD}-handleType-01143", lambda: import_fd(S.OPAQUE_WIN32), lambda: import_fd(S.OPAQUE_FD))
case(
    f"{SEMAPHORE_FD}-fd-01544",
    lambda: import_fd(known=payload(driver_uuid=OLD_DRIVER_UUID)),
    lambda: import_fd(S.SYNC_FD, TEMPORARY, known=payload(S.SYNC_FD, driver_uuid=OLD_DRIVER_UUID)),
)
case(
    f"{SEMAPHORE_FD}-handleType-03263",
    lambda: import_fd(known=payload(flags=1)),
    lambda: import_fd(known=payload(flags=0)),
)
case(
    f"{SEMAPHORE_FD}-handleType-03264",
    lambda: import_fd(into=BINARY, known=payload(timeline=True)),
    lambda: import_fd(into=TIMELINE, known=payload(timeline=True)),
)
case(f"{SEMAPHORE_FD}-handleType-07307", lambda: import_fd(S.SYNC_FD), lambda: import_fd(S.SYNC_FD, TEMPORARY))
case(
    f"{SEMAPHORE_FD}-flags-03323",
    lambda: import_fd(flags=TEMPORARY, into=TIMELINE, known=payload(timeline=True)),
    lambda: import_fd(flags=0, into=TIMELINE, known=payload(timeline=True)),
)
case(
    "vkImportFenceFdKHR-fence-01463",
    lambda: import_fence_fd(into=replace(FENCE, pending=True)),
    lambda: import_fence_fd(into=replace(FENCE, pending=False, signaled=True)),
)
case(f"{FENCE_FD}-handleType-01464", lambda: import_fence_fd(F.OPAQUE_WIN32), lambda: import_fence_fd(F.OPAQUE_FD))
case(
    f"{FENCE_FD}-fd-01541",
    lambda: import_fence_fd(known=of_fence(device_uuid=OTHER_UUID)),
    lambda: import_fence_fd(known=of_fence(device_uuid=GPU_UUID)),
)
case(
    f"{FENCE_FD}-handleType-07306",
    lambda: import_fence_fd(F.SYNC_FD),
    lambda: import_fence_fd(F.SYNC_FD, TEMPORARY),
)

# By handle, number or name.
case(
    f"{SEMAPHORE}-handleType-01140",
    lambda: import_win32(S.OPAQUE_FD, handle=0x1C),
    lambda: import_win32(S.OPAQUE_WIN32_KMT, handle=0x40000002),
)
case(
    f"{SEMAPHORE}-handleType-01466",
    lambda: import_win32(S.OPAQUE_WIN32_KMT, name="frames"),
    lambda: import_win32(S.D3D12_FENCE, name="frames"),
)
case(
    f"{SEMAPHORE}-handleType-01467",
    lambda: import_win32(name="frames", refusal=NOT_FOUND),
    lambda: import_win32(name="frames", known=payload()),
)
case(
    f"{SEMAPHORE}-handleType-01468",
    lambda: import_win32(handle=0x1C, known=of_fence()),
    lambda: import_win32(handle=0x1C, known=payload()),
)
case(
    f"{SEMAPHORE}-handle-01469",
    lambda: import_win32(handle=0x1C, name="frames"),
    lambda: import_win32(name="frames"),
)
case(
    f"{SEMAPHORE}-handle-01542",
    lambda: import_win32(S.D3D12_FENCE, handle=0x1C, known=of_direct3d(OTHER_LUID)),
    lambda: import_win32(S.D3D12_FENCE, handle=0x1C, known=of_direct3d(LUID)),
)
case(
    f"{SEMAPHORE}-name-01543",
    lambda: import_win32(name="frames", known=payload(device_uuid=OTHER_UUID)),
    lambda: import_win32(name="frames", known=payload(device_uuid=None, driver_uuid=None)),
)
case(
    f"{SEMAPHORE}-handleType-03261",
    lambda: import_win32(name="frames", known=payload(flags=1)),
    lambda: import_win32(name="frames", known=payload(flags=None)),
)
case(
    f"{SEMAPHORE}-handleType-03262",
    lambda: import_win32(name="frames", into=TIMELINE, known=payload()),
    lambda: import_win32(S.D3D12_FENCE, name="frames", into=TIMELINE, known=payload(BOTH)),
)
case(
    f"{SEMAPHORE}-flags-03322",
    lambda: import_win32(S.D3D12_FENCE, TEMPORARY, name="frames", known=payload(BOTH, timeline=True)),
    lambda: import_win32(S.D3D12_FENCE, TEMPORARY, name="frames", into=TIMELINE, known=payload(BOTH)),
)
case(
    "EXTMEM-vkImportSemaphoreWin32HandleKHR-semaphore-inUse",
    lambda: import_win32(name="frames", into=replace(BINARY, in_use=True)),
    lambda: import_win32(name="frames", into=BINARY),
)
case(
    "vkImportFenceWin32HandleKHR-fence-04448",
    lambda: import_fence_win32(name="frames", into=replace(FENCE, pending=True)),
    lambda: import_fence_win32(name="frames", into=FENCE),
)
case(
    f"{FENCES}-handleType-01457",
    lambda: import_fence_win32(F.SYNC_FD, handle=0x1C),  # 0x8 is D3D12_FENCE of a semaphore
    lambda: import_fence_win32(F.OPAQUE_WIN32, handle=0x1C),
)
case(
    f"{FENCES}-handleType-01459",
    lambda: import_fence_win32(F.OPAQUE_WIN32_KMT, name="frames"),
    lambda: import_fence_win32(F.OPAQUE_WIN32, name="frames"),
)
case(
    f"{FENCES}-handleType-01460",
    lambda: import_fence_win32(),
    lambda: import_fence_win32(name="frames"),
    f"{FENCES}-handleType-01461",
)
case(
    f"{FENCES}-handleType-01461",
    lambda: import_fence_win32(handle=0x1C, refusal=WRONG_TYPE),
    lambda: import_fence_win32(handle=0x1C, known=of_fence()),
)
case(
    f"{FENCES}-handle-01462",
    lambda: import_fence_win32(handle=0x1C, name="frames"),
    lambda: import_fence_win32(handle=0x1C),
)
case(
    f"{FENCES}-handle-01539",
    lambda: import_fence_win32(handle=0x1C, known=of_fence(driver_uuid=OLD_DRIVER_UUID)),
    lambda: import_fence_win32(handle=0x1C, known=of_fence()),
)
case(
    f"{FENCES}-name-01540",
    lambda: import_fence_win32(name="frames", known=of_fence(device_uuid=OTHER_UUID)),
    lambda: import_fence_win32(name="frames", known=of_fence()),
)

# What the registry implies.
case(f"{SEMAPHORE_FD}-pNext-pNext", lambda: import_fd(p_next=timeline()), lambda: import_fd())
case(
    f"{SEMAPHORE_FD}-semaphore-parameter",
    lambda: import_fd(into=replace(BINARY, alive=False)),
    lambda: import_fd(into=BINARY),
)
case(f"{SEMAPHORE_FD}-flags-parameter", lambda: import_fd(flags=2), lambda: import_fd(flags=TEMPORARY))
case(f"{SEMAPHORE_FD}-handleType-parameter", lambda: import_fd(3), lambda: import_fd(1))
case("vkImportSemaphoreFdKHR-device-parameter", lambda: import_fd(device=CLOSED_DEVICE), lambda: import_fd())
case(
    "vkImportSemaphoreFdKHR-pImportSemaphoreFdInfo-parameter",
    lambda: import_fd(number="seven"),
    lambda: import_fd(S.SYNC_FD, TEMPORARY, number=-1),
)
case(f"{SEMAPHORE}-pNext-pNext", lambda: import_win32(name="n", p_next=timeline()), lambda: import_win32(name="n"))
case(
    f"{SEMAPHORE}-semaphore-parameter",
    lambda: import_win32(name="n", into=replace(TIMELINE, alive=False)),
    lambda: import_win32(name="n", into=TIMELINE),
)
case(f"{SEMAPHORE}-flags-parameter", lambda: import_win32(flags=1 << 31, name="n"), lambda: import_win32(name="n"))
case(
    "vkImportSemaphoreWin32HandleKHR-device-parameter",
    lambda: import_win32(name="n", device=CLOSED_DEVICE),
    lambda: import_win32(name="n"),
)
case(
    "vkImportSemaphoreWin32HandleKHR-pImportSemaphoreWin32HandleInfo-parameter",
    lambda: rules.check_import_semaphore_win32_handle("n", FACTS),  # type: ignore[arg-type]  # wrong on purpose
    lambda: import_win32(name="n"),
)
case(f"{FENCE_FD}-pNext-pNext", lambda: import_fence_fd(p_next=timeline()), lambda: import_fence_fd())
case(
    f"{FENCE_FD}-fence-parameter",
    lambda: import_fence_fd(into=replace(FENCE, alive=False)),
    lambda: import_fence_fd(into=FENCE),
)
case(f"{FENCE_FD}-flags-parameter", lambda: import_fence_fd(flags=2), lambda: import_fence_fd(flags=TEMPORARY))
case(
    f"{FENCE_FD}-handleType-parameter",
    lambda: import_fence_fd(S.SYNC_FD, TEMPORARY),
    lambda: import_fence_fd(F.SYNC_FD, TEMPORARY),
)
case("vkImportFenceFdKHR-device-parameter", lambda: import_fence_fd(device=CLOSED_DEVICE), lambda: import_fence_fd())
case(
    "vkImportFenceFdKHR-pImportFenceFdInfo-parameter",
    lambda: import_fence_fd(number=1 << 31),
    lambda: import_fence_fd(number=(1 << 31) - 1),
)
case(
    f"{FENCES}-pNext-pNext",
    lambda: import_fence_win32(name="n", p_next=timeline()),
    lambda: import_fence_win32(name="n"),
)
case(
    f"{FENCES}-fence-parameter",
    lambda: import_fence_win32(name="n", into=replace(FENCE, alive=False)),
    lambda: import_fence_win32(name="n"),
)
case(
    f"{FENCES}-flags-parameter",
    lambda: import_fence_win32(flags=6, name="n"),
    lambda: import_fence_win32(flags=TEMPORARY, name="n"),
)
case(
    "vkImportFenceWin32HandleKHR-device-parameter",
    lambda: import_fence_win32(name="n", device=CLOSED_DEVICE),
    lambda: import_fence_win32(name="n"),
)
case(
    "vkImportFenceWin32HandleKHR-pImportFenceWin32HandleInfo-parameter",
    lambda: rules.check_import_fence_win32_handle(None, FENCE_FACTS),  # type: ignore[arg-type]  # wrong on purpose
    lambda: import_fence_win32(name="n"),
)
