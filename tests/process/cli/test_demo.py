"""`extmem demo` as a program: what it promises, its streams, and what it leaves behind when it is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extmem.testing.children import python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

DEADLINE = 300
SIGNALS = pytest.mark.linux_only("on Windows Ctrl-C comes from a console, and no test has one")


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory: what the command line shows is what the test did."""
    with Runtime() as private:
        yield private


def _environment(house: Runtime, **more: str) -> dict[str, str]:
    environment = python_environment({**house.environment, **more})
    environment.pop("COLUMNS", None)
    return {**environment, **more}


def _extmem(house: Runtime, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extmem", *arguments],
        env=_environment(house, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


def _json(house: Runtime, *arguments: str) -> Any:
    done = _extmem(house, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _only_the_broker(house: Runtime) -> bool:
    return all("extmem.broker" in command or "broker/__main__" in command for command in house.processes().values())


def test_the_demo_shows_all_that_it_promises_and_leaves_nothing(house: Runtime, tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    done = _extmem(house, "demo", "--frames", "6", "--out", str(picture), "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["ok"] and shown["wrong"] == []
    recorder, viewer = shown["readers"]
    assert (recorder["mode"], recorder["read"], recorder["skipped"], recorder["torn"]) == ("reliable", 6, 0, 0)
    assert viewer["mode"] == "newest" and 1 <= viewer["read"] + viewer["skipped"] <= 6 and viewer["torn"] == 0
    assert shown["checked"] == 6 + viewer["read"] and shown["redrawn"] == [1, 3, 6]
    first, second = shown["writers"]
    assert first != second and shown["killed"]["frame"] == 4
    # While there was no writer, three frames were there, and both readers.
    channel = shown["channel"]
    assert (channel["writer"], channel["state"], channel["frames"]) == (first, "gone", 3)
    assert {reader["pid"] for reader in channel["readers"]} == {recorder["pid"], viewer["pid"]}
    assert [refusal["by"] for refusal in shown["refusals"]] == ["NumPy", "the kernel", "the lock of the writer"]
    assert all(refusal["error"] for refusal in shown["refusals"])
    assert shown["left"] == {"payloads": 0, "name": False, "descriptors": 0, "broker_descriptors": 0}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "6 of 6 frames" in done.stderr
    assert _only_the_broker(house)


@pytest.mark.slow("a second run of five processes, which load NumPy")
def test_the_demos_story_is_told_on_stdout_and_its_progress_on_stderr(house: Runtime, tmp_path: Path) -> None:
    done = _extmem(house, "demo", "--frames", "1", "--out", str(tmp_path / "p.png"), COLUMNS="40")
    assert done.returncode == 0, done.stderr
    for part in (
        "Device: extmem host memory",
        "is killed (kill -9): half of frame 1 is written",
        "takes the channel over: frame 1 comes",
        "- reader: ",
        "refused by the kernel",
        "Left behind: 0 payloads",
    ):
        assert part in done.stdout
    assert "Left behind" not in done.stderr and "\x1b" not in done.stdout + done.stderr


@SIGNALS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing(house: Runtime, tmp_path: Path, number: int) -> None:
    picture = tmp_path / "demo.png"
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "demo", "--frames", "512", "--out", str(picture)],
        env=_environment(house),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as running:
        wait_until(lambda: len(house.processes()) >= 4, "the demo's processes")
        wait_until(lambda: _json(house, "ps") != [], "the payload")
        os.kill(running.pid, number)
        _, said = running.communicate(timeout=DEADLINE)
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert said.splitlines()[-1] == "interrupted"
    else:
        assert running.returncode == 128 + number
    assert "Traceback" not in said
    assert not picture.exists()
    wait_until(lambda: _only_the_broker(house), lambda: f"the workers to end: {house.processes()}")
    wait_until(lambda: _json(house, "ps") == [], "the payload to go")


def test_a_demo_that_is_killed_leaves_nothing(house: Runtime, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "demo", "--frames", "512", "--out", str(tmp_path / "demo.png")],
        env=_environment(house),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as running:
        wait_until(lambda: _json(house, "ps") != [], "the payload")
        running.kill()
    wait_until(lambda: _only_the_broker(house), lambda: f"the workers to end: {house.processes()}")
    wait_until(lambda: _json(house, "ps") == [], "the payload to go")
