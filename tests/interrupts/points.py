"""Exceptions of signal handlers at every point of an operation at which the interpreter can run a handler.

How this works. The interpreter runs signal handlers between two instructions, but only at some places: after a call of
C code has returned, at the beginning of a Python function, and at a backward jump. A first run of the operation lists
the instructions before which a signal must become pending for each of those points (`points`). Then the operation is
run again for each point, with a signal that becomes pending there (`tracer.c`) and a handler that raises.

After each such run nothing may be lost: fds, mappings, memory objects, handles and names are what they were, at the
latest after another request. Files that are opened meanwhile must keep their fds; if something is closed twice, one of
these is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import functools
import gc
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import extmem
from extmem.errors import HandleStateError
from extmem.testing.leaks import Census
from extmem.testing.waiting import DeadlineError, wait_until
from tests.operations import ALLOWED, Case, Operation, Scene, operations_of
from tests.tagged_payloads import World, WrongByteError

__all__ = ["Findings", "Interrupted", "compiler", "interrupt", "points", "signal_before"]

_SIGNAL = getattr(signal, "SIGUSR2", signal.SIGINT)  # Windows has no other signal, and none of this runs there
_CANARIES = 8
_PATIENCE = 10.0
_EXTMEM, _ASYNCIO = (os.path.dirname(package.__file__) + os.sep for package in (extmem, asyncio))
_CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")
"""The beginnings of the names of the instructions at whose end, or beginning, the interpreter runs signal handlers."""


class Interrupted(BaseException):
    """What the signal handler raises; no operation handles it."""


@dataclass
class Findings:
    """What the runs found."""

    interrupts: int = 0
    lost: list[str] = field(default_factory=list)
    """What was held only afterwards, or only before."""
    closed_twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Results with bytes of another payload."""
    escaped: list[str] = field(default_factory=list)
    """Errors that no operation may raise, and warnings that were logged: after an interrupt there is nothing to warn
    of.
    """

    def __iadd__(self, other: Findings) -> Self:
        self.interrupts += other.interrupts
        self.lost += other.lost
        self.closed_twice += other.closed_twice
        self.wrong += other.wrong
        self.escaped += other.escaped
        return self

    def note(self, what: str, error: BaseException) -> None:
        """An error that no operation may raise, or wrong bytes."""
        kept = self.wrong if isinstance(error, WrongByteError) else self.escaped
        kept.append(f"{what}: {type(error).__name__}: {error}")

    @property
    def all(self) -> list[str]:
        """All findings."""
        return self.lost + self.closed_twice + self.wrong + self.escaped


def compiler() -> str | None:
    """Return the C compiler, which `tracer.c` needs; None where there is none."""
    return shutil.which("cc") or shutil.which("gcc")


@functools.cache
def _tracer() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "tracer.so"
        command = [str(compiler()), "-shared", "-fPIC", "-O1", f"-I{sysconfig.get_path('include')}"]
        subprocess.run([*command, str(Path(__file__).with_name("tracer.c")), "-o", str(built)], check=True)
        found = importlib.util.spec_from_file_location("tracer", built)
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
    return module


def points(run: Callable[[], object]) -> list[int]:
    """Return the numbers of the instructions of a run before which a signal must come, one for each point."""
    found: list[int] = []
    number = 0

    def instruction(code: CodeType, offset: int) -> None:
        nonlocal number
        number += 1
        if dis.opname[code.co_code[offset]].startswith(_CHECKED):
            found.append(number)

    with _before_each_instruction(instruction):
        run()
    return found


if sys.version_info >= (3, 12):

    @contextlib.contextmanager
    def _before_each_instruction(callback: Callable[[CodeType, int], object]) -> Iterator[None]:
        """Call this function before each instruction of the block."""
        watch, tool = sys.monitoring, sys.monitoring.DEBUGGER_ID
        watch.use_tool_id(tool, "interrupts")
        watch.register_callback(tool, watch.events.INSTRUCTION, callback)
        watch.set_events(tool, watch.events.INSTRUCTION)
        try:
            yield
        finally:
            watch.set_events(tool, 0)
            watch.free_tool_id(tool)

    @contextlib.contextmanager
    def _armed(point: int) -> Iterator[None]:
        tracer = _tracer()
        tracer.arm(point, int(_SIGNAL))
        with _before_each_instruction(tracer.instruction):
            yield

else:

    @contextlib.contextmanager
    def _before_each_instruction(callback: Callable[[CodeType, int], object]) -> Iterator[None]:
        """Call this function before each instruction of the block."""

        def local(frame: FrameType, event: str, argument: object) -> Any:
            if event == "opcode":
                callback(frame.f_code, frame.f_lasti)
            return local

        def called(frame: FrameType, event: str, argument: object) -> Any:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return local

        before = sys.gettrace()
        sys.settrace(called)
        try:
            yield
        finally:
            sys.settrace(before)

    @contextlib.contextmanager
    def _armed(point: int) -> Iterator[None]:
        tracer = _tracer()
        tracer.start(point, int(_SIGNAL))
        try:
            yield
        finally:
            tracer.stop()


def interrupt(world: World, case: Case, name: str, chosen: Callable[[list[int]], list[int]]) -> Findings:
    """Interrupt an operation at its points, each time on a new object. chosen: selects the points."""
    operation, found = operations_of(case)[name], Findings()
    listed: list[int] = []
    with _watched(found):
        for turn in range(3):  # what is made only once is made in the first two runs
            scene = case.make(world)
            try:
                with contextlib.suppress(*ALLOWED):
                    box: list[Any] = []
                    listed = _listed(operation, scene, box) if turn == 2 else (box.append(operation(scene)) or [])
                    world.check(box.pop(), scene.tag)
            finally:
                scene.end()
        for point in chosen(listed):
            found += _interrupted(world, case, name, operation, point)
    return found


def _listed(operation: Operation, scene: Scene, box: list[Any]) -> list[int]:
    found = points(lambda: box.append(operation(scene)))
    if not box:
        raise HandleStateError("it is refused on this device")
    return found


@contextlib.contextmanager
def _watched(found: Findings) -> Iterator[None]:
    """Record errors that cannot be raised, such as those of closing twice, and warnings that are logged.

    A ResourceWarning is not a finding, nor an interrupt in a `__del__`, which Python itself drops.
    """
    log = logging.getLogger("extmem")
    handler = _Warnings(found)
    before = sys.unraisablehook

    def note(problem: Any) -> None:
        if problem.exc_type is Interrupted:
            found.interrupts += 1
            return
        found.closed_twice.append(f"{problem.exc_type.__name__}: {problem.exc_value} in {problem.object!r}")

    sys.unraisablehook = note
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        log.removeHandler(handler)
        sys.unraisablehook = before


class _Warnings(logging.Handler):
    """Records what is logged, from WARNING on, as escaped errors."""

    def __init__(self, found: Findings) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._found.escaped.append(f"{record.levelname} of {record.name}: {record.getMessage()}")


def _interrupted(world: World, case: Case, name: str, operation: Operation, point: int) -> Findings:
    found, what = Findings(), f"{case.name}.{name}, a signal before instruction {point}"
    before = Census.take()
    scene = case.make(world)
    box: list[Any] = []
    try:
        with signal_before(point):
            box.append(operation(scene))
    except Interrupted as error:
        found.interrupts += 1
        _without_frames(error)
    except ALLOWED as error:
        _without_frames(error)
    except Exception as error:  # noqa: BLE001  # reported with its point
        found.note(what, error)
        _without_frames(error)
    canaries = _Canaries()
    try:
        world.device.allocate(1).close()  # the other request
        if box:
            world.check(box.pop(), scene.tag)
        elif name not in case.ending and case.probe is not None:
            world.check(case.probe(scene), scene.tag)
        scene.end()
    except Exception as error:  # noqa: BLE001  # reported with its point
        found.note(f"{what}, afterwards", error)
        _without_frames(error)
        with contextlib.suppress(Exception):
            scene.end()
    del scene
    found.closed_twice += [f"{what}: {thing}" for thing in canaries.end()]
    leaked: list[str] = []

    def clean() -> bool:
        nonlocal leaked
        leaked = Census.take().leaked_since(before)
        if leaked:
            gc.collect()
        return not leaked

    try:
        wait_until(clean, "nothing to be lost", deadline=_PATIENCE)
    except DeadlineError:
        found.lost += [f"{what}: {thing}" for thing in leaked]
    return found


@contextlib.contextmanager
def signal_before(point: int) -> Iterator[None]:
    """Within the block a signal becomes pending before that instruction; its handler raises Interrupted."""

    def handler(number: int, frame: FrameType | None) -> None:
        if not _is_asyncio_alone(frame):
            raise Interrupted

    before = signal.signal(_SIGNAL, handler)
    try:
        with _armed(point):
            yield
    finally:
        signal.signal(_SIGNAL, before)


def _is_asyncio_alone(frame: FrameType | None) -> bool:
    """Return whether asyncio runs, and no code of extmem that it has called, or that calls it.

    An exception in asyncio's own code loses its sockets, and makes `__del__` of its event loop fail.
    """
    found = False
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_EXTMEM):
            return False
        found = found or path.startswith(_ASYNCIO)
        frame = frame.f_back
    return found


def _without_frames(error: BaseException) -> None:
    """Remove the tracebacks: the frames of an error and of its causes would keep their local variables alive."""
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__


class _Canaries:
    """Open files that take the free numbers: if a number is closed twice, one of these files is closed."""

    def __init__(self) -> None:
        self._files = {}
        for _ in range(_CANARIES):
            fd = os.memfd_create("canary")
            self._files[fd] = os.fstat(fd).st_ino

    def end(self) -> list[str]:
        """Close them and return those that were closed already."""
        closed = []
        for fd, inode in self._files.items():
            try:
                there = os.fstat(fd).st_ino == inode
            except OSError:
                there = False
            if there:
                os.close(fd)
            else:
                closed.append(f"fd {fd} was closed twice")
        return closed
