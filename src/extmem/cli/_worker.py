"""Other processes on a lead: what the demo and the benchmarks run beside this one.

How this works. A worker is another Python process, started by exec, with a private connection to us and nothing else in
common. It is told which function to run (`module:function` with plain arguments) and answers with the value; a function
that yields answers with each item on the way. It ends when the connection does, so nothing that happens to us, kill -9
included, leaves it behind. It is in a process group of its own: Ctrl-C reaches us alone, and we end it.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Generator, Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from extmem.cli._out import words
from extmem.errors import PeerError

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

__all__ = ["Worker", "WorkerError"]

_ROOT = str(Path(__file__).parents[2])
DEADLINE = 120.0
"""Seconds that one task may take between two answers."""


if sys.platform == "win32":
    # In a virtual environment sys.executable is a launcher, whose child is the real process: with a pid of its own.
    _PYTHON = str(getattr(sys, "_base_executable", sys.executable))
    _VARIABLES = {"__PYVENV_LAUNCHER__": sys.executable} if sys.executable != _PYTHON else {}

    def _starting(inherited: int) -> dict[str, Any]:
        """How to start a process that inherits this handle, and does not get our Ctrl-C."""
        os.set_handle_inheritable(inherited, True)
        startup = subprocess.STARTUPINFO()
        startup.lpAttributeList = {"handle_list": [inherited]}
        return {"startupinfo": startup, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def _reaped(process: subprocess.Popen[bytes]) -> None:
        """Give the ended process's handle back now, and not when the object is lost."""
        process._handle.Close()  # type: ignore[attr-defined]  # there is no public way

else:
    _PYTHON = sys.executable
    _VARIABLES: dict[str, str] = {}

    def _starting(inherited: int) -> dict[str, Any]:
        """How to start a process that inherits this descriptor, and does not get our Ctrl-C."""
        return {"pass_fds": (inherited,), "process_group": 0}

    def _reaped(process: subprocess.Popen[bytes]) -> None:
        """Nothing is left of it."""


class WorkerError(PeerError):
    """A worker failed or is gone; the message is what it said."""


class Worker:
    """One other process. `close()` ends it for sure; safe to call twice."""

    def __init__(self, title: str, environment: Mapping[str, str] | None = None) -> None:
        self.title = title
        self.connection, theirs = Pipe()
        self._said = tempfile.TemporaryFile("w+", prefix="extmem-", errors="replace")
        paths = [_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        try:
            self.process = subprocess.Popen(
                [_PYTHON, "-m", "extmem.cli._worker", str(theirs.fileno()), title],
                env={**os.environ, **_VARIABLES, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                **_starting(theirs.fileno()),
            )
        except BaseException:
            self.connection.close()
            self._said.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def start(self, task: str, *arguments: object) -> None:
        """Have it begin `module:function(*arguments)`, and do not wait."""
        try:
            self.connection.send((task, arguments))
        except OSError:
            raise self._gone() from None

    def stream(self, *, deadline: float = DEADLINE) -> Generator[Any, None, Any]:
        """The items that the task yields; the iterator's value (`yield from`) is what the task returned."""
        while True:
            try:
                if not self.connection.poll(deadline):
                    raise WorkerError(f"the {self.title} (pid {self.pid}) did not answer in {deadline:g} s")
                kind, value = self.connection.recv()
            except (EOFError, OSError):
                raise self._gone() from None
            if kind == "failed":
                summary, trace = value
                if os.environ.get("EXTMEM_TRACEBACK") == "1":
                    words(trace.rstrip("\n"))
                raise WorkerError(f"the {self.title} (pid {self.pid}) failed: {summary}")
            if kind == "done":
                return value
            yield value

    def finish(self, *, deadline: float = DEADLINE) -> Any:
        """What the task returned. Errors: WorkerError."""
        answers = self.stream(deadline=deadline)
        while True:
            try:
                next(answers)
            except StopIteration as end:
                return end.value

    def call(self, task: str, *arguments: object, deadline: float = DEADLINE) -> Any:
        """Run `module:function(*arguments)` there and return its value. Errors: WorkerError."""
        self.start(task, *arguments)
        return self.finish(deadline=deadline)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        _reaped(self.process)

    def leave(self, *, deadline: float = 10.0) -> None:
        """Hang up, and let it end by itself, as a program does."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(deadline)
        self.close()

    def close(self) -> None:
        """End it for sure."""
        self.connection.close()
        self.kill()
        self._said.close()

    def _gone(self) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        said = ""
        if not self._said.closed:
            self._said.seek(0)
            said = self._said.read()[-2000:].strip()
        return WorkerError(
            f"the {self.title} (pid {self.pid}) is gone, exit code {self.process.returncode}"
            + (f":\n{said}" * bool(said))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(connection: Connection[Any, Any], task: str, arguments: tuple[object, ...]) -> Any:
    module, _, name = task.partition(":")
    answer = getattr(importlib.import_module(module), name)(*arguments)
    if not inspect.isgenerator(answer):
        return answer
    while True:
        try:
            connection.send(("item", next(answer)))
        except StopIteration as end:
            return end.value


def _serve(connection: Connection[Any, Any]) -> None:
    while True:
        task, arguments = connection.recv()
        try:
            answer = ("done", _run(connection, task, arguments))
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  # whoever gave the order decides what it means
            answer = ("failed", (f"{type(error).__name__}: {error}", traceback.format_exc()))
        connection.send(answer)
        del arguments, answer


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        # So that `extmem ps` and `top` say who this is.
        Path("/proc/self/comm").write_text(f"extmem {sys.argv[2]}"[:15], encoding="ascii")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    _main()
