"""The external handle types of the host's semaphores and fences."""

from __future__ import annotations

import pytest

from extmem import vk
from extmem.devices.host.sync_capabilities import fence_properties, semaphore_properties

Semaphore = vk.ExternalSemaphoreHandleTypeFlagBits
Fence = vk.ExternalFenceHandleTypeFlagBits


def semaphore(handle_type: int, timeline: bool = False) -> vk.ExternalSemaphoreProperties:
    chained = vk.SemaphoreTypeCreateInfo(semaphore_type=vk.SemaphoreType.TIMELINE) if timeline else None
    return semaphore_properties(vk.PhysicalDeviceExternalSemaphoreInfo(Semaphore(handle_type), chained))


@pytest.mark.linux_only("file descriptors")
@pytest.mark.parametrize("timeline", [False, True])
@pytest.mark.parametrize("handle_type", [Semaphore.OPAQUE_FD, Semaphore.OPAQUE_WIN32, Semaphore.OPAQUE_WIN32_KMT])
def test_S2_opaque_types_are_exported_and_imported(handle_type: Semaphore, timeline: bool) -> None:
    found = semaphore(handle_type, timeline)
    assert found.external_semaphore_features == 3
    assert found.compatible_handle_types & handle_type
    assert found.export_from_imported_handle_types & handle_type
    both = Semaphore.OPAQUE_WIN32 | Semaphore.OPAQUE_WIN32_KMT
    assert found.compatible_handle_types & both != both or handle_type == Semaphore.OPAQUE_FD


@pytest.mark.linux_only("file descriptors")
def test_S2_SYNC_FD_is_never_a_timelines() -> None:
    assert semaphore(Semaphore.SYNC_FD).external_semaphore_features == 3
    for handle_type in (Semaphore.SYNC_FD, Semaphore.OPAQUE_FD):
        assert not int(semaphore(handle_type, timeline=True).compatible_handle_types) & Semaphore.SYNC_FD


@pytest.mark.windows_only("types of Windows")
def test_S63_a_timeline_has_no_number_on_windows() -> None:
    assert semaphore(Semaphore.OPAQUE_WIN32_KMT).external_semaphore_features == 3
    assert semaphore(Semaphore.OPAQUE_WIN32_KMT, timeline=True).external_semaphore_features == 0


@pytest.mark.parametrize("handle_type", [0, Semaphore.D3D12_FENCE, 0x20, 3])
def test_other_types_have_no_features(handle_type: int) -> None:
    for timeline in (False, True):
        found = semaphore(handle_type, timeline)
        assert (found.external_semaphore_features, found.compatible_handle_types) == (0, 0)
    found_fence = fence_properties(vk.PhysicalDeviceExternalFenceInfo(Fence(0x40)))
    assert found_fence.external_fence_features == 0


def test_fences_have_the_types_of_their_system() -> None:
    for handle_type in (Fence.OPAQUE_WIN32, Fence.OPAQUE_WIN32_KMT):
        found = fence_properties(vk.PhysicalDeviceExternalFenceInfo(handle_type))
        assert (found.external_fence_features, int(found.compatible_handle_types) & handle_type) == (3, handle_type)
