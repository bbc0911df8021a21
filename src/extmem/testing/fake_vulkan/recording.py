"""Commands that are recorded: barriers that transfer ownership, fills, copies, and clears of images.

How this works. Recording reads the arguments, whose memory belongs to the caller, and keeps a function; vkQueueSubmit
runs it. Only then it is determined which objects are alive, bound and owned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from extmem import vk
from extmem.testing.fake_vulkan.objects import Buffer, CommandBuffer, Image, Memory, Resource
from extmem.testing.fake_vulkan.texels import Region, rows, texels
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

R = TypeVar("R", bound=Resource)
_Layout = vk.ImageLayout
_EXTERNAL, _FOREIGN = int(vk.QUEUE_FAMILY_EXTERNAL), int(vk.QUEUE_FAMILY_FOREIGN_EXT)
_IGNORED = 0xFFFF_FFFF
_OUTSIDE = (_EXTERNAL, _FOREIGN)
_WHOLE = int(vk.WHOLE_SIZE)
_B, _I = vk.BufferUsageFlagBits, vk.ImageUsageFlagBits
_COPY_FROM = (int(_Layout.GENERAL), int(_Layout.TRANSFER_SRC_OPTIMAL))
_COPY_TO = (int(_Layout.GENERAL), int(_Layout.TRANSFER_DST_OPTIMAL))


def _record(fake: FakeVulkan, handle: Any, uses: list[Resource], work: Callable[[], None]) -> None:
    buffer = fake.get(handle, CommandBuffer)
    if buffer.state != "recording":
        raise fake.wrong(f"a command is recorded to {buffer}, which is {buffer.state}")
    for resource in uses:
        buffer.uses.add(resource)
        if resource.memory is not None:
            buffer.uses.add(resource.memory)
    buffer.work.append(work)


def _resource(fake: FakeVulkan, handle: Any, raw: int, kind: type[R], usage: int) -> R:
    device = fake.get(handle, CommandBuffer).parent.parent
    found = fake.get(raw, kind, device)
    if not found.usage & usage and usage:
        fake.misuse(f"{found} has usage {found.usage:#x}, which lacks {usage:#x}")
    return found


def _memory(fake: FakeVulkan, resource: Resource) -> Memory:
    """Return the memory of a resource that is used; a misuse unless it is alive and owned by this device."""
    fake.get(resource.number, type(resource))
    if resource.memory is None:
        raise fake.wrong(f"{resource} is used, and is bound to nothing")
    memory = fake.get(resource.memory.number, Memory)
    if memory.external and not memory.ours:
        fake.misuse(f"{resource} is used, and {memory} is owned by VK_QUEUE_FAMILY_EXTERNAL: it was not acquired")
    return memory


def vkCmdPipelineBarrier(
    fake: FakeVulkan,
    handle: Any,
    before: int,
    after: int,
    flags: int,
    memory_count: int,
    memories: Any,
    buffer_count: int,
    buffers: Any,
    image_count: int,
    pictures: Any,
) -> None:
    """Record transfers of ownership and layout. Memory dependencies need nothing, because work runs in order."""
    if not before or not after:
        fake.misuse(f"a barrier with stages {before:#x} and {after:#x}")
    moves: list[tuple[Resource, int, int, int, int]] = []
    for barrier in buffers[0:buffer_count] if buffer_count else ():
        buffer = _resource(fake, handle, barrier.buffer, Buffer, 0)
        if barrier.size != _WHOLE and barrier.offset + barrier.size > buffer.length:
            fake.misuse(f"a barrier for {barrier.size} bytes from {barrier.offset} of {buffer}")
        moves.append((buffer, int(barrier.srcQueueFamilyIndex), int(barrier.dstQueueFamilyIndex), 0, 0))
    for barrier in pictures[0:image_count] if image_count else ():
        image = _resource(fake, handle, barrier.image, Image, 0)
        families = int(barrier.srcQueueFamilyIndex), int(barrier.dstQueueFamilyIndex)
        moves.append((image, *families, int(barrier.oldLayout), int(barrier.newLayout)))
    family = fake.get(handle, CommandBuffer).parent.family

    def work() -> None:
        for resource, source, target, old, new in moves:
            _transfer_ownership(fake, resource, source, target, family)
            if isinstance(resource, Image):
                _change_layout(fake, resource, old, new, acquired=source in _OUTSIDE)

    _record(fake, handle, [resource for resource, *_ in moves], work)


def _transfer_ownership(fake: FakeVulkan, resource: Resource, source: int, target: int, family: int) -> None:
    """Run one ownership transfer."""
    if source == target or (_IGNORED in (source, target) and not {source, target} & set(_OUTSIDE)):
        return
    fake.get(resource.number, type(resource))
    memory = resource.memory
    if memory is None:
        raise fake.wrong(f"the ownership of {resource} is transferred, and it is bound to nothing")
    fake.get(memory.number, Memory)
    if not memory.external:
        fake.misuse(f"the ownership of {resource} is transferred outside the device, and {memory} is not shared")
    inside = {source, target} - set(_OUTSIDE)
    if inside != {family}:
        fake.misuse(f"a transfer from family {source:#x} to {target:#x} on a queue of family {family}")
    if source in _OUTSIDE:
        memory.ours = True
    elif not memory.ours:
        fake.misuse(f"{resource} is released, and was not acquired")
    else:
        memory.ours = False


def _change_layout(fake: FakeVulkan, image: Image, old: int, new: int, *, acquired: bool) -> None:
    if not acquired and old not in (int(_Layout.UNDEFINED), image.layout):
        fake.misuse(f"a barrier states that {image} has layout {old}, and it has {image.layout}")
    image.layout = new


def vkCmdFillBuffer(fake: FakeVulkan, handle: Any, raw: int, offset: int, size: int, value: int) -> None:
    """Record a fill of whole 32-bit words."""
    buffer = _resource(fake, handle, raw, Buffer, int(_B.TRANSFER_DST))
    length = (buffer.length - offset) & ~3 if size == _WHOLE else size
    if offset % 4 or length % 4 or length <= 0 or offset + length > buffer.length:
        raise fake.wrong(f"{size} bytes from {offset} of {buffer} ({buffer.length}) are filled")

    def work() -> None:
        memory = _memory(fake, buffer)
        memory.payload.write(buffer.offset + offset, value.to_bytes(4, "little") * (length // 4))

    _record(fake, handle, [buffer], work)


def vkCmdCopyBuffer(fake: FakeVulkan, handle: Any, source: int, target: int, count: int, regions: Any) -> None:
    """Record a copy of regions that are inside both buffers."""
    first = _resource(fake, handle, source, Buffer, int(_B.TRANSFER_SRC))
    second = _resource(fake, handle, target, Buffer, int(_B.TRANSFER_DST))
    moves = [(int(r.srcOffset), int(r.dstOffset), int(r.size)) for r in regions[0:count]]
    for start, at, size in moves:
        if not size or start + size > first.length or at + size > second.length:
            raise fake.wrong(f"{size} bytes from {start} of {first} are copied to {at} of {second}")
        if first is second and abs(start - at) < size:
            fake.misuse(f"{first} is copied onto itself, overlapping")

    def work() -> None:
        origin, destination = _memory(fake, first), _memory(fake, second)
        for start, at, size in moves:
            destination.payload.write(second.offset + at, origin.payload.read(first.offset + start, size))

    _record(fake, handle, [first, second], work)


def vkCmdCopyBufferToImage(
    fake: FakeVulkan, handle: Any, source: int, target: int, layout: int, count: int, regions: Any
) -> None:
    """Record a copy of regions, row by row."""
    buffer = _resource(fake, handle, source, Buffer, int(_B.TRANSFER_SRC))
    image = _resource(fake, handle, target, Image, int(_I.TRANSFER_DST))
    areas = [Region.read(region) for region in regions[0:count]]

    def work() -> None:
        origin, destination = _memory(fake, buffer), _memory(fake, image)
        _check_layout(fake, image, layout, _COPY_TO)
        for begin, at, size in _rows_inside(fake, buffer, image, areas):
            destination.payload.write(image.offset + at, origin.payload.read(buffer.offset + begin, size))

    _record(fake, handle, [buffer, image], work)


def vkCmdCopyImageToBuffer(
    fake: FakeVulkan, handle: Any, source: int, layout: int, target: int, count: int, regions: Any
) -> None:
    """Record a copy of regions, row by row."""
    image = _resource(fake, handle, source, Image, int(_I.TRANSFER_SRC))
    buffer = _resource(fake, handle, target, Buffer, int(_B.TRANSFER_DST))
    areas = [Region.read(region) for region in regions[0:count]]

    def work() -> None:
        origin, destination = _memory(fake, image), _memory(fake, buffer)
        _check_layout(fake, image, layout, _COPY_FROM)
        for begin, at, size in _rows_inside(fake, buffer, image, areas):
            destination.payload.write(buffer.offset + begin, origin.payload.read(image.offset + at, size))

    _record(fake, handle, [buffer, image], work)


def vkCmdClearColorImage(
    fake: FakeVulkan, handle: Any, raw: int, layout: int, color: Any, count: int, ranges: Any
) -> None:
    """Record a clear of an image; a UNORM colour is rounded to 8-bit components."""
    image = _resource(fake, handle, raw, Image, int(_I.TRANSFER_DST))
    one = bytes(ffi.buffer(color)[:])
    areas = [
        (int(r.baseMipLevel), int(r.levelCount), int(r.baseArrayLayer), int(r.layerCount)) for r in ranges[0:count]
    ]

    def work() -> None:
        memory = _memory(fake, image)
        _check_layout(fake, image, layout, _COPY_TO)
        for at, data in texels(image, one, areas):
            memory.payload.write(image.offset + at, data)

    _record(fake, handle, [image], work)


def _check_layout(fake: FakeVulkan, image: Image, layout: int, allowed: tuple[int, int]) -> None:
    if layout not in allowed or layout != image.layout:
        fake.misuse(f"{image} is used in layout {layout}, and has layout {image.layout}")


def _rows_inside(fake: FakeVulkan, buffer: Buffer, image: Image, regions: list[Region]) -> list[tuple[int, int, int]]:
    """Return the rows of the regions; a misuse if one is not inside the buffer and the image."""
    copied = [row for region in regions for row in rows(image, region)]
    for begin, at, size in copied:
        if begin + size > buffer.length or at + size > image.size:
            raise fake.wrong(f"a copy between {buffer} at {begin} and {image} at {at} reaches outside")
    return copied
