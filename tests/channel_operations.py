"""The operations of channels and their frames, for `tests.operations`.

How this works. Each frame is filled with one byte, which its metadata has, too: a frame with other bytes was
overwritten while it was held. The ring has one slot for the newest frame, one for that of the reader, and one more. So
a writer that finds no free slot (`when_full="raise"`) tells of a lock that nobody has released.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

import numpy as np

import extmem
from extmem import ChannelReader, ChannelWriter, Frame, WritableFrame
from extmem.errors import ChannelFullError, ChannelTakenError, NameNotFoundError, WaitTimeoutError, WriterGoneError
from tests.tagged_payloads import SIZE, World, WrongByteError

__all__ = ["CALLS", "CASES", "OF_DEVICES", "close", "has_channels"]

_Call: TypeAlias = Callable[[Any], Any]
_SLOTS = 3
_MOST_HELD = 8
_OTHER_BYTE = 0xEE
_names = count(1)
_bytes = count(1)


def has_channels(device: Any) -> bool:
    """Return whether channels have slots on this device."""
    return bool(device.kind == "host" and extmem.manager.manager().has_broker)


def _name() -> str:
    return f"channel operations {os.getpid()} {next(_names)}"


def _create(world: World, slots: int = _SLOTS) -> ChannelWriter:
    return extmem.create_channel(
        _name(), SIZE, slots=slots, max_slots=16, when_full="raise", device=world.device, max_reliable=2
    )


def _write(channel: ChannelWriter, byte: int | None = None) -> int:
    """Write a frame of one byte."""
    byte = next(_bytes) % 199 + 1 if byte is None else byte
    with channel.write() as one:
        one.meta = bytes([byte])
        one.view()[:] = bytes([byte]) * SIZE
    return one.number


def _written(channel: ChannelWriter) -> int:
    """Write a frame, beside other threads that hold or write frames."""
    try:
        return _write(channel)
    except ChannelFullError:
        return 0


def _whole(one: Frame | None) -> None:
    """Check that all bytes of a frame are the one that was written into it. Errors: WrongByteError."""
    if one is not None:
        World.check_bytes(bytes(one.view()), one.meta[0], f"{one!r}")


# Objects.


def writer(world: World) -> tuple[ChannelWriter, int, list[Any]]:
    """Make a channel. Return it, a tag that nothing has, and what it needs."""
    made = _create(world)
    _write(made)
    return made, 0, []


def reader(world: World) -> tuple[ChannelReader, int, list[Any]]:
    """Make a reader of a channel with a frame."""
    channel = _create(world)
    _write(channel)
    return extmem.open_channel(channel.name, max_held=_MOST_HELD), 0, [channel]


def frame(world: World) -> tuple[Frame, int, list[Any]]:
    """Make a frame of the tag that a reader keeps. The writer overwrites the others with another byte."""
    tag = world.tag()
    channel = _create(world)
    _write(channel, tag)
    opened = extmem.open_channel(channel.name, max_held=_MOST_HELD)
    return opened.read(timeout=10).hold(), tag, [channel, opened]


def writable_frame(world: World) -> tuple[WritableFrame, int, list[Any]]:
    """Make a frame of the tag that is being written."""
    tag = world.tag()
    channel = _create(world)
    made = channel.write()
    made.meta = bytes([tag])
    made.view()[:] = bytes([tag]) * SIZE
    return made, tag, [channel]


def close(thing: Any) -> None:
    """Close an object of a scene; frames are released."""
    if isinstance(thing, Frame):
        thing.release()
    elif isinstance(thing, WritableFrame):
        thing.discard()
    else:
        thing.close()


# Probes: whether all is as it was.


def probe_writer(scene: Any) -> None:
    """Write more frames than there are slots, none of which may be locked."""
    before = scene.thing.count
    for _ in range(2 * _SLOTS):
        _write(scene.thing)
    if scene.thing.count != before + 2 * _SLOTS:
        raise WrongByteError(f"{2 * _SLOTS} frames were written, and their numbers end at {scene.thing.count}")


def probe_reader(scene: Any) -> None:
    """Read frames, more than there are slots: whoever lost a lock, or a number, would be found."""
    channel = scene.keep[0]
    for _ in range(2 * _SLOTS):
        number = _write(channel)
        one = scene.thing.read(timeout=10)
        _whole(one)
        if one.number != number:
            raise WrongByteError(f"frame {number} was written, and {one!r} was read")
    one.release()
    if scene.thing.held:
        raise WrongByteError(f"the reader holds {scene.thing.held} frames, and each was released")


def probe_frame(scene: Any) -> Any:
    """Overwrite the other slots, and return the bytes of the frame."""
    for _ in range(2 * _SLOTS):
        _write(scene.keep[0], _OTHER_BYTE)
    return scene.thing.tobytes()


# Operations.


def _read(scene: Any, **options: Any) -> None:
    _written(scene.keep[0])
    with contextlib.suppress(WaitTimeoutError):
        with scene.thing.read(timeout=0, **options) as one:
            _whole(one)


def _polled(scene: Any) -> None:
    _written(scene.keep[0])
    one = scene.thing.poll()
    if one is not None:
        one.hold()
        _whole(one)
        one.release()


def _lingering(scene: Any) -> Any:
    """An array that outlives its frame: it is checked after the writer had to overwrite the other slots."""
    _written(scene.keep[0])
    one = scene.thing.poll()
    if one is None:
        return None
    one.hold()
    array, byte = one.numpy(), one.meta[0]
    one.release()
    for _ in range(_SLOTS):
        _written(scene.keep[0])
    World.check_bytes(array.tobytes(), byte, "an array that outlived its frame")
    return None


def _without_loop(waiting: Any) -> Any:
    """Return the result of a coroutine that has nothing to wait for, so that no event loop handles interrupts."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    finally:
        waiting.close()
    raise AssertionError("the coroutine waits for something")


def _awaited(scene: Any) -> None:
    _written(scene.keep[0])
    with contextlib.suppress(WaitTimeoutError):
        _without_loop(scene.thing.read_async(timeout=0))


def _opened(name: str, **options: Any) -> Any:
    """Open the channel, unless another thread has closed it."""
    with contextlib.suppress(NameNotFoundError):
        return extmem.open_channel(name, **options)
    return contextlib.nullcontext()


def _loop(scene: Any) -> None:
    """One turn of a loop of another reader. A newest frame is always there, so it does not wait."""
    with _opened(scene.thing.name) as opened, contextlib.suppress(WriterGoneError):
        for one in opened or ():
            _whole(one)
            break


def _async_loop(scene: Any) -> None:
    with _opened(scene.thing.name) as opened, contextlib.suppress(WriterGoneError, StopAsyncIteration):
        if opened is not None:
            _whole(_without_loop(aiter(opened).__anext__()))


def _received(scene: Any) -> None:
    """Pickle and unpickle a channel, which gives a reader."""
    received = pickle.loads(pickle.dumps(scene.thing))  # it was pickled in this line
    with contextlib.closing(received):
        if not received.closed:
            _whole(received.poll())


def _taken(scene: Any) -> None:
    """Create the channel that exists: it is refused, or taken over from a writer that another thread has closed."""
    with contextlib.suppress(ChannelTakenError):
        extmem.create_channel(scene.thing.name, SIZE, device=scene.world.device).close()


def _given_up(scene: Any) -> None:
    with contextlib.suppress(ChannelFullError):
        scene.thing.write().discard()


def _full(scene: Any) -> None:
    """Let a frame be dropped, and a slot be added."""
    for policy in ("drop", "grow"):
        with extmem.create_channel(
            _name(), SIZE, slots=1, max_slots=2, when_full=policy, device=scene.world.device
        ) as one:
            with one.write() as first, one.write() as second:
                if second.dropped != (policy == "drop") or first.dropped:
                    raise WrongByteError(f"{policy}: {first!r}, {second!r}")


OF_WRITERS: tuple[tuple[str, _Call], ...] = (
    ("pickle", _received),
    ("with", lambda s: s.thing.__enter__() and None),
    ("repr", lambda s: repr(s.thing)),
    ("extmem.open_channel", lambda s: _opened(s.thing.name).__exit__(None, None, None)),
    ("extmem.create_channel", _taken),
    ("a frame that is given up", _given_up),
)
OF_READERS: tuple[tuple[str, _Call], ...] = (
    ("pickle", _received),
    ("with", lambda s: s.thing.__enter__() and None),
    ("repr", lambda s: repr(s.thing)),
    ("for", _loop),
    ("async for", _async_loop),
    ("an array that outlives its frame", _lingering),
    ("every frame, reliable", lambda s: _opened(s.thing.name, every=True, reliable=True).__exit__(None, None, None)),
)
OF_FRAMES: tuple[tuple[str, _Call], ...] = (
    ("np.asarray", lambda s: np.asarray(s.thing)),
    ("np.from_dlpack", lambda s: np.from_dlpack(s.thing, device="cpu")),
    ("a part", lambda s: s.thing[1:].read()),
    ("the next frame", lambda s: _whole(s.keep[1].poll())),
    ("another frame is written", lambda s: _written(s.keep[0])),
    ("with", lambda s: s.thing.__enter__() and None),
    ("the block's end", lambda s: s.thing.__exit__(None, None, None)),
    ("repr", lambda s: repr(s.thing)),
)
OF_WRITABLE_FRAMES: tuple[tuple[str, _Call], ...] = (
    ("np.asarray", lambda s: np.asarray(s.thing)),
    ("a part", lambda s: s.thing[1:].read()),
    ("another frame is written", lambda s: _written(s.keep[0])),
    ("with", lambda s: s.thing.__enter__() and None),
    ("the block's end", lambda s: s.thing.__exit__(None, None, None)),
    ("repr", lambda s: repr(s.thing)),
)
OF_DEVICES: tuple[tuple[str, _Call], ...] = (("extmem.create_channel", _full),)

CALLS: dict[tuple[type, str], _Call] = {
    (ChannelWriter, "write"): lambda s: _written(s.thing),
    (ChannelWriter, "put"): lambda s: _put(s),
    (ChannelWriter, "reconfigure"): lambda s: s.thing.reconfigure(SIZE, slots=_SLOTS),
    (ChannelReader, "read"): _read,
    (ChannelReader, "read_async"): _awaited,
    (ChannelReader, "poll"): _polled,
    (Frame, "memory"): lambda s: s.thing.memory.read_bytes(),
    (Frame, "hold"): lambda s: s.thing.hold() and None,
    (WritableFrame, "memory"): lambda s: s.thing.memory.read_bytes(),
    (WritableFrame, "meta"): lambda s: setattr(s.thing, "meta", bytes([s.tag])),
}


def _put(scene: Any) -> None:
    byte = next(_bytes) % 199 + 1
    with contextlib.suppress(ChannelFullError):
        scene.thing.put(bytes([byte]) * SIZE, meta=bytes([byte]))


CASES: tuple[tuple[Any, ...], ...] = (
    (ChannelWriter, writer, OF_WRITERS, "close", frozenset({"close"}), probe_writer),
    (ChannelReader, reader, OF_READERS, "close", frozenset({"close"}), probe_reader),
    (Frame, frame, OF_FRAMES, "release", frozenset({"release", "the block's end"}), probe_frame),
    (
        WritableFrame,
        writable_frame,
        OF_WRITABLE_FRAMES,
        "discard",
        frozenset({"discard", "publish", "the block's end"}),
        lambda s: s.thing.tobytes(),
    ),
)
"""The classes, with the other fields of `tests.operations.Case`."""
