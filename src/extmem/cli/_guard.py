"""The outermost function of every command: it turns errors into messages and exit codes.

A traceback is printed only if EXTMEM_TRACEBACK=1. The exit codes:

0 done · 1 refused, failed, not found, or a bound missed · 2 wrong arguments · 130 interrupted
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec, TypeVar

import click

from extmem.cli._out import clean, words
from extmem.errors import ExtmemError

__all__ = ["FAILED", "INTERRUPTED", "describe_error", "guarded"]

P = ParamSpec("P")
R = TypeVar("R")

FAILED = 1
INTERRUPTED = 130


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Return the command with its errors written to stderr: class, message, and each broken rule with its remedy."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _exit_on_signals():
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            words("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (ExtmemError, OSError, ImportError) as error:
            _report(error)
            raise click.exceptions.Exit(FAILED) from None
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:  # noqa: BLE001  # outermost: a user gets a message and an exit code
            _report(error)
            words("This is probably a bug in extmem: please report it (EXTMEM_TRACEBACK=1 prints the traceback).")
            raise click.exceptions.Exit(FAILED) from None

    return run


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, SIGHUP and SIGBREAK, so that the processes that a command started are ended."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)  # Ctrl-Break, and the end of the console
    else:
        numbers.append(signal.SIGHUP)
    before = [(number, signal.signal(number, leave)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _report(error: BaseException) -> None:
    with_traceback = os.environ.get("EXTMEM_TRACEBACK") == "1"
    lines = traceback.format_exception(error) if with_traceback else describe_error(error)
    for line in lines:
        words(line.rstrip("\n"))


def describe_error(error: BaseException) -> list[str]:
    """Return the lines that describe an error: class, message, and the rules that the call broke."""
    violations = tuple(getattr(error, "violations", ()))
    name = type(error).__name__
    if violations and name == "RuleViolation":
        call = getattr(error, "command", "") or "the call"
        lines = [f"error: {name}: {call} breaks {len(violations)} rule" + "s" * (len(violations) != 1)]
    else:
        # Continuation lines are indented, so that text of another program cannot look like a line of this output.
        text = str(error).replace("\n", "\n    ")
        lines = [f"error: {name}: {text}" if text else f"error: {name}"]
    for violation in violations:
        lines += [
            f"  {violation.vuid}",
            f"    at {clean(violation.where)}: {clean(violation.problem)}",
            f"    do: {clean(violation.remedy)}",
        ]
    if violations:
        lines.append(f"hint: extmem explain {violations[0].vuid}")
    return lines
