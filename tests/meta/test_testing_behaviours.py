"""Every numbered behaviour is tested by name, or listed with the reason why it does not apply here."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = TESTS / "behaviours" / "README.md"
_TEST = re.compile(r"^def test_([BG])(\d+)_", re.MULTILINE)
_ROW = re.compile(r"^\| B(\d+) \| (.*?) \|$", re.MULTILINE)


def numbers_in_tests(root: Path = TESTS) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"B": set(), "G": set()}
    for path in root.rglob("test_*.py"):
        for letter, number in _TEST.findall(path.read_text(encoding="utf-8")):
            found[letter].add(int(number))
    return found


def listed(text: str) -> dict[int, str]:
    return {int(number): reason for number, reason in _ROW.findall(text)}


def missing(tests: set[int], table: set[int], last: int) -> set[int]:
    return set(range(1, last + 1)) - tests - table


def test_every_behaviour_is_tested_or_listed() -> None:
    assert missing(numbers_in_tests()["B"], set(listed(README.read_text(encoding="utf-8"))), 106) == set()


def test_every_decision_is_tested() -> None:
    assert missing(numbers_in_tests()["G"], set(), 9) == set()


def test_every_row_has_a_reason() -> None:
    assert all(len(reason) > 20 for reason in listed(README.read_text(encoding="utf-8")).values())


def test_a_planted_gap_is_found(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text("def test_B1_one(): ...\ndef test_B3_three(): ...\ndef test_G2_x(): ...\n")
    found = numbers_in_tests(tmp_path)
    assert found == {"B": {1, 3}, "G": {2}}
    assert missing(found["B"], set(listed("| B2 | no such thing here |\n")), 4) == {4}
