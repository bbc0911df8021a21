"""Images with DRM format modifiers on the installed driver, where it has VK_EXT_image_drm_format_modifier.

Newer versions of Mesa's software driver have it where they can open /dev/udmabuf. The tests of the scripted driver need
none (tests/unit/testing/test_fake_vulkan_modifiers.py).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device, DeviceMemory, Image
from extmem.devices.vulkan import dma_buf
from extmem.handles import FdHandle
from extmem.testing.children import Peer
from extmem.vk.modifiers import EXTENSION, LINEAR
from tests.behaviours.steps import FD, PEER
from tests.process.vulkan.steps import SHARED, get_texels, put_texels

DMA_BUF = vk.ExternalMemoryHandleTypeFlagBits.DMA_BUF
RGBA, DRM = vk.Format.R8G8B8A8_UNORM, vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT
WIDE, HIGH = 60, 33
TEXELS = os.urandom(WIDE * HIGH * 4)
PLANE_0 = vk.ImageSubresource(vk.ImageAspectFlagBits.MEMORY_PLANE_0_EXT)
List, Explicit = vk.ImageDrmFormatModifierListCreateInfoEXT, vk.ImageDrmFormatModifierExplicitCreateInfoEXT


@pytest.fixture(autouse=True)
def with_modifiers(device: Device) -> None:
    """Skip unless the device has the extension."""
    if EXTENSION not in (device.facts.extensions or ()):
        pytest.skip("this driver has no DRM format modifiers")


def picture(named: Any, types: int = int(SHARED)) -> vk.ImageCreateInfo:
    return vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=RGBA,
        extent=vk.Extent3D(WIDE, HIGH, 1),
        tiling=DRM,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        p_next=vk.ExternalMemoryImageCreateInfo(vk.ExternalMemoryHandleTypeFlagBits(types), named),
    )


def shares(device: Device, modifier: int, kind: int) -> int:
    """Return what such images can do with a handle type; 0 where there are none."""
    chain = vk.PhysicalDeviceImageDrmFormatModifierInfoEXT(modifier)
    chain.p_next = vk.PhysicalDeviceExternalImageFormatInfo(vk.ExternalMemoryHandleTypeFlagBits(kind))
    asked = vk.PhysicalDeviceImageFormatInfo2(RGBA, vk.ImageType.TYPE_2D, DRM, 3, 0, chain)
    try:
        found = device.get_physical_device_image_format_properties2(asked)
    except extmem.UnsupportedError:
        return 0
    external = vk.find(found, vk.ExternalImageFormatProperties)
    return int(external.external_memory_properties.external_memory_features) if external is not None else 0


def modifiers(device: Device, kind: int = int(FD)) -> list[int]:
    """Return the modifiers that images can be shared with."""
    listed = vk.find(device.get_physical_device_format_properties2(RGBA), vk.DrmFormatModifierPropertiesListEXT)
    assert listed is not None
    every = [int(one.drm_format_modifier) for one in listed.drm_format_modifier_properties]
    both = int(vk.ExternalMemoryFeatureFlagBits.EXPORTABLE | vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)
    return [modifier for modifier in every if shares(device, modifier, kind) & both == both]


def memory_of(device: Device, image: Image, name: str | None = None) -> DeviceMemory:
    needs = image.requirements
    index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
    share = vk.ExportMemoryWin32HandleInfoKHR(None, 0x8000_0001, name) if name else None
    types = vk.ExternalMemoryHandleTypeFlagBits(SHARED if name else FD)
    chain = vk.MemoryDedicatedAllocateInfo(image, None, vk.ExportMemoryAllocateInfo(types, share))
    memory = device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index, chain))
    device.bind_image_memory(image, memory)
    return memory


def test_each_modifier_crosses_processes(device: Device, peer: Peer, name: str) -> None:
    """The importer's image has the exporter's modifier and planes, and the same texels."""
    known = modifiers(device)
    assert known, "a driver with the extension shares some"
    peer(PEER + "\nfrom tests.process.vulkan.steps import get_texels")
    for number, modifier in enumerate(known):
        path = f"{name} {number}"
        with device.create_image(picture(List((modifier,)))) as image, memory_of(device, image, path) as memory:
            put_texels(device, image, TEXELS, fresh=True)
            placed = image.subresource_layout(PLANE_0)
            described = memory.descriptor.image
            assert described is not None and described.modifier == modifier
            assert (described.planes[0].offset, described.planes[0].row_pitch) == (placed.offset, placed.row_pitch)
            peer("memory = device.open(path)\nimage = memory.resource", path=path)
            peer("device.bind_image_memory(image, memory)")
            assert peer("device.get_image_drm_format_modifier_properties(image).drm_format_modifier") == modifier
            assert peer("memory.descriptor.image.planes[0].row_pitch") == placed.row_pitch
            assert peer("get_texels(device, image, size)", size=len(TEXELS)) == TEXELS
            peer("memory.close()")


def test_the_driver_chooses_from_all(device: Device) -> None:
    known = modifiers(device)
    with device.create_image(picture(List(known))) as image, memory_of(device, image) as memory:
        put_texels(device, image, TEXELS, fresh=True)
        assert device.get_image_drm_format_modifier_properties(image).drm_format_modifier in known
        with memory.export_handle(FD) as fd, device.open(fd) as opened:
            assert isinstance(opened.resource, Image)
            device.bind_image_memory(opened.resource, opened)
            assert get_texels(device, opened.resource, len(TEXELS)) == TEXELS


def test_a_layout_of_another_is_the_images(device: Device) -> None:
    """The rows begin where the explicit layout states, not where the driver would place them."""
    if LINEAR not in modifiers(device):
        pytest.skip("this driver has no linear DRM format modifier")
    with device.create_image(picture(List((LINEAR,)))) as image:
        pitch = image.subresource_layout(PLANE_0).row_pitch
    wider = Explicit(LINEAR, (vk.SubresourceLayout(0, 0, pitch * 2),))
    with device.create_image(picture(wider)) as image, memory_of(device, image) as memory:
        assert image.subresource_layout(PLANE_0).row_pitch == pitch * 2
        put_texels(device, image, TEXELS, fresh=True)
        assert get_texels(device, image, len(TEXELS)) == TEXELS
        if device.facts.memory_types[memory.memory_type_index].property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE:
            seen = memory.map()
            for row in range(HIGH):
                assert bytes(seen[row * pitch * 2 :][: WIDE * 4]) == TEXELS[row * WIDE * 4 :][: WIDE * 4]
            seen.release()


def test_a_modifier_that_is_not_there_is_refused(device: Device) -> None:
    missing = next(number for number in range(1, 1 << 20) if number not in modifiers(device))
    for named in (List((missing,)), Explicit(missing, (vk.SubresourceLayout(row_pitch=256),))):
        with pytest.raises(extmem.UnsupportedError, match=f"modifier {missing:#x}"):
            device.create_image(picture(named))


@pytest.fixture
def dma_bufs(device: Device) -> Iterator[None]:
    """On Mesa's software driver memory files represent dma-bufs, which it maps all the same; others have real ones."""

    def size(fd: int) -> int | None:
        in_memory = sys.platform == "linux" and os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
        return os.fstat(fd).st_size if in_memory else None

    with dma_buf.replaced_by(size) if device.name.startswith("llvmpipe") else contextlib.nullcontext():
        yield


def test_a_dma_buf_of_this_driver_is_imported_as_an_image(device: Device, dma_bufs: None) -> None:
    """Another device imports it with the modifier and planes that this one states, like any other exporter's."""
    shared = modifiers(device, int(DMA_BUF))
    if not shared:
        pytest.skip("this driver shares no images with DRM format modifiers as dma-bufs")
    for modifier in shared:
        with device.create_image(picture(List((modifier,)), int(DMA_BUF))) as image:
            needs = image.requirements
            index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
            chain = vk.MemoryDedicatedAllocateInfo(image, None, vk.ExportMemoryAllocateInfo(DMA_BUF))
            with device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index, chain)) as memory:
                device.bind_image_memory(image, memory)
                put_texels(device, image, TEXELS, fresh=True)
                dedicated = memory.descriptor.dedicated
                assert isinstance(dedicated, vk.ImageCreateInfo)
                described = extmem.Descriptor(
                    int(DMA_BUF), needs.size, index, dedicated=dedicated, made_by_vulkan=False, device_uuid=device.uuid
                )
                fd = device.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, DMA_BUF))
                undescribed = FdHandle(os.dup(int(fd)))
                fd.close()
                with extmem.open_device(kind="vulkan") as other:
                    with extmem.raw.import_payload(other, undescribed, described) as opened:
                        assert isinstance(opened.resource, Image)
                        other.bind_image_memory(opened.resource, opened)
                        assert get_texels(other, opened.resource, len(TEXELS)) == TEXELS


def test_mesas_software_driver_imports_a_dma_buf_as_an_image(device: Device, dma_bufs: None) -> None:
    """It maps what it gets, so that its code for dma-bufs and planes runs on a machine that makes none."""
    if not device.name.startswith("llvmpipe"):
        pytest.skip("this driver is not Mesa's software driver: it asks the kernel")
    pitch, offset, size = 256, 4096, 16384
    fd = os.memfd_create("of another driver", os.MFD_CLOEXEC)
    try:
        os.truncate(fd, size)
        for row in range(HIGH):
            os.pwrite(fd, TEXELS[row * WIDE * 4 :][: WIDE * 4], offset + row * pitch)
        named = Explicit(LINEAR, (vk.SubresourceLayout(offset, 0, pitch),))
        with device.create_image(picture(named, int(DMA_BUF))) as image, FdHandle(os.dup(fd)) as handle:
            bits = (
                device.get_memory_fd_properties(DMA_BUF, handle).memory_type_bits & image.requirements.memory_type_bits
            )
            alone = vk.MemoryDedicatedAllocateInfo(image)
            info = vk.MemoryAllocateInfo(
                image.requirements.size,
                (bits & -bits).bit_length() - 1,
                vk.ImportMemoryFdInfoKHR(DMA_BUF, handle, alone),
            )
            with device.allocate_memory(info) as memory:
                device.bind_image_memory(image, memory)
                assert get_texels(device, image, len(TEXELS)) == TEXELS
    finally:
        os.close(fd)
