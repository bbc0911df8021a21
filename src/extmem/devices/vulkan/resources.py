"""VkBuffers and VkImages, created from their create infos, with handle types translated for the driver."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from extmem import vk
from extmem.devices.backend import Allocation
from extmem.devices.resources import NativeResource, Requirements
from extmem.devices.vulkan.capabilities import Answers
from extmem.devices.vulkan.handle_types import translated
from extmem.devices.vulkan.memory import native_allocation
from extmem.devices.vulkan.modifiers import resolved
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import UnsupportedError
from extmem.owning import Owner
from extmem.vk.abi import ffi, from_c, to_c
from extmem.vk.formats import is_depth_or_stencil
from extmem.vk.handle_types import NO_TYPES, MemoryHandleType, lowest
from extmem.vk.modifiers import MEMORY_PLANES, has_modifier, questions
from extmem.vk.value_text import flags_text

if TYPE_CHECKING:
    from extmem.devices.vulkan.logical import LogicalDevice

__all__ = ["Resources"]

_S = vk.StructureType
_OF_BUFFER, _OF_IMAGE = int(_S.BUFFER_MEMORY_REQUIREMENTS_INFO_2), int(_S.IMAGE_MEMORY_REQUIREMENTS_INFO_2)
_REQUIREMENTS, _DEDICATED_REQUIREMENTS = int(_S.MEMORY_REQUIREMENTS_2), int(_S.MEMORY_DEDICATED_REQUIREMENTS)
_DISJOINT = int(vk.ImageCreateFlagBits.DISJOINT)
_MEMORY = sum(MEMORY_PLANES)
_DEEP = int(vk.ImageAspectFlagBits.DEPTH | vk.ImageAspectFlagBits.STENCIL)


class Resources:
    """The buffers and images of one VkDevice."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device

    def buffer_requirements(self, info: vk.BufferCreateInfo) -> Requirements:
        """See `Backend`. Drivers return them for a buffer that exists, so one is created and destroyed."""
        with self.temporary(info) as buffer:
            return buffer.requirements

    def image_requirements(self, info: vk.ImageCreateInfo) -> Requirements:
        """See `Backend`. Drivers return them for an image that exists, so one is created and destroyed."""
        image = self.create_image(info)
        image.destroy()
        return image.requirements

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """vkCreateBuffer and vkGetBufferMemoryRequirements2."""
        device = self._device
        device.check_open()
        create_info = to_c(translated(info))  # held: what its chain leads to ends with it
        made = ffi.new("uint64_t *")
        commands, owner = device.commands, VkObject(device.owner)
        arguments = (device.handle, create_info.cdata, ffi.NULL, made)
        making = owner.make(commands.vkCreateBuffer, arguments, made, commands.vkDestroyBuffer)
        if making.result:
            fail(making.result, "vkCreateBuffer", device.name, f"{info.size} bytes, usage {int(info.usage):#x}")
        try:
            needs = self._buffer_requirements(owner.raw)
        except BaseException:
            owner.settle()
            raise
        return NativeResource("buffer", needs, owner.raw, int(info.size), info, owner=owner)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """vkCreateImage and vkGetImageMemoryRequirements2. UnsupportedError for images that the device lacks."""
        device = self._device
        device.check_open()
        if int(info.flags) & _DISJOINT:
            raise UnsupportedError(
                "an image with DISJOINT has memory of its own for each plane, which extmem does not bind; create it "
                "without DISJOINT",
                requires_one_of=["an image without ImageCreateFlagBits.DISJOINT"],
            )
        # Drivers need not check: an image that the device lacks may be created and fail later.
        external = vk.find(info, vk.ExternalMemoryImageCreateInfo)
        types = MemoryHandleType(int(external.handle_types)) if external is not None else NO_TYPES
        for question in questions(info, lowest(types)).values():
            Answers(device.physical).image_format_properties(question)
        made = ffi.new("uint64_t *")
        create_info = to_c(translated(info))  # held: what its chain leads to ends with it
        commands, owner = device.commands, VkObject(device.owner)
        arguments = (device.handle, create_info.cdata, ffi.NULL, made)
        making = owner.make(commands.vkCreateImage, arguments, made, commands.vkDestroyImage)
        if making.result:
            extent = info.extent
            what = f"{extent.width}×{extent.height}×{extent.depth} texels"
            fail(making.result, "vkCreateImage", device.name, what)
        try:
            return self._image(owner.raw, info, owner)
        except BaseException:
            owner.settle()
            raise

    def _image(self, raw: int, info: vk.ImageCreateInfo, owner: Owner) -> NativeResource:
        """Return an image that exists, with its requirements, and the modifier that its driver chose."""
        needs = self._image_requirements(raw)
        if not has_modifier(info):
            return NativeResource("image", needs, raw, 0, info, owner=owner)
        exact, planes = resolved(self._device, raw, info)
        end = max(plane.offset + plane.size for plane in planes)
        if (
            end > needs.size
        ):  # a driver that leaves the offset of an explicit plane out: its texels lie there all the same
            needs = msgspec.structs.replace(needs, size=end)
        return NativeResource("image", needs, raw, 0, exact, planes=planes, owner=owner)

    def adopt(self, raw: int, info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> NativeResource:
        """See `AdoptsMemory.adopt_resource`. Its requirements are queried."""
        self._device.check_open()
        if isinstance(info, vk.ImageCreateInfo):
            return self._image(raw, info, Owner())
        needs = self._buffer_requirements(raw)
        return NativeResource("buffer", needs, raw, int(info.size), info, owner=Owner())

    def recreate(self, resource: NativeResource) -> NativeResource:
        """Create the identical buffer or image."""
        info = resource.create_info
        if isinstance(info, vk.BufferCreateInfo):
            return self.create_buffer(info)
        if isinstance(info, vk.ImageCreateInfo):
            return self.create_image(info)
        raise UnsupportedError(
            "the dedicated resource was created by another binding, and its create info is not known",
            requires_one_of=["its create info"],
        )

    @contextlib.contextmanager
    def temporary(self, info: vk.BufferCreateInfo) -> Iterator[NativeResource]:
        """A buffer that is destroyed at the end of the block."""
        buffer = self.create_buffer(info)
        try:
            yield buffer
        finally:
            buffer.destroy()

    def _buffer_requirements(self, raw: int) -> Requirements:
        """vkGetBufferMemoryRequirements2."""
        query = ffi.new("VkBufferMemoryRequirementsInfo2 *", (_OF_BUFFER, ffi.NULL, raw))
        return self._requirements(self._device.commands.vkGetBufferMemoryRequirements2, query)

    def _image_requirements(self, raw: int) -> Requirements:
        """vkGetImageMemoryRequirements2."""
        query = ffi.new("VkImageMemoryRequirementsInfo2 *", (_OF_IMAGE, ffi.NULL, raw))
        return self._requirements(self._device.commands.vkGetImageMemoryRequirements2, query)

    def _requirements(self, command: Any, query: Any) -> Requirements:
        dedicated = ffi.new("VkMemoryDedicatedRequirements *", (_DEDICATED_REQUIREMENTS,))
        answer = ffi.new("VkMemoryRequirements2 *", (_REQUIREMENTS, dedicated))
        command(self._device.handle, query, answer)
        plain = answer.memoryRequirements
        return Requirements(
            int(plain.size),
            int(plain.alignment),
            int(plain.memoryTypeBits),
            bool(dedicated.requiresDedicatedAllocation),
            bool(dedicated.prefersDedicatedAllocation),
        )

    def image_subresource_layout(
        self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource
    ) -> vk.SubresourceLayout:
        """See `Backend`. Drivers return it for an image that exists, so one is created and destroyed."""
        if int(info.tiling) == vk.ImageTiling.OPTIMAL:
            raise UnsupportedError(
                "an image with OPTIMAL tiling has no layout that can be queried; create it LINEAR",
                requires_one_of=["ImageTiling.LINEAR"],
            )
        # Drivers return arbitrary answers for a subresource that the image lacks.
        aspect, level, layer = int(subresource.aspect_mask), int(subresource.mip_level), int(subresource.array_layer)
        by_plane = has_modifier(info)
        wrong = aspect & ~_MEMORY if by_plane else bool(aspect & _DEEP) != is_depth_or_stencil(int(info.format))
        if aspect.bit_count() != 1 or wrong or (aspect & _MEMORY and not by_plane):
            of_one = "MEMORY_PLANE_0_EXT, or another memory plane of it" if by_plane else "the one aspect of the image"
            raise ValueError(
                f"aspectMask is {flags_text(subresource.aspect_mask, vk.ImageAspectFlagBits)}; give {of_one} that is "
                "asked for"
            )
        if not 0 <= level < info.mip_levels or not 0 <= layer < info.array_layers:
            raise ValueError(
                f"mip level {level} of layer {layer} is asked for, and the image has {info.mip_levels} levels and "
                f"{info.array_layers} layers"
            )
        device = self._device
        image = self.create_image(info)
        try:
            if by_plane and aspect not in MEMORY_PLANES[: len(image.planes)]:
                raise ValueError(
                    f"aspectMask is {flags_text(aspect, vk.ImageAspectFlagBits)}, and the image has "
                    f"{len(image.planes)} memory planes with its modifier"
                )
            query, answer = to_c(subresource), ffi.new("VkSubresourceLayout *")
            device.commands.vkGetImageSubresourceLayout(device.handle, image.raw, query.cdata, answer)
            return from_c(vk.SubresourceLayout, answer)
        finally:
            image.destroy()

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """vkBindBufferMemory, vkBindImageMemory. Nothing is done if a transfer has bound it there already."""
        device = self._device
        made = native_allocation(allocation)
        raw, memory, size = resource.live, made.live, resource.requirements.size
        if resource.private and resource.memory == memory and not offset:
            return
        if offset < 0 or offset + size > made.size:
            fail(
                int(vk.Result.ERROR_UNKNOWN),
                "vkBindMemory",
                device.name,
                f"{size} bytes at {offset} of {made.size}, which reach past the end,",
            )
        commands = device.commands
        bind = commands.vkBindBufferMemory if resource.kind == "buffer" else commands.vkBindImageMemory
        result = bind(device.handle, raw, memory, offset)
        if result:
            tried = f"{size} bytes at {offset} of {made.size}"
            fail(result, f"vkBind{resource.kind.capitalize()}Memory", device.name, tried)
        resource.bound, resource.memory = True, memory
