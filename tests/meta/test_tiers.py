"""The two steps of continuous integration together run every test, each once."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from tests import tiers
from tests.meta.tools import ROOT, run

FILES = {
    "conftest.py": """
from tests import tiers
from tests.conftest import pytest_addoption, pytest_configure
tiers.TESTS = __import__("pathlib").Path(__file__).parent
tiers.SLOW = {"folder": "planted", "test_file.py": "planted"}
""",
    "folder/test_inside.py": "def test_inside(): pass\n",
    "test_file.py": "def test_of_the_table(): pass\n",
    "test_marked.py": """
import pytest
def test_plain(): pass
@pytest.mark.slow("planted")
def test_marked(): pass
@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.slow("planted"))])
def test_one_of_two(x): pass
""",
}


def selected(ci: str, makefile: str, check: str) -> list[str]:
    """Return the marks by which continuous integration selects tests: those of the tiers of each `make` in .ci/run."""
    found = []
    for target in re.findall(r"^make (\S+)$", ci, re.MULTILINE):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        for name in re.findall(r"scripts/check\.sh (\w+)", recipe[1] if recipe else ""):
            body = re.search(rf"^{name}\(\) \{{\n(.*?)^\}}", check, re.MULTILINE | re.DOTALL)
            found += re.findall(r'^ +tier \w+ "?([^"\n]+)"?$', body[1] if body else "", re.MULTILINE)
    return found


def collected(folder: Path, *options: str) -> list[str]:
    """Return the tests that pytest selects there."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options]
    done = run([*command, "--rootdir", folder], cwd=folder, python_path=f"{ROOT}{os.pathsep}{ROOT / 'src'}")
    found = [line for line in done.stdout.splitlines() if "::" in line]
    assert found, done.stdout + done.stderr
    return found


def faults(whole: Collection[str], parts: Sequence[Collection[str]]) -> list[str]:
    """Return the tests that are in no part, and those that are in more than one."""
    counted = Counter(test for part in parts for test in part)
    return [f"{test}: in {counted[test]} tiers" for test in sorted({*whole, *counted}) if counted[test] != 1]


def _texts() -> list[str]:
    return [(ROOT / name).read_text(encoding="utf-8") for name in (".ci/run", "Makefile", "scripts/check.sh")]


def test_continuous_integration_runs_both_tiers() -> None:
    assert selected(*_texts()) == ["not slow", "slow"]


@pytest.mark.parametrize(
    ("file", "old", "new", "left"),
    [
        (0, "make test-rest", "", ["not slow"]),
        (1, "\t@scripts/check.sh quick", "\t@true", ["slow"]),
        (2, "    tier slow slow", "    tier slow slower", ["not slow", "slower"]),
    ],
    ids=["ci", "makefile", "check"],
)
def test_planted_step_that_is_left_out_is_found(file: int, old: str, new: str, left: list[str]) -> None:
    texts = _texts()
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new)
    assert selected(*texts) == left


@pytest.mark.slow("collects all tests three times")
def test_the_tiers_together_are_all_tests() -> None:
    whole = collected(ROOT, "tests")
    parts = [collected(ROOT, "tests", "-m", marks) for marks in selected(*_texts())]
    assert not faults(whole, parts)
    assert all(len(part) > 100 for part in parts)


def test_files_folders_tests_and_parameters_can_be_slow_and_a_planted_gap_is_found(tmp_path: Path) -> None:
    for name, source in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source, encoding="utf-8")
    whole = collected(tmp_path)
    quick, slow = (collected(tmp_path, "-m", marks) for marks in selected(*_texts()))
    assert quick == ["test_marked.py::test_plain", "test_marked.py::test_one_of_two[1]"]
    assert len(whole) == 6 and not faults(whole, [quick, slow])
    assert faults(whole, [quick, slow[1:]]) == [f"{slow[0]}: in 0 tiers"]
    assert faults(whole, [quick, [*slow, quick[0]]]) == [f"{quick[0]}: in 2 tiers"]


def test_every_entry_of_the_list_is_there_and_has_a_reason() -> None:
    for entry, reason in tiers.SLOW.items():
        assert (tiers.TESTS / entry).exists(), f"{entry} is not there; take it off the list"
        assert len(reason) > 15
        assert tiers.why_slow(tiers.TESTS / entry) == reason
    assert tiers.why_slow(tiers.TESTS / "rules" / "test_rules.py") is None
