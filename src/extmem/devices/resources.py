"""Buffers and images of a device. (msgspec creates its structs in C: every buffer has one of each.)"""

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
    """A buffer or image of a device. Ownership: destroyed by `destroy`, or when it is lost."""

    kind: Literal["buffer", "image"]
    requirements: Requirements
    raw: int = 0
    """VkBuffer or VkImage; 0 if the device needs no object for it, and once destroyed."""
    size: int = 0
    """VkBufferCreateInfo::size in bytes; 0 for images."""
    create_info: vk.BufferCreateInfo | vk.ImageCreateInfo | None = None
    """The create info of an identical one; None for what another binding created.

    For an image whose driver chose a modifier from a list, it contains the modifier and the layouts of its planes.
    """
    planes: tuple[vk.SubresourceLayout, ...] = ()
    """The layout of each memory plane of an image with a modifier; empty for every other resource."""
    bound: bool = False
    """Whether it is bound to memory."""
    memory: int = 0
    """The VkDeviceMemory that it was bound to by this library; 0 before, and if another binding bound it."""
    private: bool = False
    """Whether this library created it for its memory, and binds it at the first transfer."""
    owner: Owner | None = None
    """What destroys `raw`; None if nothing has to be destroyed."""

    @property
    def keeper(self) -> Owner:
        """`owner`, for what uses the resource. Errors: HandleStateError if there is none."""
        if self.owner is None:
            raise HandleStateError(f"this {self.kind} is destroyed; make another one")
        return self.owner

    def destroy(self) -> None:
        """vkDestroyBuffer, vkDestroyImage, when no commands use it any more. Safe to call twice."""
        self.raw = 0
        if self.owner is not None:
            self.owner.end()

    @property
    def live(self) -> int:
        """`raw`. Errors: HandleStateError once destroyed."""
        if not self.raw:
            raise HandleStateError(f"this {self.kind} is destroyed; make another one")
        return self.raw
