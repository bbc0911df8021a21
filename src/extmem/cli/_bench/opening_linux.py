"""The part of `extmem bench open` that is Linux's: the floor of opening, and the pipes that memory is handed through.

The floor is what any design pays that asks another process: one byte over a Unix socket, answered with a descriptor,
which is mapped. Its server is a bare Python loop in a process of its own, as the broker is.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from extmem.cli._bench.house import House
from extmem.cli._bench.measure import Figure, at_least, at_most, interleaved, ratio, told
from extmem.cli._bench.sharing import opening

if sys.platform != "linux":
    raise ImportError("the floor is a Unix socket that carries descriptors, which are Linux's")

__all__ = ["compare", "figures", "give_and_take", "handed", "serve_floor", "take_and_give", "ways"]

_HERE = __name__
_SITTINGS = 5
"""New processes each time: whether client and server share a processor is luck, and lasts as long as they live."""


def figures(
    house: House, names: dict[str, str], sizes: dict[str, int], rounds: int, say: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    """Opening by name, against the floor."""
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
            times, opener.call(f"{_HERE}:compare", address, payloads, -(-rounds // sittings)), strict=True
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


def compare(address: str, payloads: list[tuple[str, int]], rounds: int) -> list[tuple[list[int], list[int]]]:
    """Opener: nanoseconds of opening and mapping by name, and of the floor, per payload."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(address)
        steps: list[Callable[[], int]] = []
        for index, (name, size) in enumerate(payloads):
            steps += [opening(name), _floor(peer, bytes([index]), size)]
        times = interleaved(rounds, *steps)
    return list(zip(times[::2], times[1::2], strict=True))


def _floor(peer: socket.socket, request: bytes, size: int) -> Callable[[], int]:
    def step() -> int:
        start = time.perf_counter_ns()
        peer.send(request)
        _, (fd,), _, _ = socket.recv_fds(peer, 1, 1)
        view = mmap.mmap(fd, size)
        spent = time.perf_counter_ns() - start
        view.close()
        os.close(fd)
        return spent

    return step


# Handing over.


def handed(name: str, times: float) -> Figure:
    """What handing over must be, against pickling."""
    return at_least(name, times, 50.0)


def ways(house: House) -> tuple[str, str]:
    """Where a sender and a receiver find each other: a pipe each way, as in `multiprocessing.Queue`."""
    there, back = (str(house.directory / name) for name in ("there", "back"))
    os.mkfifo(there)
    os.mkfifo(back)
    return there, back


@contextlib.contextmanager
def give_and_take(there: str, back: str) -> Iterator[tuple[Connection, Connection]]:
    """Sender: what it writes to, and what it reads from."""
    with (
        Connection(os.open(there, os.O_WRONLY), readable=False) as out,
        Connection(os.open(back, os.O_RDONLY), writable=False) as answers,
    ):
        yield out, answers


@contextlib.contextmanager
def take_and_give(there: str, back: str) -> Iterator[tuple[Connection, Connection]]:
    """Receiver: what it reads from, and what it writes to."""
    with (
        Connection(os.open(there, os.O_RDONLY), writable=False) as come,
        Connection(os.open(back, os.O_WRONLY), readable=False) as answers,
    ):
        yield come, answers
