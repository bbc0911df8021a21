"""The part of `extmem bench open` that is Linux's: the floor of opening, and the pipes that memory is handed through.

The floor is what any design pays that asks another process: one byte over a Unix socket, answered with a descriptor,
which is mapped. Its server is a bare Python loop in a process of its own, as the broker is.

On two processors the time to wake up the other process counts in both, as in most programs. On one processor it hardly
does, so that the ratio is that of the code alone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TypeAlias

from extmem.cli._bench.house import House
from extmem.cli._bench.measure import Figure, at_least, at_most, interleaved, ratio, told
from extmem.cli._bench.sharing import opening

if sys.platform != "linux":
    raise ImportError("the floor is a Unix socket that carries descriptors, which are Linux's")

from extmem.cli._bench.machine import broker_of, on_processor, processors

__all__ = ["compare", "figures", "give_and_take", "handed", "serve_floor", "take_and_give", "ways"]

_HERE = __name__
_APART, _TOGETHER = "", " on one processor"
"""Placements of server and client, as figures name them: on two processors where nothing is said."""
_BOUNDS = {_APART: 2.0, _TOGETHER: 4.0}
_SITTINGS = 3
"""Of each placement, with new processes each time."""
Times: TypeAlias = list[tuple[list[int], list[int]]]
"""Nanoseconds of opening and of the floor, per payload."""


def figures(
    house: House, names: dict[str, str], sizes: dict[str, int], rounds: int, say: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    """Opening by name, against the floor."""
    payloads = [(names[label], sizes[label]) for label in sizes]
    numbers = processors()
    placements = {_APART: (numbers[0], numbers[1])} if len(numbers) > 1 else {}
    placements[_TOGETHER] = (numbers[0], numbers[0])
    for placement, (server, client) in placements.items():
        say(f"opening each by name {rounds} times, in turns with the floor,{placement or ' on two processors'}")
        times: Times = [([], []) for _ in sizes]
        for _ in range(1 if quick else _SITTINGS):
            sitting = _sitting(house, payloads, -(-rounds // _SITTINGS), server, client)
            for all_, new in zip(times, sitting, strict=True):
                all_[0].extend(new[0])
                all_[1].extend(new[1])
        medians = [statistics.median(mine) for mine, _ in times]
        for label, (mine, bare) in zip(sizes, times, strict=True):
            what = f"open by name{placement}, {label}, against a bare request and mmap"
            yield at_most(what, ratio(mine, bare), _BOUNDS[placement])
        yield at_most(f"open by name{placement}, slowest size against fastest", max(medians) / min(medians), 1.3)
        yield told(f"open by name and map{placement}", medians[0] / 1000, "µs")
        yield told(f"a bare request and mmap{placement}", statistics.median(times[0][1]) / 1000, "µs")


def _sitting(house: House, payloads: list[tuple[str, int]], rounds: int, server: int, client: int) -> Times:
    address = str(house.directory / f"floor-{secrets.token_hex(4)}.sock")
    floor, opener = house.worker("floor"), house.worker("opener")
    floor.start(f"{_HERE}:serve_floor", address, [size for _, size in payloads])
    next(floor.stream())
    with on_processor(server, broker_of(house.directory), floor.pid), on_processor(client, opener.pid):
        times: Times = opener.call(f"{_HERE}:compare", address, payloads, rounds)
    floor.finish()
    return times


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


def compare(address: str, payloads: list[tuple[str, int]], rounds: int) -> Times:
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
