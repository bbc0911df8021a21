"""The part of `extmem bench open` that is Windows's: opening against what the standard library has, and named pipes."""

from __future__ import annotations

import contextlib
import secrets
import statistics
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Listener
from typing import Any

from extmem.cli._bench.house import House
from extmem.cli._bench.measure import Figure, at_most, interleaved, ratio, told
from extmem.cli._bench.sharing import attached, opening

if sys.platform != "win32":
    raise ImportError("named pipes and sections are Windows's")

__all__ = ["compare", "figures", "give_and_take", "handed", "take_and_give", "ways"]

_HERE = __name__
_SITTINGS = 5


def figures(
    house: House, names: dict[str, str], sizes: dict[str, int], rounds: int, say: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    """Opening by name and mapping, against attaching to `multiprocessing.shared_memory` of that size."""
    sittings = 1 if quick else _SITTINGS
    say(f"opening each by name {rounds} times, in turns with shared_memory, in {sittings} sittings")
    times: list[tuple[list[int], list[int]]] = [([], []) for _ in sizes]
    for _ in range(sittings):
        opener = house.worker("opener")
        payloads = [(names[label], sizes[label]) for label in sizes]
        for all_, new in zip(times, opener.call(f"{_HERE}:compare", payloads, -(-rounds // sittings)), strict=True):
            all_[0].extend(new[0])
            all_[1].extend(new[1])
        house.dismiss(opener)
    for label, (mine, theirs) in zip(sizes, times, strict=True):
        yield at_most(f"open by name, {label}, against a shared_memory attach", ratio(mine, theirs), 3.0)
    yield told("open by name and map", statistics.median(times[0][0]) / 1000, "µs")
    yield told("a shared_memory attach", statistics.median(times[0][1]) / 1000, "µs")


def compare(payloads: list[tuple[str, int]], rounds: int) -> list[tuple[list[int], list[int]]]:
    """Opener: nanoseconds of opening and mapping by name, and of attaching, per payload."""
    with contextlib.ExitStack() as stack:
        steps: list[Callable[[], int]] = []
        for name, size in payloads:
            steps += [opening(name), stack.enter_context(attached(size))]
        times = interleaved(rounds, *steps)
    return list(zip(times[::2], times[1::2], strict=True))


# Handing over.


def handed(name: str, times: float) -> Figure:
    """Told: the receiver fetches, in some ten calls of the kernel; what they cost is the system's."""
    return told(name, times, "ratio")


def ways(house: House) -> tuple[str, str]:
    """Where a sender and a receiver find each other: a named pipe, which is both ways."""
    return rf"\\.\pipe\extmem-{secrets.token_hex(8)}", ""


@contextlib.contextmanager
def give_and_take(there: str, back: str) -> Iterator[tuple[Any, Any]]:
    """Sender: what it writes to, and what it reads from."""
    with Listener(there, "AF_PIPE") as listener, listener.accept() as both:
        yield both, both


@contextlib.contextmanager
def take_and_give(there: str, back: str) -> Iterator[tuple[Any, Any]]:
    """Receiver: what it reads from, and what it writes to."""
    with Client(there, "AF_PIPE") as both:
        yield both, both
