"""The part of `extmem bench open` for Linux: the floor of opening, and the pipes that memory is passed through.

The floor is the least time of a design that asks another process: a request of one byte over a Unix socket, a reply
with an fd, and a mapping of it. Its server is a plain Python loop in a process of its own, as the broker is.

On two processors the time to wake up the other process counts in both, as in most programs. On one processor that time
is small, so the ratio is that of the code alone.
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

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.measure import (
    Figure,
    Pairs,
    at_least,
    at_most,
    extend_pairs,
    interleaved_pairs,
    microseconds,
    ratio,
    unbounded,
)
from extmem.cli._bench.sharing import opening

if sys.platform != "linux":
    raise ImportError("the floor uses fds over a Unix socket, which exist on Linux only")

from extmem.cli._bench.machine import broker_of, on_processor, processors

__all__ = ["addresses", "compare", "figures", "passed", "receiver_end", "sender_end", "serve_floor"]

_APART, _TOGETHER = "", " on one processor"
"""Placements of server and client, as parts of the names of figures: the empty one is on two processors."""
_BOUNDS = {_APART: 2.0, _TOGETHER: 4.0}
_SITTINGS = 3
"""Number of runs of each placement, with new processes each time."""


def figures(
    env: Environment,
    names: dict[str, str],
    sizes: dict[str, int],
    rounds: int,
    report: Callable[[str], None],
    *,
    quick: bool,
) -> Iterator[Figure]:
    """Measure opening by name against the floor."""
    payloads = [(names[label], sizes[label]) for label in sizes]
    numbers = processors()
    placements = {_APART: (numbers[0], numbers[1])} if len(numbers) > 1 else {}
    placements[_TOGETHER] = (numbers[0], numbers[0])
    for placement, (server, client) in placements.items():
        report(
            f"opening each payload by name {rounds} times, in turns with the floor,{placement or ' on two processors'}"
        )
        times: Pairs = [([], []) for _ in sizes]
        for _ in range(1 if quick else _SITTINGS):
            extend_pairs(times, _sitting(env, payloads, -(-rounds // _SITTINGS), server, client))
        medians = [statistics.median(mine) for mine, _ in times]
        for label, (mine, bare) in zip(sizes, times, strict=True):
            what = f"open by name{placement}, {label}, against a bare request and mmap"
            yield at_most(what, ratio(mine, bare), _BOUNDS[placement])
        yield at_most(f"open by name{placement}, slowest size against fastest", max(medians) / min(medians), 1.3)
        yield unbounded(f"open by name and map{placement}", medians[0] / 1000, "µs")
        yield microseconds(f"a bare request and mmap{placement}", times[0][1])


def _sitting(env: Environment, payloads: list[tuple[str, int]], rounds: int, server: int, client: int) -> Pairs:
    address = str(env.directory / f"floor-{secrets.token_hex(4)}.sock")
    floor, opener = env.worker("floor"), env.worker("opener")
    floor.start(f"{__name__}:serve_floor", address, [size for _, size in payloads])
    next(floor.stream())
    with on_processor(server, broker_of(env.directory), floor.pid), on_processor(client, opener.pid):
        times: Pairs = opener.call(f"{__name__}:compare", address, payloads, rounds)
    floor.finish()
    return times


def serve_floor(address: str, sizes: list[int]) -> Iterator[str]:
    """Server of the floor: reply to the byte i with an fd of a file of `sizes[i]` bytes."""
    files = []
    for size in sizes:
        fd = os.memfd_create("floor", os.MFD_CLOEXEC)
        os.posix_fallocate(fd, 0, size)
        files.append([fd])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        yield "ready"
        peer, _ = listener.accept()
    with peer:
        while request := peer.recv(1):
            socket.send_fds(peer, [b"x"], files[request[0]])


def compare(address: str, payloads: list[tuple[str, int]], rounds: int) -> Pairs:
    """Opener: return the nanoseconds of opening and mapping by name, and of the floor, for each payload."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(address)
        steps: list[Callable[[], int]] = []
        for index, (name, size) in enumerate(payloads):
            steps += [opening(name), _floor(peer, bytes([index]), size)]
        return interleaved_pairs(rounds, steps)


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


# Passing memory.


def passed(name: str, times: float) -> Figure:
    """Return the figure of passing memory against pickling."""
    return at_least(name, times, 50.0)


def addresses(env: Environment) -> tuple[str, str]:
    """Return the addresses of two pipes, one for each direction, as in `multiprocessing.Queue`."""
    there, back = (str(env.directory / name) for name in ("there", "back"))
    os.mkfifo(there)
    os.mkfifo(back)
    return there, back


@contextlib.contextmanager
def sender_end(there: str, back: str) -> Iterator[tuple[Connection, Connection]]:
    """Open the pipes of the sender: the one that it writes to, and the one that it reads from."""
    with (
        Connection(os.open(there, os.O_WRONLY), readable=False) as out,
        Connection(os.open(back, os.O_RDONLY), writable=False) as answers,
    ):
        yield out, answers


@contextlib.contextmanager
def receiver_end(there: str, back: str) -> Iterator[tuple[Connection, Connection]]:
    """Open the pipes of the receiver: the one that it reads from, and the one that it writes to."""
    with (
        Connection(os.open(there, os.O_RDONLY), writable=False) as incoming,
        Connection(os.open(back, os.O_WRONLY), readable=False) as answers,
    ):
        yield incoming, answers
