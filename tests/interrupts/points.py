"""Exceptions of signal handlers at every point of a verb at which the interpreter can run one.

How this works. The interpreter runs signal handlers between two instructions, and not between any two: after a call of
C code has returned, at the beginning of a function of Python, and at a backward jump. A first run of the verb lists
the instructions before which a signal must become pending for each of those points (`points`). Then the verb is run
again for a point, with a signal that becomes pending there (`tracer.c`) and a handler that raises.

After each such run nothing may be lost: descriptors, mappings, memory objects, handles and names are what they were,
as soon as another request was made. Descriptors that are opened in between must stay whose they are, which they do
not where something is closed twice.
"""

from __future__ import annotations

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

from extmem.errors import HandleStateError
from extmem.testing.leaks import Census
from extmem.testing.waiting import DeadlineError, wait_until
from tests.verbs import ALLOWED, Case, Scene, Verb, verbs_of
from tests.verbs_world import World, WrongByteError

__all__ = ["Findings", "Interrupted", "compiler", "interrupt", "points", "signal_before"]

_SIGNAL = getattr(signal, "SIGUSR2", signal.SIGINT)  # Windows has no other, and none of this runs there
_CANARIES = 8
_PATIENCE = 10.0
_CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")
"""How the instructions begin at whose end, or beginning, the interpreter runs signal handlers."""


class Interrupted(BaseException):
    """What the signal handler raises; no verb knows it."""


@dataclass
class Findings:
    """What came of it."""

    interrupts: int = 0
    lost: list[str] = field(default_factory=list)
    """What was held afterwards and not before, or not any more."""
    closed_twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Bytes of another payload."""
    escaped: list[str] = field(default_factory=list)
    """Errors that no verb may raise, and warnings that were logged: nothing is amiss after an interrupt."""

    def __iadd__(self, other: Findings) -> Self:
        self.interrupts += other.interrupts
        self.lost += other.lost
        self.closed_twice += other.closed_twice
        self.wrong += other.wrong
        self.escaped += other.escaped
        return self

    def note(self, what: str, error: BaseException) -> None:
        """An error that no verb may raise, or wrong bytes."""
        kept = self.wrong if isinstance(error, WrongByteError) else self.escaped
        kept.append(f"{what}: {type(error).__name__}: {error}")

    @property
    def all(self) -> list[str]:
        """Every finding."""
        return self.lost + self.closed_twice + self.wrong + self.escaped


def compiler() -> str | None:
    """The C compiler, which `tracer.c` needs."""
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
    """The numbers of the instructions of a run before which a signal has to come for each point of its."""
    found: list[int] = []
    number = 0

    def instruction(code: CodeType, offset: int) -> None:
        nonlocal number
        number += 1
        if dis.opname[code.co_code[offset]].startswith(_CHECKED):
            found.append(number)

    with _told_of_instructions(instruction):
        run()
    return found


if sys.version_info >= (3, 12):

    @contextlib.contextmanager
    def _told_of_instructions(callback: Callable[[CodeType, int], object]) -> Iterator[None]:
        """Call this before each instruction of the block."""
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
        with _told_of_instructions(tracer.instruction):
            yield

else:

    @contextlib.contextmanager
    def _told_of_instructions(callback: Callable[[CodeType, int], object]) -> Iterator[None]:
        """Call this before each instruction of the block."""

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
    """Interrupt a verb at its points, each time on a new object. chosen: which of the points."""
    verb, found = verbs_of(case)[name], Findings()
    listed: list[int] = []
    with _watched(found):
        for turn in range(3):  # what is made once is made in the first two
            scene = case.make(world)
            try:
                with contextlib.suppress(*ALLOWED):
                    box: list[Any] = []
                    listed = _listed(verb, scene, box) if turn == 2 else (box.append(verb(scene)) or [])
                    world.check(box.pop(), scene.tag)
            finally:
                scene.end()
        for point in chosen(listed):
            found += _interrupted(world, case, name, verb, point)
    return found


def _listed(verb: Verb, scene: Scene, box: list[Any]) -> list[int]:
    found = points(lambda: box.append(verb(scene)))
    if not box:
        raise HandleStateError("it is refused on this device")
    return found


@contextlib.contextmanager
def _watched(found: Findings) -> Iterator[None]:
    """Note what cannot be raised, as the closing of what is closed, and what is logged as a warning.

    No findings: that what is lost was not closed, and an interrupt in a `__del__`, which Python itself drops.
    """
    log = logging.getLogger("extmem")
    heard = _Warnings(found)
    before = sys.unraisablehook

    def note(problem: Any) -> None:
        if problem.exc_type is Interrupted:
            found.interrupts += 1
            return
        found.closed_twice.append(f"{problem.exc_type.__name__}: {problem.exc_value} in {problem.object!r}")

    sys.unraisablehook = note
    log.addHandler(heard)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        log.removeHandler(heard)
        sys.unraisablehook = before


class _Warnings(logging.Handler):
    """Keeps what is logged, from WARNING on, as errors that escaped."""

    def __init__(self, found: Findings) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler`."""
        self._found.escaped.append(f"{record.levelname} of {record.name}: {record.getMessage()}")


def _interrupted(world: World, case: Case, name: str, verb: Verb, point: int) -> Findings:
    found, what = Findings(), f"{case.name}.{name}, a signal before instruction {point}"
    before = Census.take()
    scene = case.make(world)
    box: list[Any] = []
    try:
        with signal_before(point):
            box.append(verb(scene))
    except Interrupted as error:
        found.interrupts += 1
        _without_frames(error)
    except ALLOWED as error:
        _without_frames(error)
    except Exception as error:  # noqa: BLE001  # told with where it was
        found.note(what, error)
        _without_frames(error)
    canaries = _Canaries()
    try:
        world.device.allocate(1).close()  # the next request
        if box:
            world.check(box.pop(), scene.tag)
        elif name not in case.ending and case.probe is not None:
            world.check(case.probe(scene), scene.tag)
        scene.end()
    except Exception as error:  # noqa: BLE001  # told with where it was
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
    """A signal becomes pending before that instruction of the block; its handler raises Interrupted."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(_SIGNAL, handler)
    try:
        with _armed(point):
            yield
    finally:
        signal.signal(_SIGNAL, before)


def _without_frames(error: BaseException) -> None:
    """The frames that an error and its causes hold would hold what they worked on."""
    part: BaseException | None = error
    while part is not None:
        part.__traceback__ = None
        part = part.__cause__ or part.__context__


class _Canaries:
    """Files with numbers that were free: whoever closes a number twice closes one of them."""

    def __init__(self) -> None:
        self._files = {}
        for _ in range(_CANARIES):
            fd = os.memfd_create("canary")
            self._files[fd] = os.fstat(fd).st_ino

    def end(self) -> list[str]:
        """Close them; which were closed already."""
        gone = []
        for fd, inode in self._files.items():
            try:
                there = os.fstat(fd).st_ino == inode
            except OSError:
                there = False
            if there:
                os.close(fd)
            else:
                gone.append(f"fd {fd} was closed twice")
        return gone
