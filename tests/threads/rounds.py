"""Verbs in several threads at once, on one object; whatever they give is checked by content.

How this works. A crew of threads lives through all rounds. In each round it gets one verb a thread and begins them
together. A verb's result is checked in its own thread (tests/verbs_world.py), while the others still run. Beside them
two threads make and close payloads and descriptors of their own all the time, with bytes that no object under test
has: a number that is used after its object has gone leads to one of those. The interpreter switches threads as often
as it can (`sys.setswitchinterval`).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import mmap
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from extmem.errors import LiveViewError
from tests.verbs import ALLOWED, Case, Scene, Verb, verbs_of
from tests.verbs_world import FD, SIZE, World, WrongByteError

__all__ = ["Crew", "Findings", "churn", "combinations", "race", "switching_often"]

_STRANGE = 0xEE
"""A byte of payloads that no object under test has."""


@dataclass
class Findings:
    """What came of it."""

    rounds: int = 0
    wrong: list[str] = field(default_factory=list)
    """Bytes of another payload."""
    escaped: list[str] = field(default_factory=list)
    """Errors that no verb may raise."""

    def __iadd__(self, other: Findings) -> Self:
        self.rounds += other.rounds
        self.wrong += other.wrong
        self.escaped += other.escaped
        return self


def _without_frames(error: BaseException) -> BaseException:
    """The error alone: the frames that it and its causes hold would hold what they worked on."""
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__
    return error


class Crew:
    """Threads that begin together what they are given."""

    def __init__(self, size: int) -> None:
        self._orders: list[SimpleQueue[Callable[[], object] | None]] = [SimpleQueue() for _ in range(size)]
        self._answers: SimpleQueue[BaseException | None] = SimpleQueue()
        self._start = threading.Barrier(size)
        self._threads = [threading.Thread(target=self._work, args=(o,), daemon=True) for o in self._orders]
        for thread in self._threads:
            thread.start()

    def _work(self, orders: SimpleQueue[Callable[[], object] | None]) -> None:
        while (order := orders.get()) is not None:
            self._start.wait()
            try:
                order()
            except BaseException as error:  # noqa: BLE001  # told to the thread that waits
                self._answers.put(_without_frames(error))
            else:
                self._answers.put(None)
            del order

    def together(self, orders: Sequence[Callable[[], object]]) -> list[BaseException]:
        """Do these at once, one a thread; what they raised."""
        for queue, order in zip(self._orders, orders, strict=True):
            queue.put(order)
        return [error for _ in orders if (error := self._answers.get()) is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for queue in self._orders:
            queue.put(None)
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    """The interpreter switches threads after every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _stranger() -> Callable[[], None]:
    """A file in memory that takes a free number (a descriptor; on Windows a HANDLE), and what closes it."""
    if sys.platform == "win32":
        section = mmap.mmap(-1, SIZE)
        section[:] = bytes([_STRANGE]) * SIZE
        return section.close
    fd = os.memfd_create("strange")
    os.write(fd, bytes([_STRANGE]) * SIZE)
    return functools.partial(os.close, fd)


@contextlib.contextmanager
def churn(world: World) -> Iterator[None]:
    """Make and close payloads and descriptors in two other threads, so that each number that is free is taken."""
    over = threading.Event()

    def payloads() -> None:
        while not over.is_set():
            with world.memory(_STRANGE) as memory:
                if world.handle_types & FD:
                    memory.export_handle(FD).close()

    def files() -> None:
        while not over.is_set():
            opened = [_stranger() for _ in range(8)]
            for close in opened:
                close()

    threads = [threading.Thread(target=work, daemon=True) for work in (payloads, files)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def combinations(case: Case, seed: int, most: int | None = None) -> Iterator[tuple[str, ...]]:
    """Each pair of the class's verbs, and each with what closes it as a third.

    most: as many of them, drawn at random; None for all.
    """
    names = sorted(verbs_of(case))
    pairs = list(itertools.combinations_with_replacement(names, 2))
    found: list[tuple[str, ...]] = [*pairs, *((case.closing, *pair) for pair in pairs)]
    random.Random(seed).shuffle(found)
    yield from found[:most]


def race(world: World, case: Case, names: Sequence[str], crew: Crew) -> Findings:
    """One round: these verbs of one new object, at once."""
    verbs = verbs_of(case)
    scene = case.make(world)
    found = Findings(1)
    try:
        for error in crew.together([_checked(verbs[name], scene) for name in names]):
            if isinstance(error, WrongByteError):
                found.wrong.append(f"{case.name}: {' + '.join(names)}: {error}")
            elif not isinstance(error, ALLOWED):
                found.escaped.append(f"{case.name}: {' + '.join(names)}: {type(error).__name__}: {error}")
    finally:
        _end(scene)
    return found


def _checked(verb: Verb, scene: Scene) -> Callable[[], None]:
    def run() -> None:
        scene.world.check(verb(scene), scene.tag)

    return run


def _end(scene: Scene) -> None:
    """Close what is left. A view that is being let go of in another thread is waited for."""
    for _ in range(1000):
        try:
            scene.end()
        except LiveViewError:
            threading.Event().wait(0.001)
        else:
            return
    scene.end()
