"""VkBuffers and VkImages: made as their create infos say, with Win32 handle types as the driver knows them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from extmem import vk
from extmem.devices.backend import Allocation
from extmem.devices.resources import NativeResource, Requirements
from extmem.devices.vulkan.call_structs import BufferCreation, Spares
from extmem.devices.vulkan.handle_types import HandleType, translated
from extmem.devices.vulkan.memory import VulkanAllocation, ours
from extmem.devices.vulkan.modifiers import resolved
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import UnsupportedError
from extmem.owning import Owner
from extmem.vk.abi import ffi, from_c, to_c
from extmem.vk.formats import is_depth_or_stencil
from extmem.vk.modifiers import MEMORY_PLANES, has_modifier, questions
from extmem.vk.words import flags_text

if TYPE_CHECKING:
    from extmem.devices.vulkan.backend import VulkanBackend

__all__ = ["Resources"]

_S = vk.StructureType
_USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_DISJOINT = int(vk.ImageCreateFlagBits.DISJOINT)
_MEMORY = sum(MEMORY_PLANES)
_DEEP = int(vk.ImageAspectFlagBits.DEPTH | vk.ImageAspectFlagBits.STENCIL)


class Resources:
    """The buffers and images of one VkDevice."""

    def __init__(self, backend: VulkanBackend) -> None:
        self._backend = backend
        self._creations = Spares(BufferCreation)

    def create_buffer(self, info: vk.BufferCreateInfo) -> NativeResource:
        """vkCreateBuffer and vkGetBufferMemoryRequirements2."""
        backend, call = self._backend, self._creations.pop("set", None) or self._creations.make()
        asked = None if call.state(info) else to_c(translated(info))  # held: what its chain leads to ends with it
        memory = call.info if asked is None else asked.cdata
        commands, owner = backend.commands, VkObject(backend.owner)
        arguments = (backend.handle, memory, ffi.NULL, call.made)
        making = owner.make(commands.vkCreateBuffer, arguments, call.made, commands.vkDestroyBuffer)
        if making.result:
            fail(making.result, "vkCreateBuffer", backend.name, f"{info.size} bytes, usage {int(info.usage):#x}")
        call.ask.buffer = owner.raw
        try:
            commands.vkGetBufferMemoryRequirements2(backend.handle, call.ask, call.needs)
            needs = _requirements(call.needs, call.alone)
        except BaseException:
            owner.settle()
            raise
        self._creations["set"] = call
        return NativeResource("buffer", needs, owner.raw, int(info.size), info, owner=owner)

    def create_image(self, info: vk.ImageCreateInfo) -> NativeResource:
        """vkCreateImage and vkGetImageMemoryRequirements2. UnsupportedError for images that the device lacks."""
        backend = self._backend
        if int(info.flags) & _DISJOINT:
            raise UnsupportedError(
                "an image with DISJOINT has memory of its own for each plane, which extmem does not bind; create it "
                "without DISJOINT",
                requires_one_of=["an image without ImageCreateFlagBits.DISJOINT"],
            )
        # Drivers need not check; an image that the device lacks may be made and fail later.
        external = vk.find(info, vk.ExternalMemoryImageCreateInfo)
        types = int(external.handle_types) if external is not None else 0
        for question in questions(info, types & -types).values():
            backend.image_format_properties(question)
        made = ffi.new("uint64_t *")
        asked = to_c(translated(info))  # held: what its chain leads to ends with it
        commands, owner = backend.commands, VkObject(backend.owner)
        arguments = (backend.handle, asked.cdata, ffi.NULL, made)
        making = owner.make(commands.vkCreateImage, arguments, made, commands.vkDestroyImage)
        if making.result:
            extent = info.extent
            what = f"{extent.width}×{extent.height}×{extent.depth} texels"
            fail(making.result, "vkCreateImage", backend.name, what)
        try:
            return self._image(owner.raw, info, owner)
        except BaseException:
            owner.settle()
            raise

    def _image(self, raw: int, info: vk.ImageCreateInfo, owner: Owner) -> NativeResource:
        """An image that exists, with what it requires, and the modifier that its driver chose."""
        needs = self._image_requirements(raw)
        if not has_modifier(info):
            return NativeResource("image", needs, raw, 0, info, owner=owner)
        exact, planes = resolved(self._backend, raw, info)
        end = max(plane.offset + plane.size for plane in planes)
        if (
            end > needs.size
        ):  # a driver that leaves the offset of an explicit plane out: its texels lie there all the same
            needs = msgspec.structs.replace(needs, size=end)
        return NativeResource("image", needs, raw, 0, exact, planes=planes, owner=owner)

    def adopt(self, raw: int, info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> NativeResource:
        """A VkBuffer or VkImage that somebody else made from `info`, and destroys; what it requires is asked."""
        if isinstance(info, vk.ImageCreateInfo):
            return self._image(raw, info, Owner())
        backend, call = self._backend, self._creations.pop("set", None) or self._creations.make()
        call.ask.buffer = raw
        backend.commands.vkGetBufferMemoryRequirements2(backend.handle, call.ask, call.needs)
        needs = _requirements(call.needs, call.alone)
        self._creations["set"] = call
        return NativeResource("buffer", needs, raw, int(info.size), info, owner=Owner())

    def recreate(self, resource: NativeResource) -> NativeResource:
        """The identical buffer or image."""
        info = resource.create_info
        if isinstance(info, vk.BufferCreateInfo):
            return self.create_buffer(info)
        if isinstance(info, vk.ImageCreateInfo):
            return self.create_image(info)
        raise UnsupportedError(
            "the dedicated resource was made elsewhere, and nobody said how", requires_one_of=["its create info"]
        )

    @contextlib.contextmanager
    def temporary(self, info: vk.BufferCreateInfo) -> Iterator[NativeResource]:
        """A buffer for the time of the block."""
        made = self.create_buffer(info)
        try:
            yield made
        finally:
            self.destroy(made)

    def _image_requirements(self, raw: int) -> Requirements:
        backend = self._backend
        alone = ffi.new("VkMemoryDedicatedRequirements *")
        alone.sType = int(_S.MEMORY_DEDICATED_REQUIREMENTS)
        needs = ffi.new("VkMemoryRequirements2 *")
        needs.sType, needs.pNext = int(_S.MEMORY_REQUIREMENTS_2), alone
        ask = ffi.new("VkImageMemoryRequirementsInfo2 *", (int(_S.IMAGE_MEMORY_REQUIREMENTS_INFO_2), ffi.NULL, raw))
        backend.commands.vkGetImageMemoryRequirements2(backend.handle, ask, needs)
        return _requirements(needs, alone)

    def subresource_layout(self, info: vk.ImageCreateInfo, subresource: vk.ImageSubresource) -> vk.SubresourceLayout:
        """vkGetImageSubresourceLayout of an image like this."""
        if int(info.tiling) == vk.ImageTiling.OPTIMAL:
            raise UnsupportedError(
                "an image with OPTIMAL tiling has no layout that the host could know; create it LINEAR",
                requires_one_of=["ImageTiling.LINEAR"],
            )
        # Drivers answer anything for a subresource that the image lacks.
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
        backend = self._backend
        image = self.create_image(info)
        try:
            if by_plane and aspect not in MEMORY_PLANES[: len(image.planes)]:
                raise ValueError(
                    f"aspectMask is {flags_text(aspect, vk.ImageAspectFlagBits)}, and the image has "
                    f"{len(image.planes)} memory planes with its modifier"
                )
            asked, answer = to_c(subresource), ffi.new("VkSubresourceLayout *")
            backend.commands.vkGetImageSubresourceLayout(backend.handle, image.raw, asked.cdata, answer)
            return from_c(vk.SubresourceLayout, answer)
        finally:
            self.destroy(image)

    def destroy(self, resource: NativeResource) -> None:
        """vkDestroyBuffer, vkDestroyImage. Safe to call twice."""
        resource.raw = 0
        if resource.owner is not None:
            resource.owner.end()

    def bind(self, allocation: Allocation, offset: int, resource: NativeResource) -> None:
        """vkBindBufferMemory, vkBindImageMemory. Nothing is left to do where moving bytes has bound it there."""
        backend = self._backend
        made = allocation if isinstance(allocation, VulkanAllocation) else ours(allocation)
        raw, memory, size = resource.raw or resource.live, made.raw or made.live, resource.requirements.size
        if resource.private and resource.memory == memory and not offset:
            return
        if offset < 0 or offset + size > made.size:
            fail(
                int(vk.Result.ERROR_UNKNOWN),
                "vkBindMemory",
                backend.name,
                f"{size} bytes at {offset} of {made.size}, which reach past the end,",
            )
        commands = backend.commands
        bind = commands.vkBindBufferMemory if resource.kind == "buffer" else commands.vkBindImageMemory
        result = bind(backend.handle, raw, memory, offset)
        if result:
            tried = f"{size} bytes at {offset} of {made.size}"
            fail(result, f"vkBind{resource.kind.capitalize()}Memory", backend.name, tried)
        resource.bound, resource.memory = True, memory

    def buffer_of(self, allocation: VulkanAllocation) -> NativeResource:
        """A buffer over the whole allocation, or the one that it is dedicated to (`obstacle` says whether it will do).

        Errors: UnsupportedError for memory that is dedicated to an image.
        """
        alone = allocation.dedicated
        if alone is not None:
            if alone.kind != "buffer":
                raise UnsupportedError(
                    "this memory is dedicated to an image, so no buffer can be bound to it; copy the image with "
                    "Device.commands()",
                    requires_one_of=["memory that is not dedicated to an image"],
                )
            if alone.private:
                with self._backend.making:
                    self.bind(allocation, 0, alone)
            return alone
        with self._backend.making:
            if allocation.transfer is None:
                allocation.transfer = self._over(allocation)
            return allocation.transfer

    def too_small(self, allocation: VulkanAllocation) -> str:
        """Why memory that is not dedicated has no room for a buffer of its size, and what to do; empty where it has."""
        if allocation.dedicated is not None or allocation.transfer is not None:
            return ""
        with self._backend.making:
            buffer = self._whole(allocation)
            needed = buffer.requirements.size
            if needed <= allocation.size:
                allocation.transfer = self._bound(allocation, buffer)
                return ""
            self.destroy(buffer)
        return f"has {allocation.size} bytes, and a buffer of as many takes {needed} on this device; allocate {needed}"

    def obstacle(self, allocation: VulkanAllocation, usage: int, end: int) -> str:
        """Why `buffer_of` cannot be used with this usage up to byte `end`, and what to do; empty where it can be.

        Memory that is dedicated to a buffer is bound to that alone. Where it is the caller's, the caller binds it.
        """
        alone = allocation.dedicated
        if alone is None or alone.kind != "buffer":
            return ""
        info = alone.create_info
        if not alone.raw:
            return "which is destroyed; keep it as long as its memory"
        if not alone.private and not (alone.bound and alone.memory in (0, allocation.raw)):
            return "which is not bound to it; bind it first, with Device.bind_buffer_memory"
        if isinstance(info, vk.BufferCreateInfo) and int(info.usage) & usage != usage:
            return (
                f"which was created without {vk.BufferUsageFlagBits(usage & ~int(info.usage)).name}; create the buffer "
                "with that usage"
            )
        if end > alone.size:
            return f"which has {alone.size} bytes, and {end} are to be reached; use no more, or create a larger buffer"
        return ""

    def _over(self, allocation: VulkanAllocation) -> NativeResource:
        return self._bound(allocation, self._whole(allocation))

    def _whole(self, allocation: VulkanAllocation) -> NativeResource:
        info = vk.BufferCreateInfo(size=allocation.size, usage=_USAGE)
        if allocation.handle_types:
            info.p_next = vk.ExternalMemoryBufferCreateInfo(HandleType(allocation.handle_types))
        return self.create_buffer(info)

    def _bound(self, allocation: VulkanAllocation, buffer: NativeResource) -> NativeResource:
        """The buffer, bound; destroyed where that fails."""
        try:
            self.bind(allocation, 0, buffer)
        except BaseException:
            self.destroy(buffer)
            raise
        return buffer


def _requirements(needs: Any, alone: Any) -> Requirements:
    plain = needs.memoryRequirements
    return Requirements(
        int(plain.size),
        int(plain.alignment),
        int(plain.memoryTypeBits),
        bool(alone.requiresDedicatedAllocation),
        bool(alone.prefersDedicatedAllocation),
    )
