"""Compare the test results of two systems: `python -m scripts.tally LINUX.json WINDOWS.json`.

How this works. A run with `--tally FILE` writes the outcome of each test, and which tests belong to its system only
(tests/systems.py). All other tests must run on both systems: a test that exists on one of them only is a failure.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TITLES = {"linux": "Linux (broker)", "windows": "Windows (kernel)"}
_COLUMNS = {"passed": "passed", "differs": "differs", "skipped": "skipped", "failed": "failed", "collected": "not run"}
"""The heading of the table for each outcome."""
_SHOWN = 20


def emit(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def merge(parts: Sequence[Path], whole: Path) -> bool:
    """Merge the tallies of parts that ran at the same time. Return False, and write nothing, if one is missing."""
    whole.unlink(missing_ok=True)
    missing = [part for part in parts if not part.exists()]
    if missing:
        emit(f"{', '.join(map(str, missing))} is missing: that part did not run to its end")
        return False
    runs = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
    found: dict[str, Any] = {key: {} for key in ("outcomes", "own", "reasons")}
    for run in runs:
        for key, values in found.items():
            values.update(run.get(key, {}))
    found["system"] = runs[0]["system"]
    found["seconds"] = max(run["seconds"] for run in runs)
    whole.write_text(json.dumps(found, indent=0, sort_keys=True), encoding="utf-8")
    return True


def not_run(run: Path) -> list[str]:
    """Return the tests of this tally that were collected and have not run."""
    outcomes: dict[str, str] = json.loads(run.read_text(encoding="utf-8"))["outcomes"]
    return sorted(test for test, outcome in outcomes.items() if outcome == "collected")


def compare(first: Path, second: Path) -> int:
    """Print a table of both counts. Return 0 if no test failed, and every common test exists on both systems."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second) if path.exists()]
    if len(runs) != 2:
        emit(f"{first if not first.exists() else second} is missing: that run did not run to its end")
        return 1
    shared = [set(run["outcomes"]) - set(run["own"]) for run in runs]
    missing = [(runs[1], shared[0] - shared[1]), (runs[0], shared[1] - shared[0])]
    for run, tests in missing:
        for test in sorted(tests)[:_SHOWN]:
            emit(f"missing on {_TITLES[run['system']]}: {test}")
        if len(tests) > _SHOWN:
            emit(f"... and {len(tests) - _SHOWN} more")
    rows = [_row(run) for run in runs]
    head = ["", "common", "own", *_COLUMNS.values(), "seconds"]
    for line in [head, *rows]:
        emit(f"{line[0]:<18}" + "".join(f"{cell:>10}" for cell in line[1:]))
    failed = any(run["outcomes"][test] == "failed" for run in runs for test in run["outcomes"])
    return int(failed or any(tests for _, tests in missing))


def _row(run: dict[str, Any]) -> list[str]:
    counts = Counter(run["outcomes"].values())
    own = len(run["own"])
    cells = [len(run["outcomes"]) - own, own, *(counts[outcome] for outcome in _COLUMNS), round(run["seconds"])]
    return [_TITLES[run["system"]], *map(str, cells)]


if __name__ == "__main__":
    sys.exit(compare(*map(Path, sys.argv[1:3])))
