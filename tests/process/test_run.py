"""`extmem.process.run` has the parameters of `subprocess.run`, and does the same with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from extmem import process

SAYS = [sys.executable, "-c", "import sys; print(sys.stdin.read(), end=''); print('no', file=sys.stderr); sys.exit(3)"]
HANGS = [sys.executable, "-c", "import time; print('first', flush=True); time.sleep(60)"]
Run = Callable[..., "subprocess.CompletedProcess[Any]"]


def outcome(run: Run, command: list[str], options: dict[str, Any]) -> tuple[Any, ...]:
    try:
        done = run(command, **options)
    except (subprocess.SubprocessError, ValueError) as error:
        return type(error), getattr(error, "output", None), getattr(error, "stderr", None)
    return done.args, done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"capture_output": True, "input": b"yes"},
        {"capture_output": True, "input": "yes", "text": True, "check": True},
        {"capture_output": True, "stdin": subprocess.DEVNULL, "encoding": "utf-8"},
        {"input": b"", "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        {"input": b"yes", "stdin": subprocess.PIPE},
        {"capture_output": True, "stdout": subprocess.PIPE},
    ],
)
def test_it_does_what_subprocess_does(options: dict[str, Any]) -> None:
    assert outcome(process.run, SAYS, dict(options)) == outcome(subprocess.run, SAYS, dict(options))


def test_a_child_that_takes_too_long_is_killed_and_what_it_said_is_kept() -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process.run(HANGS, capture_output=True, timeout=3)
    assert sys.platform == "win32" or caught.value.output == b"first\n"


@pytest.mark.parametrize("timeout", [3e6, float("inf")])  # poll() accepts at most 2**31 milliseconds
def test_a_timeout_may_be_longer_than_one_wait_of_the_system(timeout: float) -> None:
    done = process.run(SAYS, capture_output=True, input=b"yes", timeout=timeout)
    assert (done.returncode, done.stdout) == (3, b"yes")
