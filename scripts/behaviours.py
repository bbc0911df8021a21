"""`python -m scripts.behaviours` writes docs/both-systems.md: the results of each numbered behaviour on both systems.

How this works. A run of the suite writes a tally (tests/systems.py); `make test-all` writes those of both systems.
The tests of a behaviour are those with its number in their name. The tests of the model and of the rules have the same
result on every system and do not test an object manager, so they count only for a behaviour without other tests. Every
reason in the page comes from a test: from a mark, or from a table in tests/systems.py. `--check` compares the page and
does not write it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import docs_tested

__all__ = ["check", "main", "render"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path("docs/both-systems.md")
TALLIES = (Path(".results/linux.json"), Path(".results/windows.json"))
_TITLES = {"linux": "Linux", "windows": "Windows"}
_PURE = ("tests/unit/objects/", "tests/unit/rules/", "tests/rules/", "tests/property/")
ROW = re.compile(r"^\| B(\d+) \| (.+?) \| ", re.MULTILINE)
_DIFFERENCE = re.compile(r"^(B\d+): (.*)$", re.DOTALL)
_HEAD = """# Both systems, behaviour by behaviour

This page shows the results of the tests of each [numbered behaviour](behaviours.md) on the two object managers: the
broker on Linux, and the kernel on Windows. The Windows tests run in CPython for Windows under Debian's Wine, whose
kernel differs from Microsoft's in some places. These are the *known differences*; the test of one fails as soon as the
difference no longer exists. *Refused* is a behaviour that only the other system has, with the reason; *on … alone* is a
part of a behaviour that only one system has. `python -m scripts.behaviours` writes this page from the results of
`make test-all`, which fails if the page differs from them.

| | on Windows | Linux, the broker | Windows, the kernel |
|---|---|---|---|
"""
_DIFFERENCES = """
## Differences between Wine and Windows

These tests run on Windows and on Linux. Under Wine they are expected to fail, for the reason in the table.

| | behaviour of Wine | tests |
|---|---|---|
"""
_ALONE = """
## Tests of one system

Every other test runs on both systems.

| system | reason | tests |
|---|---|---|
"""

Tally = Mapping[str, Any]


def render(behaviours: str, linux: Tally, windows: Tally) -> str:
    """Return the page. behaviours: the text of docs/behaviours.md. ValueError: a run failed or is empty."""
    for run in (linux, windows):
        broken = [test for test, outcome in run["outcomes"].items() if outcome in ("failed", "collected")]
        if broken:
            raise ValueError(f"{broken[0]} and {len(broken) - 1} more did not pass on {run['system']}; run it again")
    page = _HEAD
    for number, text in ROW.findall(behaviours):
        cells = [cell(int(number), run, other) for run, other in ((linux, windows), (windows, linux))]
        page += f"| B{number} | {text} | {' | '.join(cells)} |\n"
    page += _DIFFERENCES
    for reason, tests in sorted(_by_reason(windows["reasons"], windows, "differs").items(), key=_numbered):
        match = _DIFFERENCE.match(reason)
        number, what = match.groups() if match is not None else ("", reason)
        page += f"| {number} | {what.removeprefix('Wine ')} | {_links(tests)} |\n"
    page += _ALONE
    for run in (linux, windows):
        for reason, tests in sorted(_by_reason(run["own"], run).items()):
            page += f"| {_TITLES[run['system']]} | {reason} | {_links(tests)} |\n"
    return page


def cell(number: int, run: Tally, other: Tally) -> str:
    """Return the result of a behaviour on one system. other: the run of the other system."""
    if number in docs_tested.WITHOUT:
        return f"no test: {docs_tested.WITHOUT[number]}"
    here, own = _about(number, run["outcomes"]), _about(number, other["own"])
    if any(not test.startswith(_PURE) for test in [*here, *own]):
        here = [test for test in here if not test.startswith(_PURE)]
    absent = dict.fromkeys(other["own"][test] for test in own if test not in run["outcomes"])
    differing = {test: run["reasons"][test] for test, outcome in run["outcomes"].items() if outcome == "differs"}
    # A difference belongs to the behaviour in its reason, and to the behaviours in the name of its test.
    found = [why for test, why in differing.items() if test in here or why.startswith(f"B{number}: ")]
    known = [why.partition(": ")[2] for why in found]
    if run["system"] == "windows" and number in docs_tested.OF_SECTIONS:
        known.append(docs_tested.OF_SECTIONS[number])
    told = ["pass"] if any(run["outcomes"][test] == "passed" for test in here) else []
    told += [f"known difference: {', '.join(dict.fromkeys(known))}"] if known else []
    what = f"on {_TITLES[other['system']]} alone" if told else "refused"
    told += [f"{what}: {', '.join(absent)}"] if absent else []
    if not told:
        skipped = [run["reasons"][test] for test in here if run["outcomes"][test] == "skipped"]
        told = [f"not tested: {reason}" for reason in dict.fromkeys(skipped)] or ["no test"]
    return "; ".join(told)


def _about(number: int, tests: Iterable[str]) -> list[str]:
    return [test for test in tests if number in docs_tested.numbers(test.rpartition("::")[2].partition("[")[0])]


def _by_reason(reasons: Mapping[str, str], run: Tally, outcome: str | None = None) -> dict[str, list[str]]:
    """Return the files for each reason."""
    found: dict[str, list[str]] = {}
    for test, reason in reasons.items():
        if outcome is None or run["outcomes"][test] == outcome:
            found.setdefault(reason, []).append(test.partition("::")[0])
    return found


def _numbered(item: tuple[str, list[str]]) -> tuple[int, str]:
    match = _DIFFERENCE.match(item[0])
    return int(match[1][1:]) if match is not None else 0, item[0]


def _links(files: Sequence[str]) -> str:
    return ", ".join(f"[{docs_tested.short(name)}](../{name})" for name in sorted(set(files)))


def check(root: Path = ROOT) -> str:
    """Return the problem of the existing page, or "". Raise ValueError and OSError as `written`."""
    there = root / PAGE
    if there.exists() and there.read_text(encoding="utf-8") == written(root):
        return ""
    return f"{PAGE} differs from the results of these runs: `python -m scripts.behaviours` writes it"


def written(root: Path) -> str:
    """Return the page for the last runs. Raise OSError if a tally is missing, and ValueError for a run that failed."""
    linux, windows = (json.loads((root / tally).read_text(encoding="utf-8")) for tally in TALLIES)
    return render((root / "docs" / "behaviours.md").read_text(encoding="utf-8"), linux, windows)


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 1 if the runs are missing, failed, or (`--check`) differ from the page."""
    parser = argparse.ArgumentParser("python -m scripts.behaviours", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare the page and write nothing")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            problem = check()
        else:
            (ROOT / PAGE).write_text(written(ROOT), encoding="utf-8")
            problem = ""
    except (OSError, ValueError) as error:
        problem = f"no page: {error}; `make test-all` runs both systems"
    if problem:
        sys.stderr.write(f"{problem}\n")
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
