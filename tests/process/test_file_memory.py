"""A file that four processes load is in memory once: not in each process, and not in the page cache besides."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import file_memory

pytest.importorskip("numpy", reason="NumPy is not installed")
pytestmark = pytest.mark.linux_only("counts by /proc and mincore")

SIZE = 256 << 20
"""Bytes: four processes need some MiB of their own for loading, whatever the size of the file is."""


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """Return a file on a disk: on a file system in memory it would be in memory anyway."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder) / "model.safetensors"
        file_memory.write_file(path, SIZE)
        yield path


def test_four_processes_take_the_memory_of_one_file(path: Path) -> None:
    found = file_memory.measure(path)
    assert found["equal"], "all have read the same contents"
    assert found["shared"] >= SIZE * 0.99
    assert found["ratio"] <= 1.05, found


def test_the_count_finds_what_other_programs_take(path: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    found = file_memory.measure(path, 2, how="library")
    assert found["equal"]
    assert found["ratio"] > 2.5, found


def test_pages_of_the_cache_are_counted_and_dropped(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    assert file_memory.cached_bytes(path) > SIZE * 0.9
    file_memory.drop_cache(path)
    assert file_memory.cached_bytes(path) < SIZE * 0.1
