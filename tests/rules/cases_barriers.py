"""Cases: barriers on buffers and images, in both versions, and the commands that contain them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import DeviceFacts, ResourceFacts, Violation
from tests.rules.world import MODERN, PLAIN, buffer, buffer_info, case, image, image_info, on_whole

IGNORED, EXTERNAL, FOREIGN = vk.QUEUE_FAMILY_IGNORED, vk.QUEUE_FAMILY_EXTERNAL, vk.QUEUE_FAMILY_FOREIGN_EXT
SHARED = {"sharing_mode": vk.SharingMode.CONCURRENT, "queue_family_indices": (0, 1)}
OURS_BUFFER, OURS_IMAGE = buffer(), image()
SHARED_BUFFER, SHARED_IMAGE = buffer(buffer_info(**SHARED)), image(image_info(**SHARED))

Pass = Callable[..., list[Violation]]


def buffer_barrier(struct: Any) -> Pass:
    """One barrier from one queue family to another, on an exclusive buffer unless the arguments differ."""

    def check(src: int, dst: int, device: DeviceFacts = MODERN, of: ResourceFacts | None = OURS_BUFFER) -> Any:
        info = on_whole(struct, src_queue_family_index=src, dst_queue_family_index=dst)
        return rules.check_buffer_memory_barrier(info, of, device)

    return check


def image_barrier(struct: Any) -> Pass:
    """One barrier from one queue family to another, on an exclusive image unless the arguments differ."""

    def check(src: int, dst: int, device: DeviceFacts = MODERN, of: ResourceFacts | None = OURS_IMAGE) -> Any:
        info = on_whole(struct, src_queue_family_index=src, dst_queue_family_index=dst)
        return rules.check_image_memory_barrier(info, of, device)

    return check


def enter(name: str, move: Pass, source: str, destination: str) -> None:
    """The cases that all four structures have in common."""
    early = replace(PLAIN, extensions=frozenset({"VK_KHR_external_memory"}))
    case(f"{name}-{source}", lambda: move(3, 0), lambda: move(2, 0))
    case(f"{name}-{destination}", lambda: move(0, IGNORED), lambda: move(0, EXTERNAL))
    case(f"{name}-None-09097", lambda: move(EXTERNAL, 0, PLAIN), lambda: move(EXTERNAL, 0, early))
    case(f"{name}-None-09098", lambda: move(0, EXTERNAL, PLAIN), lambda: move(0, EXTERNAL, MODERN))
    case(f"{name}-srcQueueFamilyIndex-09099", lambda: move(FOREIGN, 0, early), lambda: move(FOREIGN, 0, MODERN))
    case(f"{name}-dstQueueFamilyIndex-09100", lambda: move(0, FOREIGN, early), lambda: move(0, FOREIGN, MODERN))


def enter_concurrent(name: str, move: Pass, of: ResourceFacts, ids: Sequence[str]) -> None:
    """The cases of concurrent resources, which the first version of the structures has."""
    old = replace(MODERN, synchronization2=False)
    neither, source, destination = (f"{name}-None-{number}" for number in ids)
    case(neither, lambda: move(EXTERNAL, EXTERNAL, old, of), lambda: move(IGNORED, EXTERNAL, old, of))
    case(source, lambda: move(0, IGNORED, old, of), lambda: move(EXTERNAL, IGNORED, old, of))
    case(destination, lambda: move(IGNORED, FOREIGN, old, of), lambda: move(IGNORED, FOREIGN, MODERN, of))


_buffer, _buffer2 = buffer_barrier(vk.BufferMemoryBarrier), buffer_barrier(vk.BufferMemoryBarrier2)
_image, _image2 = image_barrier(vk.ImageMemoryBarrier), image_barrier(vk.ImageMemoryBarrier2)
enter("VkBufferMemoryBarrier", _buffer, "buffer-09095", "buffer-09096")
enter("VkBufferMemoryBarrier2", _buffer2, "buffer-09095", "buffer-09096")
enter("VkImageMemoryBarrier", _image, "image-09117", "image-09118")
enter("VkImageMemoryBarrier2", _image2, "image-09117", "image-09118")
enter_concurrent("VkBufferMemoryBarrier", _buffer, SHARED_BUFFER, ("09049", "09050", "09051"))
enter_concurrent("VkImageMemoryBarrier", _image, SHARED_IMAGE, ("09052", "09053", "09054"))


def record(src: int, dst: int, family: int | None, of: ResourceFacts | None = OURS_BUFFER) -> list[Violation]:
    """A vkCmdPipelineBarrier with one buffer barrier, in a command buffer for this queue family."""
    info = on_whole(vk.BufferMemoryBarrier, src_queue_family_index=src, dst_queue_family_index=dst)
    return rules.check_pipeline_barrier([info], [], MODERN, buffers=[of], recording_family=family)


def record2(src: int, dst: int, family: int | None, of: ResourceFacts | None = OURS_IMAGE) -> list[Violation]:
    """A vkCmdPipelineBarrier2 with one image barrier, in a command buffer for this queue family."""
    info = on_whole(vk.ImageMemoryBarrier2, src_queue_family_index=src, dst_queue_family_index=dst)
    held = vk.DependencyInfo(image_memory_barriers=[info])
    return rules.check_pipeline_barrier2(held, MODERN, images=[of], recording_family=family)


case("vkCmdPipelineBarrier-srcQueueFamilyIndex-10388", lambda: record(0, 1, 2), lambda: record(0, 1, 1))
case(
    "vkCmdPipelineBarrier2-srcQueueFamilyIndex-10387",
    lambda: record2(EXTERNAL, FOREIGN, 0),
    lambda: record2(EXTERNAL, 0, 0),
)
