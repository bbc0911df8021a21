"""Images with DRM format modifiers: queried, created, shared as OPAQUE_FD, and imported from other drivers' dma-bufs.

The scripted GPU has two modifiers. DRM_FORMAT_MOD_LINEAR supports dma-bufs; the other one reverses the rows, has a
second memory plane, and is the driver's own. A memory file of a certain name represents a dma-buf.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import Descriptor, ImageInfo, PlaneInfo, raw, vk
from extmem.api import Device, Image
from extmem.handles import FdHandle
from extmem.testing import fake_vulkan
from extmem.testing.fake_vulkan.files import DMA_BUF_NAME
from extmem.vk.modifiers import EXTENSION, LINEAR, NEEDED
from tests.process.vulkan.steps import get_texels, put_texels

T = vk.ExternalMemoryHandleTypeFlagBits
RGBA, DRM = vk.Format.R8G8B8A8_UNORM, vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT
IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)
TILED = 0x0300_0000_0000_0001
WIDE, HIGH = 20, 6
TEXELS = bytes(range(WIDE * 4)) * 2 + bytes(reversed(range(WIDE * 4))) * 4
List, Explicit = vk.ImageDrmFormatModifierListCreateInfoEXT, vk.ImageDrmFormatModifierExplicitCreateInfoEXT
MODIFIERS = (
    fake_vulkan.Modifier(LINEAR, pitch_alignment=64),
    fake_vulkan.Modifier(TILED, planes=2, pitch_alignment=256, shared=int(T.OPAQUE_FD)),
)
_GPU = fake_vulkan.INTEGRATED
GPU = dataclasses.replace(
    _GPU,
    modifiers=MODIFIERS,
    external=(
        *_GPU.external,
        fake_vulkan.External("buffer", int(T.DMA_BUF), IMPORTABLE, 0, int(T.DMA_BUF)),
        fake_vulkan.External("image", int(T.DMA_BUF), IMPORTABLE, 0, int(T.DMA_BUF)),
    ),
    extensions=(*_GPU.extensions, "VK_EXT_external_memory_dma_buf", EXTENSION, NEEDED),
)


@pytest.fixture
def fake() -> Iterator[fake_vulkan.FakeVulkan]:
    made = fake_vulkan.FakeVulkan([GPU])
    with fake_vulkan.installed(made):
        yield made
    assert not made.misuses, [str(misuse) for misuse in made.misuses]
    assert not made.alive()


@pytest.fixture
def device(fake: fake_vulkan.FakeVulkan) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


def picture(named: Any, types: int = 0, **fields: Any) -> vk.ImageCreateInfo:
    if types:
        named = vk.ExternalMemoryImageCreateInfo(T(types), named)
    known: dict[str, Any] = {"image_type": vk.ImageType.TYPE_2D, "format": RGBA, "usage": 3, "tiling": DRM}
    return vk.ImageCreateInfo(**{**known, "extent": vk.Extent3D(WIDE, HIGH, 1), "p_next": named, **fields})


def layout(offset: int = 0, pitch: int = 128) -> vk.SubresourceLayout:
    return vk.SubresourceLayout(offset, 0, pitch)


def plane(number: int) -> vk.ImageSubresource:
    return vk.ImageSubresource(vk.ImageAspectFlagBits[f"MEMORY_PLANE_{number}_EXT"])


def exported(device: Device, image: Image) -> extmem.DeviceMemory:
    chain = vk.MemoryDedicatedAllocateInfo(image, None, vk.ExportMemoryAllocateInfo(T.OPAQUE_FD))
    memory = device.allocate_memory(vk.MemoryAllocateInfo(image.requirements.size, 0, chain))
    device.bind_image_memory(image, memory)
    return memory


@contextlib.contextmanager
def dma_buf(pitch: int = 128, offset: int = 4096) -> Iterator[tuple[int, int]]:
    """A dma-buf of another driver, with the texels in rows of `pitch` bytes from `offset` on; and its size."""
    fd, size = os.memfd_create(DMA_BUF_NAME, os.MFD_CLOEXEC), 8192
    try:
        os.truncate(fd, size)
        for row in range(HIGH):
            os.pwrite(fd, TEXELS[row * WIDE * 4 :][: WIDE * 4], offset + row * pitch)
        yield fd, size
    finally:
        os.close(fd)


def test_a_format_says_which_modifiers_it_has(device: Device) -> None:
    found = device.get_physical_device_format_properties2(RGBA)
    listed = vk.find(found, vk.DrmFormatModifierPropertiesListEXT)
    assert listed is not None and int(found.format_properties.linear_tiling_features)
    planes = [(m.drm_format_modifier, m.drm_format_modifier_plane_count) for m in listed.drm_format_modifier_properties]
    assert planes == [(LINEAR, 1), (TILED, 2)]
    assert all(int(m.drm_format_modifier_tiling_features) for m in listed.drm_format_modifier_properties)
    none = vk.find(
        device.get_physical_device_format_properties2(vk.Format.D16_UNORM), vk.DrmFormatModifierPropertiesListEXT
    )
    assert none is not None and none.drm_format_modifier_properties == ()


def test_what_each_modifier_shares_is_asked(device: Device) -> None:
    def shared(modifier: int, kind: T) -> int:
        chain = vk.PhysicalDeviceImageDrmFormatModifierInfoEXT(modifier)
        chain.p_next = vk.PhysicalDeviceExternalImageFormatInfo(kind)
        asked = vk.PhysicalDeviceImageFormatInfo2(RGBA, vk.ImageType.TYPE_2D, DRM, 3, 0, chain)
        found = device.get_physical_device_image_format_properties2(asked)
        external = vk.find(found, vk.ExternalImageFormatProperties)
        assert external is not None and int(external.external_memory_properties.compatible_handle_types) & kind
        return int(external.external_memory_properties.external_memory_features)

    assert shared(LINEAR, T.DMA_BUF) == IMPORTABLE < shared(LINEAR, T.OPAQUE_FD) == shared(TILED, T.OPAQUE_FD)
    with pytest.raises(extmem.UnsupportedError, match=f"modifier {TILED:#x}, .* shared as DMA_BUF"):
        shared(TILED, T.DMA_BUF)
    with pytest.raises(extmem.UnsupportedError, match="modifier 0x5"):
        shared(5, T.OPAQUE_FD)


def test_the_driver_chooses_from_a_list_and_says_where_the_planes_lie(device: Device) -> None:
    with device.create_image(picture(List((LINEAR, TILED)))) as image:
        assert device.get_image_drm_format_modifier_properties(image).drm_format_modifier == TILED
        first, second = image.subresource_layout(plane(0)), image.subresource_layout(plane(1))
        assert (first.offset, first.size, first.row_pitch) == (0, 256 * HIGH, 256)
        assert (second.offset, second.size) == (4096, 4096)
        for wrong in (plane(2), vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR)):
            with pytest.raises(ValueError, match="memory plane|MEMORY_PLANE"):
                image.subresource_layout(wrong)
    with device.create_image(picture(Explicit(LINEAR, (layout(pitch=192),)))) as image:
        assert device.get_image_drm_format_modifier_properties(image).drm_format_modifier == LINEAR
        assert image.subresource_layout(plane(0)).row_pitch == 192


def test_modifiers_that_do_not_suit_are_refused(device: Device) -> None:
    for named, number in ((List((LINEAR, 5)), "02263"), (Explicit(5, (layout(),)), "02264")):
        with pytest.raises(extmem.UnsupportedError, match="no images of R8G8B8A8_UNORM.*modifier 0x5") as caught:
            device.create_image(picture(named))
        assert any(v.vuid.endswith(number) for v in caught.value.violations)
    with pytest.raises(extmem.RuleViolation) as broken:
        device.create_image(picture(Explicit(TILED, (layout(pitch=256),))))
    assert broken.value.vuids == (
        "VUID-VkImageDrmFormatModifierExplicitCreateInfoEXT-drmFormatModifierPlaneCount-02265",
    )
    with pytest.raises(extmem.RuleViolation) as broken:
        device.create_image(picture(List((LINEAR, TILED)), int(T.DMA_BUF)))
    assert broken.value.vuids == ("VUID-VkImageCreateInfo-pNext-00990",), "the driver could choose the other one"
    device.create_image(picture(List((LINEAR,)), int(T.DMA_BUF))).close()
    with pytest.raises(extmem.DriverError, match="PLANE_LAYOUT_EXT.*offset or pitch of a memory plane"):
        device.create_image(picture(Explicit(LINEAR, (layout(pitch=65),))))


def test_a_modifier_that_the_format_does_not_list_is_not_accepted() -> None:
    """Some drivers report any modifier as supported."""
    fake = fake_vulkan.FakeVulkan([GPU], manners=fake_vulkan.Manners(any_modifier=True))
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan", check="off") as device:
        for named in (List((LINEAR, 5)), Explicit(5, (layout(),))):
            with pytest.raises(extmem.UnsupportedError, match="modifier 0x5"):
                device.create_image(picture(named))
        device.create_image(picture(List((LINEAR, TILED)))).close()
    assert not fake.misuses


def test_planes_that_overlap_are_not_accepted() -> None:
    """Some drivers return the layout of the first plane for every plane."""
    fake = fake_vulkan.FakeVulkan([GPU], manners=fake_vulkan.Manners(same_planes=True))
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        with pytest.raises(extmem.UnsupportedError, match=f"overlap for the 2 memory planes.*modifier {TILED:#x}"):
            device.create_image(picture(List((TILED,))))
        device.create_image(picture(List((LINEAR,)))).close()
    assert not fake.misuses and "images" not in fake.alive()


def test_without_checks_the_driver_is_not_asked_for_what_it_lacks(fake: fake_vulkan.FakeVulkan) -> None:
    with extmem.open_device(kind="vulkan", check="off") as device:
        with pytest.raises(extmem.UnsupportedError, match="modifier 0x5"):
            device.create_image(picture(List((LINEAR, 5))))
        with device.create_image(picture(None, tiling=vk.ImageTiling.LINEAR)) as image:
            with pytest.raises(extmem.UnsupportedError, match="has no DRM format modifier"):
                device.get_image_drm_format_modifier_properties(image)
        with device.create_image(picture(List((LINEAR,)))) as image:
            assert device.get_image_drm_format_modifier_properties(image).drm_format_modifier == LINEAR


@pytest.mark.parametrize("modifier", [LINEAR, TILED])
@pytest.mark.parametrize("by", ["name", "fd"])
def test_an_importer_has_the_same_image(device: Device, modifier: int, by: str) -> None:
    """Modifier and planes are part of the description, from which the importer's image is made."""
    types = int(T.OPAQUE_FD | T.OPAQUE_WIN32)
    with device.create_image(picture(List((modifier,)), types)) as image:
        share = vk.ExportMemoryAllocateInfo(
            T(types), vk.ExportMemoryWin32HandleInfoKHR(name=f"picture {by} {modifier}")
        )
        chain = vk.MemoryDedicatedAllocateInfo(image, None, share)
        size = image.requirements.size
        with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, chain)) as memory:
            device.bind_image_memory(image, memory)
            put_texels(device, image, TEXELS, fresh=True)
            source: Any = f"picture {by} {modifier}" if by == "name" else memory.export_handle(T.OPAQUE_FD)
            with extmem.open_device(kind="vulkan") as other, other.open(source) as opened:
                info = opened.descriptor.image
                assert info is not None and (info.modifier, info.tiling) == (modifier, DRM)
                first = image.subresource_layout(plane(0))
                assert info.planes[0] == PlaneInfo(first.offset, first.size, first.row_pitch)
                theirs = opened.resource
                assert isinstance(theirs, Image)
                explicit = vk.find(theirs.create_info, Explicit)
                assert explicit is not None and explicit.drm_format_modifier == modifier
                assert len(explicit.plane_layouts) == len(info.planes) == (2 if modifier else 1)
                other.bind_image_memory(theirs, opened)
                assert get_texels(other, theirs, len(TEXELS)) == TEXELS


def test_an_import_with_another_modifier_or_layout_is_refused(device: Device) -> None:
    with device.create_image(picture(List((LINEAR,)), int(T.OPAQUE_FD))) as image, exported(device, image) as memory:
        put_texels(device, image, TEXELS, fresh=True)
        mine = image.subresource_layout(plane(0))
        same = Explicit(LINEAR, (vk.SubresourceLayout(mine.offset, 0, mine.row_pitch),))
        for named, right in ((Explicit(LINEAR, (layout(pitch=640),)), False), (same, True), (List((LINEAR,)), True)):
            with device.create_image(picture(named, int(T.OPAQUE_FD))) as theirs:
                fd = memory.export_handle(T.OPAQUE_FD)
                chain = vk.ImportMemoryFdInfoKHR(T.OPAQUE_FD, fd, vk.MemoryDedicatedAllocateInfo(theirs))
                info = vk.MemoryAllocateInfo(memory.allocation_size, 0, chain)
                if right:
                    device.allocate_memory(info).close()
                else:
                    differs = "row_pitch is 640 in the importer and 128 in the exporter"
                    with fd, pytest.raises(extmem.RuleViolation, match=differs) as caught:
                        device.allocate_memory(info)
                    assert caught.value.vuids == ("VUID-VkMemoryDedicatedAllocateInfo-image-01878",)


@pytest.mark.parametrize("stated", [True, False])
def test_a_dma_buf_is_imported_as_an_image(device: Device, stated: bool) -> None:
    """By the description that the caller states, or by the specification's structs."""
    info = picture(Explicit(LINEAR, (layout(4096, 128),)), int(T.DMA_BUF))
    with dma_buf() as (fd, size):
        if stated:
            described = Descriptor(
                int(T.DMA_BUF),
                size,
                dedicated=info,
                made_by_vulkan=False,
                image=ImageInfo(int(RGBA), (WIDE, HIGH, 1), int(DRM), LINEAR, 128, (PlaneInfo(4096, 0, 128),)),
            )
            with raw.import_payload(device, FdHandle(os.dup(fd)), described) as memory:
                assert isinstance(memory.resource, Image)
                device.bind_image_memory(memory.resource, memory)
                assert get_texels(device, memory.resource, len(TEXELS)) == TEXELS
            return
        with device.create_image(info) as image:
            assert image.requirements.size == size
            chain = vk.ImportMemoryFdInfoKHR(T.DMA_BUF, FdHandle(os.dup(fd)), vk.MemoryDedicatedAllocateInfo(image))
            with device.allocate_memory(vk.MemoryAllocateInfo(size, 0, chain)) as memory:
                device.bind_image_memory(image, memory)
                assert get_texels(device, image, len(TEXELS)) == TEXELS


def test_a_dma_buf_that_is_too_small_for_the_image_is_refused(device: Device) -> None:
    info = picture(Explicit(LINEAR, (layout(16384, 128),)), int(T.DMA_BUF))
    with dma_buf() as (fd, _), device.create_image(info) as image, FdHandle(os.dup(fd)) as handle:
        chain = vk.ImportMemoryFdInfoKHR(T.DMA_BUF, handle, vk.MemoryDedicatedAllocateInfo(image))
        with pytest.raises(extmem.DriverError, match="a file of 8192 bytes"):
            device.allocate_memory(vk.MemoryAllocateInfo(image.requirements.size, 0, chain))


def test_without_the_extension_it_reports_it() -> None:
    """A GPU that lacks the extension, or what it needs before Vulkan 1.2; the host device. Other tilings still work."""
    for lacking in ({EXTENSION}, {NEEDED}):
        gpu = dataclasses.replace(GPU, extensions=tuple(e for e in GPU.extensions if e not in lacking))
        fake = fake_vulkan.FakeVulkan([gpu])
        with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
            for named in (List((LINEAR,)), Explicit(LINEAR, (layout(),))):
                with pytest.raises(extmem.RuleViolation, match=f"needs {EXTENSION}, which is not enabled") as caught:
                    device.create_image(picture(named))
                assert "VUID-VkImageCreateInfo-tiling-parameter" in caught.value.vuids
            device.create_image(picture(None, tiling=vk.ImageTiling.LINEAR)).close()
            assert device.get_physical_device_format_properties2(RGBA).p_next is None or lacking == {NEEDED}
        assert not fake.misuses


def test_the_host_device_has_none() -> None:
    with extmem.open_device(kind="host") as host:
        for named in (List((LINEAR,)), Explicit(LINEAR, (layout(),))):
            with pytest.raises(extmem.RuleViolation, match="VK_EXT_image_drm_format_modifier, which is not enabled"):
                host.create_image(picture(named))
        with pytest.raises(extmem.UnsupportedError, match="no DRM format modifiers.*use a Vulkan device"):
            host.get_physical_device_format_properties2(RGBA)
        host.create_image(picture(None, tiling=vk.ImageTiling.LINEAR)).close()


def test_a_failure_after_the_image_was_made_leaves_nothing(fake: fake_vulkan.FakeVulkan, device: Device) -> None:
    fake.fail(command="vkGetImageDrmFormatModifierPropertiesEXT")
    with pytest.raises(extmem.OutOfMemoryError, match="vkGetImageDrmFormatModifierPropertiesEXT"):
        device.create_image(picture(List((LINEAR,))))
    assert "images" not in fake.alive()
    device.create_image(picture(List((LINEAR,)))).close()


def test_an_adopted_image_has_its_modifier(device: Device) -> None:
    info = picture(List((LINEAR, TILED)))
    theirs = device.backend.create_image(info)
    with raw.adopt_image(device, theirs.raw, info) as adopted:
        assert device.get_image_drm_format_modifier_properties(adopted).drm_format_modifier == TILED
    theirs.destroy()
