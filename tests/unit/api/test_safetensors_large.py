"""Files at the limits: as many tensors as a payload has, and a header of the greatest length."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import extmem
from extmem.sharing.table import ENTRIES_LIMIT

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

HEADER_LIMIT = 100_000_000


def written(path: Path, count: int, header: int = 0) -> bytes:
    """Write a file with so many tensors of one byte, and a header of so many bytes. Return the contents."""
    entries = (f'"t{n}":{{"dtype":"U8","shape":[1],"data_offsets":[{n},{n + 1}]}}' for n in range(count))
    body = f"{{{','.join(entries)}}}".encode()
    body += b" " * (header - len(body))
    octets = os.urandom(count)
    path.write_bytes(len(body).to_bytes(8, "little") + body + octets)
    return octets


@pytest.mark.timeout(400)
def test_as_many_tensors_as_a_payload_has(tmp_path: Path) -> None:
    path, again = tmp_path / "many", tmp_path / "again"
    octets = written(path, ENTRIES_LIMIT)
    with extmem.load_safetensors(path, "many", align=1) as memory:
        assert len(memory) == ENTRIES_LIMIT
        assert memory.size == ENTRIES_LIMIT
        assert bytes(memory.read_bytes()) == octets
        for number in (0, 1023, 1024, ENTRIES_LIMIT - 1):
            part = memory.get(f"t{number}")
            assert part is not None and part.numpy().tolist() == [octets[number]]
        extmem.save_safetensors(memory.select("t104857*"), again)
    header = json.loads(again.read_bytes()[8:].partition(b"}}")[0] + b"}}")
    assert sorted(header) == [f"t{n}" for n in (104857, *range(1048570, 1048576))]


@pytest.mark.timeout(300)
def test_one_tensor_more_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "many", ENTRIES_LIMIT + 1)
    with pytest.raises(ValueError, match=f"has {ENTRIES_LIMIT + 1} tensors"):
        extmem.load_safetensors(tmp_path / "many", "many")


def test_a_header_of_the_greatest_length(tmp_path: Path) -> None:
    octets = written(tmp_path / "long", 3, HEADER_LIMIT)
    with extmem.load_safetensors(tmp_path / "long") as memory:
        assert [part.read().tolist() for part in memory.values()] == [[byte] for byte in octets]
    written(tmp_path / "long", 3, HEADER_LIMIT + 1)
    with pytest.raises(ValueError, match=f"a header of {HEADER_LIMIT + 1} bytes"):
        extmem.load_safetensors(tmp_path / "long")
