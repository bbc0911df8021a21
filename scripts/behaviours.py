"""`python -m scripts.behaviours` writes docs/both-systems.md: what became of each numbered behaviour on both systems.

How this works. Runs of the suite leave tallies (tests/systems.py): `make test-all` those of both systems.
A behaviour's tests are those with its number in their name. What the tests of the model and of the rules show is the
same everywhere and says nothing of an object manager, so they count only where a behaviour has no others. Every reason
in the page is a test's own: of a mark, or of a table in tests/systems.py. `--check` compares and writes nothing.
"""

from __future__ import annotations

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

What became of each of the [numbered behaviours](behaviours.md) when its tests ran over the two object managers: the
broker on Linux, and the kernel on Windows. Windows is CPython for Windows under Debian's Wine, whose kernel differs
from Microsoft's here and there; those are the *known differences*, and a test of one fails as soon as it is none any
more. *Refused* is what the other system has and this one has not, with the reason; *on … alone* is a part of it that
only that one has. `python -m scripts.behaviours` writes this page from what `make test-all` leaves behind, which fails
where the page shows something else.

| | on Windows | Linux, the broker | Windows, the kernel |
|---|---|---|---|
"""
_DIFFERENCES = """
## Where Wine is not Windows

These tests run on Windows as on Linux. Under Wine they are known to fail, for the reason that is given.

| | what Wine does | tests |
|---|---|---|
"""
_ALONE = """
## Tests of one system alone

Every other test runs on both.

| runs on | why | tests |
|---|---|---|
"""

Tally = Mapping[str, Any]


def render(behaviours: str, linux: Tally, windows: Tally) -> str:
    """The page. behaviours: docs/behaviours.md. ValueError for a run that failed, or was none."""
    for run in (linux, windows):
        broken = [test for test, outcome in run["outcomes"].items() if outcome in ("failed", "collected")]
        if broken:
            raise ValueError(f"{broken[0]} and {len(broken) - 1} more did not pass on {run['system']}; run them first")
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
    """What became of a behaviour on one system: `other` is the other's run, whose own tests are not to be had here."""
    if number in docs_tested.WITHOUT:
        return f"no test: {docs_tested.WITHOUT[number]}"
    here, own = _about(number, run["outcomes"]), _about(number, other["own"])
    if any(not test.startswith(_PURE) for test in [*here, *own]):
        here = [test for test in here if not test.startswith(_PURE)]
    absent = dict.fromkeys(other["own"][test] for test in own if test not in run["outcomes"])
    differing = {test: run["reasons"][test] for test, outcome in run["outcomes"].items() if outcome == "differs"}
    # A difference is one of the behaviour that its reason names, and of those that its test is of.
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
        told = [f"not looked at: {reason}" for reason in dict.fromkeys(skipped)] or ["no test"]
    return "; ".join(told)


def _about(number: int, tests: Iterable[str]) -> list[str]:
    return [test for test in tests if number in docs_tested.numbers(test.rpartition("::")[2].partition("[")[0])]


def _by_reason(reasons: Mapping[str, str], run: Tally, outcome: str | None = None) -> dict[str, list[str]]:
    """Reason to the files that give it."""
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
    """What is wrong with the page that is there, or nothing. ValueError and OSError as `written`."""
    there = root / PAGE
    if there.exists() and there.read_text(encoding="utf-8") == written(root):
        return ""
    return f"{PAGE} does not show what these runs did: `python -m scripts.behaviours` writes it"


def written(root: Path) -> str:
    """The page of this repository's last runs. OSError where a tally is missing, ValueError for a run that failed."""
    linux, windows = (json.loads((root / tally).read_text(encoding="utf-8")) for tally in TALLIES)
    return render((root / "docs" / "behaviours.md").read_text(encoding="utf-8"), linux, windows)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 1 where the runs are not there, failed, or (`--check`) differ from the page."""
    try:
        if "--check" in arguments:
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
