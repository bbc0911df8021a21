"""Part of `extmem bench channel`: 500 frames a second from one writer to 1, 4 and 8 readers.

How this works. The writer takes a time stamp, writes it into a frame and publishes the frame. A reader that waits takes
its own time when Python has the frame, and the difference counts. The stamp is taken before the frame is asked for, so
all that the writer does for a frame is a part of the time. The processors sleep between frames, as those of a program
with a camera do. All ways have the same processes, and their turns in each of five runs, in an order that changes. The
time of a run is the median over the readers of each reader's median; that of the reader for which it is longest is told
too. The best run counts. The writer's own time is from the stamp until its call has returned.

iceoryx2's writer notifies one listener for each reader; that of pyzmq (PUB and SUB, over `ipc://`) hands the payload to
a thread of the library.
"""

from __future__ import annotations

import gc
import importlib
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import extmem
from extmem.cli._bench.channel_bounds import bounded
from extmem.cli._bench.measure import Figure, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures the host device of Linux")

from extmem.cli._bench.channel_ends import CHANNEL
from extmem.cli._bench.channel_peers import ICEORYX, PYZMQ, Iceoryx, remove_iceoryx
from extmem.cli._bench.environment import Environment
from extmem.cli._worker import Worker

__all__ = ["figures"]

_READERS = (1, 4, 8)
_RATE = 500
_PATIENCE = 100.0
_STAMPED = struct.Struct("<QQ")
_at: dict[str, Any] = {}


class _Writer(Protocol):
    def send(self, number: int, stamp: int) -> None: ...

    def close(self) -> None: ...


class _Reader(Protocol):
    def receive(self) -> tuple[int, int]: ...

    def close(self) -> None: ...


class _ChannelWriter:
    def __init__(self, folder: str, name: str) -> None:
        self._channel = extmem.create_channel(name, (_STAMPED.size,), "uint8", slots=16)
        self.close = self._channel.close

    def send(self, number: int, stamp: int) -> None:
        with self._channel.write() as frame:
            _STAMPED.pack_into(frame.view(), 0, number, stamp)


class _ChannelReader:
    def __init__(self, folder: str, name: str) -> None:
        self._channel = extmem.open_channel(name, timeout=_PATIENCE)
        self.close = self._channel.close

    def receive(self) -> tuple[int, int]:
        with self._channel.read() as frame:
            number, stamp = _STAMPED.unpack_from(frame.view())
        return number, stamp


class _IceoryxWriter:
    def __init__(self, folder: str, name: str) -> None:
        self._owner = Iceoryx(folder)
        self.send = self._owner.sender(name, _STAMPED.size, _STAMPED)
        self.close = self._owner.close


class _IceoryxReader:
    def __init__(self, folder: str, name: str) -> None:
        self._owner = Iceoryx(folder)
        self._wait, self._receive = self._owner.receiver(name)
        self.close = self._owner.close

    def receive(self) -> tuple[int, int]:
        while (sample := self._receive()) is None:
            self._wait()
        number, stamp = _STAMPED.unpack_from(sample.payload().as_memory_view())
        return number, stamp


class _PyzmqSocket:
    def __init__(self, folder: str, name: str, kind: str) -> None:
        self._zmq: Any = importlib.import_module("zmq")
        self._context = self._zmq.Context()
        self._socket = self._context.socket(getattr(self._zmq, kind))
        self._socket.linger = 0
        address = f"ipc://{folder}/{name.replace(' ', '-')}"
        if kind == "PUB":
            self._socket.bind(address)
        else:
            self._socket.subscribe(b"")
            self._socket.connect(address)

    def send(self, number: int, stamp: int) -> None:
        self._socket.send(_STAMPED.pack(number, stamp))

    def receive(self) -> tuple[int, int]:
        number, stamp = _STAMPED.unpack(self._socket.recv())
        return number, stamp

    def close(self) -> None:
        self._socket.close()
        self._context.term()


_WRITERS: dict[str, Callable[[str, str], _Writer]] = {
    CHANNEL: _ChannelWriter,
    ICEORYX: _IceoryxWriter,
    PYZMQ: lambda folder, name: _PyzmqSocket(folder, name, "PUB"),
}
_READERS_OF: dict[str, Callable[[str, str], _Reader]] = {
    CHANNEL: _ChannelReader,
    ICEORYX: _IceoryxReader,
    PYZMQ: lambda folder, name: _PyzmqSocket(folder, name, "SUB"),
}


def figures(
    env: Environment, missing: Mapping[str, str], runs: int, frames: int, report: Callable[[str], None]
) -> Iterator[Figure]:
    """Write `frames` frames in each of `runs` runs. missing: ways that cannot be measured, and why."""
    ways = [way for way in _WRITERS if way not in missing]
    for count in _READERS:
        try:
            spent = fan_out(env, ways, count, runs, frames, report)
        finally:
            remove_iceoryx(str(env.directory))
        what = f"{_RATE} frames a second to {count} reader{'s' * (count > 1)}"
        if ICEORYX in missing:
            yield unbounded(f"{what}, against iceoryx2: {missing[ICEORYX]}", 0, "not measured")
        else:
            against = spent[CHANNEL].middle / spent[ICEORYX].middle
            yield bounded("500 frames a second, against iceoryx2", f"{what}, against iceoryx2", against)
        for way, times in spent.items():
            yield unbounded(f"{what}, {way}: the middle reader, p50", times.middle / 1000, "µs")
            yield unbounded(f"{what}, {way}: the slowest reader, p50", times.slowest / 1000, "µs")
            yield unbounded(f"{what}, {way}: the writer itself, p50", times.own / 1000, "µs")


class Times(NamedTuple):
    """Nanoseconds, each of the run in which it was least."""

    middle: float
    """The median over the readers of the median of each."""
    slowest: float
    own: float
    """What the writer needs for a frame."""


def fan_out(
    env: Environment, ways: list[str], count: int, runs: int, frames: int, report: Callable[[str], None]
) -> dict[str, Times]:
    """Return the times of each way with so many readers."""
    report(f"{_RATE} frames a second to {count} readers")
    writer, readers = env.worker("writer"), [env.worker(f"reader {number}") for number in range(count)]
    found: dict[str, list[Times]] = {way: [] for way in ways}
    for way in ways:
        name = env.name(f"fan {count} {way}")
        writer.call(f"{__name__}:open_writer", way, str(env.directory), name)
        for reader in readers:
            reader.start(f"{__name__}:join", way, str(env.directory), name)
        _greet(writer, readers, way)
    number = 1 << 20  # above those of all greetings
    for run in range(runs):
        for way in ways[run % len(ways) :] + ways[: run % len(ways)]:
            answers = []
            for reader in readers:
                reader.start(f"{__name__}:listen", way, number, number + frames)
                answers.append(reader.stream())
                next(answers[-1])  # it is about to wait
            own = writer.call(f"{__name__}:write", way, number, number + frames)
            medians = [next(answer) for answer in answers]
            for answer in answers:
                next(answer, None)
            found[way].append(Times(statistics.median(medians), max(medians), own))
            number += frames
    for worker in (*readers, writer):
        worker.call(f"{__name__}:close_all")
        env.dismiss(worker)
    return {way: best(times) for way, times in found.items()}


def best(runs: Sequence[Times]) -> Times:
    """Return each time of the run in which it was least."""
    return Times(*(min(column) for column in zip(*runs, strict=True)))


def _greet(writer: Worker, readers: list[Worker], way: str) -> None:
    """Send until each reader has received something: what was sent before a reader had joined is lost."""
    end, waiting, number = time.monotonic() + _PATIENCE, list(readers), 0
    while waiting:
        if time.monotonic() > end:
            raise RuntimeError(f"{len(waiting)} readers of {way} have not received anything within {_PATIENCE:g} s")
        number += 1
        writer.call(f"{__name__}:greet", way, number)
        time.sleep(0.005)
        for reader in [reader for reader in waiting if reader.connection.poll()]:
            reader.finish()
            waiting.remove(reader)


# Tasks of the processes.


def open_writer(way: str, folder: str, name: str) -> None:
    """Writer: open this way."""
    _at[way] = _WRITERS[way](folder, name)


def greet(way: str, number: int) -> None:
    """Writer: send what no reader measures."""
    _at[way].send(number, 1)


def write(way: str, first: int, last: int) -> float:
    """Writer: send the frames from `first` on, `last` excluded, at the rate. Return the median of its nanoseconds."""
    send, now, times = _at[way].send, time.perf_counter_ns, []
    gc.collect()
    gc.disable()
    due = time.monotonic() + 0.01
    for number in range(first, last):
        time.sleep(max(0.0, due - time.monotonic()))
        due += 1 / _RATE
        stamp = now()
        send(number, stamp)
        times.append(now() - stamp)
    gc.enable()
    return statistics.median(times)


def join(way: str, folder: str, name: str) -> None:
    """Reader: open this way, and return when something was received."""
    _at[way] = _READERS_OF[way](folder, name)
    _at[way].receive()


def listen(way: str, first: int, last: int) -> Iterator[float]:
    """Reader: yield 0 before the first wait, and the median nanoseconds after the frame before `last`."""
    receive, now, times, number = _at[way].receive, time.perf_counter_ns, [], 0
    gc.collect()
    gc.disable()
    yield 0
    while number < last - 1:
        number, stamp = receive()
        received = now()
        if number >= first:
            times.append(received - stamp)
    gc.enable()
    yield statistics.median(times)


def close_all() -> None:
    """Close every way of this process."""
    while _at:
        _at.popitem()[1].close()
