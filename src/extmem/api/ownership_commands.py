"""`OwnershipCommands`: the commands that acquire and release ownership of shared memory. `Commands` has them."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from extmem import rules, vk
from extmem.core.device_state import DeviceState
from extmem.core.resources import BufferObject, ImageObject, ResourceObject

__all__ = ["OwnershipCommands"]

_Access = vk.AccessFlagBits
_Stage = vk.PipelineStageFlagBits
_Layout = vk.ImageLayout
_MOVES = _Access.TRANSFER_READ | _Access.TRANSFER_WRITE


class OwnershipCommands(abc.ABC):
    """Transfers of ownership between this device, other devices, and other processes."""

    _device: DeviceState

    @abc.abstractmethod
    def _check_usable(self, resource: object, cls: Any) -> Any:
        """Return the resource, of that class, if it can be used."""

    @abc.abstractmethod
    def _barrier(
        self,
        src_stage_mask: vk.PipelineStageFlagBits,
        dst_stage_mask: vk.PipelineStageFlagBits,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
        afterwards: tuple[ResourceObject, bool] | None = None,
    ) -> Any:
        """Record a barrier. afterwards: a resource, and whether the device owns its memory then.

        Return what `_repeat` takes; None for a barrier that breaks rules.
        """

    @abc.abstractmethod
    def _repeat(self, buffer: BufferObject, recorded: Any, afterwards: tuple[ResourceObject, bool] | None) -> None:
        """Record a barrier of a buffer once more, which can be used. recorded: what `_barrier` returned."""

    def acquire(
        self,
        resource: ResourceObject,
        *,
        source: int = vk.QUEUE_FAMILY_EXTERNAL,
        old_layout: vk.ImageLayout = _Layout.GENERAL,
        new_layout: vk.ImageLayout = _Layout.GENERAL,
    ) -> None:
        """Acquire ownership from another process, API or device.

        source: VK_QUEUE_FAMILY_EXTERNAL, or VK_QUEUE_FAMILY_FOREIGN_EXT for memory of another driver.
        old_layout: for images, the layout that the release had as its `new_layout`.
        """
        self._transfer(resource, source, self._family(), _Access(0), _MOVES, old_layout, new_layout, owned=True)

    def release(
        self,
        resource: ResourceObject,
        *,
        target: int = vk.QUEUE_FAMILY_EXTERNAL,
        old_layout: vk.ImageLayout = _Layout.GENERAL,
        new_layout: vk.ImageLayout = _Layout.GENERAL,
    ) -> None:
        """Release ownership: writes of this process are visible to the user that acquires it afterwards."""
        self._transfer(resource, self._family(), target, _MOVES, _Access(0), old_layout, new_layout, owned=False)

    def change_layout(self, image: ImageObject, old_layout: vk.ImageLayout, new_layout: vk.ImageLayout) -> None:
        """Change the layout of an image without a change of owner."""
        self._check_usable(image, ImageObject)
        ignored = int(vk.QUEUE_FAMILY_IGNORED)
        self._transfer(image, ignored, ignored, _MOVES, _MOVES, old_layout, new_layout)

    def _family(self) -> int:
        facts = self._device.backend.queue_facts
        return facts.queue_family if facts is not None else 0

    def _transfer(
        self,
        resource: ResourceObject,
        source: int,
        target: int,
        before: vk.AccessFlagBits,
        after: vk.AccessFlagBits,
        old_layout: vk.ImageLayout,
        new_layout: vk.ImageLayout,
        *,
        owned: bool | None = None,
    ) -> None:
        """Record a barrier. owned: whether this device owns the memory afterwards; None if the owner stays the same.

        The barrier of a buffer is always the same, so the rules are checked for the first one alone.
        """
        afterwards = None if owned is None else (resource, owned)
        if isinstance(resource, BufferObject):
            known = resource.transfers.get((source, target))
            if known is not None and self._check_usable(resource, BufferObject) is resource:
                self._repeat(resource, known, afterwards)
                return
        buffers: list[vk.BufferMemoryBarrier] = []
        images: list[vk.ImageMemoryBarrier] = []
        if isinstance(resource, ImageObject):
            whole = rules.whole_range(resource.create_info)
            images = [vk.ImageMemoryBarrier(before, after, old_layout, new_layout, source, target, resource, whole)]
        else:
            buffers = [vk.BufferMemoryBarrier(before, after, source, target, resource, 0, int(vk.WHOLE_SIZE))]
        stage = _Stage.TRANSFER if before == after else _Stage.ALL_COMMANDS
        recorded = self._barrier(stage, stage, (), buffers, images, afterwards)
        if isinstance(resource, BufferObject) and recorded is not None:
            resource.transfers[source, target] = recorded
