"""`Lane`: what works on frames of a GPU: a stream of CUDA, or the queue of a Vulkan device.

How this works. Work on one lane runs in the order in which it was given. Lanes are ordered by timelines: a lane waits
for a value, and signals one when all its earlier work is done, and the host does not wait. A stream does so by an
import of the timeline into CUDA, which is made once. The queue does so with a submission: that of the program's
commands (`Commands.join`), or one of its own.

Commands of the program (`device.commands()`) are a lane of their own while they are recorded. The queue gets their work
at the end of their block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from extmem.api.commands import Commands
from extmem.api.device import Device
from extmem.arguments import a_type
from extmem.core import memory_buffer, shared_devices, stream_order
from extmem.errors import HandleStateError, UnsupportedError
from extmem.interop.streams import stream_address
from extmem.owning import Uses

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.api.device import DeviceMemory
    from extmem.api.timeline import Timeline
    from extmem.channel.slots import Slot
    from extmem.core.device_state import DeviceState
    from extmem.devices.backend import Allocation

__all__ = ["GpuTimeline", "Lane", "Lanes", "Mark", "SlotUse", "use_of"]

_UNKNOWN: Final = -1
"""As the value of a mark: that of commands is known when they are submitted."""
_DEFAULT_STREAMS: Final = 2
"""The greatest number of a default stream: those stand for a stream of the current device."""


class GpuTimeline:
    """A timeline with its page, and its imports into the devices of streams. Ownership: it owns all of them."""

    __slots__ = ("_natives", "_uses", "page", "record", "timeline")

    def __init__(self, timeline: Timeline) -> None:
        """timeline: owned from now on."""
        self.timeline = timeline
        self._uses = Uses()
        self.record: Any = self._uses.add(timeline.record)
        self.page: Any = self.record.told_page
        """The page whose value says what is done."""
        self._natives: dict[DeviceState, Any] = {}

    def native_on(self, device: DeviceState) -> Any:
        """Return the semaphore of a CUDA device that streams use. Errors: as `stream_order.on_device`."""
        found = self._natives.get(device)
        if found is None:
            found = self._natives[device] = stream_order.on_device(self.record, device, self._uses).native
        return found

    def close(self) -> None:
        """Release it. Streams keep what they still use. Safe to call twice."""
        self._natives.clear()
        self._uses.end()
        self.timeline.close()


class SlotUse:
    """What one side has of a slot for work on the GPU: the arrays and the buffer over it, which are made once."""

    __slots__ = ("arrays", "buffer", "early", "lanes", "last", "number", "on_vulkan", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.on_vulkan = slot.memory.device.kind == "vulkan"
        """Whether the memory is of a Vulkan device, which may own it."""
        self.arrays: dict[str, Any] = {}
        """The arrays over the slot, by the method that makes them."""
        self.buffer: Any = None
        self.lanes: list[Lane] = []
        """Of the writer: what has got work for the frame that is being written."""
        self.last: Lane | None = None
        """Of the writer: the lane that wrote the last frame in the slot; None for the host."""
        self.number = 0
        """Of the writer: the number of that frame."""
        self.early = 0
        """Of the writer: the number that the submission of the frame signals; 0 if it signals none."""

    def array(self, method: str) -> Any:
        """Return the array of the frame, or a dictionary of them: `torch`, `cupy`, `jax` or `device_array`."""
        found = self.arrays.get(method)
        if found is None:
            memory, form = self.slot.memory, self.slot.format
            if form.entries is None:
                found = getattr(memory, method)()
            else:
                found = {name: getattr(form.part(memory, name), method)() for name in form.entries}
            self.arrays[method] = found
        return found

    def buffer_of(self) -> Any:
        """Return the buffer over the slot, for the queue of its device. Errors: as `DeviceMemory.buffer`."""
        if self.buffer is None:
            self.buffer = memory_buffer.buffer_over(self.slot.memory)
        return self.buffer


def use_of(slot: Slot) -> SlotUse:
    """Return what this side has of a slot for work on the GPU."""
    found: SlotUse | None = slot.gpu
    if found is None:
        found = slot.gpu = SlotUse(slot)
    return found


class Mark:
    """A point in the work of a lane, at which it is done with a frame."""

    __slots__ = ("commands", "lane", "value")

    def __init__(self, lane: Lane, value: int, commands: Commands | None = None) -> None:
        self.lane = lane
        self.value = value
        """The value that the lane's timeline has then. -1 for commands that are not submitted."""
        self.commands = commands

    @property
    def done(self) -> bool:
        """Whether the lane is done. Commands that were given up are."""
        commands = self.commands
        if commands is not None and self.value == _UNKNOWN:
            return commands.has_ended and self.value == _UNKNOWN
        released = self.lane.released
        return released is None or released.page.value >= self.value


class Lane:
    """See the module. A lane of streams; `_Queue` and `_Joined` are those of Vulkan."""

    __slots__ = ("address", "backend", "device", "released", "signaled")
    is_queue = False
    """Whether it is the queue of a Vulkan device."""

    def __init__(self, device: DeviceState, address: int) -> None:
        """device: whose stream it is. address: CUstream as a number."""
        self.device = device
        self.address = address
        self.backend: Any = device.backend
        self.released: GpuTimeline | None = None
        """Of a reader: the timeline that tells what the lane has read (`releasing`)."""
        self.signaled = 0
        """The last value of that timeline that was to be signaled."""

    @property
    def base(self) -> Lane:
        """The lane that gets the work: itself, or the queue that gets the commands of the program."""
        return self

    def releasing(self) -> GpuTimeline:
        """Return the timeline by which the lane tells a reader what it is done with."""
        if self.released is None:
            made: Any = self.device
            self.released = GpuTimeline(made.timeline())
        return self.released

    def wait(self, timeline: GpuTimeline, value: int) -> None:
        """Let later work of the lane begin when the value is reached."""
        self.backend.stream_wait(self.address, ((timeline.native_on(self.device), value),))

    def signal(self, timeline: GpuTimeline, value: int) -> None:
        """Signal the value when the earlier work of the lane is done."""
        self.backend.stream_signal(self.address, ((timeline.native_on(self.device), value),))

    def mark(self) -> Mark:
        """Return what tells a reader that the lane is done with its work so far, once it is given (`give`)."""
        self.releasing()
        self.signaled += 1
        return Mark(self, self.signaled)

    def give(self, mark: Mark) -> None:
        """Let the lane reach a mark when its earlier work is done."""
        self.signal(self.releasing(), mark.value)

    def enter(self, use: SlotUse, method: str) -> Any:
        """Begin to work on a slot, and return what the program works with."""
        if use.on_vulkan:
            prepare_for_streams(use.slot.memory)
        array = use.arrays.get(method)
        return use.array(method) if array is None else array

    def leave(self, use: SlotUse) -> None:
        """End to work on a slot."""

    def signal_later(self, signal: Callable[[], tuple[object, int] | None]) -> None:
        """Have what is submitted later signal a pair, which is known then. Streams have nothing to submit later."""

    def check_given(self, name: str) -> None:
        """Refuse to go on if the work was not given to the device yet. name: of the channel."""

    def finish(self) -> None:
        """Wait on the host until the lane has done everything."""
        self.backend.wait(self.address)

    def keep(self, memory: DeviceMemory) -> None:
        """Keep memory until the lane is done with it, also if it is closed. Does not wait."""
        record = memory.record
        used: Allocation | None = record.allocation if record.device is self.device else record.companion
        if used is not None:
            stream_order.hold_until_done(self.device, self.address, used)

    def close(self) -> None:
        """Close its timeline. Safe to call twice."""
        released, self.released = self.released, None
        if released is not None:
            released.close()


class _Queue(Lane):
    """The queue of a Vulkan device, with submissions of its own: `frame.on(device)`."""

    __slots__ = ()
    is_queue = True

    def __init__(self, device: DeviceState) -> None:
        super().__init__(device, 0)

    def wait(self, timeline: GpuTimeline, value: int) -> None:
        with Commands(self.device, wait=(timeline.timeline, value), returns_early=True):
            pass

    def signal(self, timeline: GpuTimeline, value: int) -> None:
        with Commands(self.device, signal=(timeline.timeline, value)):
            pass

    def enter(self, use: SlotUse, method: str) -> Any:
        buffer = use.buffer_of()
        with Commands(self.device, returns_early=True) as commands:
            commands.acquire(buffer)
        return buffer

    def leave(self, use: SlotUse) -> None:
        with Commands(self.device, returns_early=True) as commands:
            commands.release(use.buffer_of())

    def finish(self) -> None:
        device: Any = self.device
        with device.fence() as fence:
            with Commands(self.device, fence=fence):
                pass
            fence.wait()

    def keep(self, memory: DeviceMemory) -> None:
        """Nothing to do: a submission keeps what it uses."""


class _Joined(_Queue):
    """Commands of the program: `frame.on(commands)`. The order becomes part of their submission."""

    __slots__ = ("_base", "commands")

    def __init__(self, base: Lane, commands: Commands) -> None:
        """base: the lane of the device, which gets the work when they are submitted."""
        super().__init__(base.device)
        self._base = base
        self.commands = commands

    @property
    def base(self) -> Lane:
        return self._base

    def mark(self) -> Mark:
        if self.commands.has_ended:
            return self._base.mark()
        return Mark(self._base, _UNKNOWN, self.commands)

    def give(self, mark: Mark) -> None:
        if mark.commands is None:
            self._base.give(mark)
            return
        timeline = self._base.releasing()

        def signal() -> tuple[object, int]:
            self._base.signaled += 1
            mark.value = self._base.signaled
            return timeline.timeline, mark.value

        self.commands.join(at_submit=signal)

    def wait(self, timeline: GpuTimeline, value: int) -> None:
        self.commands.join(wait=(timeline.timeline, value))

    def enter(self, use: SlotUse, method: str) -> Any:
        buffer = use.buffer_of()
        self.commands.acquire(buffer)
        self.commands.join()
        return buffer

    def leave(self, use: SlotUse) -> None:
        self.commands.release(use.buffer_of())

    def signal_later(self, signal: Callable[[], tuple[object, int] | None]) -> None:
        self.commands.join(at_submit=signal)

    def check_given(self, name: str) -> None:
        if self.commands.is_open:
            raise HandleStateError(
                f"the commands that write this frame of {name!r} are not submitted yet, so it cannot be published; end "
                "their block first: with channel.write() as frame, device.commands() as commands, "
                "frame.on(commands) as buffer:"
            )


class Lanes:
    """The lanes that one side of a channel has used. Ownership: it owns their timelines."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[Any, Lane] = {}

    def of(self, work: object, memory: DeviceMemory, name: str) -> Lane:
        """Return the lane of what a program passed to `Frame.on`. name: of the channel.

        Errors: TypeError for something else; HandleStateError for another device than that of the slot.
        """
        # The usual case first: a stream that was used before.
        known = self._by_key.get(work if type(work) is int else getattr(work, "cuda_stream", work))
        if known is not None:
            return known
        if isinstance(work, Commands):
            check_queue(work.device, memory, name)
            if not work.is_open:
                raise HandleStateError(
                    f"these commands have no open block, so no frame of {name!r} can be used in them; call on() inside "
                    "it: with device.commands() as commands, frame.on(commands) as buffer:"
                )
            return _Joined(self.of(work.device, memory, name), work)
        if isinstance(work, Device):
            found = self._by_key.get(work)
            if found is None:
                check_queue(work, memory, name)
                found = self._by_key[work] = _Queue(work)
            return found
        try:
            address = stream_address(work)
        except TypeError:
            raise TypeError(
                f"on() got {work!r}, {a_type(work)}; give a stream (of PyTorch, CuPy, cuda-core, or its address), the "
                "commands of a Vulkan device, or that device"
            ) from None
        index = getattr(work, "device_index", getattr(work, "device_id", None))
        key = address if address > _DEFAULT_STREAMS else (address, index)
        found = self._by_key.get(key)
        if found is None:
            device = cuda_device_of(memory)
            if device is None:
                raise UnsupportedError(
                    f"the slots of {name!r} are opened on {memory.device.name} ({memory.device.kind}), which is not a "
                    "GPU that CUDA finds in this process, so no stream can use them; open the channel with "
                    'device=extmem.open_device(kind="cuda"), or give on() the commands of the Vulkan device',
                    requires_one_of=["a CUDA device", "the commands of the Vulkan device"],
                )
            backend: Any = device.backend
            if isinstance(index, int) and index >= 0 and index != backend.ordinal:
                raise HandleStateError(
                    f"the stream {work!r} is of CUDA device {index}, and the slots of {name!r} are on CUDA device "
                    f"{backend.ordinal} ({device.name}); use a stream of that device"
                )
            found = self._by_key[key] = Lane(device, address)
        return found

    def all(self) -> list[Lane]:
        """Return them."""
        return list(self._by_key.values())

    def close(self) -> None:
        """Close their timelines. Safe to call twice."""
        while self._by_key:
            self._by_key.popitem()[1].close()


def check_queue(device: Any, memory: DeviceMemory, name: str) -> None:
    """Refuse the commands of another device than that of the slots. Errors: HandleStateError; UnsupportedError."""
    device.check_open()
    if device is not memory.device:
        raise HandleStateError(
            f"the slots of {name!r} are opened on another device object than that of these commands ({device.name}, "
            f"{device.kind}): on {memory.device.name} ({memory.device.kind}); open the channel with device= that device"
        )
    if device.backend.queue_facts is None:
        raise UnsupportedError(
            f"{device.name} ({device.kind}) has no queue of Vulkan; give on() a stream",
            requires_one_of=["a stream", "a Vulkan device"],
        )


def cuda_device_of(memory: DeviceMemory) -> DeviceState | None:
    """Return the CUDA device whose streams can use the memory; None if there is none."""
    device = memory.device
    if device.descriptor_importer is not None:
        return device
    return None if device.kind == "host" else shared_devices.cuda_device(device.uuid)


def prepare_for_streams(memory: DeviceMemory) -> None:
    """Release memory that the Vulkan device of this process has used before, to its other users."""
    if memory.device.kind == "vulkan":
        record = memory.record
        backend: Any = record.device.backend
        if record.deferred is None and backend.owns(record.allocation):
            backend.release_ownership(record.allocation)


_METHODS: dict[str, str] = {"torch": "torch", "cupy": "cupy", "jax": "jax", "jaxlib": "jax"}
_method_of: dict[type, str] = {}


def method_for(work: object) -> str:
    """Return the method that makes an array for the framework of a stream."""
    kind = type(work)
    found = _method_of.get(kind)
    if found is None:
        found = _method_of[kind] = _METHODS.get(kind.__module__.partition(".")[0], "device_array")
    return found


def current_stream(method: str, memory: DeviceMemory, loaded: Callable[[str], Any]) -> object:
    """Return the stream that a framework uses now in this thread, on the device of the memory.

    loaded: returns a module that is imported.
    """
    device: Any = cuda_device_of(memory)
    ordinal = getattr(device.backend, "ordinal", 0) if device is not None else 0
    if method == "torch":
        return loaded("torch").cuda.current_stream(ordinal)
    cupy = loaded("cupy")
    with cupy.cuda.Device(ordinal):
        return cupy.cuda.get_current_stream()
