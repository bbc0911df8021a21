"""Dedicated memory: the importer creates the identical buffer or image."""

from __future__ import annotations

import copy
import os

import pytest

import extmem
from extmem import vk
from extmem.api import Buffer, Device, DeviceMemory, Image
from extmem.devices.host import HAS_FDS
from extmem.errors import RuleViolation
from extmem.testing.children import Peer
from tests.behaviours.steps import FD, PEER, W32, import_win32
from tests.process.vulkan.steps import SHARED, get_texels, put_texels

LINEAR, OPTIMAL = vk.ImageTiling.LINEAR, vk.ImageTiling.OPTIMAL


def image_info(tiling: vk.ImageTiling = OPTIMAL, width: int = 64) -> vk.ImageCreateInfo:
    return vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(width, 64, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=tiling,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        p_next=vk.ExternalMemoryImageCreateInfo(SHARED),
    )


def export(device: Device, resource: Buffer | Image, name: str) -> DeviceMemory:
    """Allocate memory dedicated to a resource, exported under a name."""
    needs = resource.requirements
    index = (needs.memory_type_bits & -needs.memory_type_bits).bit_length() - 1
    win32 = vk.ExportMemoryWin32HandleInfoKHR(None, 0x8000_0001, name)
    chain = vk.MemoryDedicatedAllocateInfo(
        resource if isinstance(resource, Image) else None,
        resource if isinstance(resource, Buffer) else None,
        vk.ExportMemoryAllocateInfo(SHARED, win32),
    )
    return device.allocate_memory(vk.MemoryAllocateInfo(needs.size, index, chain))


def test_a_high_level_payload_is_opened_with_the_identical_buffer(device: Device, peer: Peer, name: str) -> None:
    with device.allocate(5000, name=name, dedicated=True) as memory:
        memory.write(b"alone")
        assert memory.descriptor.dedicated_kind == "buffer"
        peer("memory = extmem.open(name)", name=name)
        assert peer("memory.read().tobytes()[:5]") == b"alone"
        there = peer("memory.record.resource.create_info.size, memory.record.resource.requirements.size")
        assert memory.record.resource is not None
        assert there == (5000, memory.record.resource.requirements.size)
        peer("memory.write(b'heard')\nmemory.close()")
        assert memory.read().tobytes()[:5] == b"heard"
        with memory.export_handle(FD if HAS_FDS else W32) as handle, device.open(handle) as other:
            assert other.read().tobytes()[:5] == b"heard"


@pytest.mark.parametrize("tiling", [OPTIMAL, LINEAR])
def test_an_images_memory_is_imported_with_the_identical_image(
    device: Device, peer: Peer, name: str, tiling: vk.ImageTiling
) -> None:
    texels, reply = os.urandom(64 * 64 * 4), os.urandom(64 * 64 * 4)
    with device.create_image(image_info(tiling)) as image, export(device, image, name) as memory:
        device.bind_image_memory(image, memory)
        put_texels(device, image, texels, fresh=True)
        peer(PEER + "\nfrom tests.process.vulkan.steps import get_texels, put_texels")
        peer(
            "found = extmem.open(name)\nsaid = found.descriptor\nfound.close()\nhandle = extmem.open_handle(name)",
            name=name,
        )
        assert peer("said.dedicated_kind, said.dedicated.extent.width, int(said.dedicated.tiling)") == (
            "image",
            64,
            int(tiling),
        )
        peer(
            "image = device.create_image(said.dedicated)\n"
            "source = vk.ImportMemoryWin32HandleInfoKHR(W32, handle)\n"
            "chain = vk.MemoryDedicatedAllocateInfo(image, None, source)\n"
            "info = vk.MemoryAllocateInfo(said.allocation_size, said.memory_type_index, chain)\n"
            "memory = device.allocate_memory(info)\n"
            "device.bind_image_memory(image, memory)"
        )
        assert peer("get_texels(device, image, size)", size=len(texels)) == texels
        peer("put_texels(device, image, reply)", reply=reply)
        peer("memory.close()\nimage.close()\nhandle.close()\ndevice.close()")
        assert get_texels(device, image, len(reply)) == reply


def test_another_image_than_the_exporters_is_refused(device: Device, name: str) -> None:
    info = image_info()
    with device.create_image(info) as image, export(device, image, name) as memory:
        needs = memory.allocation_size, memory.memory_type_index
        for wrong in (image_info(LINEAR), image_info(width=32)):
            with device.create_image(wrong) as other:
                source = vk.ImportMemoryWin32HandleInfoKHR(W32, None, name)
                chain = vk.MemoryDedicatedAllocateInfo(other, None, source)
                with pytest.raises(RuleViolation) as error:
                    device.allocate_memory(vk.MemoryAllocateInfo(*needs, chain))
                assert error.value.vuids == ("VUID-VkMemoryDedicatedAllocateInfo-image-01876",)
        with device.create_image(copy.deepcopy(info)) as same:
            source = vk.ImportMemoryWin32HandleInfoKHR(W32, None, name)
            chain = vk.MemoryDedicatedAllocateInfo(same, None, source)
            with device.allocate_memory(vk.MemoryAllocateInfo(*needs, chain)) as imported:
                device.bind_image_memory(same, imported)


def test_dedicated_memory_is_not_imported_as_plain_nor_plain_as_dedicated(device: Device, name: str) -> None:
    with device.allocate(5000, name=name, dedicated=True) as memory, memory.export_handle(W32) as handle:
        with pytest.raises(RuleViolation, match="dedicated"):
            import_win32(device, handle, size=memory.allocation_size, index=memory.memory_type_index)
        device.open(handle).close()
    with device.allocate(5000) as memory, memory.export_handle(W32) as handle:
        info = vk.BufferCreateInfo(
            size=5000, usage=vk.BufferUsageFlagBits.TRANSFER_SRC, p_next=vk.ExternalMemoryBufferCreateInfo(W32)
        )
        with device.create_buffer(info) as buffer:
            chain = vk.MemoryDedicatedAllocateInfo(None, buffer, vk.ImportMemoryWin32HandleInfoKHR(W32, handle))
            with pytest.raises(RuleViolation, match="dedicated"):
                device.allocate_memory(vk.MemoryAllocateInfo(buffer.requirements.size, memory.memory_type_index, chain))
        import_win32(device, handle, size=memory.allocation_size, index=memory.memory_type_index).close()


def test_a_high_level_open_of_an_images_memory_ends_with_its_image(device: Device, name: str) -> None:
    with device.create_image(image_info()) as image, export(device, image, name):
        with device.open(name) as opened:
            made = opened.record.resource
            assert isinstance(made, Image) and made.create_info.extent.width == 64
            with pytest.raises(extmem.UnsupportedError, match="dedicated to an image"):
                opened.read()
        assert made.closed
