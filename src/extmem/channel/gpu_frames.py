"""Frames of slots that are memory of a GPU: `GpuFrame` of a reader, and `WritableGpuFrame` of the writer.

How this works. `on` orders a lane (`gpu_lanes`) with the writer or the readers, without a wait of the host. Everything
else that gives the program the memory waits on the host first, except arrays of frameworks with streams: these make
the stream wait.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from extmem.channel.frame import Frame, WritableFrame
from extmem.channel.sides import Keeper, Publisher
from extmem.errors import HandleStateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from extmem.api.device import DeviceMemory
    from extmem.channel.gpu_lanes import Lane
    from extmem.channel.slots import Slot

__all__ = ["GpuFrame", "WritableGpuFrame"]

_LEGACY_STREAM = 1
"""CU_STREAM_LEGACY: what DLPack means by no stream."""


class _GpuReader(Keeper, Protocol):
    """What a frame needs of its reader: also a `gpu_reading.ReaderOrder`."""

    @property
    def gpu(self) -> Any: ...


class _GpuWriter(Publisher, Protocol):
    """What a frame needs of its writer: also a `gpu_writing.WriterOrder`."""

    @property
    def gpu(self) -> Any: ...


class _Reading:
    """The block of `GpuFrame.on`."""

    __slots__ = ("_frame", "_lane", "_work")

    def __init__(self, frame: GpuFrame, work: object) -> None:
        self._frame = frame
        self._work = work
        self._lane: Lane | None = None

    def __enter__(self) -> Any:
        frame = self._frame
        if not frame._live or frame.in_block:
            frame.refuse_work()
        frame.in_block = True
        try:
            self._lane, given = frame._channel.gpu.enter(frame._slot, frame.number, self._work)
        except BaseException:
            frame.in_block = False
            raise
        return given

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        frame, lane = self._frame, self._lane
        if lane is None or frame._channel.inherited:
            return
        self._lane = None
        try:
            frame._channel.gpu.leave(frame._slot, lane)
        finally:
            frame.release()


class GpuFrame(Frame):
    """A frame of a GPU's memory. See `Frame`."""

    __slots__ = ("in_block",)
    _channel: _GpuReader

    def __init__(
        self,
        channel: _GpuReader,
        slot: Slot,
        number: int,
        skipped: int,
        time_ns: int,
        meta: bytes,
        unlock: Iterator[Any],
    ) -> None:
        super().__init__(channel, slot, number, skipped, time_ns, meta, unlock)
        self.in_block = False
        """Whether a block of `on` has it (for the library itself)."""

    def refuse_work(self) -> NoReturn:
        """Raise HandleStateError for a frame that is released, or in a block (for the library itself)."""
        why = "is in a block of on() already" if self._live else "is released: a lane, or the writer, has its slot"
        raise HandleStateError(
            f"frame {self.number} of {self._channel.name!r} {why}; use one block of on() for each frame, and give all "
            "its work in there"
        )

    def on(self, work: object = None) -> _Reading:
        """See `Frame.on`."""
        return _Reading(self, work)

    def wait(self, timeout: float | None = None) -> None:
        """See `Frame.wait`."""
        if not self._live:
            Frame.memory.__get__(self)
        self._slot.order.wait(self.number, timeout)

    @property
    def memory(self) -> DeviceMemory:
        """See `Frame.memory`."""
        found: DeviceMemory = Frame.memory.__get__(self)
        self._slot.order.wait(self.number)
        return found

    def view(self) -> memoryview:
        """See `Frame.view`."""
        return self.memory.map()

    def numpy(self) -> Any:
        """See `Frame.numpy`."""
        return self.memory.numpy() if self._slot.format.entries is None else self._arrays("numpy")

    def _given(self, method: str, stream: object) -> Any:
        """Return the array or arrays of a framework, for work on a stream."""
        memory, form = Frame.memory.__get__(self), self._slot.format
        if form.entries is None:
            found = getattr(memory, method)()
        else:
            found = {name: getattr(form.part(memory, name), method)() for name in form.entries}
        self._channel.gpu.use(self._slot, self.number, method, stream)
        return found

    def torch(self, *, stream: object = None) -> Any:
        """See `Frame.torch`."""
        return self._given("torch", stream)

    def cupy(self, *, stream: object = None) -> Any:
        """See `Frame.cupy`."""
        return self._given("cupy", stream)

    def __dlpack__(self, *, stream: object = None, **options: Any) -> object:
        memory = Frame.memory.__get__(self)
        if stream == -1 or memory.__dlpack_device__()[0] == 1:
            self.wait()
        else:
            self._channel.gpu.use(self._slot, self.number, "", _LEGACY_STREAM if stream is None else stream)
        return memory.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        found: tuple[int, int] = Frame.memory.__get__(self).__dlpack_device__()
        return found


class _Writing:
    """The block of `WritableGpuFrame.on`."""

    __slots__ = ("_frame", "_lane", "_work")

    def __init__(self, frame: WritableGpuFrame, work: object) -> None:
        self._frame = frame
        self._work = work
        self._lane: Lane | None = None

    def __enter__(self) -> Any:
        frame = self._frame
        frame.begin_work()
        try:
            self._lane, given = frame._channel.gpu.enter(frame._slot, self._work)
        except BaseException:
            frame.used = False
            raise
        return given

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lane, self._lane = self._lane, None
        frame = self._frame
        if lane is not None and not frame._channel.inherited:
            frame._channel.gpu.leave(frame._slot, lane, failed=kind is not None)


class WritableGpuFrame(WritableFrame):
    """A slot of a GPU's memory that the writer fills. See `WritableFrame`."""

    __slots__ = ("used",)
    _channel: _GpuWriter

    def __init__(self, channel: _GpuWriter, slot: Slot, memory: DeviceMemory, dropped: bool = False) -> None:
        super().__init__(channel, slot, memory, dropped)
        self.used = False
        """Whether a block of `on` has it, or had it (for the library itself)."""

    def begin_work(self) -> None:
        """Begin a block of `on` (for the library itself). Errors: HandleStateError."""
        if self._memory is None:
            WritableFrame.memory.__get__(self)
        if self.used:
            raise HandleStateError(
                f"this frame of {self._channel.name!r} has had a block of on() already; give all its work in one block"
            )
        self.used = True

    def on(self, work: object = None) -> _Writing:
        """See `WritableFrame.on`."""
        return _Writing(self, work)

    @property
    def memory(self) -> DeviceMemory:
        """See `WritableFrame.memory`."""
        found: DeviceMemory = WritableFrame.memory.__get__(self)
        self._channel.gpu.before_host(self._slot)
        return found

    def numpy(self) -> Any:
        """See `WritableFrame.numpy`."""
        return self.memory.numpy() if self._slot.format.entries is None else self._arrays("numpy")

    def _given(self, method: str, stream: object) -> Any:
        memory, form = WritableFrame.memory.__get__(self), self._slot.format
        if form.entries is None:
            found = getattr(memory, method)()
        else:
            found = {name: getattr(form.part(memory, name), method)() for name in form.entries}
        self._channel.gpu.join(self._slot, method, stream)
        return found

    def torch(self, *, stream: object = None) -> Any:
        """See `WritableFrame.torch`."""
        return self._given("torch", stream)

    def cupy(self, *, stream: object = None) -> Any:
        """See `WritableFrame.cupy`."""
        return self._given("cupy", stream)
