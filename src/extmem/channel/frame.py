"""`Frame`: a frame that a reader has, and `WritableFrame`: one that the writer is writing."""

from __future__ import annotations

import sys
import time
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self
from weakref import ref

from extmem.api.device import DeviceMemory
from extmem.arguments import MadeByFunctions, a_type
from extmem.errors import HandleStateError, UnsupportedError
from extmem.sharing.channel_page import META_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from extmem.api.slices import MemorySlice
    from extmem.channel.sides import Keeper, Publisher
    from extmem.channel.slots import Slot

__all__ = ["Frame", "WritableFrame"]

_NOT_GIVEN: Any = object()
"""The default of arguments that the library always gives."""


class _Frame(MadeByFunctions):
    """What frames of both sides have: the array, or the arrays, in the slot."""

    __slots__ = ("__weakref__", "_memory", "_slot", "number")
    _memory: DeviceMemory | None
    _slot: Slot
    number: int

    @property
    def memory(self) -> DeviceMemory:
        """The memory of the slot, for as long as the frame is held. Do not close it: the frame does.

        Errors of this, and of all that needs the memory: HandleStateError after the release.
        """
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array; of a frame with several arrays, that of its bytes."""
        return self._slot.format.shape

    @property
    def dtype(self) -> str:
        """The element type of the array."""
        return self._slot.format.dtype

    @property
    def slot(self) -> int:
        """The slot of the ring that it is in."""
        return self._slot.index

    @property
    def released(self) -> bool:
        """Whether it does not hold its slot any more."""
        raise NotImplementedError

    @property
    def ring_slot(self) -> Slot:
        """Its slot (for the library itself)."""
        return self._slot

    def keys(self) -> tuple[str, ...]:
        """Return the names of the arrays; none if the frame is one array."""
        return tuple(self._slot.format.entries or ())

    def __getitem__(self, name: Any) -> MemorySlice:
        """Return one of several arrays by its name, or a part of the one array: `frame["depth"]`, `frame[0]`.

        It has `numpy`, `torch`, `jax` and `cupy`. Errors: KeyError, IndexError, TypeError.
        """
        if isinstance(name, str):
            return self._slot.format.part(self.memory, name)
        part: MemorySlice = self.memory[name]
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __bool__(self) -> bool:
        return True

    def _arrays(self, method: str) -> dict[str, Any]:
        memory, found = self.memory, self._slot.format
        return {name: getattr(found.part(memory, name), method)() for name in found.entries or ()}

    def on(self, work: object = None) -> AbstractContextManager[Any]:
        """Return a context manager. In its block, a stream or queue uses the frame, and the host does not wait.

        Example: `with frame.on(torch.cuda.current_stream()) as tensor:`. For slots that are memory of a GPU.

        work: a stream of PyTorch, CuPy or cuda-core, or its address (None: the default stream); commands of the Vulkan
            device of the slots (`device.commands()`); or that device, whose queue gets two submissions.
        A frame of a reader: the work begins when the writer's work on the frame is done, and the frame is released at
        the end of the block. Its slot stays held until the stream or queue is done with what it got in the block.
        A frame of the writer: what the stream or queue gets in the block is part of the frame. The frame is published
        when that is submitted.
        Yields an array of the stream's framework (a dictionary of several; a GPU array for an address), or the buffer
        over the slot, which the queue owns in the block. Use it in the block alone: afterwards the slot changes.
        Errors: GpuFrameLostError; HandleStateError for a frame that is released, for a second block, and for a stream
        or commands of another device; UnsupportedError for slots of the host; TypeError.
        """
        raise UnsupportedError(
            "the slots of this channel are memory of the host, which no stream or queue uses; use frame.numpy(), or "
            "frame.torch(), or create the channel with device= a GPU, or open it with device= a CUDA device",
            requires_one_of=["a channel whose slots are on a GPU"],
        )

    def numpy(self) -> Any:
        """Return a NumPy array over the frame, zero copy, read-only for readers; a dictionary of several arrays.

        Errors: as `DeviceMemory.numpy`; HandleStateError.
        """
        return self.memory.numpy() if self._slot.format.entries is None else self._arrays("numpy")

    def torch(self, *, stream: object = None) -> Any:
        """Return a PyTorch tensor over the frame, zero copy; a dictionary of several. As `DeviceMemory.torch`.

        stream: of slots on a GPU: the stream that uses the tensor (None: the current one of PyTorch). It waits for the
            frame, and the slot stays held until the stream is done with what it got before the release of the frame.
        """
        return self.memory.torch() if self._slot.format.entries is None else self._arrays("torch")

    def jax(self) -> Any:
        """Return a JAX array over the frame, zero copy; a dictionary of several. As `DeviceMemory.jax`.

        JAX assumes that elements never change, and the slot is written again after the release: use the array before.
        """
        return self.memory.jax() if self._slot.format.entries is None else self._arrays("jax")

    def cupy(self, *, stream: object = None) -> Any:
        """Return a CuPy array over the frame, zero copy; a dictionary of several. As `DeviceMemory.cupy`.

        stream: as for `torch`.
        """
        return self.memory.cupy() if self._slot.format.entries is None else self._arrays("cupy")

    def view(self) -> memoryview:
        """Return a memoryview (format "B") of the bytes of the frame, zero copy, read-only for readers."""
        return self.memory.map()

    def tobytes(self) -> bytes:
        """Return a copy of the bytes."""
        return bytes(self.view())

    def __array__(self, dtype: object = None, copy: bool | None = None) -> Any:
        return self.memory.__array__(dtype, copy)

    def __dlpack__(self, **options: Any) -> object:
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.memory.__dlpack_device__()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a frame cannot be pickled: this process holds its slot. Pickle the channel, whose readers "
            "get the frames, or a copy: frame.numpy().copy()"
        )


class Frame(_Frame):
    """A frame that a reader has got. The writer does not overwrite it before its release.

    The next read, poll or turn of the loop releases it, unless `hold` was called, or a `with` block has it. An array of
    it that is alive then keeps the slot: its bytes never change.

    Threads: as its channel.
    """

    __slots__ = ("_channel", "_exporters", "_kept", "_live", "_time", "_unlock", "meta", "skipped")

    _made_by = "read(), poll() or a loop of a ChannelReader"

    def __init__(
        self,
        channel: Keeper = _NOT_GIVEN,
        slot: Slot = _NOT_GIVEN,
        number: int = _NOT_GIVEN,
        skipped: int = _NOT_GIVEN,
        time_ns: int = _NOT_GIVEN,
        meta: bytes = _NOT_GIVEN,
        unlock: Iterator[Any] = _NOT_GIVEN,
    ) -> None:
        """unlock: releases the lock of the slot when it is advanced, and does nothing after that."""
        self._live = self._kept = False  # until it is complete
        if unlock is _NOT_GIVEN:
            given = (channel, slot, number, skipped, time_ns, meta)
            raise self._refusal(tuple(one for one in given if one is not _NOT_GIVEN), {})
        self._memory = None
        self._exporters: list[ref[Any]] = []
        """References to what the views of this frame keep alive, while there are any."""
        self._live = True
        self._channel = channel
        self._slot = slot
        self._kept = False
        self._time = time_ns
        self._unlock: Iterator[Any] | None = unlock
        """Releases the slot. None after that: an exception of a signal handler can end a release that has begun."""
        self.number = number
        """Its number. Numbers begin at 1, grow by 1, and are never used twice."""
        self.skipped = skipped
        """How many frames this reader has not seen, between the one that it read before and this one. For its first
        frame: between `open_channel`, with the frame that `start` names, and this one."""
        self.meta = meta
        """The metadata that the writer gave it: at most 256 bytes."""

    @property
    def released(self) -> bool:
        """Whether it does not hold its slot any more."""
        return not self._live

    @property
    def published(self) -> int:
        """When it was published: nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns`)."""
        return self._time

    @property
    def age(self) -> float:
        """Seconds since its publication."""
        return max(0, time.monotonic_ns() - self._time) / 1e9

    @property
    def memory(self) -> DeviceMemory:
        """See `_Frame.memory`."""
        memory = self._memory
        if not self._live:
            raise self._released()
        if memory is None:
            memory = self._memory = self._slot.another_memory(self._exporters)
            if not self._live:  # another thread has released it, and may not have seen the memory
                memory.close()
                raise self._released()
        return memory

    def _released(self) -> HandleStateError:
        return self._channel.refusal(
            f"frame {self.number} of {self._channel.name!r} is released: the writer may have overwritten it; use "
            "it before the next read, or keep it by frame.hold()"
        )

    def view(self) -> memoryview:
        """See `_Frame.view`."""
        # Not by `memory`, which takes several times as long. What is alive of it is looked for at the release.
        if not self._live:
            raise self._released()
        view = self._slot.view(self._exporters)
        if not self._live:
            raise self._released()
        return view

    def numpy(self) -> Any:
        """See `_Frame.numpy`."""
        slot = self._slot
        entries = slot.format.entries
        view = self.view()
        return slot.array(view) if entries is None else {name: slot.array(view, one) for name, one in entries.items()}

    def wait(self, timeout: float | None = None) -> None:
        """Wait on the host until the writer's work on the frame is done. Returns at once for slots of the host.

        timeout: seconds; None for no limit. Arrays of NumPy, and `memory`, wait so by themselves.
        Errors: GpuFrameLostError if the writer ended before; WaitTimeoutError; HandleStateError after the release.
        """
        if not self._live:
            raise self._released()

    def hold(self) -> Frame:
        """Keep the frame beyond the next read, until `release`. Return it.

        It counts against `max_held` of the channel: HandleStateError at the next read if that is reached.
        Errors: HandleStateError after the release.
        """
        if not self._live:
            raise self._released()
        self._kept = True
        self._channel.keep(self)
        return self

    def release(self) -> None:
        """Let the writer use the slot again. Safe to call twice.

        While arrays of the frame are alive, the slot stays as it is: the last of them releases it.
        """
        if self._unlock is not None:
            self._live = False
            self._channel.release(self)

    def __enter__(self) -> Self:
        # A read inside of the block keeps the frame as `hold` does; without one there is nothing to do.
        self._kept = True
        if not self._live:
            raise self._released()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unlock is not None:
            self._live = False
            self._channel.release(self)

    def __del__(self) -> None:
        # It only warns: the next read of the channel releases the slot.
        if getattr(self, "_kept", False) and self._live and not sys.is_finalizing():
            warnings.warn(f"unreleased {self!r}: call release()", ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        state = ", released" * (not self._live)
        return f"<Frame {self.number} of {self._channel.name!r}: {self._slot.format}{state}>"


class WritableFrame(_Frame):
    """A slot that the writer fills: `with channel.write() as frame:`. The end of the block publishes it.

    If the block ends with an exception, nothing is published. The frame is then gone, as if it had never been begun.
    """

    __slots__ = ("_channel", "_meta", "dropped")

    _made_by = "ChannelWriter.write()"

    def __init__(
        self,
        channel: Publisher = _NOT_GIVEN,
        slot: Slot = _NOT_GIVEN,
        memory: DeviceMemory = _NOT_GIVEN,
        dropped: bool = False,
    ) -> None:
        if not isinstance(memory, DeviceMemory):
            raise self._refusal(tuple(one for one in (channel, slot, memory) if one is not _NOT_GIVEN), {})
        self._channel = channel
        self._slot = slot
        self._memory = memory
        self._meta = b""
        self.number = 0
        """Its number, once it is published; 0 before, and for one that was dropped."""
        self.dropped = dropped
        """Whether no slot was free (`when_full="drop"`): what is written into it is not published."""

    @property
    def memory(self) -> DeviceMemory:
        """See `_Frame.memory`."""
        memory = self._memory
        if memory is None:
            raise self._over()
        return memory

    def _over(self) -> HandleStateError:
        return self._channel.refusal(
            f"this frame of {self._channel.name!r} is published or given up; write the next one: channel.write()"
        )

    @property
    def released(self) -> bool:
        """Whether it is published, or given up."""
        return self._memory is None

    @property
    def meta(self) -> bytes:
        """What readers get as `Frame.meta`: bytes, at most 256. Errors: TypeError, ValueError."""
        return self._meta

    @meta.setter
    def meta(self, value: bytes) -> None:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"meta is {value!r}, {a_type(value)}; give bytes")
        value = bytes(value)
        if len(value) > META_LIMIT:
            raise ValueError(
                f"meta has {len(value)} bytes, and a frame carries at most {META_LIMIT}; put the rest into the frame, "
                'as another array: create_channel(name, {"image": …, "more": …})'
            )
        self._meta = value

    def view(self) -> memoryview:
        """Return a memoryview (format "B") of the bytes of the slot, to write to before the frame is published."""
        return self._slot.cached_view(self.memory)

    def numpy(self) -> Any:
        """Return a NumPy array over the slot, to write to before it is published; a dictionary of several arrays."""
        if self._memory is None or self._slot.format.entries is not None:
            return super().numpy()
        return self._slot.cached_numpy(self._memory)

    def publish(self) -> int:
        """Publish the frame now. Return its number; 0 if it was dropped. Errors: HandleStateError if it is over."""
        if self._memory is None:
            raise self._over()
        if not self.dropped:
            self.number = self._channel.publish(self._slot, self._meta)
        self._memory = None
        return self.number

    def discard(self) -> None:
        """Give the frame up: nothing is published. Safe to call twice, and after `publish`."""
        if self._memory is not None:
            self._memory = None
            if not self.dropped:
                self._channel.give_up(self._slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._memory is not None:
            if not self.dropped:
                self.number = self._channel.publish(self._slot, self._meta)
            self._memory = None

    def __repr__(self) -> str:
        state = f"published as {self.number}" if self.number else "dropped" * self.dropped or "being written"
        return f"<WritableFrame of {self._channel.name!r}: {self._slot.format}, {state}>"
