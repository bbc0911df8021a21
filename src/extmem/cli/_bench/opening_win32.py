"""The part of `extmem bench open` for Windows: opening against shared memory of the standard library; named pipes."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Listener
from typing import Any

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.measure import (
    Figure,
    Pairs,
    at_most,
    extend_pairs,
    interleaved_pairs,
    microseconds,
    ratio,
    unbounded,
)
from extmem.cli._bench.sharing import attached, opening

if sys.platform != "win32":
    raise ImportError("named pipes and sections exist on Windows only")

__all__ = ["addresses", "compare", "figures", "passed", "receiver_end", "sender_end"]

_SITTINGS = 5


def figures(
    env: Environment,
    names: dict[str, str],
    sizes: dict[str, int],
    rounds: int,
    report: Callable[[str], None],
    *,
    quick: bool,
) -> Iterator[Figure]:
    """Measure opening by name and mapping, against attaching to `multiprocessing.shared_memory` of the same size."""
    sittings = 1 if quick else _SITTINGS
    report(f"opening each payload by name {rounds} times, in turns with shared_memory, in {sittings} runs")
    times: Pairs = [([], []) for _ in sizes]
    for _ in range(sittings):
        opener = env.worker("opener")
        payloads = [(names[label], sizes[label]) for label in sizes]
        extend_pairs(times, opener.call(f"{__name__}:compare", payloads, -(-rounds // sittings)))
        env.dismiss(opener)
    for label, (mine, theirs) in zip(sizes, times, strict=True):
        yield at_most(f"open by name, {label}, against a shared_memory attach", ratio(mine, theirs), 3.0)
    yield microseconds("open by name and map", times[0][0])
    yield microseconds("a shared_memory attach", times[0][1])


def compare(payloads: list[tuple[str, int]], rounds: int) -> Pairs:
    """Opener: return the nanoseconds of opening and mapping by name, and of attaching, for each payload."""
    with contextlib.ExitStack() as stack:
        steps: list[Callable[[], int]] = []
        for name, size in payloads:
            steps += [opening(name), stack.enter_context(attached(size))]
        return interleaved_pairs(rounds, steps)


# Passing memory.


def passed(name: str, times: float) -> Figure:
    """Return the figure of passing memory. It has no bound: the receiver needs some ten calls of the kernel."""
    return unbounded(name, times, "ratio")


def addresses(env: Environment) -> tuple[str, str]:
    """Return the address of a named pipe, which has both directions."""
    return rf"\\.\pipe\extmem-{secrets.token_hex(8)}", ""


@contextlib.contextmanager
def sender_end(there: str, back: str) -> Iterator[tuple[Any, Any]]:
    """Open the pipe of the sender, twice the same: for writing and for reading."""
    with Listener(there, "AF_PIPE") as listener, listener.accept() as both:
        yield both, both


@contextlib.contextmanager
def receiver_end(there: str, back: str) -> Iterator[tuple[Any, Any]]:
    """Open the pipe of the receiver, twice the same: for reading and for writing."""
    with Client(there, "AF_PIPE") as both:
        yield both, both
