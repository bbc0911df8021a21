"""Files that lie about their tensors, or change: an error that names the tensor, and no name of the memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import extmem
from extmem.interop import positioned_reads
from extmem.testing import leaks

NAME = "failures of files"


def _file(path: Path, header: object, data: bytes = bytes(16), *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def _tensor(dtype: str = "F32", begin: int = 0, end: int = 16) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4], "data_offsets": [begin, end]}


FILES: dict[str, tuple[object, bytes, int | None, str]] = {
    "shorter than its header says": ({"w": _tensor()}, bytes(15), None, "has 85 bytes, and its header describes 86"),
    "longer": ({"w": _tensor()}, bytes(17), None, "the file is not complete"),
    "shorter than its header": ({"w": _tensor()}, b"", 5000, "its header alone has 5008; the file is cut off"),
    "a header that is too long": ({"w": _tensor()}, b"", 1 << 40, "1099511627776 bytes, and 100000000 is the limit"),
    "an unknown type": ({"w": _tensor("F33")}, bytes(16), None, "'w' has the unknown type 'F33'; known are BOOL"),
    "a gap": ({"w": _tensor(begin=4, end=20)}, bytes(20), None, "tensor 'w' begins at byte 4"),
    "the same name twice": (
        b'{"w":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}}',
        bytes(2), None, "'w' occurs twice",
    ),
    "no header": (b"\xff\xff", b"", None, "not a safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("row", FILES)
def test_a_file_that_lies_gets_no_name(tmp_path: Path, row: str) -> None:
    header, data, length, says = FILES[row]
    path = _file(tmp_path / "lying.safetensors", header, data, length=length)
    good = _file(tmp_path / "good.safetensors", {"w": _tensor()})
    for name in (NAME, None):
        with leaks.no_leaks():
            with pytest.raises(ValueError, match=re.escape(says)) as caught:
                extmem.load_safetensors(path, name)
            assert repr(str(path)) in str(caught.value)
            del caught
    assert extmem.names(NAME) == []
    with extmem.load_safetensors(good, NAME) as memory:
        assert memory["w"].read().tolist() == [0] * 4


def test_a_file_that_changes_while_it_is_read_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _file(tmp_path / "changing.safetensors", {"w": _tensor()})
    real = positioned_reads.read_into

    def changed(*arguments: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"more")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(positioned_reads, "read_into", changed)
        with leaks.no_leaks(), pytest.raises(ValueError, match="was changed while it was read; load it again"):
            extmem.load_safetensors(path, NAME)
    assert extmem.names(NAME) == []
    _file(path, {"w": _tensor()})
    extmem.load_safetensors(path, NAME).close()
