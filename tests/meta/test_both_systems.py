"""docs/both-systems.md has every numbered behaviour, and shows the outcomes of the runs and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts import behaviours, docs_tested
from tests.meta.tools import ROOT

_ROW = re.compile(r"^\| B(\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
_WORDS = ("pass", "known difference: ", "refused: ", "no test: ")


def test_every_behaviour_is_there_with_what_became_of_it() -> None:
    page = (ROOT / behaviours.PAGE).read_text(encoding="utf-8")
    numbered = (ROOT / "docs" / "behaviours.md").read_text(encoding="utf-8")
    rows = {int(number): (text, cells) for number, text, *cells in _ROW.findall(page.partition("\n## ")[0])}
    assert {number: text for number, (text, _) in rows.items()} == {
        int(number): text for number, text in behaviours.ROW.findall(numbered)
    }
    tested = docs_tested.tested(ROOT)
    for number, (_, cells) in rows.items():
        assert all(cell.startswith(_WORDS) for cell in cells), f"B{number}: {cells}"
        assert any(cell.startswith("no test: ") for cell in cells) == (number not in tested), f"B{number}: {cells}"


BEHAVIOURS = "".join(f"| B{number} | does {number} | the same | – |\n" for number in (1, 2, 3, 4, 50))
LINUX = {
    "system": "linux",
    "outcomes": {
        "tests/behaviours/test_a.py::test_B1_works[x]": "passed",
        "tests/behaviours/test_a.py::test_B2_by_fd": "passed",
        "tests/unit/objects/test_b.py::test_B2_in_the_model": "passed",
        "tests/unit/rules/test_c.py::test_B3_a_rule": "passed",
        "tests/behaviours/test_a.py::test_B4_differs": "passed",
        "tests/behaviours/test_a.py::test_other[B4]": "passed",
    },
    "own": {"tests/behaviours/test_a.py::test_B2_by_fd": "fds are Linux's"},
    "reasons": {},
}
WINDOWS = {
    "system": "windows",
    "outcomes": {
        "tests/behaviours/test_a.py::test_B1_works[x]": "passed",
        "tests/unit/objects/test_b.py::test_B2_in_the_model": "passed",
        "tests/unit/rules/test_c.py::test_B3_a_rule": "passed",
        "tests/behaviours/test_a.py::test_B4_differs": "differs",
        "tests/windows/test_d.py::test_B1_here": "passed",
    },
    "own": {"tests/windows/test_d.py::test_B1_here": "sections are Windows's"},
    "reasons": {"tests/behaviours/test_a.py::test_B4_differs": "B4: Wine does something else"},
}


def test_the_page_shows_what_the_runs_did() -> None:
    page = behaviours.render(BEHAVIOURS, LINUX, WINDOWS)
    rows = {number: cells for number, _, *cells in _ROW.findall(page)}
    assert rows == {
        "1": ["pass; on Windows alone: sections are Windows's", "pass"],
        "2": ["pass", "refused: fds are Linux's"],
        "3": ["pass", "pass"],
        "4": ["pass", "known difference: Wine does something else"],
        "50": [f"no test: {docs_tested.WITHOUT[50]}"] * 2,
    }
    assert "| B4 | does something else | [behaviours/a](../tests/behaviours/test_a.py) |" in page
    assert "| Linux | fds are Linux's | [behaviours/a](../tests/behaviours/test_a.py) |" in page
    assert "| Windows | sections are Windows's | [windows/d](../tests/windows/test_d.py) |" in page


@pytest.mark.parametrize("outcome", ["failed", "collected"])
def test_a_run_that_did_not_go_well_makes_no_page(outcome: str) -> None:
    broken: dict[str, Any] = {**WINDOWS, "outcomes": {**WINDOWS["outcomes"], "x": outcome}}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="x and 0 more did not pass on windows"):
        behaviours.render(BEHAVIOURS, LINUX, broken)


def test_a_page_that_shows_something_else_is_seen(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / ".results").mkdir()
    (tmp_path / "docs" / "behaviours.md").write_text(BEHAVIOURS, encoding="utf-8")
    for where, run in zip(behaviours.TALLIES, (LINUX, WINDOWS), strict=True):
        (tmp_path / where).write_text(json.dumps(run), encoding="utf-8")
    page = tmp_path / behaviours.PAGE
    assert "python -m scripts.behaviours" in behaviours.check(tmp_path)
    page.write_text(behaviours.written(tmp_path), encoding="utf-8")
    assert behaviours.check(tmp_path) == ""
    page.write_text(page.read_text(encoding="utf-8").replace("| pass |", "| fail |", 1), encoding="utf-8")
    assert "python -m scripts.behaviours" in behaviours.check(tmp_path)


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--chekc", 2)])
def test_help_and_wrong_options_write_no_page(
    argument: str, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(behaviours, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as ended:
        behaviours.main([argument])
    assert ended.value.code == status and not list(tmp_path.iterdir())
    printed = capsys.readouterr()
    assert "--check" in printed.out + printed.err and "python -m scripts.behaviours" in printed.out + printed.err
