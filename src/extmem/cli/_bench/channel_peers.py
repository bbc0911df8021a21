"""The libraries that `extmem bench channel` compares channels with: how each sends one payload and receives one.

How this works. An *end* is what one of two processes has of a way: it sends on one of two one-way connections, and
receives on the other. Payloads have a number in their first 8 bytes, which is written and read in place. Nothing else
of a payload is touched, so a way without copies takes the same time for each size. Each library is used as its examples
do, and without its checks where it has a choice.

Where it takes time to get at the bytes of a payload that one has, there are two ways: one that does not look at them,
and one that writes and reads the number by a `memoryview` of all bytes.

- The POSIX semaphore is the floor: two semaphores and memory that both processes have mapped. Nobody is safe from
  anybody there: one payload, one reader, no check, no name, nothing is told of a death.
- iceoryx2: a service of publish-subscribe and one of events of the same name. `blocking_wait` of the listener, then
  `receive`; `payload().as_memory_view()` for the bytes. Its files are in the folder of the benchmark, and its shared
  memory has a prefix of its own.
- pyzmq: PAIR over `ipc://`, with `copy=False` for what is larger than its threshold.
- Pipe and Queue of multiprocessing: they pickle an array.

Their wheels are optional: `lacking` tells why a way cannot be measured.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import mmap
import multiprocessing
import os
import struct
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

if sys.platform != "linux":
    raise ImportError("these ways between processes are those of Linux")

__all__ = [
    "ICEORYX",
    "ICEORYX_READ",
    "IOX_FOLDER",
    "PEERS",
    "PIPE",
    "PYZMQ",
    "QUEUE",
    "SEMAPHORE",
    "UNREAD",
    "End",
    "Iceoryx",
    "Inherited",
    "Place",
    "lacking",
    "remove_iceoryx",
]

SEMAPHORE = "POSIX semaphore"
ICEORYX = "iceoryx2"
ICEORYX_READ = "iceoryx2, written and read"
PYZMQ = "pyzmq"
PIPE = "multiprocessing.Pipe"
QUEUE = "multiprocessing.Queue"

_MODULES = {ICEORYX: "iceoryx2", ICEORYX_READ: "iceoryx2", PYZMQ: "zmq"}
"""The module that a way needs."""
UNREAD = -1
"""Stands for the number of a payload that was not looked at."""

_NUMBER = struct.Struct("<Q")
_COPIED = 1 << 16
"""Bytes from which pyzmq sends without copying, by its own default."""
IOX_FOLDER = "iox2"
"""Below the folder of the benchmark. Short, since sockets below it have paths of at most 107 bytes."""
_BUFFER = 4
"""Samples that wait in iceoryx2 for one subscriber."""


class End(Protocol):
    """One of the two ends of a way."""

    def send(self, number: int) -> None:
        """Send a payload with this number; in a way that does not look at it, a payload."""

    def receive(self) -> int:
        """Wait for the next payload. Return its number; `UNREAD` in a way that does not look at it."""

    def close(self) -> None:
        """Release what the end has."""


class Place(NamedTuple):
    """Where two ends meet."""

    folder: str
    """A folder that both processes can use, and that is removed after the benchmark."""
    label: str
    """A word for this way and size; it is a part of names."""
    size: int
    """Bytes of a payload; a multiple of 8."""
    first: bool
    """Whether this is the end of the first process."""


class Inherited:
    """What the second process can only get by inheritance: semaphores, pipes and queues of multiprocessing."""

    def __init__(self, size: int) -> None:
        spawning = multiprocessing.get_context("spawn")
        self.semaphores = spawning.Semaphore(0), spawning.Semaphore(0)
        self.pipes = spawning.Pipe()
        self.queues = spawning.Queue(), spawning.Queue()
        self._page = os.memfd_create("extmem-bench")
        os.ftruncate(self._page, size)
        self.path = f"/proc/{os.getpid()}/fd/{self._page}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_page": -1}

    def close(self) -> None:
        """Close the memory of the first process."""
        for queue in self.queues:
            queue.close()
        if self._page >= 0:
            os.close(self._page)


def lacking(way: str) -> str:
    """Return why a way cannot be measured on this machine; empty if it can."""
    module = _MODULES.get(way)
    if module is None:
        return ""
    library = way.partition(",")[0]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            return f"{library} is not installed"
        return f"{library} cannot be imported: {error}"
    except ImportError as error:
        return f"{library} cannot be imported: {error}"
    return ""


class _Semaphore:
    def __init__(self, place: Place, inherited: Inherited) -> None:
        there, back = inherited.semaphores
        mine, theirs = (there, back) if place.first else (back, there)
        self._release, self._acquire = mine.release, theirs.acquire
        self._fd = os.open(inherited.path, os.O_RDWR)
        self._map = mmap.mmap(self._fd, place.size)

    def send(self, number: int) -> None:
        _NUMBER.pack_into(self._map, 0, number)
        self._release()

    def receive(self) -> int:
        self._acquire()
        return int(_NUMBER.unpack_from(self._map)[0])

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)


class Iceoryx:
    """What a process has of iceoryx2: a node, and what it makes of services. `close` releases all in order."""

    def __init__(self, folder: str) -> None:
        self.library: Any = importlib.import_module("iceoryx2")
        self.library.set_log_level(self.library.LogLevel.Error)
        path = Path(folder, IOX_FOLDER)
        path.mkdir(exist_ok=True)
        config = self.library.config.default()
        config.global_cfg.root_path = self.library.Path.new(f"{path}/")
        config.global_cfg.prefix = self.library.FileName.new(iceoryx_prefix(folder))
        builder = self.library.NodeBuilder.new().config(config)
        self._node = builder.signal_handling_mode(self.library.SignalHandlingMode.Disabled).create(
            self.library.ServiceType.Ipc
        )
        self._made: list[Any] = []

    def _service(self, name: str) -> Any:
        return self._node.service_builder(self.library.ServiceName.new(name))

    def _samples(self, name: str) -> Any:
        bytes_of = self.library.Slice[ctypes.c_uint8]
        return (
            self._service(name)
            .publish_subscribe(bytes_of)
            .subscriber_max_buffer_size(_BUFFER)
            .max_subscribers(16)
            .max_nodes(40)
            .payload_alignment(self.library.Alignment.new(8))
            .open_or_create()
        )

    def _events(self, name: str) -> Any:
        return self._service(name).event().max_listeners(16).max_nodes(40).open_or_create()

    def sender(self, name: str, size: int, layout: struct.Struct | None = None) -> Callable[..., None]:
        """Return a function that sends payloads of `size` bytes, which begin with its arguments in this layout."""
        publisher = self._samples(name).publisher_builder().initial_max_slice_len(size).create()
        notifier = self._events(name).notifier_builder().create()
        self._made += [publisher, notifier]
        loan, notify = publisher.loan_slice_uninit, notifier.notify

        def send(*numbers: int) -> None:
            sample = loan(size)
            if layout is not None:
                layout.pack_into(sample.payload().as_memory_view(), 0, *numbers)
            sample.assume_init().send()
            notify()

        return send

    def receiver(self, name: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Return a function that waits for an event, and one that returns the next sample or None."""
        subscriber = self._samples(name).subscriber_builder().create()
        listener = self._events(name).listener_builder().create()
        self._made += [subscriber, listener]
        return listener.blocking_wait, subscriber.receive

    def close(self) -> None:
        """Delete what was made, the last first."""
        while self._made:
            self._made.pop().delete()
        del self._node


def iceoryx_prefix(folder: str) -> str:
    """Return the prefix of iceoryx2's shared memory for a benchmark with this folder."""
    return f"{Path(folder).name[-8:]}_"


def remove_iceoryx(folder: str) -> int:
    """Remove the shared memory that iceoryx2 has left under the prefix of this folder. Return the number of files."""
    left = list(Path("/dev/shm").glob(f"*{iceoryx_prefix(folder)}*"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


class _IceoryxEnd:
    layout: struct.Struct | None = None

    def __init__(self, place: Place, inherited: Inherited) -> None:
        self._owner = Iceoryx(place.folder)
        out, into = ("there", "back") if place.first else ("back", "there")
        self._send = self._owner.sender(f"{place.label} {out}", place.size, self.layout)
        self._wait, self._receive = self._owner.receiver(f"{place.label} {into}")

    def send(self, number: int) -> None:
        self._send()

    def received(self) -> Any:
        self._wait()
        while (sample := self._receive()) is None:
            self._wait()
        return sample

    def receive(self) -> int:
        self.received()
        return UNREAD

    def close(self) -> None:
        self._owner.close()


class _IceoryxRead(_IceoryxEnd):
    layout = _NUMBER

    def send(self, number: int) -> None:
        self._send(number)

    def receive(self) -> int:
        return int(_NUMBER.unpack_from(self.received().payload().as_memory_view())[0])


class _Pyzmq:
    def __init__(self, place: Place, inherited: Inherited) -> None:
        zmq: Any = importlib.import_module("zmq")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.linger = 0
        address = f"ipc://{place.folder}/zmq-{place.label.replace(' ', '-')}"
        (self._socket.bind if place.first else self._socket.connect)(address)
        self._payload = bytearray(place.size)
        self._copy = place.size < _COPIED

    def send(self, number: int) -> None:
        _NUMBER.pack_into(self._payload, 0, number)
        self._socket.send(self._payload, copy=self._copy)

    def receive(self) -> int:
        received = self._socket.recv(copy=self._copy)
        return int(_NUMBER.unpack_from(received if self._copy else received.buffer)[0])

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def _array(size: int) -> Any:
    """Return an array of NumPy, or where there is none of Python, which pickles in the same way."""
    if importlib.util.find_spec("numpy"):
        return importlib.import_module("numpy").zeros(size // 8, "uint64")
    return array("Q", bytes(size))


class _Pickled:
    """A pipe or a queue, which pickles."""

    def __init__(self, size: int, put: Callable[[Any], None], get: Callable[[], Any]) -> None:
        self._payload, self._put, self._get = _array(size), put, get

    def send(self, number: int) -> None:
        self._payload[0] = number
        self._put(self._payload)

    def receive(self) -> int:
        return int(self._get()[0])

    def close(self) -> None:
        del self._payload


def _pipe(place: Place, inherited: Inherited) -> End:
    mine = inherited.pipes[not place.first]
    return _Pickled(place.size, mine.send, mine.recv)


def _queue(place: Place, inherited: Inherited) -> End:
    mine, theirs = inherited.queues if place.first else inherited.queues[::-1]
    return _Pickled(place.size, mine.put, theirs.get)


PEERS: dict[str, Callable[[Place, Inherited], End]] = {
    SEMAPHORE: _Semaphore,
    ICEORYX: _IceoryxEnd,
    ICEORYX_READ: _IceoryxRead,
    PYZMQ: _Pyzmq,
    PIPE: _pipe,
    QUEUE: _queue,
}
"""What makes the end of each way."""
