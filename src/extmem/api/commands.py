"""`Commands`: a few commands for a device's queue, enough to fill, copy and read back what is shared.

How this works. `with device.commands() as commands:` collects calls; each is judged when it is made, and all are
recorded, submitted and waited for when the block ends. After an exception in the block nothing is submitted.

A call takes all values out of its arguments: what the program does to these afterwards changes nothing. Whatever a
command uses, resources and memory, is held from the call on until the commands are done, so that a buffer that is
closed in between is destroyed afterwards.

What would reach outside a resource is refused whatever the device's `check` is: a driver would end the process, or
take other bytes of it. The layouts of images are judged twice, when a command is recorded and when all are submitted,
for other commands may have changed them in between.

Memory that other processes use belongs to VK_QUEUE_FAMILY_EXTERNAL while nobody here uses it. `acquire` takes a buffer
or image over, `release` gives it back; both halves are needed for others to see what was written, and to see theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from extmem import rules, vk
from extmem.core.command_arguments import check_structs, each, number, own_structs, region, rest
from extmem.core.command_state import LayingOut, Steps, barrier_step, buffer_step, reads, whole_step, writes
from extmem.core.placement import place_of
from extmem.core.resources import BufferObject, ImageObject, ResourceObject
from extmem.errors import HandleStateError, RuleViolation
from extmem.handles.process_id import current_process
from extmem.owning import Lock, Uses

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_record import MemoryRecord
    from extmem.devices.backend import Recorder
    from extmem.devices.types import ImageRegion

__all__ = ["Commands"]

R = TypeVar("R", bound=ResourceObject)
_Access = vk.AccessFlagBits
_Stage = vk.PipelineStageFlagBits
_Layout = vk.ImageLayout
_MOVES = _Access.TRANSFER_READ | _Access.TRANSFER_WRITE
_WORD = 1 << 32


class Commands:
    """Commands of one submission. Made by `Device.commands`; of use inside its `with` block only.

    Commands run in order, and each sees what the ones before it wrote. Offsets and sizes are in bytes.
    Errors of all: HandleStateError for resources that are destroyed, unbound, of another device, or bound to memory
    that is closed, outside the block, and in a forked child; AccessDeniedError for what would write to read-only
    memory; RuleViolation as the device's `check` says, and always for what would reach outside a resource; at the
    block's end DriverError, OutOfMemoryError, UnsupportedError for what the device lacks.
    """

    def __init__(self, device: DeviceState) -> None:
        self._device = device
        self._recorded: list[Callable[[Recorder], None]] = []
        self._after: list[tuple[MemoryRecord, bool]] = []
        self._open = False
        self._pid = current_process.pid
        self._lock = Lock()
        self._uses = Uses()
        """What the commands use is not given back until they are done."""
        self._layouts = LayingOut()

    def __enter__(self) -> Self:
        self._check_process()
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
                self._check_process()
                if self._device.check != "off":
                    for command, violations in self._layouts.judged_again():
                        self._device.report(violations, command)
                owners = [(record.allocation, here) for record, here in self._after]
                with self._layouts.submitting():
                    self._device.backend.submit(self._record, self._uses, owners)
        finally:
            if mine:
                self._recorded.clear()
                self._after.clear()
                self._layouts.clear()
                self._uses.end()

    def _check_process(self) -> None:
        if self._pid != current_process.pid:
            raise HandleStateError(
                f"these commands belong to process {self._pid}, and this is its forked child "
                f"{current_process.pid}; start children with spawn and open the device there"
            )

    def _record(self, recorder: Recorder) -> None:
        for command in self._recorded:
            command(recorder)

    # Ownership.

    def acquire(
        self,
        resource: ResourceObject,
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
        resource: ResourceObject,
        *,
        target: int = vk.QUEUE_FAMILY_EXTERNAL,
        old_layout: vk.ImageLayout = _Layout.GENERAL,
        new_layout: vk.ImageLayout = _Layout.GENERAL,
    ) -> None:
        """Give ownership away: what was written here is visible to whoever acquires it."""
        self._transfer(resource, self._family(), target, _MOVES, _Access(0), old_layout, new_layout, here=False)

    def change_layout(self, image: ImageObject, old_layout: vk.ImageLayout, new_layout: vk.ImageLayout) -> None:
        """An image layout transition, without a change of owner."""
        self._usable(image, ImageObject)
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
        here: bool | None = None,
    ) -> None:
        """A barrier around a resource. here: who owns its memory afterwards; None where that stays as it is."""
        buffers: list[vk.BufferMemoryBarrier] = []
        images: list[vk.ImageMemoryBarrier] = []
        if isinstance(resource, ImageObject):
            whole = rules.whole_range(resource.create_info)
            images = [vk.ImageMemoryBarrier(before, after, old_layout, new_layout, source, target, resource, whole)]
        else:
            buffers = [vk.BufferMemoryBarrier(before, after, source, target, resource, 0, int(vk.WHOLE_SIZE))]
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
        """vkCmdPipelineBarrier; the barriers' `buffer` and `image` are resources of this device.

        What it names is recorded as it is, and besides it is ordered with the transfers before and after it.
        """
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
        afterwards: tuple[ResourceObject, bool] | None,
    ) -> None:
        device = self._device
        masks = number(src_stage_mask, "src_stage_mask"), number(dst_stage_mask, "dst_stage_mask")
        memories = own_structs(memory_barriers)
        of_buffers = own_structs(buffer_memory_barriers)
        of_images = own_structs(image_memory_barriers)
        buffers = [self._usable(getattr(one, "buffer", one), BufferObject) for one in each(of_buffers)]
        images = [self._usable(getattr(one, "image", one), ImageObject) for one in each(of_images)]
        facts = device.backend.queue_facts
        found = rules.check_pipeline_barrier(
            of_buffers,
            of_images,
            device.facts,
            buffers=[buffer.facts for buffer in buffers],
            images=[image.facts for image in images],
            recording_family=facts.queue_family if facts is not None else None,
            stage_masks=masks,
            memory_barriers=memories,
        )
        steps: list[tuple[ResourceObject, rules.Step | rules.Use]] = []
        if not found:
            for index, (buffer, about) in enumerate(zip(buffers, of_buffers, strict=True)):
                where = f"vkCmdPipelineBarrier.buffer_memory_barriers[{index}]"
                steps += buffer_step(buffer, about, self._family(), where)
            for index, (image, one) in enumerate(zip(images, of_images, strict=True)):
                where = f"vkCmdPipelineBarrier.image_memory_barriers[{index}]"
                steps.append((image, barrier_step(image, one, device.facts, self._family(), where)))
        self._judge(found, "vkCmdPipelineBarrier", steps)
        for given, kind in ((memories, vk.MemoryBarrier), (of_buffers, vk.BufferMemoryBarrier)):
            check_structs(given, kind)
        check_structs(of_images, vk.ImageMemoryBarrier)
        for image, about_image in zip(images, of_images, strict=True):
            if about_image.old_layout != about_image.new_layout:
                self._check_writable(image, "change the layout of an image in")
        # The recorded ones have numbers in place of the objects.
        for buffer, about_buffer in zip(buffers, of_buffers, strict=True):
            about_buffer.buffer = buffer.native.raw
        for image, about_image in zip(images, of_images, strict=True):
            about_image.image = image.native.raw
        self._add(
            lambda recorder: recorder.pipeline_barrier(*masks, memories, of_buffers, of_images),
            *buffers,
            *images,
            steps=steps,
            afterwards=afterwards,
        )

    # Bytes.

    def fill_buffer(self, buffer: BufferObject, word: int, *, offset: int = 0, size: int | None = None) -> None:
        """vkCmdFillBuffer with a 32-bit word. Offset and size are multiples of 4; None fills to the end."""
        self._written(buffer, BufferObject, "fill")
        start, value = number(offset, "offset"), number(word, "word")
        count = rest((buffer.size, start), whole=4) if size is None else number(size, "size")
        if not 0 <= value < _WORD:
            raise ValueError(f"word is {value:#x}, and it takes 32 bits: 0 to {_WORD - 1:#x}")
        steps = [writes(buffer, "vkCmdFillBuffer.buffer")]
        self._judge(rules.check_fill_buffer(buffer.facts, start, count, self._device.facts), "vkCmdFillBuffer", steps)
        native = buffer.native
        self._add(lambda recorder: recorder.fill_buffer(native, start, count, value), buffer, steps=steps)

    def copy_buffer(
        self,
        source: BufferObject,
        target: BufferObject,
        *,
        source_offset: int = 0,
        target_offset: int = 0,
        size: int | None = None,
    ) -> None:
        """vkCmdCopyBuffer of `size` bytes; None copies as much as both have.

        The two may not overlap in memory, also where two memory objects have one payload, as far as that is known.
        """
        self._usable(source, BufferObject)
        self._written(target, BufferObject, "copy to")
        start, at = number(source_offset, "source_offset"), number(target_offset, "target_offset")
        count = rest((source.size, start), (target.size, at)) if size is None else number(size, "size")
        places, facts = (self._place(source), self._place(target)), self._device.facts
        found = rules.check_copy_buffer(source.facts, target.facts, start, at, count, facts, places=places)
        steps = [reads(source, "vkCmdCopyBuffer.source"), writes(target, "vkCmdCopyBuffer.target")]
        self._judge(found, "vkCmdCopyBuffer", steps)
        first, second = source.native, target.native
        self._add(lambda recorder: recorder.copy_buffer(first, start, second, at, count), source, target, steps=steps)

    def copy_buffer_to_image(
        self,
        buffer: BufferObject,
        image: ImageObject,
        *,
        layout: vk.ImageLayout = _Layout.GENERAL,
        buffer_offset: int = 0,
        mip_level: int = 0,
        array_layer: int = 0,
        aspect: vk.ImageAspectFlagBits | None = None,
    ) -> None:
        """vkCmdCopyBufferToImage of one whole mip level and layer; texel rows lie tightly packed in the buffer.

        layout: the image's at this time, GENERAL or TRANSFER_DST_OPTIMAL.
        aspect: what is copied, one of DEPTH and STENCIL, or of PLANE_0, PLANE_1 and PLANE_2; None where the image's
            format has one alone. Depth of 24 bits takes four bytes a texel in the buffer; a plane has the extent and
            the texels of its own compatible format.
        """
        self._usable(buffer, BufferObject)
        self._written(image, ImageObject, "copy to an image in")
        now, part = number(layout, "layout"), region(image.create_info, buffer_offset, mip_level, array_layer, aspect)
        found = rules.check_copy_buffer_to_image(
            buffer.facts, image.facts, now, self._device.facts, **self._told(image, buffer, part)
        )
        steps: Steps = [
            reads(buffer, "vkCmdCopyBufferToImage.buffer"),
            (image, whole_step("vkCmdCopyBufferToImage", now, part.mip_level, part.array_layer)),
        ]
        self._judge(found, "vkCmdCopyBufferToImage", steps)
        first, second = buffer.native, image.native
        self._add(lambda recorder: recorder.copy_buffer_to_image(first, second, now, part), buffer, image, steps=steps)

    def copy_image_to_buffer(
        self,
        image: ImageObject,
        buffer: BufferObject,
        *,
        layout: vk.ImageLayout = _Layout.GENERAL,
        buffer_offset: int = 0,
        mip_level: int = 0,
        array_layer: int = 0,
        aspect: vk.ImageAspectFlagBits | None = None,
    ) -> None:
        """vkCmdCopyImageToBuffer of one whole mip level and layer; `layout` is GENERAL or TRANSFER_SRC_OPTIMAL.

        aspect: as `copy_buffer_to_image` takes it.
        """
        self._usable(image, ImageObject)
        self._written(buffer, BufferObject, "copy to")
        now, part = number(layout, "layout"), region(image.create_info, buffer_offset, mip_level, array_layer, aspect)
        found = rules.check_copy_image_to_buffer(
            image.facts, buffer.facts, now, self._device.facts, **self._told(image, buffer, part)
        )
        steps: Steps = [
            (image, whole_step("vkCmdCopyImageToBuffer", now, part.mip_level, part.array_layer)),
            writes(buffer, "vkCmdCopyImageToBuffer.buffer"),
        ]
        self._judge(found, "vkCmdCopyImageToBuffer", steps)
        first, second = image.native, buffer.native
        self._add(lambda recorder: recorder.copy_image_to_buffer(first, now, second, part), image, buffer, steps=steps)

    def clear_color_image(
        self, image: ImageObject, color: Sequence[float], *, layout: vk.ImageLayout = _Layout.GENERAL
    ) -> None:
        """vkCmdClearColorImage of all levels and layers to four floats (red, green, blue, alpha)."""
        self._written(image, ImageObject, "clear an image in")
        parts, now = tuple(float(part) for part in color), number(layout, "layout")
        if len(parts) != 4:
            raise ValueError(f"a color has four parts, and this has {len(parts)}: {color!r}")
        steps = [(image, whole_step("vkCmdClearColorImage", now))]
        found = rules.check_clear_color_image(image.facts, now, self._device.facts)
        self._judge(found, "vkCmdClearColorImage", steps)
        native = image.native
        self._add(lambda recorder: recorder.clear_color_image(native, now, parts), image, steps=steps)

    # Shared by the above.

    def _told(self, image: ImageObject, buffer: BufferObject, region: ImageRegion) -> dict[str, Any]:
        return {
            "buffer_offset": region.buffer_offset,
            "mip_level": region.mip_level,
            "array_layer": region.array_layer,
            "aspect": region.aspect_mask,
            "places": (self._place(image), self._place(buffer)),
        }

    def _judge(self, found: list[rules.Violation], command: str, steps: Steps = ()) -> None:
        """Report what a command breaks. What guards the process is refused whatever `check` is."""
        device = self._device
        if device.check != "raise":
            broken = rules.guards(found)
            if broken:
                raise RuleViolation(broken, command=command)
        if device.check != "off":
            device.report([*found, *self._layouts.judged(steps)], command)

    def _usable(self, resource: object, kind: type[R]) -> R:
        word = "an Image" if kind is ImageObject else "a Buffer"
        if not isinstance(resource, kind):
            made = f"Device.create_{kind.__name__.lower()}"
            raise TypeError(f"{resource!r} is not {word}: pass what {made} returned")
        memory = resource.memory
        if resource.bound_elsewhere and resource.device is self._device:
            return resource
        if resource.closed or memory is None or memory.closed or resource.device is not self._device:
            state = (
                "destroyed; make another one"
                if resource.closed
                else f"of another device ({resource.device.name}); use one of this device"
                if resource.device is not self._device
                else "bound to no memory; bind it to memory of this device first"
                if memory is None
                else "bound to memory that is closed; make another one, and bind it to memory that is open"
            )
            raise HandleStateError(f"this {kind.__name__.lower()} is {state}")
        memory.record.check_process()
        return resource

    def _written(self, resource: object, kind: type[R], verb: str) -> R:
        """What a command writes to."""
        target = self._usable(resource, kind)
        self._check_writable(target, verb)
        return target

    def _check_writable(self, resource: ResourceObject, verb: str) -> None:
        record = self._memory_of(resource)
        if record is not None:
            record.check_writable(verb)

    @staticmethod
    def _memory_of(resource: ResourceObject) -> MemoryRecord | None:
        """What it is bound to; None where another binding bound it, and keeps the memory."""
        memory = resource.memory
        if memory is None:
            if resource.bound_elsewhere:
                return None
            raise resource.gone()
        record = memory.record
        record.check_process()
        return record

    def _place(self, resource: ResourceObject) -> rules.Place | None:
        record = self._memory_of(resource)
        return None if record is None else place_of(record, resource.memory_offset)

    def _add(
        self,
        command: Callable[[Recorder], None],
        *used: ResourceObject,
        steps: Steps = (),
        afterwards: tuple[ResourceObject, bool] | None = None,
    ) -> None:
        """Record a command. used: what it uses. afterwards: whose memory this device owns then, or not any more."""
        with self._lock:
            if not self._open:
                raise HandleStateError("commands are recorded inside `with device.commands() as commands:` only")
            for resource in used:
                self._uses.add(resource)
                record = self._memory_of(resource)
                if record is not None:
                    self._uses.add(record)
            self._recorded.append(command)
            self._layouts.add(steps)
            if afterwards is not None:
                resource, here = afterwards
                record = self._memory_of(resource)
                if record is not None:
                    self._after.append((record, here))
