"""VkBuffers and VkImages: requirements, layouts, binding, and their end."""

from __future__ import annotations

import re

import pytest

from extmem import vk
from extmem.api import Device
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.errors import DriverError, HandleStateError, OutOfMemoryError, UnsupportedError
from tests.systems import on_linux
from tests.unit.devices.vulkan.steps import (
    FD,
    KMT,
    SHARED,
    SIZE,
    W32,
    HandleType,
    allocate,
    buffer_info,
    image_info,
    lowest,
)

LINEAR, OPTIMAL = vk.ImageTiling.LINEAR, vk.ImageTiling.OPTIMAL
COLOR, DEPTH = vk.ImageAspectFlagBits.COLOR, vk.ImageAspectFlagBits.DEPTH


def test_they_are_destroyed_once(backend: VulkanBackend) -> None:
    for made in (backend.create_buffer(buffer_info()), backend.create_image(image_info())):
        assert made.raw
        made.destroy()
        assert made.raw == 0
        made.destroy()


@pytest.mark.parametrize("size", [1, 3, 1000, SIZE, SIZE + 1, 1 << 20])
def test_a_buffers_requirements_are_those_of_every_buffer_like_it(backend: VulkanBackend, size: int) -> None:
    buffer = backend.create_buffer(buffer_info(size, SHARED))
    needs = buffer.requirements
    assert needs.size >= size and needs.memory_type_bits and needs.alignment & (needs.alignment - 1) == 0
    assert needs == backend.buffer_requirements(buffer_info(size, SHARED)) and buffer.size == size
    twin = backend.resources.recreate(buffer)
    assert twin.requirements == needs and twin.raw != buffer.raw
    twin.destroy()
    buffer.destroy()


@pytest.mark.parametrize("types", [0, on_linux(FD), W32, KMT])
@pytest.mark.parametrize("tiling", [LINEAR, OPTIMAL])
def test_images_are_made_in_both_tilings_for_every_type(
    backend: VulkanBackend, tiling: vk.ImageTiling, types: HandleType
) -> None:
    info = image_info(tiling, types)
    image = backend.create_image(info)
    assert image.requirements.size >= 64 * 64 * 4 and image.create_info is info
    assert image.requirements == backend.image_requirements(info)
    twin = backend.resources.recreate(image)
    assert twin.requirements == image.requirements
    twin.destroy()
    image.destroy()


def test_what_was_made_elsewhere_cannot_be_made_again(backend: VulkanBackend) -> None:
    buffer = backend.create_buffer(buffer_info())
    buffer.create_info = None
    with pytest.raises(UnsupportedError, match="its create info is not known"):
        backend.resources.recreate(buffer)
    buffer.destroy()


def test_an_image_that_the_device_lacks_is_refused_before_it_is_made(backend: VulkanBackend) -> None:
    wrong = image_info(LINEAR, format=vk.Format.D32_SFLOAT, usage=vk.ImageUsageFlagBits.COLOR_ATTACHMENT)
    with pytest.raises(UnsupportedError, match="has no images of D32_SFLOAT, LINEAR"):
        backend.create_image(wrong)
    backend.create_image(image_info(LINEAR)).destroy()


def test_a_buffer_larger_than_any_memory_is_an_error(backend: VulkanBackend) -> None:
    """The creation fails on Mesa's software driver; where it succeeds, the allocation fails."""
    try:
        large = backend.create_buffer(buffer_info(1 << 60))
    except OutOfMemoryError as error:
        assert re.search(f"vkCreateBuffer on .* for {1 << 60} bytes", str(error))
    else:
        with pytest.raises(OutOfMemoryError, match="vkAllocateMemory"):
            backend.allocate(large.requirements.size, 0, b"")
        large.destroy()
    backend.create_buffer(buffer_info()).destroy()


def test_a_linear_image_says_where_its_texels_are(backend: VulkanBackend) -> None:
    info = image_info(LINEAR, SHARED)
    layout = backend.image_subresource_layout(info, vk.ImageSubresource(COLOR, 0, 0))
    assert layout.row_pitch >= 64 * 4 and layout.size >= 64 * layout.row_pitch - (layout.row_pitch - 64 * 4)
    assert layout.offset + layout.size <= backend.image_requirements(info).size


def test_the_texels_are_there(backend: VulkanBackend) -> None:
    """The host writes a row where the layout states; a buffer on the same bytes reads it there."""
    info = image_info(LINEAR, SHARED)
    image = backend.create_image(info)
    layout = backend.image_subresource_layout(info, vk.ImageSubresource(COLOR, 0, 0))
    memory = backend.allocate(image.requirements.size, lowest(image.requirements), b"", handle_types=SHARED)
    backend.bind(memory, 0, image)
    row = bytes(range(256))
    at = layout.offset + 5 * layout.row_pitch
    backend.write(memory, at, memoryview(row))
    into = bytearray(256)
    backend.read(memory, at, memoryview(into))
    assert into == row and image.bound
    image.destroy()
    memory.close()


def test_an_optimal_image_has_no_layout_to_tell(backend: VulkanBackend) -> None:
    with pytest.raises(UnsupportedError, match="create it LINEAR"):
        backend.image_subresource_layout(image_info(OPTIMAL), vk.ImageSubresource(COLOR, 0, 0))


@pytest.mark.parametrize(
    ("aspect", "level", "layer", "words"),
    [
        (COLOR, 1, 0, "mip level 1 of layer 0"),
        (COLOR, 0, 1, "mip level 0 of layer 1"),
        (DEPTH, 0, 0, "aspectMask"),
        (COLOR | DEPTH, 0, 0, "aspectMask"),
        (vk.ImageAspectFlagBits(0), 0, 0, "aspectMask"),
    ],
)
def test_a_subresource_that_the_image_lacks_is_refused(
    backend: VulkanBackend, aspect: vk.ImageAspectFlagBits, level: int, layer: int, words: str
) -> None:
    """Drivers return anything for these."""
    with pytest.raises(ValueError, match=words):
        backend.image_subresource_layout(image_info(LINEAR), vk.ImageSubresource(aspect, level, layer))


def test_binding_stays_within_the_memory(backend: VulkanBackend) -> None:
    memory = allocate(backend, 4 * SIZE)
    buffers = [backend.create_buffer(buffer_info(SIZE, SHARED)) for _ in range(3)]
    step = max(SIZE, buffers[0].requirements.size)
    backend.bind(memory, 0, buffers[0])
    backend.bind(memory, step, buffers[1])
    for offset in (-step, memory.size - step + 1, memory.size, 1 << 60):
        with pytest.raises(DriverError, match="reach past the end"):
            backend.bind(memory, offset, buffers[2])
    assert [buffer.bound for buffer in buffers] == [True, True, False]
    for buffer in buffers:
        buffer.destroy()
    memory.close()


def test_a_destroyed_resource_is_not_bound(backend: VulkanBackend) -> None:
    memory = allocate(backend)
    for made in (backend.create_buffer(buffer_info()), backend.create_image(image_info())):
        made.destroy()
        with pytest.raises(HandleStateError, match=f"this {made.kind} is destroyed"):
            backend.bind(memory, 0, made)
    memory.close()


def test_what_is_lost_is_destroyed(vulkan_device: Device) -> None:
    """Buffers and images that are dropped without `close` do not keep the VkDevice."""
    backend = vulkan_device.backend
    assert isinstance(backend, VulkanBackend)
    before = backend.device.living
    lost = [vulkan_device.create_buffer(buffer_info()), vulkan_device.create_image(image_info())]
    assert backend.device.living == before + 2
    lost.clear()
    assert backend.device.living == before
