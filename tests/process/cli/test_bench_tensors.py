"""`extmem bench tensors` as a program: that it measures and cleans up; never how fast a busy machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from extmem.testing.children import python_environment
from extmem.testing.runtime import Runtime

DEADLINE = 300


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory, with which the benchmark must have nothing to do."""
    with Runtime() as private:
        yield private


def measured(house: Runtime, *parts: str) -> tuple[list[dict[str, Any]], str]:
    """Return the rows of these parts, and what was written on stderr."""
    options = [option for part in parts for option in ("--part", part)]
    done = subprocess.run(
        [sys.executable, "-m", "extmem", "bench", "tensors", "--quick", "--json", *options],
        env=python_environment(house.environment),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (0 if all(row["ok"] for row in rows) else 1), done.stderr
    assert all(list(row) == ["name", "value", "unit", "bound", "ok"] for row in rows)
    # What is counted and not timed must be true on any machine.
    assert all(row["ok"] for row in rows if row["unit"] in ("left", "failed", "MiB")), rows
    assert not house.processes()
    return rows, done.stderr


def test_updates_reads_and_a_table_are_measured(house: Runtime) -> None:
    rows, said = measured(house, "changes", "reads", "table")
    names = [row["name"] for row in rows if row["bound"] is not None]
    assert names == [
        "update of 62 MiB on the host: count and wake, p50",
        "torn reads that stable() accepted in 1000 rounds",
        "a table that claims a terabyte: refused after, p95",
        "a table that claims a terabyte: memory of the process",
    ]
    assert "tensors: updating 62 MiB on the host" in said


def test_the_memory_of_four_processes_is_compared(house: Runtime) -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    rows, _ = measured(house, "files")
    names = [row["name"] for row in rows]
    (own,) = (row for row in rows if "NumPy by extmem: memory, against the file" in row["name"])
    assert own["ok"] and own["value"] > 0.99, "the file is in memory once"
    assert any("NumPy by safetensors" in name for name in names)


def test_parts_that_need_a_gpu_are_told_without_one(house: Runtime) -> None:
    rows, said = measured(house, "passing")
    if "is not measured" not in said:
        assert any(row["bound"] == 8 for row in rows)
        return
    (row,) = rows
    assert (row["unit"], row["ok"]) == ("not measured", True)
    assert row["name"].removeprefix("passing: ") in said
