"""Child processes with deadlines: none outlives its owner, and an error shows the output of the one that failed.

How this works. `Peer` is another Python process that runs the source it is sent, in a namespace that lasts from one
call to the next. It is started by exec, never by a bare fork, and shares nothing with its parent except the pipe that
the source comes by, so it stands for any unrelated process. `peer("…")` returns the value of the last expression; an
exception in the peer becomes a `RemoteError` in the caller, with the class, the message and the numbers of the
original.

Every child is registered until it is reaped; `kill_all` ends those that are left and returns what they were.
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

from extmem.testing._system import PYTHON, PeerChannel, python_variables
from extmem.testing.waiting import DEADLINE, DeadlineError, wait_until

__all__ = ["Child", "ChildFailedError", "Peer", "RemoteError", "kill_all", "live_children", "python_environment"]

_PACKAGE_ROOT = str(Path(__file__).parents[2])
_LONGEST_POLL = 2_000_000.0
"""Seconds. poll() accepts at most 2**31 milliseconds."""
_live: weakref.WeakSet[Child] = weakref.WeakSet()


class ChildFailedError(AssertionError):
    """A child did not end with the expected exit code; the message has its exit code and output."""


class RemoteError(AssertionError):
    """An exception in a peer. `kinds` are the names of its class and of the base classes."""

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
        """Return whether the exception is of this class, which is compared by name."""
        return (kind if isinstance(kind, str) else kind.__name__) in self.kinds


def python_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment, extended so that another Python imports this same extmem.

    extra: variables that are added or replaced.
    """
    environment = dict(os.environ)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join([_PACKAGE_ROOT, *(p for p in paths if p and p != _PACKAGE_ROOT)])
    environment |= python_variables()
    environment.update(extra or {})
    return environment


class Child:
    """A child process that is killed at the end of a `with` block, at the latest.

    popen: the class that starts it; `extmem.process.Popen` for a child that inherits handles. Its output (stdout and
    stderr together) goes to a file, so it can never block on a full pipe.
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
            os.close(output)  # comes first, because Windows does not remove an open file
            self._output.unlink()
            raise
        os.close(output)
        _live.add(self)

    @classmethod
    def python(cls, source: str, *arguments: str, **options: Any) -> Self:
        """Start a child that runs Python source; its `sys.argv[1:]` are the arguments."""
        return cls([PYTHON, "-X", "faulthandler", "-c", source, *arguments], **options)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """The output that it has written so far."""
        # The file is opened again, because the child shares the position of its own opening.
        return "" if self._output is None else self._output.read_text(errors="replace")

    def wait(self, *, expect: int | None = 0, deadline: float = DEADLINE) -> int:
        """Wait until it ends and return its exit code.

        expect: the exit code that it must have; None for any.
        deadline: seconds.
        Errors: ChildFailedError for another exit code; DeadlineError if it still runs at the deadline; it is killed.
        """
        try:
            code = self.process.wait(timeout=deadline)
        except subprocess.TimeoutExpired:
            output = self._output_with_stacks()
            self.kill()
            raise DeadlineError(f"process {self.pid} still ran after {deadline:g} s\n{output}") from None
        self._unregister()
        if expect is not None and code != expect:
            raise ChildFailedError(f"process {self.pid} ended with {code}, not {expect}:\n{self._final_output()}")
        return code

    def kill(self) -> None:
        """Kill it with SIGKILL and wait until it has ended. Does nothing if it has ended already."""
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=DEADLINE)
        self._unregister()

    def close(self) -> None:
        """Kill it if it still runs, and remove the file of its output."""
        self.kill()
        self._final_output()
        if self._output is not None:
            # On Windows a file that a grandchild has open cannot be removed until that ends.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                self._output.unlink()
            self._output = None

    def _unregister(self) -> None:
        if self.process.returncode is not None:
            _live.discard(self)
            # On Windows the handle of the process would stay open until the object is collected, and count as a leak.
            handle = getattr(self.process, "_handle", None)
            if handle is not None:
                handle.Close()

    def _final_output(self) -> str:
        """Return its output, which is kept for when the file is removed."""
        self._kept_output = self.output or getattr(self, "_kept_output", "") or "(it wrote nothing)"
        return self._kept_output

    def _output_with_stacks(self) -> str:
        """Return its output; a peer's contains the stacks of its threads."""
        return self._final_output()

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
    """Another Python process that runs the source it is sent. `extmem`, `os` and `vk` are imported there already."""

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        popen: type[subprocess.Popen[Any]] = subprocess.Popen,
        **options: Any,
    ) -> None:
        self.connection, theirs = Pipe()
        command = [PYTHON, "-X", "faulthandler", "-m", "extmem.testing._peer"]
        self._channel = PeerChannel(theirs.fileno())
        try:
            super().__init__(
                [*command, *self._channel.arguments],
                env=env,
                pass_fds=[*self._channel.passed, *options.pop("pass_fds", ())],
                popen=popen,
                **self._channel.options,
                **options,
            )
            self._channel.send_handles(self.process)
        except BaseException:
            self.connection.close()
            self._channel.close()
            raise
        finally:
            theirs.close()

    def __call__(self, source: str, /, *, deadline: float = DEADLINE, **variables: Any) -> Any:
        """Run the source in the peer with these variables set, and return the value of its last expression.

        deadline: seconds.
        Errors: RemoteError for an exception of the source; ChildFailedError if the process ends; DeadlineError if
        there is no answer at the deadline.
        """
        self.start(source, **variables)
        return self.finish(deadline=deadline)

    def start(self, source: str, /, **variables: Any) -> None:
        """Send the source, and do not wait for its end."""
        try:
            self.connection.send((source, variables))
        except OSError:
            raise self._ended() from None

    def finish(self, *, deadline: float = DEADLINE) -> Any:
        """Wait for the source of the last `start`, and return the value of its last expression. Errors: see calling."""
        try:
            if not self.connection.poll(min(deadline, _LONGEST_POLL)):
                output = self._output_with_stacks()
                self.kill()
                raise DeadlineError(f"process {self.pid} did not answer in {deadline:g} s\n{output}")
            succeeded, value = self.connection.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if not succeeded:
            raise RemoteError(value)
        return value

    def fails(self, source: str, /, **variables: Any) -> RemoteError:
        """Run the source and return the error that it raises in the peer. ChildFailedError if it raises none."""
        try:
            value = self(source, **variables)
        except RemoteError as error:
            return error
        raise ChildFailedError(f"{source!r} should have failed in process {self.pid}, and returned {value!r}")

    def close(self) -> None:
        """Close the connection, which ends the peer; kill it if it still runs."""
        self.connection.close()
        super().close()
        self._channel.close()

    def leave(self) -> None:
        """Make it end by itself, as a program does (with atexit). ChildFailedError unless its exit code is 0."""
        self.connection.close()
        self.wait()

    def _ended(self) -> ChildFailedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=DEADLINE)
        code, output = self.process.returncode, self._final_output()
        return ChildFailedError(f"process {self.pid} is gone, exit code {code}:\n{output}")

    def _output_with_stacks(self) -> str:
        before = len(self.output)
        if self.process.poll() is None:
            self._channel.request_stacks(self.process)
            with contextlib.suppress(DeadlineError):
                wait_until(lambda: len(self.output) > before, "its stack", deadline=2)
        return self._final_output()


def live_children() -> list[Child]:
    """Return the children that have not been reaped."""
    return [child for child in _live if child.alive]


def kill_all() -> list[str]:
    """End every child that still runs, and return a text of each. In a tidy program there are none."""
    left = live_children()
    texts = [f"{child!r}: {child.output[-2000:]}" for child in left]
    for child in left:
        child.close()
    return texts


@contextlib.contextmanager
def peers(count: int, **options: Any) -> Iterator[list[Peer]]:
    """Start several peers, which are closed at the end of the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Peer(**options)) for _ in range(count)]
