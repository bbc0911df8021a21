"""Operations in several threads at once, on one object; each result is checked by its content.

How this works. A crew of threads exists for all rounds. In each round every thread gets one operation, and they begin
together. The result of an operation is checked in its own thread (tests/tagged_payloads.py), while the others still
run. Meanwhile two more threads make and close payloads and fds all the time, with bytes that no object under test has:
a number that is used after its object was closed leads to one of those. The interpreter switches threads as often as it
can (`sys.setswitchinterval`).
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
from tests.operations import ALLOWED, Case, Operation, Scene, operations_of
from tests.tagged_payloads import FD, SIZE, World, WrongByteError

__all__ = ["Crew", "Findings", "churn", "combinations", "race", "switching_often"]

_OTHER_BYTE = 0xEE
"""A byte that no object under test contains."""


@dataclass
class Findings:
    """What the rounds found."""

    rounds: int = 0
    wrong: list[str] = field(default_factory=list)
    """Results with bytes of another payload."""
    escaped: list[str] = field(default_factory=list)
    """Errors that no operation may raise."""

    def __iadd__(self, other: Findings) -> Self:
        self.rounds += other.rounds
        self.wrong += other.wrong
        self.escaped += other.escaped
        return self


def _without_tracebacks(error: BaseException) -> BaseException:
    """Return the error without tracebacks: the frames of the error and of its causes would keep their local variables
    alive.
    """
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__
    return error


class Crew:
    """Threads that begin their work together."""

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
            except BaseException as error:  # noqa: BLE001  # `together` returns it
                self._answers.put(_without_tracebacks(error))
            else:
                self._answers.put(None)
            del order

    def together(self, orders: Sequence[Callable[[], object]]) -> list[BaseException]:
        """Run these functions at once, one in each thread, and return what they raised."""
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
    """Within the block the interpreter switches threads after every microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _open_file() -> Callable[[], None]:
    """Open a file in memory, which takes a free number (an fd; on Windows a HANDLE), and return what closes it."""
    if sys.platform == "win32":
        section = mmap.mmap(-1, SIZE)
        section[:] = bytes([_OTHER_BYTE]) * SIZE
        return section.close
    fd = os.memfd_create("churn")
    os.write(fd, bytes([_OTHER_BYTE]) * SIZE)
    return functools.partial(os.close, fd)


@contextlib.contextmanager
def churn(world: World) -> Iterator[None]:
    """Make and close payloads and fds in two other threads, so that each free number is soon taken."""
    over = threading.Event()

    def payloads() -> None:
        while not over.is_set():
            with world.memory(_OTHER_BYTE) as memory:
                if world.handle_types & FD:
                    memory.export_handle(FD).close()

    def files() -> None:
        while not over.is_set():
            opened = [_open_file() for _ in range(8)]
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
    """Yield each pair of the class's operations, alone and together with the one that closes the object.

    most: the number of them, drawn at random; None for all.
    """
    names = sorted(operations_of(case))
    pairs = list(itertools.combinations_with_replacement(names, 2))
    found: list[tuple[str, ...]] = [*pairs, *((case.closing, *pair) for pair in pairs)]
    random.Random(seed).shuffle(found)
    yield from found[:most]


def race(world: World, case: Case, names: Sequence[str], crew: Crew) -> Findings:
    """Run one round: these operations of one new object, at once."""
    operations = operations_of(case)
    scene = case.make(world)
    found = Findings(1)
    try:
        for error in crew.together([_checked(operations[name], scene) for name in names]):
            if isinstance(error, WrongByteError):
                found.wrong.append(f"{case.name}: {' + '.join(names)}: {error}")
            elif not isinstance(error, ALLOWED):
                found.escaped.append(f"{case.name}: {' + '.join(names)}: {type(error).__name__}: {error}")
    finally:
        _end(scene)
    return found


def _checked(operation: Operation, scene: Scene) -> Callable[[], None]:
    def run() -> None:
        scene.world.check(operation(scene), scene.tag)

    return run


def _end(scene: Scene) -> None:
    """Close what is left, once another thread has released its view."""
    for _ in range(1000):
        try:
            scene.end()
        except LiveViewError:
            threading.Event().wait(0.001)
        else:
            return
    scene.end()
