"""`Commands`: a few commands for a device's queue, enough to fill, copy and read back what is shared.

How this works. `with device.commands() as commands:` collects calls; each is judged when it is made, and all are
recorded, submitted and waited for when the block ends. After an exception in the block nothing is submitted.

Whatever a command uses is held from the call on until the commands are done, so that a buffer that is closed in between
is destroyed afterwards.

Memory that other processes use belongs to VK_QUEUE_FAMILY_EXTERNAL while nobody here uses it. `acquire` takes a buffer
or image over, `release` gives it back; both halves are needed for others to see what was written, and to see theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from extmem import rules, vk
from extmem.devices.base import ImageRegion
from extmem.errors import HandleStateError
from extmem.memory.resources import Buffer, Image, Resource
from extmem.owning import Lock, Uses

if TYPE_CHECKING:
    from extmem.devices.base import Recorder
    from extmem.memory.device import Device
    from extmem.memory.holding import Holding

__all__ = ["Commands"]

_Access = vk.AccessFlagBits
_Stage = vk.PipelineStageFlagBits
_Layout = vk.ImageLayout
_MOVES = _Access.TRANSFER_READ | _Access.TRANSFER_WRITE
_WORD = 1 << 32


class Commands:
    """Commands of one submission. Made by `Device.commands`; of use inside its `with` block only.

    Commands run in order, and each sees what the ones before it wrote. Offsets and sizes are in bytes.
    Errors of all: HandleStateError for resources that are destroyed, unbound or of another device, and outside the
    block; RuleViolation (as the device's `check` says); at the block's end DriverError, OutOfMemoryError,
    UnsupportedError for what the device lacks.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._recorded: list[Callable[[Recorder], None]] = []
        self._after: list[tuple[Holding, bool]] = []
        self._open = False
        self._lock = Lock()
        self._uses = Uses()
        """What the commands use is not given back until they are done."""

    def __enter__(self) -> Self:
        with self._lock:
            if self._open:
                raise HandleStateError("these commands are being recorded already; get others with device.commands()")
            self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        mine = False
        try:
            with self._lock:
                mine, self._open = self._open, False  # another thread may end the block, too
            if mine and kind is None and self._recorded:
                self._device.driver.submit(self._record, self._uses)
                for holding, here in self._after:
                    self._device.driver.note_owner(holding.allocation, here=here)
        finally:
            if mine:
                self._recorded.clear()
                self._after.clear()
                self._uses.end()

    def _record(self, recorder: Recorder) -> None:
        for command in self._recorded:
            command(recorder)

    # Ownership.

    def acquire(
        self,
        resource: Resource,
        *,
        source: int = vk.QUEUE_FAMILY_EXTERNAL,
        old_layout: vk.ImageLayout = _Layout.GENERAL,
        new_layout: vk.ImageLayout = _Layout.GENERAL,
    ) -> None:
        """Take ownership over from another process, API or device. Images: `old_layout` is the releaser's new one.

        source: VK_QUEUE_FAMILY_EXTERNAL, or VK_QUEUE_FAMILY_FOREIGN_EXT for other drivers' memory.
        """
        self._transfer(resource, source, self._family(), _Access(0), _MOVES, old_layout, new_layout, here=True)

    def release(
        self,
        resource: Resource,
        *,
        target: int = vk.QUEUE_FAMILY_EXTERNAL,
        old_layout: vk.ImageLayout = _Layout.GENERAL,
        new_layout: vk.ImageLayout = _Layout.GENERAL,
    ) -> None:
        """Give ownership away: what was written here is visible to whoever acquires it."""
        self._transfer(resource, self._family(), target, _MOVES, _Access(0), old_layout, new_layout, here=False)

    def change_layout(self, image: Image, old_layout: vk.ImageLayout, new_layout: vk.ImageLayout) -> None:
        """An image layout transition, without a change of owner."""
        ignored = int(vk.QUEUE_FAMILY_IGNORED)
        self._transfer(image, ignored, ignored, _MOVES, _MOVES, old_layout, new_layout)

    def _family(self) -> int:
        facts = self._device.driver.queue_facts
        return facts.queue_family if facts is not None else 0

    def _transfer(
        self,
        resource: Resource,
        source: int,
        target: int,
        before: vk.AccessFlagBits,
        after: vk.AccessFlagBits,
        old_layout: vk.ImageLayout,
        new_layout: vk.ImageLayout,
        *,
        here: bool | None = None,
    ) -> None:
        """A barrier around a resource. here: who owns its memory afterwards; None where that stays as it is."""
        buffers: list[vk.BufferMemoryBarrier] = []
        images: list[vk.ImageMemoryBarrier] = []
        if isinstance(resource, Image):
            whole = vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 0xFFFF_FFFF, 0, 0xFFFF_FFFF)
            images = [
                vk.ImageMemoryBarrier(before, after, old_layout, new_layout, int(source), int(target), resource, whole)
            ]
        else:
            buffers = [vk.BufferMemoryBarrier(before, after, int(source), int(target), resource, 0, int(vk.WHOLE_SIZE))]
        border = _Stage.TRANSFER if before == after else _Stage.ALL_COMMANDS
        self._barrier(border, border, (), buffers, images, None if here is None else (resource, here))

    def pipeline_barrier(
        self,
        src_stage_mask: vk.PipelineStageFlagBits,
        dst_stage_mask: vk.PipelineStageFlagBits,
        *,
        memory_barriers: Sequence[vk.MemoryBarrier] = (),
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier] = (),
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier] = (),
    ) -> None:
        """vkCmdPipelineBarrier, word for word; the barriers' `buffer` and `image` are resources of this device."""
        self._barrier(
            src_stage_mask, dst_stage_mask, memory_barriers, buffer_memory_barriers, image_memory_barriers, None
        )

    def _barrier(
        self,
        src_stage_mask: vk.PipelineStageFlagBits,
        dst_stage_mask: vk.PipelineStageFlagBits,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
        afterwards: tuple[Resource, bool] | None,
    ) -> None:
        buffers = [self._usable(barrier.buffer, Buffer) for barrier in buffer_memory_barriers]
        images = [self._usable(barrier.image, Image) for barrier in image_memory_barriers]
        device = self._device
        facts = device.driver.queue_facts
        found = rules.check_pipeline_barrier(
            buffer_memory_barriers,
            image_memory_barriers,
            device.facts,
            buffers=[buffer.facts for buffer in buffers],
            images=[image.facts for image in images],
            recording_family=facts.queue_family if facts is not None else None,
        )
        device.report(found, "vkCmdPipelineBarrier")
        self._add(
            lambda recorder: recorder.pipeline_barrier(
                int(src_stage_mask),
                int(dst_stage_mask),
                memory_barriers,
                buffer_memory_barriers,
                image_memory_barriers,
            ),
            *buffers,
            *images,
            afterwards=afterwards,
        )

    # Bytes.

    def fill_buffer(self, buffer: Buffer, word: int, *, offset: int = 0, size: int | None = None) -> None:
        """vkCmdFillBuffer with a 32-bit word. Offset and size are multiples of 4; None fills to the end."""
        self._usable(buffer, Buffer)
        count = (buffer.size - offset) // 4 * 4 if size is None else size
        if offset % 4 or count % 4 or not 0 <= word < _WORD:
            raise ValueError(f"offset {offset} and size {count} must be multiples of 4, and word {word:#x} of 32 bits")
        _inside(buffer, offset, count)
        native = buffer.native
        self._add(lambda recorder: recorder.fill_buffer(native, offset, count, word), buffer)

    def copy_buffer(
        self,
        source: Buffer,
        target: Buffer,
        *,
        source_offset: int = 0,
        target_offset: int = 0,
        size: int | None = None,
    ) -> None:
        """vkCmdCopyBuffer of `size` bytes; None copies as much as both have."""
        for buffer in (source, target):
            self._usable(buffer, Buffer)
        count = min(source.size - source_offset, target.size - target_offset) if size is None else size
        _inside(source, source_offset, count)
        _inside(target, target_offset, count)
        first, second = source.native, target.native
        self._add(
            lambda recorder: recorder.copy_buffer(first, source_offset, second, target_offset, count), source, target
        )

    def copy_buffer_to_image(
        self,
        buffer: Buffer,
        image: Image,
        *,
        layout: vk.ImageLayout = _Layout.GENERAL,
        buffer_offset: int = 0,
        mip_level: int = 0,
        array_layer: int = 0,
    ) -> None:
        """vkCmdCopyBufferToImage of one whole mip level and layer; texel rows lie tightly packed in the buffer.

        layout: the image's at this time, GENERAL or TRANSFER_DST_OPTIMAL.
        """
        region = self._region(buffer, image, buffer_offset, mip_level, array_layer)
        first, second = buffer.native, image.native
        self._add(lambda recorder: recorder.copy_buffer_to_image(first, second, int(layout), region), buffer, image)

    def copy_image_to_buffer(
        self,
        image: Image,
        buffer: Buffer,
        *,
        layout: vk.ImageLayout = _Layout.GENERAL,
        buffer_offset: int = 0,
        mip_level: int = 0,
        array_layer: int = 0,
    ) -> None:
        """vkCmdCopyImageToBuffer of one whole mip level and layer; `layout` is GENERAL or TRANSFER_SRC_OPTIMAL."""
        region = self._region(buffer, image, buffer_offset, mip_level, array_layer)
        first, second = image.native, buffer.native
        self._add(lambda recorder: recorder.copy_image_to_buffer(first, int(layout), second, region), image, buffer)

    def clear_color_image(
        self, image: Image, color: Sequence[float], *, layout: vk.ImageLayout = _Layout.GENERAL
    ) -> None:
        """vkCmdClearColorImage of all levels and layers to four floats (red, green, blue, alpha)."""
        self._usable(image, Image)
        if len(color) != 4:
            raise ValueError(f"a color has four parts, and this has {len(color)}: {color!r}")
        native, parts = image.native, tuple(color)
        self._add(lambda recorder: recorder.clear_color_image(native, int(layout), parts), image)

    # Shared by the above.

    def _region(
        self, buffer: Buffer, image: Image, buffer_offset: int, mip_level: int, array_layer: int
    ) -> ImageRegion:
        self._usable(buffer, Buffer)
        self._usable(image, Image)
        info = image.create_info
        if not (0 <= mip_level < info.mip_levels and 0 <= array_layer < info.array_layers):
            raise ValueError(
                f"the image has {info.mip_levels} mip levels and {info.array_layers} layers; there is no level "
                f"{mip_level} of layer {array_layer}"
            )
        whole = (info.extent.width, info.extent.height, info.extent.depth)
        extent = tuple(max(1, length >> mip_level) for length in whole)
        _inside(buffer, buffer_offset, 1)
        return ImageRegion(buffer_offset, mip_level, array_layer, extent=(extent[0], extent[1], extent[2]))

    def _usable(self, resource: object, kind: type[Resource]) -> Resource:
        if not isinstance(resource, kind):
            raise TypeError(f"{resource!r} is no {kind.__name__}: pass what Device.create_{kind.__name__.lower()} gave")
        if resource.closed or resource.memory is None or resource.device is not self._device:
            state = (
                "destroyed"
                if resource.closed
                else "bound to no memory"
                if resource.memory is None
                else f"of another device ({resource.device.name})"
            )
            raise HandleStateError(f"this {kind.__name__.lower()} is {state}; bind it to memory of this device first")
        return resource

    @staticmethod
    def _memory_of(resource: Resource) -> Holding:
        memory = resource.memory
        if memory is None:
            raise resource.gone()
        return memory.holding

    def _add(
        self,
        command: Callable[[Recorder], None],
        *used: Resource,
        afterwards: tuple[Resource, bool] | None = None,
    ) -> None:
        """Record a command. used: what it uses. afterwards: whose memory this device owns then, or not any more."""
        with self._lock:
            if not self._open:
                raise HandleStateError("commands are recorded inside `with device.commands() as commands:` only")
            for resource in used:
                self._uses.add(resource)
                self._uses.add(self._memory_of(resource))
            self._recorded.append(command)
            if afterwards is not None:
                resource, here = afterwards
                self._after.append((self._memory_of(resource), here))


def _inside(buffer: Buffer, offset: int, size: int) -> None:
    if offset < 0 or size < 0 or offset + size > buffer.size:
        raise ValueError(f"{size} bytes from offset {offset} reach outside the buffer of {buffer.size} bytes")
