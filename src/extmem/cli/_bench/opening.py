"""`extmem bench open`: opening by name, opening again, handing over; against what anybody else would do.

The floor for opening is what any design pays that asks another process: one byte over a Unix socket, answered with a
descriptor, which is mapped. Its server is a bare Python loop in a process of its own, as the broker is.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import extmem
from extmem.cli._bench.measure import Figure, at_least, at_most, interleaved, ratio, told

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and host device; there is none to measure here")

from extmem.cli._bench.house import House

__all__ = ["figures"]

_HERE = __name__
_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20, "1 GiB": 1 << 30}
_HANDED = 8 << 20
_SITTINGS = 5
"""New processes each time: whether client and server share a processor is luck, and lasts as long as they live."""
_clock = time.perf_counter_ns
_kept: list[Any] = []


def figures(house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False) -> Iterator[Figure]:
    """Measure; `rounds` of everything that is compared."""
    sizes = dict(list(_SIZES.items())[: 2 if quick else None])
    exporter = house.worker("exporter")
    say(f"sharing payloads of {', '.join(sizes)}")
    names = {label: f"bench {label}" for label in sizes}
    exporter.call(f"{_HERE}:share", [(names[label], size) for label, size in sizes.items()])
    sittings = 1 if quick else _SITTINGS
    say(f"opening each by name {rounds} times, in turns with the floor, in {sittings} sittings")
    times: list[tuple[list[int], list[int]]] = [([], []) for _ in sizes]
    for sitting in range(sittings):
        address = str(house.directory / f"floor-{sitting}.sock")
        floor, opener = house.worker("floor"), house.worker("opener")
        floor.start(f"{_HERE}:serve_floor", address, list(sizes.values()))
        next(floor.stream())
        payloads = [(names[label], sizes[label]) for label in sizes]
        for all_, new in zip(
            times, opener.call(f"{_HERE}:compare_opening", address, payloads, -(-rounds // sittings)), strict=True
        ):
            all_[0].extend(new[0])
            all_[1].extend(new[1])
        floor.finish()
    medians = [statistics.median(mine) for mine, _ in times]
    for label, (mine, bare) in zip(sizes, times, strict=True):
        yield at_most(f"open by name, {label}, against a bare request and mmap", ratio(mine, bare), 2.0)
    yield at_most("open by name, slowest size against fastest", max(medians) / min(medians), 1.3)
    yield told("open by name and map", medians[0] / 1000, "µs")
    yield told("a bare request and mmap", statistics.median(times[0][1]) / 1000, "µs")

    say(f"opening again {rounds} times, in turns with multiprocessing.shared_memory")
    again, first, attach = opener.call(f"{_HERE}:compare_shared_memory", names["1 MiB"], sizes["1 MiB"], rounds)
    yield at_most("open again in the same process, against a shared_memory attach", ratio(again, attach), 0.5)
    yield told("open for the first time, against a shared_memory attach", ratio(first, attach), "ratio")

    say(f"handing over 8 MiB {rounds} times, in turns with pickling it")
    there, back = (str(house.directory / name) for name in ("there", "back"))
    os.mkfifo(there)
    os.mkfifo(back)
    opener = house.worker("opener")
    opener.start(f"{_HERE}:receive", there, back)
    exporter.start(f"{_HERE}:send", there, back, _HANDED, rounds)
    handed, pickled = exporter.finish()
    opener.finish()
    yield at_least("hand over 8 MiB, times as fast as pickling it", ratio(pickled, handed), 50.0)
    yield told("hand over 8 MiB and map it", statistics.median(handed) / 1000, "µs")
    yield told("pickle 8 MiB", statistics.median(pickled) / 1000, "µs")


# What the processes do.


def share(payloads: list[tuple[str, int]]) -> None:
    """Exporter: share these names and sizes until the process ends."""
    device = extmem.open_device(kind="host")
    _kept.extend(device.allocate(size, name=name) for name, size in payloads)


def serve_floor(address: str, sizes: list[int]) -> Iterator[str]:
    """The bare server: byte i is answered with a descriptor of `sizes[i]` bytes."""
    files = []
    for size in sizes:
        fd = os.memfd_create("floor", os.MFD_CLOEXEC)
        os.posix_fallocate(fd, 0, size)
        files.append([fd])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(address)
        door.listen()
        yield "ready"
        peer, _ = door.accept()
    with peer:
        while request := peer.recv(1):
            socket.send_fds(peer, [b"x"], files[request[0]])


def compare_opening(address: str, payloads: list[tuple[str, int]], rounds: int) -> list[tuple[list[int], list[int]]]:
    """Opener: nanoseconds of opening and mapping by name, and of the floor, per payload."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(address)
        steps: list[Callable[[], int]] = []
        for index, (name, size) in enumerate(payloads):
            steps += [_opening(name), _floor(peer, bytes([index]), size)]
        times = interleaved(rounds, *steps)
    return list(zip(times[::2], times[1::2], strict=True))


def _opening(name: str) -> Callable[[], int]:
    def step() -> int:
        start = _clock()
        memory = extmem.open(name)
        view = memory.map()
        spent = _clock() - start
        del view
        memory.close()
        return spent

    return step


def _floor(peer: socket.socket, request: bytes, size: int) -> Callable[[], int]:
    def step() -> int:
        start = _clock()
        peer.send(request)
        _, (fd,), _, _ = socket.recv_fds(peer, 1, 1)
        view = mmap.mmap(fd, size)
        spent = _clock() - start
        view.close()
        os.close(fd)
        return spent

    return step


def compare_shared_memory(name: str, size: int, rounds: int) -> list[list[int]]:
    """Opener: opening again, opening first, and attaching to a block of shared memory."""
    from multiprocessing.shared_memory import SharedMemory

    block = SharedMemory(create=True, size=size, name=f"extmem-{secrets.token_hex(4)}")
    try:

        def attach() -> int:
            start = _clock()
            attached = SharedMemory(name=block.name)
            spent = _clock() - start
            attached.close()
            return spent

        first, attached = interleaved(rounds, _opening(name), attach)
        with extmem.open(name):
            again, beside = interleaved(rounds, _opening(name), attach)
        return [again, first, attached + beside]
    finally:
        block.close()
        block.unlink()


def send(there: str, back: str, size: int, rounds: int) -> list[list[int]]:
    """Sender: nanoseconds from sending to having it, of shared memory and of as many pickled bytes.

    Through a pipe each way, as in `multiprocessing.Queue`.
    """
    with (
        Connection(os.open(there, os.O_WRONLY), readable=False) as out,
        Connection(os.open(back, os.O_RDONLY), writable=False) as answers,
        extmem.open_device(kind="host") as device,
        device.allocate(size) as memory,
    ):

        def sent(what: object) -> Callable[[], int]:
            def step() -> int:
                start = _clock()
                out.send(what)
                # Both processes read the same clock.
                arrived: int = answers.recv()
                return arrived - start

            return step

        times = interleaved(rounds, sent(memory), sent(b"\xa5" * size), turn=10)
        out.send(None)
    return times


def receive(there: str, back: str) -> None:
    """Receiver: say when each thing had arrived, and in the case of memory was mapped; once it is gone again here."""
    with (
        Connection(os.open(there, os.O_RDONLY), writable=False) as come,
        Connection(os.open(back, os.O_WRONLY), readable=False) as answers,
    ):
        while (what := come.recv()) is not None:
            if isinstance(what, bytes):
                now = _clock()
            else:
                view = what.map()
                now = _clock()
                del view
                what.close()
            # What one round leaves behind must not be cleared away within the next one's time.
            del what
            answers.send(now)
