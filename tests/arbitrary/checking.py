"""Running programs in child processes under the validation layer, and collecting the findings.

How this works. A `Runner` has a child (see `running`) and a collector of the layer's messages. It sends programs a
portion at a time; markers between the messages show which program each belongs to. If a child ends, the programs that
it answered are counted, the one that it was running is the finding, and another child continues with the next. `shrunk`
removes what a finding does not need, step by step and field by field.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from extmem.testing.children import python_environment
from extmem.testing.runtime import Runtime
from tests.arbitrary.programs import COMMANDS, Program
from tests.layer.collector import Collector, Message
from tests.layer.expected import OUTDATED

__all__ = ["KINDS", "Runner", "Finding", "Report", "run_all", "shrunk", "listing"]

ROOT = Path(__file__).parents[2]
KINDS = ("create_buffer", "create_image", "allocate_memory", "bind_buffer_memory", "bind_image_memory", *COMMANDS)
"""The kinds of calls whose share on the driver is counted."""
_PORTION = 50
_PATIENCE = 60.0
"""Seconds that a child may take for one program."""
_TRIES = 300
"""Number of runs that one finding is shrunk with at most; each death costs a process."""
_COST_OF_DEATH = 6
_SHOWN = 4000
"""Number of characters that are kept of what a child wrote at its end."""
_RENEWED = 1000
"""Number of programs of one child, so that what it keeps cannot hide what it should have released."""


@dataclass
class Ran:
    """The outcome of one program."""

    outcomes: list[list[str]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    death: str = ""
    """How the process ended; empty where it did not."""
    words: str = ""
    """What it wrote at its end."""

    def signs(self) -> list[str]:
        """Return a sign for each finding: a word for what happened."""
        found = [f"death: {self.death}"] if self.death else []
        found += sorted({f"layer: {message.id}" for message in self.messages if message.id not in OUTDATED})
        escaped = {error.strip().splitlines()[-1].split(":")[0] for _, end, error in self.outcomes if end == "escaped"}
        return found + [f"escaped: {kind}" for kind in sorted(escaped)]


class Runner:
    """Runs programs in a child, and collects the layer's messages of it. hole: see `running`."""

    def __init__(self, hole: str | None = None, *, layer: bool = True) -> None:
        self._hole = hole
        self._stack = contextlib.ExitStack()
        self._runtime = self._stack.enter_context(Runtime())
        self._collector = self._stack.enter_context(Collector()) if layer else None
        # both processes share one position in it
        self._errors = self._stack.enter_context(tempfile.TemporaryFile())
        self._child: subprocess.Popen[bytes] | None = None
        self._read = b""
        self._run = 0

    def _start(self) -> None:
        environment = {**self._runtime.environment, **(self._collector.environment if self._collector else {})}
        command = [sys.executable, "-m", "tests.arbitrary.running", *([self._hole] if self._hole else [])]
        self._read, self._run = b"", 0
        self._errors.seek(0)
        self._errors.truncate()
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=python_environment(environment),
        )
        if not list(self._answers(1)):
            raise AssertionError(f"the process that runs programs did not start: {self._end()}\n{self._words()}")

    def _words(self) -> str:
        """Return the last text that the child wrote on stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-_SHOWN:]

    def run(self, programs: Sequence[Program]) -> list[Ran]:
        """Run the programs and return their outcomes. After a death another child runs the others."""
        found: list[Ran] = []
        while len(found) < len(programs):
            found += self._portion(programs[len(found) : len(found) + _PORTION])
        return found

    def _portion(self, programs: Sequence[Program]) -> list[Ran]:
        """Run the first of these: all, or those up to one that ended the process."""
        if self._child is None:
            self._start()
        child = self._child
        assert child is not None and child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            for program in programs:
                child.stdin.write(json.dumps(program).encode() + b"\n")
            child.stdin.flush()
        found = [Ran(answer) for answer in self._answers(len(programs))]
        if len(found) < len(programs):
            found.append(Ran(death=self._end(), words=self._words()))
        number = 0
        for entry in self._collector.read() if self._collector is not None else ():
            if isinstance(entry, str):
                number += 1
            else:
                found[min(number, len(found) - 1)].messages.append(entry)
        self._run += len(found)
        if self._run >= _RENEWED:
            self._end()
        return found

    def _answers(self, count: int) -> Iterator[Any]:
        """Yield that many lines of the child, or fewer where it ends or hangs."""
        child = self._child
        assert child is not None and child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            end = time.monotonic() + _PATIENCE
            while count:
                line, newline, rest = self._read.partition(b"\n")
                if newline:
                    self._read, count, end = rest, count - 1, time.monotonic() + _PATIENCE
                    yield json.loads(line)
                    continue
                if not selector.select(max(0.0, end - time.monotonic())):
                    child.kill()
                    self._hung = True
                    return
                chunk = os.read(child.stdout.fileno(), 1 << 16)
                if not chunk:
                    return
                self._read += chunk

    _hung = False

    def _end(self) -> str:
        """Wait for the child's end, and return a text of it."""
        child, self._child = self._child, None
        if child is None:
            return ""
        with contextlib.suppress(BrokenPipeError):
            assert child.stdin is not None and child.stdout is not None
            child.stdin.close()
        try:
            code = child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
            self._hung = True
        child.stdout.close()
        if self._hung:
            self._hung = False
            return "hung"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End the child and the broker."""
        if self._child is not None and self._child.poll() is None:
            self._end()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Finding:
    """A kind of finding: its sign, the first program that caused it, and the number of programs that did."""

    sign: str
    program: Program
    ran: Ran
    count: int = 1


@dataclass
class Report:
    """The outcomes of many programs."""

    programs: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)
    contained: Counter[str] = field(default_factory=Counter)
    """By the kind of call: the number of programs that contain one."""
    done: Counter[str] = field(default_factory=Counter)
    """By the kind of call: the number of programs in which the driver executed one."""

    def add(self, program: Program, ran: Ran) -> None:
        """Count one program."""
        self.programs += 1
        for sign in ran.signs():
            if sign in self.findings:
                self.findings[sign].count += 1
            else:
                self.findings[sign] = Finding(sign, program, ran)
        for kind in KINDS:
            ends = {end for call, end, _ in ran.outcomes if call.removesuffix("2") == kind} - {"missing"}
            self.contained[kind] += bool(ends)
            self.done[kind] += "ran" in ends

    def count(self, word: str) -> int:
        """Return the number of programs with findings of this kind: `death`, `layer` or `escaped`."""
        return sum(finding.count for sign, finding in self.findings.items() if sign.startswith(word))

    def shares(self) -> dict[str, float]:
        """Return, by the kind of call, the share of the programs with such a call in which the driver executed one."""
        return {kind: self.done[kind] / max(1, self.contained[kind]) for kind in KINDS}


def run_all(runner: Runner, programs: Iterable[Program]) -> Report:
    """Run all of these."""
    report = Report()
    portion: list[Program] = []

    def work() -> None:
        for program, ran in zip(portion, runner.run(portion), strict=True):
            report.add(program, ran)
        portion.clear()

    for program in programs:
        portion.append(program)
        if len(portion) == _PORTION:
            work()
    work()
    return report


def shrunk(runner: Runner, finding: Finding) -> Program:
    """Return the smallest program with the same sign that is found by removing steps, commands, arguments, fields."""
    best, tries = finding.program, 0

    def still(program: Program) -> bool:
        nonlocal tries
        tries += _COST_OF_DEATH if finding.ran.death else 1
        if tries > _TRIES:
            return False
        ran = runner.run([program])[0]
        return finding.sign in ran.signs() and bool(ran.death) == bool(finding.ran.death)

    changed = True
    while changed and tries < _TRIES:
        changed = False
        for smaller in _smaller(best):
            if still(smaller):
                best, changed = smaller, True
                break
    return best


def _smaller(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the value with one part less, at each place."""
    if isinstance(value, list):
        for index in reversed(range(len(value))):
            yield [*value[:index], *value[index + 1 :]]
        for index, entry in enumerate(value):
            for smaller in _smaller(entry, depth + 1):
                yield [*value[:index], smaller, *value[index + 1 :]]
    elif isinstance(value, dict):
        if "call" not in value:
            for key in value:
                if key not in ("class", "ref", "of", "what", "fd"):
                    yield {name: entry for name, entry in value.items() if name != key}
        for key, entry in value.items():
            if key not in ("call", "to", "class"):
                for smaller in _smaller(entry, depth + 1):
                    yield {**value, key: smaller}


def listing(program: Program) -> str:
    """Return the program as lines to read."""
    lines = []
    for step in program:
        if "do" in step:
            lines.append("with device.commands() as commands:")
            lines += [f"    commands.{inner['call']}({_value_text(inner['with'])})" for inner in step["do"]]
        else:
            begin = f"{step['to']} = " if "to" in step else ""
            lines.append(f"{begin}{step['call']}({_value_text(step['with'])})")
    return "\n".join(lines)


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value_text, value))}]"
    if not isinstance(value, dict):
        return hex(value) if isinstance(value, int) and value > 0xFFFF else repr(value)
    if "class" in value:
        return f"{value['class']}({_fields_text(value)})"
    if "ref" in value:
        return str(value["ref"])
    if "fd" in value:
        return f"{value['fd']}.export_handle(OPAQUE_FD)"
    if "of" in value:
        return f"{value['of']}.{value['what']}" + (f" + {value['plus']}" if value["plus"] else "")
    return _fields_text(value)


def _fields_text(value: dict[str, Any]) -> str:
    return ", ".join(f"{name}={_value_text(entry)}" for name, entry in value.items() if name != "class")
