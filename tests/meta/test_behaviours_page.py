"""Every numbered behaviour is in docs/behaviours.md, and has a test with its number or a reason why it has none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import docs_tested
from tests.meta.tools import ROOT

_ROW = re.compile(r"^\| B(\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def complaints(page: str, tested: dict[int, list[str]]) -> list[str]:
    """Return what is missing from the page, or from the tests."""
    rows = [int(number) for number, *_ in _ROW.findall(page)]
    found = [f"B{number} stands there {rows.count(number)} times" for number in set(rows) if rows.count(number) > 1]
    found += [f"B{number} is missing" for number in range(1, max(rows, default=0) + 1) if number not in rows]
    found += [f"B{number} has no test" for number in rows if number not in tested and number not in docs_tested.WITHOUT]
    found += [
        f"tests name B{number}, which the page does not have: {tested[number]}"
        for number in tested
        if number not in rows
    ]
    return found


def test_every_behaviour_is_on_the_page_and_tested() -> None:
    page = (ROOT / "docs" / "behaviours.md").read_text(encoding="utf-8")
    assert len(_ROW.findall(page)) >= 106
    found = complaints(page, docs_tested.tested(ROOT))
    assert not found, "\n".join(found)


def test_every_behaviour_of_semaphores_is_tested_and_on_the_page() -> None:
    page = (ROOT / "docs" / "behaviours.md").read_text(encoding="utf-8")
    rows = [int(number) for number in re.findall(r"^\| S(\d+) \| ", page, re.MULTILINE)]
    assert len(rows) == len(set(rows)) >= 40 and set(rows) == set(docs_tested.tested(ROOT, "S"))


@pytest.mark.parametrize(
    ("page", "tested", "expected"),
    [
        ("| B1 | a | b | – |\n| B2 | a | b | – |\n", {1: ["x"]}, "B2 has no test"),
        ("| B1 | a | b | – |\n| B3 | a | b | – |\n", {1: ["x"], 3: ["x"]}, "B2 is missing"),
        ("| B1 | a | b | – |\n| B1 | a | b | – |\n", {1: ["x"]}, "B1 stands there 2 times"),
        ("| B1 | a | b | – |\n", {1: ["x"], 2: ["y"]}, "tests name B2"),
    ],
)
def test_planted_gap_is_found(page: str, tested: dict[int, list[str]], expected: str) -> None:
    assert any(sentence.startswith(expected) for sentence in complaints(page, tested))


def test_numbers_are_read_from_names_alone(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    text = "def test_B18_and_B9_x(): ...\n# B77\ndef helper_B3(): ...\n    def test_B101(self): ...\n"
    text += "def test_AB12(): ...\n"
    (tmp_path / "tests" / "test_a.py").write_text(text, encoding="utf-8")
    assert set(docs_tested.tested(tmp_path)) == {9, 18, 101}
