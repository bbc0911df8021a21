"""What can be exported and imported: the driver's own answers, and the object manager's types besides OPAQUE_FD."""

from __future__ import annotations

import copy

import pytest

from extmem import vk
from extmem.api import Device
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.capabilities import Answers
from extmem.devices.vulkan.physical import PhysicalDevice
from extmem.errors import RuleViolation, UnsupportedError
from tests.systems import on_linux
from tests.unit.devices.vulkan.steps import DMA_BUF, FD, HOST, KMT, SHARED, TRANSFER, W32, HandleType

EXPORTABLE = vk.ExternalMemoryFeatureFlagBits.EXPORTABLE
IMPORTABLE = vk.ExternalMemoryFeatureFlagBits.IMPORTABLE
IMAGE_USAGE = vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST
WINDOWS = [
    HandleType.D3D11_TEXTURE,
    HandleType.D3D11_TEXTURE_KMT,
    HandleType.D3D12_HEAP,
    HandleType.D3D12_RESOURCE,
]


def buffers(device: VulkanBackend | PhysicalDevice, kind: int) -> vk.ExternalMemoryProperties:
    asked = vk.PhysicalDeviceExternalBufferInfo(usage=TRANSFER, handle_type=HandleType(kind))
    before = copy.deepcopy(asked)
    answer = device.external_buffer_properties(asked).external_memory_properties
    assert asked == before
    return answer


def image_query(kind: int = 0, **changes: object) -> vk.PhysicalDeviceImageFormatInfo2:
    chain = vk.PhysicalDeviceExternalImageFormatInfo(HandleType(kind)) if kind else None
    values: dict[str, object] = {
        "format": vk.Format.R8G8B8A8_UNORM,
        "type": vk.ImageType.TYPE_2D,
        "tiling": vk.ImageTiling.OPTIMAL,
        "usage": IMAGE_USAGE,
        "p_next": chain,
    }
    return vk.PhysicalDeviceImageFormatInfo2(**{**values, **changes})  # type: ignore[arg-type]  # field names


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
@pytest.mark.parametrize("kind", [FD, W32, KMT])
def test_the_opaque_types_are_as_the_drivers_fd_is(backend: VulkanBackend, kind: HandleType) -> None:
    answer, fd = buffers(backend, kind), buffers(backend, FD)
    assert answer.external_memory_features == fd.external_memory_features
    assert answer.external_memory_features & EXPORTABLE and answer.external_memory_features & IMPORTABLE
    assert answer.compatible_handle_types & kind


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_nt_handles_and_kmt_numbers_leave_each_other_out(backend: VulkanBackend) -> None:
    """All objects of one payload are of one type; the fd serves both."""
    for kind, other in ((W32, KMT), (KMT, W32)):
        answer = buffers(backend, kind)
        assert answer.compatible_handle_types & FD
        assert not answer.compatible_handle_types & other and not answer.export_from_imported_handle_types & other
    assert buffers(backend, FD).compatible_handle_types & (W32 | KMT) == W32 | KMT


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_asking_for_both_is_a_broken_rule_and_for_one_with_an_fd_is_fine(vulkan_device: Device) -> None:
    with pytest.raises(RuleViolation) as error:
        vulkan_device.allocate(100, handle_types=W32 | KMT)
    assert "VUID-VkExportMemoryAllocateInfo-handleTypes-09860" in error.value.vuids
    for kinds in (W32 | FD, KMT | FD):
        vulkan_device.allocate(100, handle_types=kinds).close()


@pytest.mark.linux_only("drivers of Windows support the types of Direct3D")
@pytest.mark.parametrize("kind", WINDOWS)
def test_types_of_windows_have_no_features_and_no_images(backend: VulkanBackend, kind: HandleType) -> None:
    assert buffers(backend, kind).external_memory_features == 0
    assert buffers(backend, kind).compatible_handle_types == 0
    with pytest.raises(UnsupportedError, match=f"shared as .*{kind.name}"):
        backend.image_format_properties(image_query(kind))


def test_host_pointers_are_imported_and_never_exported(backend: VulkanBackend) -> None:
    features = buffers(backend, HOST).external_memory_features
    assert not features & EXPORTABLE
    # A driver may have the extension for other uses than transfers.
    assert bool(features & IMPORTABLE) <= ("VK_EXT_external_memory_host" in backend.device.physical.extensions)


def test_dma_buf_is_as_the_device_has_it(backend: VulkanBackend) -> None:
    has = "VK_EXT_external_memory_dma_buf" in backend.device.physical.extensions
    assert bool(buffers(backend, DMA_BUF).external_memory_features) <= has


def test_a_device_without_the_extension_shares_nothing(backend: VulkanBackend) -> None:
    poor = Answers(PhysicalDevice(backend.device.physical.instance, backend.device.physical.handle, frozenset()))
    for kind in (FD, W32, KMT, DMA_BUF, HOST):
        assert buffers(poor, kind).external_memory_features == 0
        with pytest.raises(UnsupportedError):
            poor.image_format_properties(image_query(kind))
    assert poor.image_format_properties(image_query()).image_format_properties.max_extent.width


@pytest.mark.parametrize("kind", [on_linux(FD), W32, KMT])
def test_images_are_answered_with_what_was_asked_for(backend: VulkanBackend, kind: HandleType) -> None:
    asked = image_query(kind)
    before = copy.deepcopy(asked)
    answer = backend.image_format_properties(asked)
    assert asked == before
    external = vk.find(answer, vk.ExternalImageFormatProperties)
    assert external is not None and external.external_memory_properties.compatible_handle_types & kind
    assert answer.image_format_properties.max_extent.width >= 4096
    assert vk.find(backend.image_format_properties(image_query()), vk.ExternalImageFormatProperties) is None


def test_an_image_that_is_not_to_be_had_is_named(backend: VulkanBackend) -> None:
    wrong = image_query(
        SHARED, format=vk.Format.D32_SFLOAT, tiling=vk.ImageTiling.LINEAR, usage=vk.ImageUsageFlagBits.COLOR_ATTACHMENT
    )
    with pytest.raises(
        UnsupportedError,
        match=r"no images of D32_SFLOAT, LINEAR, usage COLOR_ATTACHMENT, shared as OPAQUE_",
    ):
        backend.image_format_properties(wrong)
    backend.image_format_properties(image_query(SHARED))
