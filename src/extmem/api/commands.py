"""`Commands`: the commands for the queue of a device that fill, copy and read shared memory.

How this works. `with device.commands() as commands:` collects calls. Each call is checked when it is made. At the end
of the block all are recorded, submitted and waited for. After an exception in the block nothing is submitted.

With `wait`, the device begins when the timelines have these values; with `signal` or `fence`, they are signaled when
the commands are done, and the end of the block does not wait.

A call copies all values of its arguments, so later changes of the arguments have no effect. The resources and memory
that a command uses are held from the call until the commands have completed: a buffer that is closed in between is
destroyed afterwards.

Access outside a resource is refused whatever the `check` of the device is: in a driver, it would end the
process or access its other memory. The layouts of images are checked twice, when a command is recorded and when all
are submitted, because other commands may have changed them in between.

Memory that other processes use is owned by VK_QUEUE_FAMILY_EXTERNAL while this process does not use it. `acquire`
acquires the ownership of a buffer or image, `release` releases it. Both are required to make writes of this process
visible to others, and writes of others visible to this process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from extmem import rules, vk
from extmem.api.joined_commands import JoinedCommands
from extmem.api.ownership_commands import OwnershipCommands
from extmem.arguments import CheckedWhenMade, whole_number
from extmem.core import sync_operations
from extmem.core.command_arguments import check_structs, copied_structs, region, remaining_bytes, structs_in
from extmem.core.command_state import LayoutTracker, Steps, barrier_step, buffer_step, use_step, whole_step
from extmem.core.device_state import DeviceState
from extmem.core.memory_record import MemoryRecord
from extmem.core.placement import place_of
from extmem.core.resources import BufferObject, ImageObject, ResourceObject
from extmem.devices.backend import Recorder
from extmem.devices.types import ImageRegion
from extmem.errors import HandleStateError, RuleViolation
from extmem.handles.process_id import current_process
from extmem.owning import Lock, Uses

__all__ = ["Commands"]

R = TypeVar("R", bound=ResourceObject)
_Access = vk.AccessFlagBits
_Stage = vk.PipelineStageFlagBits
_Layout = vk.ImageLayout
_WORD = 1 << 32


class Commands(CheckedWhenMade, JoinedCommands, OwnershipCommands):
    """The commands of one submission. Made by `Device.commands`; usable only inside its `with` block.

    Commands run in order, and the writes of each are visible to those after it. Offsets and sizes are in bytes.
    Errors of all: HandleStateError for resources that are destroyed, unbound, of another device, or bound to memory
    that is closed, outside the block, and in a forked child; AccessDeniedError for writes to read-only memory;
    RuleViolation by the `check` of the device, and always for access outside a resource; at the end of the
    block DriverError, OutOfMemoryError, and UnsupportedError for a feature that the device lacks.
    """

    _made_by = "Device.commands(…)"
    _made_of = DeviceState

    def __init__(
        self,
        device: DeviceState,
        *,
        wait: object = None,
        signal: object = None,
        fence: object = None,
        returns_early: bool = False,
    ) -> None:
        """returns_early: whether the end of the block does not wait, also without `signal` and `fence`."""
        self._device = device
        self._returns_early = returns_early
        self._recorded: list[Callable[[Recorder], None]] = []
        self._ownership: list[tuple[MemoryRecord, bool]] = []
        self._open = False
        self._pid = current_process.pid
        self._lock = Lock()
        self._uses = Uses()
        """Holds everything that the commands use until they have completed."""
        self._layouts = LayoutTracker()
        self._at_submit = []
        self._ended = False
        self._order: Any = None
        """The waits, the signals and the fence; None without any. Then no module of semaphores is loaded."""
        if wait is not None or signal is not None or fence is not None or returns_early:
            try:
                self._order = sync_operations.submitting.order_of(device, wait, signal, fence, self._uses)
            except BaseException:
                self._uses.end()  # the traceback of the error keeps this object
                raise

    def __enter__(self) -> Self:
        self._check_process()
        with self._lock:
            if self._open:
                raise HandleStateError("the block of these commands is already open; get others with device.commands()")
            self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_open = False
        try:
            with self._lock:
                was_open, self._open = self._open, False  # another thread may also end the block
            if was_open and kind is None and (self._recorded or self._order is not None):
                self._check_process()
                if self._device.check != "off":
                    for command, violations in self._layouts.check_again():
                        self._device.report(violations, command)
                if self._at_submit:
                    self._add_signals()
                owners = [(record.allocation, owned) for record, owned in self._ownership]
                with self._layouts.submitting():
                    if self._order is None:
                        self._device.backend.submit(self._record, self._uses, owners)
                    else:
                        record = self._record if self._recorded else None
                        sync_operations.submitting.submit_in_order(
                            self._device, self._order, record, self._uses, owners, wait=not self._returns_early
                        )
        finally:
            if was_open:
                self._recorded.clear()
                self._ownership.clear()
                self._layouts.clear()
                self._at_submit.clear()
                self._uses.end()
                self._ended = True

    def _check_process(self) -> None:
        if self._pid != current_process.pid:
            raise HandleStateError(
                f"these commands belong to process {self._pid}, and this is its forked child "
                f"{current_process.pid}; start children with spawn and open the device in the child"
            )

    def _record(self, recorder: Recorder) -> None:
        for command in self._recorded:
            command(recorder)

    # Barriers.

    def pipeline_barrier(
        self,
        src_stage_mask: vk.PipelineStageFlagBits,
        dst_stage_mask: vk.PipelineStageFlagBits,
        *,
        memory_barriers: Sequence[vk.MemoryBarrier] = (),
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier] = (),
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier] = (),
    ) -> None:
        """vkCmdPipelineBarrier. The `buffer` and `image` of the barriers are resources of this device.

        The barriers are recorded as given, and the command is also ordered with the transfers before and after it.
        """
        self._barrier(src_stage_mask, dst_stage_mask, memory_barriers, buffer_memory_barriers, image_memory_barriers)

    def _barrier(
        self,
        src_stage_mask: vk.PipelineStageFlagBits,
        dst_stage_mask: vk.PipelineStageFlagBits,
        memory_barriers: Sequence[vk.MemoryBarrier],
        buffer_memory_barriers: Sequence[vk.BufferMemoryBarrier],
        image_memory_barriers: Sequence[vk.ImageMemoryBarrier],
        afterwards: tuple[ResourceObject, bool] | None = None,
    ) -> Any:
        device = self._device
        masks = whole_number(src_stage_mask, "src_stage_mask"), whole_number(dst_stage_mask, "dst_stage_mask")
        memories = copied_structs(memory_barriers)
        of_buffers = copied_structs(buffer_memory_barriers)
        of_images = copied_structs(image_memory_barriers)
        buffers = [self._check_usable(getattr(one, "buffer", one), BufferObject) for one in structs_in(of_buffers)]
        images = [self._check_usable(getattr(one, "image", one), ImageObject) for one in structs_in(of_images)]
        facts = device.backend.queue_facts
        violations = rules.check_pipeline_barrier(
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
        if not violations:
            for index, (buffer, barrier) in enumerate(zip(buffers, of_buffers, strict=True)):
                where = f"vkCmdPipelineBarrier.buffer_memory_barriers[{index}]"
                steps += buffer_step(buffer, barrier, self._family(), where)
            for index, (image, one) in enumerate(zip(images, of_images, strict=True)):
                where = f"vkCmdPipelineBarrier.image_memory_barriers[{index}]"
                steps.append((image, barrier_step(image, one, device.facts, self._family(), where)))
        self._check(violations, "vkCmdPipelineBarrier", steps)
        for barriers, struct in ((memories, vk.MemoryBarrier), (of_buffers, vk.BufferMemoryBarrier)):
            check_structs(barriers, struct)
        check_structs(of_images, vk.ImageMemoryBarrier)
        # In the recorded barriers, which are copies, the raw handles replace the objects.
        for buffer, buffer_barrier in zip(buffers, of_buffers, strict=True):
            buffer_barrier.buffer = buffer.native.raw
        for image, image_barrier in zip(images, of_images, strict=True):
            if image_barrier.old_layout != image_barrier.new_layout:
                self._check_writable(image, "change the layout of an image in")
            image_barrier.image = image.native.raw
        self._add(
            lambda recorder: recorder.pipeline_barrier(*masks, memories, of_buffers, of_images),
            *buffers,
            *images,
            steps=steps,
            afterwards=afterwards,
        )
        return None if violations else (masks, memories, of_buffers, of_images, [step for _, step in steps])

    def _repeat(self, buffer: BufferObject, recorded: Any, afterwards: tuple[ResourceObject, bool] | None) -> None:
        (before, after), memories, of_buffers, of_images, known = recorded
        steps = [(buffer, step) for step in known]
        self._check([], "vkCmdPipelineBarrier", steps)
        self._add(
            lambda recorder: recorder.pipeline_barrier(before, after, memories, of_buffers, of_images),
            buffer,
            steps=steps,
            afterwards=afterwards,
        )

    # Fills and copies.

    def fill_buffer(self, buffer: BufferObject, word: int, *, offset: int = 0, size: int | None = None) -> None:
        """vkCmdFillBuffer with a 32-bit word. Offset and size are multiples of 4; None fills to the end."""
        self._check_target(buffer, BufferObject, "fill")
        start, value = whole_number(offset, "offset"), whole_number(word, "word")
        count = remaining_bytes((buffer.size, start), multiple=4) if size is None else whole_number(size, "size")
        if not 0 <= value < _WORD:
            raise ValueError(f"word is {value:#x}; give a value of 32 bits, 0 to {_WORD - 1:#x}")
        steps = [use_step(buffer, "vkCmdFillBuffer.buffer")]
        self._check(rules.check_fill_buffer(buffer.facts, start, count, self._device.facts), "vkCmdFillBuffer", steps)
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
        """vkCmdCopyBuffer of `size` bytes; None copies up to the end of the buffer that ends first.

        The regions must not overlap in memory, not even through two memory objects of one payload (if detected).
        """
        self._check_usable(source, BufferObject)
        self._check_target(target, BufferObject, "copy to")
        start, at = whole_number(source_offset, "source_offset"), whole_number(target_offset, "target_offset")
        count = remaining_bytes((source.size, start), (target.size, at)) if size is None else whole_number(size, "size")
        places, facts = (self._place(source), self._place(target)), self._device.facts
        violations = rules.check_copy_buffer(source.facts, target.facts, start, at, count, facts, places=places)
        steps = [use_step(source, "vkCmdCopyBuffer.source", reads=True), use_step(target, "vkCmdCopyBuffer.target")]
        self._check(violations, "vkCmdCopyBuffer", steps)
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
        """vkCmdCopyBufferToImage of one whole mip level and layer; texel rows are tightly packed in the buffer.

        layout: the layout of the image when the command runs, GENERAL or TRANSFER_DST_OPTIMAL.
        aspect: the aspect to copy, DEPTH or STENCIL, or PLANE_0, PLANE_1 or PLANE_2; None if the format has only one.
            A depth texel of 24 bits occupies four bytes in the buffer. A plane has the extent and the texels of its
            compatible format.
        """
        self._check_usable(buffer, BufferObject)
        self._check_target(image, ImageObject, "copy to an image in")
        now = whole_number(layout, "layout")
        part = region(image.create_info, buffer_offset, mip_level, array_layer, aspect)
        violations = rules.check_copy_buffer_to_image(
            buffer.facts, image.facts, now, self._device.facts, **self._copy_arguments(image, buffer, part)
        )
        steps: Steps = [
            use_step(buffer, "vkCmdCopyBufferToImage.buffer", reads=True),
            (image, whole_step("vkCmdCopyBufferToImage", now, part.mip_level, part.array_layer)),
        ]
        self._check(violations, "vkCmdCopyBufferToImage", steps)
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

        aspect: as for `copy_buffer_to_image`.
        """
        self._check_usable(image, ImageObject)
        self._check_target(buffer, BufferObject, "copy to")
        now = whole_number(layout, "layout")
        part = region(image.create_info, buffer_offset, mip_level, array_layer, aspect)
        violations = rules.check_copy_image_to_buffer(
            image.facts, buffer.facts, now, self._device.facts, **self._copy_arguments(image, buffer, part)
        )
        steps: Steps = [
            (image, whole_step("vkCmdCopyImageToBuffer", now, part.mip_level, part.array_layer)),
            use_step(buffer, "vkCmdCopyImageToBuffer.buffer"),
        ]
        self._check(violations, "vkCmdCopyImageToBuffer", steps)
        first, second = image.native, buffer.native
        self._add(lambda recorder: recorder.copy_image_to_buffer(first, now, second, part), image, buffer, steps=steps)

    def clear_color_image(
        self, image: ImageObject, color: Sequence[float], *, layout: vk.ImageLayout = _Layout.GENERAL
    ) -> None:
        """vkCmdClearColorImage of all levels and layers to four floats (red, green, blue, alpha)."""
        self._check_target(image, ImageObject, "clear an image in")
        parts, now = tuple(float(part) for part in color), whole_number(layout, "layout")
        if len(parts) != 4:
            raise ValueError(f"color is {color!r}, with {len(parts)} parts; give four floats")
        steps = [(image, whole_step("vkCmdClearColorImage", now))]
        violations = rules.check_clear_color_image(image.facts, now, self._device.facts)
        self._check(violations, "vkCmdClearColorImage", steps)
        native = image.native
        self._add(lambda recorder: recorder.clear_color_image(native, now, parts), image, steps=steps)

    # Helpers.

    def _copy_arguments(self, image: ImageObject, buffer: BufferObject, region: ImageRegion) -> dict[str, Any]:
        return {
            "buffer_offset": region.buffer_offset,
            "mip_level": region.mip_level,
            "array_layer": region.array_layer,
            "aspect": region.aspect_mask,
            "places": (self._place(image), self._place(buffer)),
        }

    def _check(self, violations: list[rules.Violation], command: str, steps: Steps = ()) -> None:
        """Report the violations of a command. Those that protect the process are refused whatever `check` is."""
        device = self._device
        if device.check != "raise":
            unsafe = rules.guards(violations)
            if unsafe:
                raise RuleViolation(unsafe, command=command)
        if device.check != "off":
            device.report([*violations, *self._layouts.check(steps)], command)

    def _check_usable(self, resource: object, cls: type[R]) -> R:
        word = "image" if cls is ImageObject else "buffer"
        if not isinstance(resource, cls):
            name = "an Image" if cls is ImageObject else "a Buffer"
            raise TypeError(f"{resource!r} is not {name}; pass the result of Device.create_{word}")
        memory = resource.memory
        if resource.bound_elsewhere and resource.device is self._device:
            return resource
        if resource.closed or memory is None or memory.closed or resource.device is not self._device:
            state = (
                "destroyed; create another one"
                if resource.closed
                else f"of another device ({resource.device.name}); use one of this device"
                if resource.device is not self._device
                else "not bound to memory; bind it to memory of this device first"
                if memory is None
                else "bound to memory that is closed; create another one, and bind it to memory that is open"
            )
            raise HandleStateError(f"this {word} is {state}")
        memory.record.check_process()
        return resource

    def _check_target(self, resource: object, cls: type[R], verb: str) -> R:
        """Check a resource that a command writes to."""
        target = self._check_usable(resource, cls)
        self._check_writable(target, verb)
        return target

    def _check_writable(self, resource: ResourceObject, verb: str) -> None:
        record = self._memory_of(resource)
        if record is not None:
            record.check_writable(verb)

    @staticmethod
    def _memory_of(resource: ResourceObject) -> MemoryRecord | None:
        """Return the record of its memory; None if another binding bound it, and so holds the memory."""
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
        """Record a command that uses these resources. afterwards: whether the device owns a resource's memory then."""
        with self._lock:
            if not self._open:
                raise HandleStateError("record commands only inside `with device.commands() as commands:`")
            for resource in used:
                self._uses.add(resource)
                record = self._memory_of(resource)
                if record is not None:
                    self._uses.add(record)
            self._recorded.append(command)
            self._layouts.add(steps)
            if afterwards is not None:
                resource, owned = afterwards
                record = self._memory_of(resource)
                if record is not None:
                    self._ownership.append((record, owned))
