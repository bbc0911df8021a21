"""Worker processes of the soak: each has a broker of its own and a deadline, and its exit code is counted.

How this works. A worker is `python -m PROGRAM`, whose last line of output is a JSON object of its counts. Its exit code
is 0 if it found nothing. A worker that a signal ends (SIGSEGV, SIGABRT, …) has crashed. A worker that ends with another
exit code, or does not end in time, has failed. The output of such workers is shown.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from extmem.testing.children import Child
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DeadlineError
from scripts.soak.figures import CRASHES, FAILED, Report, Totals

ROOT = Path(__file__).parents[2]
_SHOWN = 200
"""Number of lines that are shown of a worker that did not end with 0."""


class Outcome(NamedTuple):
    """The end of a worker."""

    code: int | None
    """The exit code, below zero for the signal that ended it; None if it was killed because it did not end in time."""
    counts: dict[str, Any]
    """The counts of the worker; empty if it did not print its last line."""
    output: str

    @property
    def end(self) -> str:
        """The end as text."""
        if self.code is None:
            return "did not end in time"
        if self.code < 0:
            return f"was ended by {signal.Signals(-self.code).name}"
        return f"ended with exit code {self.code}"


def run(
    program: Sequence[str],
    limit: float,
    totals: Totals,
    report: Report,
    *,
    crashes: str = CRASHES,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run `python -m` with these arguments, and count its end.

    limit: number of seconds that it may take. crashes: the name in `ZEROS` under which its crash is counted.
    """
    command = [sys.executable, "-X", "faulthandler", "-m", *program]
    with Runtime() as runtime, Child(command, env={**runtime.environment, **(environment or {})}, cwd=ROOT) as child:
        code: int | None
        try:
            code = child.wait(expect=None, deadline=limit)
        except DeadlineError:
            code = None
        output = child.output
    outcome = Outcome(code, _counts_of(output), output)
    totals.add(crashes, int(code is not None and code < 0))
    totals.add(FAILED, int(code is None or code > 0))
    if code:
        report("\n".join(output.splitlines()[-_SHOWN:]))
    if code != 0:
        report(f"FAILED {' '.join(program)}: it {outcome.end}")
    return outcome


def _counts_of(output: str) -> dict[str, Any]:
    lines = output.splitlines()
    try:
        found: Any = json.loads(lines[-1]) if lines else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
