"""Setting the Windows test bed up on machines that lack Wine: what is installed, what is printed, and when it fails."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from scripts import behaviours, windows

LINE = "apt-get install -y --no-install-recommends wine wine64 xvfb"


class Machine:
    """A machine with these programs and no others: PATH is its folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", str(folder))
        self._patch = monkeypatch

    def has(self, *names: str, script: str = "exit 0") -> None:
        """Add programs that run this and record their arguments."""
        for name in names:
            program = self.folder / name
            program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.folder}/calls"\n{script}\n', encoding="utf-8")
            program.chmod(0o755)

    def user(self, number: int) -> None:
        """Set the user that runs this."""
        self._patch.setattr(os, "geteuid", lambda: number)

    @property
    def calls(self) -> list[str]:
        """Return how its programs were called."""
        there = self.folder / "calls"
        return there.read_text(encoding="utf-8").splitlines() if there.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(windows, "BED", tmp_path / "bed")
    monkeypatch.delenv("EXTMEM_EXPECT", raising=False)
    return Machine(folder, monkeypatch)


def installs(folder: Path, *names: str) -> str:
    """Return the text of an apt-get that installs these programs."""
    made = " ".join(f"{folder}/{name}" for name in names)
    return f"if [ $1 = install ]; then for p in {made}; do : >$p; /bin/chmod +x $p; done; fi"


def test_where_everything_is_there_nothing_is_installed(machine: Machine) -> None:
    machine.has(*windows.PROGRAMS, "apt-get")
    windows._packages()
    assert machine.calls == []


def test_root_installs_what_is_missing(machine: Machine) -> None:
    machine.user(0)
    machine.has("apt-get", script=installs(machine.folder, *windows.PROGRAMS))
    windows._packages()
    assert machine.calls == ["apt-get update -qq", f"{LINE} -qq"]


def test_others_are_told_the_line_to_type(machine: Machine) -> None:
    machine.user(1000)
    machine.has("apt-get", "wine")
    with pytest.raises(windows.NoWindowsError, match=f"wineserver, Xvfb missing. As root:\\n    {LINE}"):
        windows._packages()
    assert machine.calls == []


def test_a_system_of_other_packages_is_told_what_it_takes(machine: Machine) -> None:
    machine.user(0)
    with pytest.raises(windows.NoWindowsError, match="no apt-get.*Wine 8 or later.*Xvfb"):
        windows._packages()


def test_an_installation_that_fails_is_told_in_its_own_words(machine: Machine) -> None:
    machine.user(0)
    machine.has("apt-get", script="echo E: Unable to locate package wine64; exit 100")
    with pytest.raises(windows.NoWindowsError, match="ended with 100:\nE: Unable to locate package wine64"):
        windows._packages()


def test_an_installation_that_brings_too_little_is_reported(machine: Machine) -> None:
    machine.user(0)
    machine.has("apt-get", script=installs(machine.folder, "wine", "Xvfb"))
    with pytest.raises(windows.NoWindowsError, match="wineserver still missing after"):
        windows._packages()


@pytest.mark.parametrize(
    ("command", "expect", "status", "expected"),
    [
        ("test", "", 0, "continuing without them"),
        ("test", "broker,numpy", 0, "continuing without them"),
        ("test", "broker,windows", 1, "EXTMEM_EXPECT contains windows, so this is a failure"),
        ("python", "", 1, "missing"),
    ],
)
def test_without_wine_the_run_goes_on_unless_it_is_expected(
    machine: Machine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    expect: str,
    status: int,
    expected: str,
) -> None:
    machine.user(1000)
    monkeypatch.setenv("EXTMEM_EXPECT", expect)
    assert windows.main([command]) == status
    stderr = capsys.readouterr().err
    assert stderr.startswith("the tests on Windows cannot run: wine, wineserver, Xvfb missing") and expected in stderr


@pytest.mark.parametrize(
    ("outcome", "whole", "status", "expected"),
    [
        ("passed", True, 0, ""),
        ("collected", True, 1, "not run on Linux: a and 0 more; `make test` and `make test-rest` run them"),
        ("collected", False, 0, "not run on Linux: a and 0 more; `make test` and `make test-rest` run them"),
    ],
)
def test_where_all_must_have_run_on_linux_one_that_has_not_is_a_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: str,
    whole: bool,
    status: int,
    expected: str,
) -> None:
    for name, system, became in (("LINUX", "linux", outcome), ("MINE", "windows", "passed")):
        monkeypatch.setattr(windows, name, tmp_path / f"{system}.json")
        run = {"system": system, "outcomes": {"a": became}, "own": {}, "reasons": {}, "seconds": 1}
        (tmp_path / f"{system}.json").write_text(json.dumps(run), encoding="utf-8")
    shutil.copy(windows.MINE, tmp_path / "part.json")
    monkeypatch.setattr(windows, "TALLIES", [tmp_path / "part.json"])
    monkeypatch.setattr(windows, "collect_on_linux", lambda where: None)
    monkeypatch.setattr(behaviours, "check", lambda: "")
    assert windows.compare(whole=whole) == status
    assert capsys.readouterr().err.strip() == expected


def test_the_parts_are_the_whole_suite() -> None:
    first, second = windows.PARTS
    assert second[0] == "tests" and [f"--ignore={folder}" for folder in first] == list(second[1:])
    assert all((windows.ROOT / folder).is_dir() for folder in first)
    assert len(windows.PREFIXES) == len(windows.PARTS) == len(set(windows.PREFIXES))
