"""Buffers and images as a device has them. (Structs of msgspec are made in C: every buffer makes one of each.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from extmem.errors import HandleStateError

if TYPE_CHECKING:
    from extmem import vk
    from extmem.owning import Owner

__all__ = ["NativeResource", "Requirements"]


class Requirements(msgspec.Struct, frozen=True, gc=False):
    """VkMemoryRequirements2 with VkMemoryDedicatedRequirements. Sizes and alignment in bytes."""

    size: int
    alignment: int
    memory_type_bits: int
    requires_dedicated: bool = False
    prefers_dedicated: bool = False


class NativeResource(msgspec.Struct):
    """A buffer or image as its device has it. Ownership: destroyed by `Backend.destroy`, or when it is lost."""

    kind: Literal["buffer", "image"]
    requirements: Requirements
    raw: int = 0
    """VkBuffer or VkImage; 0 where the device needs no object for it, and once destroyed."""
    size: int = 0
    """VkBufferCreateInfo::size in bytes; 0 for images."""
    create_info: vk.BufferCreateInfo | vk.ImageCreateInfo | None = None
    """What the identical one is made from; None for what somebody else made.

    Of an image whose driver chose a modifier from a list, this has the modifier and where its memory planes lie.
    """
    planes: tuple[vk.SubresourceLayout, ...] = ()
    """Where each memory plane of an image with a modifier lies in its memory; empty for every other resource."""
    bound: bool = False
    """Whether it is bound to memory."""
    memory: int = 0
    """The VkDeviceMemory that it is bound to, where it was bound here; 0 before, and where another binding did it."""
    private: bool = False
    """Whether extmem made it for its memory alone, and binds it when bytes are moved."""
    owner: Owner | None = None
    """What destroys `raw`; None where nothing has to, or somebody else does."""

    @property
    def keeper(self) -> Owner:
        """`owner`, for what uses the resource. HandleStateError once destroyed, and where there is none."""
        if self.owner is None:
            raise HandleStateError(f"this {self.kind} is destroyed; make another one")
        return self.owner

    @property
    def live(self) -> int:
        """`raw`. HandleStateError once destroyed."""
        if not self.raw:
            raise HandleStateError(f"this {self.kind} is destroyed; make another one")
        return self.raw
