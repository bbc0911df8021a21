"""The edge of every command: errors become words and an exit code, never a traceback unless it is asked for.

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
    """A command whose errors are told in words: class, message, and each broken rule with its remedy."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with _ended_politely():
                return command(*args, **kwargs)
        except KeyboardInterrupt:
            words("interrupted")
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (ExtmemError, OSError, ImportError) as error:
            _tell(error)
            raise click.exceptions.Exit(FAILED) from None
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except Exception as error:  # noqa: BLE001  # the last edge: whatever it is, a person gets words and an exit code
            _tell(error)
            words("This looks like a bug in extmem: please report it (EXTMEM_TRACEBACK=1 shows where).")
            raise click.exceptions.Exit(FAILED) from None

    return run


@contextmanager
def _ended_politely() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and SIGBREAK unwind like Ctrl-C does, so that whatever a command started is ended."""

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


def _tell(error: BaseException) -> None:
    if os.environ.get("EXTMEM_TRACEBACK") == "1":
        words("".join(traceback.format_exception(error)).rstrip("\n"))
        return
    for line in describe_error(error):
        words(line)


def describe_error(error: BaseException) -> list[str]:
    """An error in lines: what it is, and the rules behind it."""
    violations = tuple(getattr(error, "violations", ()))
    kind = type(error).__name__
    if violations and type(error).__name__ == "RuleViolation":
        command = getattr(error, "command", "")
        lines = [f"error: {kind}: {command or 'the call'} breaks {len(violations)} rule" + "s" * (len(violations) != 1)]
    else:
        # Whatever is in the text, it begins no line that could be taken for another of these.
        text = str(error).replace("\n", "\n    ")
        lines = [f"error: {kind}: {text}" if text else f"error: {kind}"]
    for violation in violations:
        lines += [
            f"  {violation.vuid}",
            f"    at {clean(violation.where)}: {clean(violation.problem)}",
            f"    do: {clean(violation.remedy)}",
        ]
    if violations:
        lines.append(f"hint: extmem explain {violations[0].vuid}")
    return lines
