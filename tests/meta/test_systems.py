"""Tests of one system are not collected elsewhere, Wine's failures are expected only there, runs are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import tally
from tests import systems
from tests.meta.tools import ROOT

CONFTEST = """
import sys
from tests import systems
from tests.conftest import pytest_addoption, pytest_configure
systems.TESTS = __import__("pathlib").Path(__file__).parent
systems.ONLY = {"linux": {"only_linux": "planted"}, "windows": {"only_windows": "planted"}}
systems.under_wine = lambda: bool(sys.platform)
"""
NOWHERE = "import a_module_that_is_nowhere\ndef test_never(): pass\n"
FILES = {
    "only_linux/test_here.py": "def test_here(): pass\n",
    "only_windows/test_there.py": "def test_there(): pass\n",
    "test_both.py": """
import pytest
def test_plain(): pass
@pytest.mark.linux_only("planted")
def test_marked_linux(): pass
@pytest.mark.windows_only("planted")
def test_marked_windows(): pass
@pytest.mark.wine_differs("B0: planted")
def test_differs(): assert False
@pytest.mark.wine_differs("B0: planted")
def test_differs_no_more(): pass
@pytest.mark.wine_differs("B0: planted", when=lambda: True)
def test_differs_here(): assert False
@pytest.mark.wine_differs("B0: planted", when=lambda: False)
def test_differs_elsewhere(): pass
def test_fails(): assert False
""",
}
OTHER = "windows" if systems.HERE == "linux" else "linux"


def run(where: Path, *options: str) -> dict[str, object]:
    """Run the planted suite and return its tally."""
    (where / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    for name, source in FILES.items():
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).write_text(NOWHERE if f"only_{OTHER}" in name else source, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(where)]
    subprocess.run(
        [*command, "--import-mode=importlib", "--tally", str(where / "tally.json"), *options, str(where)],
        env=environment,
        cwd=where,
        capture_output=True,
        timeout=100,
        check=False,
    )
    found: dict[str, object] = json.loads((where / "tally.json").read_text(encoding="utf-8"))
    return found


def test_the_other_systems_tests_are_left_out_and_this_ones_are_known_as_its_own(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert found["system"] == systems.HERE
    assert found["outcomes"] == {
        f"only_{systems.HERE}/test_{'here' if systems.HERE == 'linux' else 'there'}.py"
        f"::test_{'here' if systems.HERE == 'linux' else 'there'}": "passed",
        "test_both.py::test_plain": "passed",
        f"test_both.py::test_marked_{systems.HERE}": "passed",
        "test_both.py::test_differs": "differs",
        "test_both.py::test_differs_no_more": "failed",
        "test_both.py::test_differs_here": "differs",
        "test_both.py::test_differs_elsewhere": "passed",
        "test_both.py::test_fails": "failed",
    }
    own = found["own"]
    assert isinstance(own, dict) and len(own) == 2 and set(own.values()) == {"planted"}
    assert all(systems.HERE in name or "here" in name for name in own)
    assert found["reasons"] == dict.fromkeys(
        ("test_both.py::test_differs", "test_both.py::test_differs_here"), "B0: planted"
    )


def test_what_is_only_collected_replaces_no_outcome(tmp_path: Path) -> None:
    """Two runs extend one tally, which can also have the tests that neither of them ran."""
    first = run(tmp_path, "-k", "plain")
    assert first["outcomes"] == {"test_both.py::test_plain": "passed"}
    second = run(tmp_path, "--collect-only")
    outcomes = second["outcomes"]
    assert isinstance(outcomes, dict) and outcomes.pop("test_both.py::test_plain") == "passed"
    assert len(outcomes) == 7 and set(outcomes.values()) == {"collected"}
    assert second["seconds"] == first["seconds"]
    assert "collected" not in str(run(tmp_path)["outcomes"])


@pytest.mark.linux_only("pytest-xdist runs Linux's tests; the Windows test bed is without it")
def test_processes_side_by_side_leave_the_same_tally(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "together").mkdir()
    alone, together = run(tmp_path / "alone"), run(tmp_path / "together", "-n", "2")
    del alone["seconds"], together["seconds"]
    assert together == alone and alone["own"]


@pytest.mark.parametrize("system", systems.ONLY)
def test_every_entry_of_the_list_is_there_and_has_a_reason(system: str) -> None:
    for entry, reason in systems.ONLY[system].items():
        assert (systems.TESTS / entry).exists(), f"{entry} does not exist; remove it from the list"
        assert len(reason) > 15
        assert systems.owner(systems.TESTS / entry) == (system, reason)
    assert systems.owner(systems.TESTS / "rules" / "test_rules.py") is None


def _written(
    where: Path, system: str, outcomes: dict[str, str], own: list[str], *, name: str = "", seconds: float = 1
) -> Path:
    path = where / f"{name or system}.json"
    path.write_text(
        json.dumps({"system": system, "outcomes": outcomes, "own": dict.fromkeys(own, "its own"), "seconds": seconds}),
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(
    ("windows", "status", "expected"),
    [
        ({"a": "passed", "b": "differs", "w": "passed"}, 0, "Windows (kernel)"),
        ({"a": "passed", "b": "failed", "w": "passed"}, 1, "Windows (kernel)"),
        ({"a": "passed", "w": "passed"}, 1, "missing on Windows (kernel): b"),
        ({"a": "passed", "b": "passed", "c": "passed", "w": "passed"}, 1, "missing on Linux (broker): c"),
    ],
    ids=["well", "a failure", "missing", "too many"],
)
def test_two_runs_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], windows: dict[str, str], status: int, expected: str
) -> None:
    linux = _written(tmp_path, "linux", {"a": "passed", "b": "passed", "l": "passed"}, ["l"])
    assert tally.compare(linux, _written(tmp_path, "windows", windows, ["w"])) == status
    shown = capsys.readouterr().out
    assert expected in shown
    assert shown.splitlines()[-2].split()[:4] == ["Linux", "(broker)", "2", "1"]


def test_a_run_that_left_nothing_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linux = _written(tmp_path, "linux", {"a": "passed"}, [])
    assert tally.compare(linux, tmp_path / "windows.json") == 1
    assert "windows.json" in capsys.readouterr().out


def test_what_has_not_run_is_named(tmp_path: Path) -> None:
    some = {"b": "collected", "a": "collected", "c": "skipped"}
    assert tally.not_run(_written(tmp_path, "linux", some, [])) == ["a", "b"]
    assert tally.not_run(_written(tmp_path, "linux", {"a": "passed", "c": "failed"}, [])) == []


def test_two_parts_of_a_run_are_one_run(tmp_path: Path) -> None:
    one = _written(tmp_path, "windows", {"a": "passed"}, [], name="one", seconds=3)
    two = _written(tmp_path, "windows", {"b": "failed", "w": "passed"}, ["w"], name="two", seconds=5)
    whole = tmp_path / "windows.json"
    assert tally.merge([one, two], whole)
    found = json.loads(whole.read_text(encoding="utf-8"))
    assert found["outcomes"] == {"a": "passed", "b": "failed", "w": "passed"}
    assert found["own"] == {"w": "its own"} and found["seconds"] == 5, "they run side by side"


def test_a_part_that_left_nothing_makes_no_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = _written(tmp_path, "windows", {"a": "passed"}, [], name="one")
    whole = tmp_path / "windows.json"
    whole.write_text("{}", encoding="utf-8")
    assert not tally.merge([one, tmp_path / "two.json"], whole)
    assert not whole.exists(), "nothing of a former run is taken for this one's"
    assert "two.json" in capsys.readouterr().out
