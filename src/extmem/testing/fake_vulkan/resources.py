"""Creating, querying, binding and destroying buffers and images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.host import image_layouts
from extmem.errors import ExtmemError
from extmem.testing.fake_vulkan.instances import out_chain
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.modifiers import as_linear, chosen, placed, plane_layout
from extmem.testing.fake_vulkan.objects import Buffer, Device, Image, Memory, Resource
from extmem.vk.abi import ffi, from_c, to_c

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.gpus import External, Modifier
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

Result = vk.Result
_Feature = vk.ExternalMemoryFeatureFlagBits
_NO_FORMAT = int(Result.ERROR_FORMAT_NOT_SUPPORTED)
_NO_FEATURE = int(Result.ERROR_FEATURE_NOT_PRESENT)
_DEDICATED = int(vk.StructureType.MEMORY_DEDICATED_REQUIREMENTS)
_EXPORTABLE = int(_Feature.EXPORTABLE | _Feature.IMPORTABLE)


def _shared_as(fake: FakeVulkan, device: Device, kind: str, types: int) -> External | None:
    """Return the GPU's properties of the handle type that requires dedicated memory most, of those of a resource."""
    properties = []
    bits = types
    while bits:
        bit = bits & -bits
        bits ^= bit
        external = device.gpu.says(kind, bit)
        if external is None or not external.features & _EXPORTABLE:
            fake.misuse(f"a {kind} is external as type {bit:#x}, which the GPU does not share")
        else:
            properties.append(external)
    order = ("required", "preferred", "no")
    return min(properties, key=lambda external: order.index(external.dedicated), default=None)


def vkCreateBuffer(fake: FakeVulkan, handle: Any, raw: Any, allocator: Any, out: Any) -> int:
    """Create a buffer, whose size is rounded up to a multiple of the GPU's alignment."""
    device = fake.get(handle, Device)
    info = from_c(vk.BufferCreateInfo, raw)
    if info.size <= 0 or not info.usage:
        raise fake.wrong(f"a buffer of {info.size} bytes and usage {int(info.usage):#x}")
    if info.flags and not fake.manners.takes_sparse:
        raise Refusal(_NO_FEATURE)
    chained = vk.find(info, vk.ExternalMemoryBufferCreateInfo)
    types = int(chained.handle_types) if chained is not None else 0
    external = _shared_as(fake, device, "buffer", types)
    gpu = device.gpu
    size = -(-int(info.size) // gpu.buffer_alignment) * gpu.buffer_alignment
    every = gpu.resource_types or (1 << len(gpu.memory_types)) - 1
    dedicated = external.dedicated if external is not None else "no"
    out[0] = fake.add(
        Buffer(device, size, gpu.buffer_alignment, every, types, int(info.usage), dedicated, length=int(info.size))
    )
    return 0


def vkCreateImage(fake: FakeVulkan, handle: Any, raw: Any, allocator: Any, out: Any) -> int:
    """Create an image, with the layout of the host device's images."""
    device = fake.get(handle, Device)
    info = from_c(vk.ImageCreateInfo, raw)
    chained = vk.find(info, vk.ExternalMemoryImageCreateInfo)
    types = int(chained.handle_types) if chained is not None else 0
    external = _shared_as(fake, device, "image", types)
    modifier: Modifier | None = None
    planes: list[vk.SubresourceLayout] = []
    if info.tiling == vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT:
        modifier, given = chosen(fake, device, info)
        as_linear(device.gpu, info, modifier.number, types)
    info.p_next = None
    if fake.manners.takes_sparse:
        info.flags = vk.ImageCreateFlagBits(0)
    try:
        needs = image_layouts.requirements(info)
    except ExtmemError:
        raise Refusal(_NO_FORMAT) from None
    if modifier is not None:
        needs, planes = placed(fake, info, modifier, given)
    every = device.gpu.resource_types or (1 << len(device.gpu.memory_types)) - 1
    dedicated = external.dedicated if external is not None else "no"
    image = Image(device, needs.size, needs.alignment, every, types, int(info.usage), dedicated, info=info)
    image.layout = int(info.initial_layout)
    image.modifier, image.planes = modifier.number if modifier is not None else None, planes
    out[0] = fake.add(image)
    return 0


def vkDestroyBuffer(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Destroy a buffer. NULL is ignored."""
    device = fake.get(handle, Device)
    if raw:
        fake.end(fake.get(raw, Buffer, device))


def vkDestroyImage(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Destroy an image. NULL is ignored."""
    device = fake.get(handle, Device)
    if raw:
        fake.end(fake.get(raw, Image, device))


def _require(resource: Resource, out: Any) -> None:
    needs = out.memoryRequirements
    needs.size, needs.alignment, needs.memoryTypeBits = resource.size, resource.alignment, resource.type_bits
    chain = out_chain(out)
    if _DEDICATED in chain:
        answer = ffi.cast("VkMemoryDedicatedRequirements *", chain[_DEDICATED])
        answer.prefersDedicatedAllocation = resource.dedicated != "no"
        answer.requiresDedicatedAllocation = resource.dedicated == "required"


def vkGetBufferMemoryRequirements2(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> None:
    """Return what it requires: it can be bound to every memory type, unless the `Gpu` limits them."""
    _require(fake.get(info.buffer, Buffer, fake.get(handle, Device)), out)


def vkGetImageMemoryRequirements2(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> None:
    """Return what it requires: it can be bound to every memory type, unless the `Gpu` limits them."""
    _require(fake.get(info.image, Image, fake.get(handle, Device)), out)


def vkGetImageSubresourceLayout(fake: FakeVulkan, handle: Any, raw: int, asked: Any, out: Any) -> None:
    """Return the layout of a LINEAR image or of a memory plane."""
    image = fake.get(raw, Image, fake.get(handle, Device))
    if image.planes:
        memory = to_c(plane_layout(fake, image, int(asked.aspectMask)))
        out[0] = memory.cdata[0]
        return
    try:
        layout = image_layouts.subresource_layout(image.info, from_c(vk.ImageSubresource, asked))
    except (ExtmemError, ValueError) as error:
        raise fake.wrong(str(error)) from None
    memory = to_c(layout)
    out[0] = memory.cdata[0]


def vkBindBufferMemory(fake: FakeVulkan, handle: Any, buffer: int, memory: int, offset: int) -> int:
    """Bind a buffer, which must not be bound."""
    device = fake.get(handle, Device)
    _bind(fake, fake.get(buffer, Buffer, device), fake.get(memory, Memory, device), offset)
    return 0


def vkBindImageMemory(fake: FakeVulkan, handle: Any, image: int, memory: int, offset: int) -> int:
    """Bind an image, which must not be bound."""
    device = fake.get(handle, Device)
    _bind(fake, fake.get(image, Image, device), fake.get(memory, Memory, device), offset)
    return 0


def _bind(fake: FakeVulkan, resource: Resource, memory: Memory, offset: int) -> None:
    if resource.memory is not None:
        raise fake.wrong(f"{resource} is bound twice")
    if offset % resource.alignment or offset < 0:
        fake.misuse(f"{resource} is bound at {offset}, which is not a multiple of {resource.alignment}")
    if offset + resource.size > memory.size:
        raise fake.wrong(f"{resource} of {resource.size} bytes is bound at {offset} of {memory.size}")
    if not resource.type_bits >> memory.memory_type & 1:
        fake.misuse(f"{resource} does not take memory type {memory.memory_type}")
    if resource.dedicated == "required" and memory.dedicated is not resource:
        fake.misuse(f"{resource} must have dedicated memory, and {memory} is not")
    if memory.dedicated is not None and (memory.dedicated is not resource or offset):
        fake.misuse(f"{memory} is dedicated to {memory.dedicated}, and {resource} is bound to it at {offset}")
    if memory.export_types and not memory.export_types & resource.handle_types:
        fake.misuse(f"{memory} is exported as {memory.export_types:#x}, and {resource} is not external as that")
    if memory.import_type and not memory.import_type & resource.handle_types:
        fake.misuse(f"{memory} is imported as {memory.import_type:#x}, and {resource} is not external as that")
    resource.memory, resource.offset = memory, offset
