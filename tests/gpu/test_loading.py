"""Safetensors files onto a GPU: once for all processes, and faster than by the library."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device
from tests.file_memory import write_file
from tests.gpu.loading_measures import measure


@pytest.mark.parametrize("sizes", [[3], [0, 5, 0], [300_001, 5, 4096, 0, 70_000_003], [1] * 3000])
def test_every_tensor_arrives(sizes: list[int], cuda: Device, tmp_path: Path, nothing_left: None) -> None:
    path = tmp_path / "f"
    arrays = {f"t{n}": numpy.frombuffer(os.urandom(size), "uint8") for n, size in enumerate(sizes)}
    with extmem.share(arrays) as memory:
        extmem.save_safetensors(memory, path)
    reports: list[int] = []
    with extmem.load_safetensors(path, device="cuda", progress=lambda done, size: reports.append(done)) as memory:
        assert memory.device.kind == "cuda"
        for name, part in memory.items():
            assert (part.read() == arrays[name]).all(), name
        extmem.save_safetensors(memory, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert reports == sorted(reports)


def test_the_figures_of_loading(torch: Any, cuda: Device) -> None:
    """2 GiB, once on the GPU. The times are printed."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_file(path, 2 << 30)
        found = measure(torch, path)
    assert found["contents"] and found["contents of the file"], found
    print(found)
    assert found["GPU memory / file"] <= 1.05, found
