"""Worker processes of the demo and the benchmarks.

How this works. A worker is another Python process, started by exec, which shares nothing with this process except a
private connection. It receives the name of a function (`module:function`) with plain arguments, calls it and sends the
result; if the function is a generator, it sends each item. A worker ends when its connection is closed, so it does not
outlive this process, even after kill -9; on Linux that holds in the middle of a task, too, because a thread of the
worker waits for the end of this process. It is in a process group of its own: Ctrl-C reaches this process only, which
then ends the worker.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Generator, Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from extmem.cli._out import words
from extmem.errors import PeerError

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

__all__ = ["Worker", "WorkerError", "end_with"]

_ROOT = str(Path(__file__).parents[2])
DEADLINE = 120.0
"""Seconds that a task may take between two items or results."""


if sys.platform == "win32":
    # In a virtual environment sys.executable is a launcher: the real process is its child, with another pid.
    _PYTHON = str(getattr(sys, "_base_executable", sys.executable))
    _VARIABLES = {"__PYVENV_LAUNCHER__": sys.executable} if sys.executable != _PYTHON else {}

    def _starting(inherited: int) -> dict[str, Any]:
        """Return the arguments of Popen for a process that inherits this handle and does not receive Ctrl-C."""
        os.set_handle_inheritable(inherited, True)
        startup = subprocess.STARTUPINFO()
        startup.lpAttributeList = {"handle_list": [inherited]}
        return {"startupinfo": startup, "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def end_with(parent: int) -> None:
        """Do nothing: on Windows a task of a worker runs to its end."""

    def _release(process: subprocess.Popen[bytes]) -> None:
        """Close the handle of the ended process now, not when the object is garbage-collected."""
        process._handle.Close()  # type: ignore[attr-defined]  # there is no public method

else:
    _PYTHON = sys.executable
    _VARIABLES: dict[str, str] = {}

    def _starting(inherited: int) -> dict[str, Any]:
        """Return the arguments of Popen for a process that inherits this fd and does not receive Ctrl-C."""
        return {"pass_fds": (inherited,), "process_group": 0}

    def end_with(parent: int) -> None:
        """End this process when its parent, which has this pid, ends: at any moment, even in a wait without a limit."""
        try:
            watched = os.pidfd_open(parent)
        except ProcessLookupError:
            os._exit(1)

        ended = select.poll()
        ended.register(watched, select.POLLIN)

        def wait() -> None:
            ended.poll()
            os._exit(1)

        threading.Thread(target=wait, name="end with the parent", daemon=True).start()
        if os.getppid() != parent:  # it ended before it was watched, and another process has its pid
            os._exit(1)

    def _release(process: subprocess.Popen[bytes]) -> None:
        """Do nothing: an ended process has no resources on Linux."""


class WorkerError(PeerError):
    """A worker failed or has ended; the message contains its error output."""


class Worker:
    """A worker process. `close()` ends it; it is safe to call twice. Use it with `contextlib.closing`."""

    def __init__(self, title: str, environment: Mapping[str, str] | None = None) -> None:
        self.title = title
        self.connection, theirs = Pipe()
        self._error_output = tempfile.TemporaryFile("w+", prefix="extmem-", errors="replace")
        paths = [_ROOT, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        try:
            self.process = subprocess.Popen(
                [_PYTHON, "-m", "extmem.cli._worker", str(theirs.fileno()), title, str(os.getpid())],
                env={**os.environ, **_VARIABLES, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._error_output,
                **_starting(theirs.fileno()),
            )
        except BaseException:
            self.connection.close()
            self._error_output.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def start(self, task: str, *arguments: object) -> None:
        """Start `module:function(*arguments)` in the worker, and do not wait."""
        try:
            self.connection.send((task, arguments))
        except OSError:
            raise self._ended() from None

    def stream(self, *, deadline: float = DEADLINE) -> Generator[Any, None, Any]:
        """Yield the items of the task. The value of the generator (`yield from`) is the task's result."""
        while True:
            try:
                if not self.connection.poll(deadline):
                    raise WorkerError(f"the {self.title} (pid {self.pid}) did not reply within {deadline:g} s")
                kind, value = self.connection.recv()
            except (EOFError, OSError):
                raise self._ended() from None
            if kind == "failed":
                summary, trace = value
                if os.environ.get("EXTMEM_TRACEBACK") == "1":
                    words(trace.rstrip("\n"))
                raise WorkerError(f"the {self.title} (pid {self.pid}) failed: {summary}")
            if kind == "done":
                return value
            yield value

    def finish(self, *, deadline: float = DEADLINE) -> Any:
        """Return the result of the task. Errors: WorkerError."""
        answers = self.stream(deadline=deadline)
        while True:
            try:
                next(answers)
            except StopIteration as end:
                return end.value

    def call(self, task: str, *arguments: object, deadline: float = DEADLINE) -> Any:
        """Run `module:function(*arguments)` in the worker and return its result. Errors: WorkerError."""
        self.start(task, *arguments)
        return self.finish(deadline=deadline)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end of the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        _release(self.process)

    def leave(self, *, deadline: float = 10.0) -> None:
        """Close the connection and wait until the worker ends, as a program does. Kill it after `deadline` seconds."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(deadline)
        self.close()

    def close(self) -> None:
        """End the process."""
        self.connection.close()
        self.kill()
        self._error_output.close()

    def _ended(self) -> WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        output = ""
        if not self._error_output.closed:
            self._error_output.seek(0)
            output = self._error_output.read()[-2000:].strip()
        return WorkerError(
            f"the {self.title} (pid {self.pid}) has ended with exit code {self.process.returncode}"
            + (f":\n{output}" * bool(output))
        )


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
        except Exception as error:  # noqa: BLE001  # the process that started the task handles it
            answer = ("failed", (f"{type(error).__name__}: {error}", traceback.format_exc()))
        connection.send(answer)
        del arguments, answer


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(int(sys.argv[3]))
    with contextlib.suppress(OSError):
        # The name that `extmem ps` and `top` show.
        Path("/proc/self/comm").write_text(f"extmem {sys.argv[2]}"[:15], encoding="ascii")
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    _main()
