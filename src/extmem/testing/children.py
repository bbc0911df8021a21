"""Other processes on a lead: each has a deadline, none survives its owner, and one that fails shows its output.

How this works. `Peer` is another Python process that runs what it is told, line by line, in a namespace that lasts. It
is started by exec, never by a bare fork, and shares nothing with its parent but the pipe that it takes orders from, so
it stands for any unrelated process. `peer("…")` returns the value of the last expression; an exception over there
becomes a `RemoteError` here, with the class, the message and the numbers of the original.

Every child is in a register until it is reaped; `kill_all` ends what is left, and says what it was.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from extmem.testing._system import PYTHON, Lead, python_variables
from extmem.testing.waiting import DEADLINE, DeadlineError, wait_until

__all__ = ["Child", "ChildFailedError", "Peer", "RemoteError", "kill_all", "live_children", "python_environment"]

_PACKAGE_ROOT = str(Path(__file__).parents[2])
_live: weakref.WeakSet[Child] = weakref.WeakSet()


class ChildFailedError(AssertionError):
    """A child ended otherwise than it should have; the message has its exit code and output."""


class RemoteError(AssertionError):
    """An exception in a peer. `kinds` are the names of its class and that class's bases."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.kinds: tuple[str, ...] = tuple(facts["kinds"])
        self.message: str = facts["message"]
        self.vuids: tuple[str, ...] = tuple(facts["vuids"])
        self.ntstatus: int | None = facts["ntstatus"]
        self.winerror: int | None = facts["winerror"]
        self.result: int | None = facts["result"]
        self.errno: int | None = facts["errno"]
        super().__init__(f"{self.kinds[0]} in the other process: {self.message}\n{facts['traceback']}")

    def is_a(self, kind: type[BaseException] | str) -> bool:
        """Whether it is one, by the class's name."""
        return (kind if isinstance(kind, str) else kind.__name__) in self.kinds


def python_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, in which another Python finds this very extmem."""
    environment = dict(os.environ)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join([_PACKAGE_ROOT, *(p for p in paths if p and p != _PACKAGE_ROOT)])
    environment |= python_variables()
    environment.update(extra or {})
    return environment


class Child:
    """A child process on a lead.

    popen: what starts it; `extmem.process.Popen` for one that inherits handles. Its output (stdout and stderr together)
    goes to a file, so it can never block on a full pipe.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        popen: type[subprocess.Popen[Any]] = subprocess.Popen,
        **options: Any,
    ) -> None:
        output, path = tempfile.mkstemp(prefix="extmem-child-")
        self._output: Path | None = Path(path)
        try:
            self.process: subprocess.Popen[Any] = popen(
                list(args),
                env=python_environment(env),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(pass_fds),
                **options,
            )
        except BaseException:
            os.close(output)  # first: Windows removes no file that is open
            self._output.unlink()
            raise
        os.close(output)
        _live.add(self)

    @classmethod
    def python(cls, source: str, *arguments: str, **options: Any) -> Self:
        """A child that runs Python source; `sys.argv[1:]` are the arguments."""
        return cls([PYTHON, "-X", "faulthandler", "-c", source, *arguments], **options)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """What it has written so far."""
        # Opened anew: the child has the position of the file that it writes to.
        return "" if self._output is None else self._output.read_text(errors="replace")

    def wait(self, *, expect: int | None = 0, deadline: float = DEADLINE) -> int:
        """Its exit code. ChildFailedError if that is not `expect` (None takes any); DeadlineError if it hangs."""
        try:
            code = self.process.wait(timeout=deadline)
        except subprocess.TimeoutExpired:
            where = self._stack()
            self.kill()
            raise DeadlineError(f"process {self.pid} still ran after {deadline:g} s\n{where}") from None
        self._reaped()
        if expect is not None and code != expect:
            raise ChildFailedError(f"process {self.pid} ended with {code}, not {expect}:\n{self._said()}")
        return code

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Does nothing if it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=DEADLINE)
        self._reaped()

    def close(self) -> None:
        """Kill it if it still runs, and let go of its output."""
        self.kill()
        self._said()
        if self._output is not None:
            # On Windows a file that a grandchild has open stays until that ends.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                self._output.unlink()
            self._output = None

    def _reaped(self) -> None:
        if self.process.returncode is not None:
            _live.discard(self)
            # On Windows the process object's handle would stay until it is lost, and count as a leak of the test's.
            handle = getattr(self.process, "_handle", None)
            if handle is not None:
                handle.Close()

    def _said(self) -> str:
        self.last_words = self.output or getattr(self, "last_words", "") or "(it wrote nothing)"
        return self.last_words

    def _stack(self) -> str:
        """Where it hangs; a peer writes that when asked."""
        return self._said()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, ChildFailedError | DeadlineError):
            output = self.output
            if output:
                error.add_note(f"process {self.pid} wrote:\n{output}")
        self.close()

    def __repr__(self) -> str:
        state = "running" if self.alive else f"ended with {self.process.returncode}"
        return f"<{type(self).__name__} {self.pid}, {state}>"


class Peer(Child):
    """Another Python process that runs what it is told. `extmem`, `os` and `vk` are imported there already."""

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        popen: type[subprocess.Popen[Any]] = subprocess.Popen,
        **options: Any,
    ) -> None:
        self.connection, theirs = Pipe()
        command = [PYTHON, "-X", "faulthandler", "-m", "extmem.testing._peer"]
        self._lead = Lead(theirs.fileno())
        try:
            super().__init__(
                [*command, *self._lead.arguments],
                env=env,
                pass_fds=[*self._lead.passed, *options.pop("pass_fds", ())],
                popen=popen,
                **self._lead.options,
                **options,
            )
            self._lead.hold(self.process)
        except BaseException:
            self.connection.close()
            self._lead.close()
            raise
        finally:
            theirs.close()

    def __call__(self, source: str, /, *, deadline: float = DEADLINE, **variables: Any) -> Any:
        """Run the source there with these variables set, and return the value of its last expression.

        Errors: RemoteError for an exception; ChildFailedError if the process ends; DeadlineError if it hangs.
        """
        self.start(source, **variables)
        return self.finish(deadline=deadline)

    def start(self, source: str, /, **variables: Any) -> None:
        """Have it begin, and do not wait."""
        try:
            self.connection.send((source, variables))
        except OSError:
            raise self._gone() from None

    def finish(self, *, deadline: float = DEADLINE) -> Any:
        """The answer to the last `start`."""
        try:
            if not self.connection.poll(deadline):
                where = self._stack()
                self.kill()
                raise DeadlineError(f"process {self.pid} did not answer in {deadline:g} s\n{where}")
            fine, value = self.connection.recv()
        except (EOFError, ConnectionError):
            raise self._gone() from None
        if not fine:
            raise RemoteError(value)
        return value

    def fails(self, source: str, /, **variables: Any) -> RemoteError:
        """The error that the source raises over there. ChildFailedError if it raises none."""
        try:
            value = self(source, **variables)
        except RemoteError as error:
            return error
        raise ChildFailedError(f"{source!r} should have failed in process {self.pid}, and returned {value!r}")

    def close(self) -> None:
        """Hang up, which it takes as an order to end; kill it if it does not."""
        self.connection.close()
        super().close()
        self._lead.close()

    def leave(self) -> None:
        """Have it end by itself, as a program does (atexit and all). ChildFailedError unless it ends with 0."""
        self.connection.close()
        self.wait()

    def _gone(self) -> ChildFailedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=DEADLINE)
        return ChildFailedError(f"process {self.pid} is gone, exit code {self.process.returncode}:\n{self._said()}")

    def _stack(self) -> str:
        before = len(self.output)
        if self.process.poll() is None:
            self._lead.ask_where(self.process)
            with contextlib.suppress(DeadlineError):
                wait_until(lambda: len(self.output) > before, "its stack", deadline=2)
        return self._said()


def live_children() -> list[Child]:
    """Children that have not been reaped."""
    return [child for child in _live if child.alive]


def kill_all() -> list[str]:
    """End every child that is left; what they were. Nothing should be left."""
    left = live_children()
    told = [f"{child!r}: {child.output[-2000:]}" for child in left]
    for child in left:
        child.close()
    return told


@contextlib.contextmanager
def peers(count: int, **options: Any) -> Iterator[list[Peer]]:
    """Several peers at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Peer(**options)) for _ in range(count)]
