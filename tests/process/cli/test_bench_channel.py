"""`extmem bench channel` as a program: that it measures and cleans up; never how fast a busy machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extmem.testing._system import started_with
from extmem.testing.children import python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

DEADLINE = 300


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory, with which the benchmark must have nothing to do."""
    with Runtime() as private:
        yield private


def measured(house: Runtime, *parts: str, **more: str) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of these parts, and what was written on stderr."""
    options = [option for part in parts for option in ("--part", part)]
    done = subprocess.run(
        [sys.executable, "-m", "extmem", "bench", "channel", "--quick", "--json", *options],
        env={**python_environment(house.environment), **more},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (0 if all(row["ok"] for row in rows) else 1), done.stderr
    assert all(list(row) == ["name", "value", "unit", "bound", "ok"] for row in rows)
    # What is counted and not timed must be true on any machine.
    assert all(row["ok"] for row in rows if row["unit"] in ("left", "failed", "torn", "more", "writes")), rows
    assert not house.processes()
    return rows, done.stderr


def test_hops_are_compared_with_pipes_and_queues(house: Runtime) -> None:
    rows, said = measured(house, "hops")
    names = [row["name"] for row in rows]
    assert "one hop of 8 MiB, times as fast as multiprocessing.Pipe" in names
    assert {"one hop of 8 B, a channel: p50", "one hop of 8 MiB, a channel, async for: p90"} <= set(names)
    assert "one hop of 8 B: async for, longer than read()" in names
    assert "channel: one hop, 20 times in each of 2 runs: a channel" in said


def test_what_is_not_installed_is_told_and_not_compared(house: Runtime, tmp_path: Path) -> None:
    for module in ("iceoryx2", "zmq"):
        (tmp_path / f"{module}.py").write_text(f"raise ImportError('no {module} today')\n", encoding="utf-8")
    rows, said = measured(house, "calls", PYTHONPATH=str(tmp_path))
    assert "iceoryx2 cannot be imported: no iceoryx2 today: it is not compared" in said
    assert "pyzmq cannot be imported: no zmq today" in said
    (row,) = (row for row in rows if row["unit"] == "not measured")
    assert row["bound"] is None and row["name"].endswith("cannot be imported: no iceoryx2 today")
    assert [row["name"] for row in rows if row["bound"]] == ["write() alone, p50", "read() of a ready frame, p50"]


@pytest.mark.parametrize("library", ["iceoryx2", "pyzmq"])
def test_libraries_that_are_installed_are_compared(house: Runtime, library: str) -> None:
    pytest.importorskip({"pyzmq": "zmq"}.get(library, library), reason=f"{library} is not installed")
    rows, _ = measured(house, "fan-out")
    for count in ("1 reader", "4 readers", "8 readers"):
        (row,) = (
            row for row in rows if row["name"] == f"500 frames a second to {count}, {library}: the writer itself, p50"
        )
        assert row["value"] > 0
    assert not list(Path("/dev/shm").glob("*iox2*"))


def test_one_writer_with_eight_readers_is_measured(house: Runtime) -> None:
    rows, _ = measured(house, "fan-out")
    names = {row["name"] for row in rows}
    assert "500 frames a second to 8 readers, a channel: the slowest reader, p50" in names


def test_kills_and_what_is_left_are_counted(house: Runtime) -> None:
    rows, _ = measured(house, "deaths", "holders", "storm", "opens")
    found = {row["name"]: row["value"] for row in rows}
    assert found["the next writes that did not find the slot of a killed holder, of 4"] == 0
    assert found["torn frames of 200 that were checked, over 4 kills"] == 0
    assert found["payloads left after 4 kills, and kill -9 of everybody"] == 0
    assert found["fds after 20 times open_channel() and close()"] == 0
    assert found["writers killed"] + found["holders killed"] == 4 and found["frames written meanwhile"] > 0
    assert found["kill -9 of the writer to WriterGoneError, p50 of 4"] > 0


def test_a_bench_that_is_killed_leaves_no_process_that_waits(house: Runtime) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "extmem", "bench", "channel", "--json", "--part", "hops"],
        env={**python_environment(house.environment), "TMPDIR": str(house.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:

        def started(word: str) -> list[str]:
            return [line for line in started_with("TMPDIR", str(house.path)).values() if word in line]

        wait_until(lambda: started("spawn_main"), "the two processes of the hops")
        running.kill()
    wait_until(lambda: not started("spawn_main") and not started("_worker"), "the processes of the bench to end")
