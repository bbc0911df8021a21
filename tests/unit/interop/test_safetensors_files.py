"""The format of safetensors files: headers that lie, and what is no file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from extmem.errors import UnsupportedError
from extmem.interop import safetensors_files as files
from extmem.interop.safetensors_files import OpenFile


def written(path: Path, header: object, data: bytes = b"") -> Path:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + data)
    return path


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_header(path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": tensor("F32", [2, 3], 4, 28),
        "a": tensor("F8_E4M3", [4], 0, 4),
        "scalar": tensor("I64", [], 28, 36),
        "empty": tensor("BF16", [0, 7], 36, 36),
        "packed": tensor("F4", [3], 36, 38),
    }
    with OpenFile(written(path, header, bytes(38))) as file:
        found = files.read_header(file)
    assert [one.name for one in found.tensors] == ["a", "b", "scalar", "empty", "packed"]
    assert found.tensors[0].element.text == "float8_e4m3fn"
    assert found.tensors[4].element.text == "float4_e2m1fn_packed"
    assert found.tensors[1].begin == found.data + 4
    assert found.metadata == {"format": "pt"}


PLAIN = tensor("F32", [2], 0, 8)
LIES = {
    "a gap": ({"a": PLAIN, "b": tensor("I8", [1], 9, 10)}, 10, "tensor 'b' begins at byte 9 .* end at 8"),
    "an overlap": ({"a": PLAIN, "b": tensor("I8", [4], 4, 8)}, 8, "tensor 'b' begins at byte 4"),
    "a short file": ({"a": PLAIN}, 7, "its header describes .* not complete"),
    "a long file": ({"a": PLAIN}, 9, "not complete"),
    "a gap at the beginning": ({"a": tensor("I8", [1], 4, 5)}, 5, "tensor 'a' begins at byte 4"),
    "an unknown type": ({"a": tensor("F5", [2], 0, 8)}, 8, "tensor 'a' has the unknown type 'F5'"),
    "no type": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8, "tensor 'a' has no dtype"),
    "a type that is no text": ({"a": {**PLAIN, "dtype": [1]}}, 8, "tensor 'a' has the unknown type"),
    "a size that does not fit": ({"a": tensor("F32", [3], 0, 8)}, 8, "tensor 'a' has 8 bytes, .* takes 12"),
    "a negative extent": ({"a": tensor("F32", [-2], 0, 8)}, 8, "lists of sizes"),
    "a text extent": ({"a": {**PLAIN, "shape": ["2"]}}, 8, "lists of sizes"),
    "one offset": ({"a": {**PLAIN, "data_offsets": [8]}}, 8, "lists of sizes"),
    "a tensor that is a list": ({"a": [1]}, 8, "tensor 'a' has no dtype"),
    "metadata that are no text": ({"__metadata__": {"a": 1}}, 0, "metadata that are not text"),
    "a list": ([], 0, "its header is a list"),
    "no JSON": (b"{", 0, "not readable"),
    "a name twice": (b'{"a":{},"\\u0061":{}}', 0, "'a' occurs twice"),
    "nested lists": (b"[" * 100_000, 0, "not readable"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_the_tensor(path: Path, lie: str) -> None:
    header, size, reason = LIES[lie]
    with OpenFile(written(path, header, bytes(size))) as file, pytest.raises(ValueError, match=reason):
        files.read_header(file)


def test_the_plain_twin_of_the_lies_is_accepted(path: Path) -> None:
    with OpenFile(written(path, {"a": PLAIN}, bytes(8))) as file:
        assert files.read_header(file).tensors[0].nbytes == 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends at byte 0"),
        (b"\x08\0\0", "ends at byte 3"),
        ((1 << 40).to_bytes(8, "little"), "claims a header of 1099511627776 bytes"),
        ((1 << 20).to_bytes(8, "little") + b"{}", "cut off"),
    ],
)
def test_a_file_without_its_header_is_refused(path: Path, data: bytes, reason: str) -> None:
    path.write_bytes(data)
    with OpenFile(path) as file, pytest.raises(ValueError, match=reason):
        files.read_header(file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        OpenFile(tmp_path)


@pytest.mark.linux_only("FIFOs are files on Linux")
def test_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="not a regular file"):
        OpenFile("/dev/null")


def test_a_header_is_encoded_as_the_library_does_it() -> None:
    start, order = files.encode_header([("b", "int8", (3,), 3), ("a", "float32", (2,), 8), ("c", "float32", (), 4)], {})
    assert len(start) % 8 == 0
    assert order == [1, 2, 0]
    assert json.loads(start[8:]) == {
        "a": tensor("F32", [2], 0, 8),
        "c": tensor("F32", [], 8, 12),
        "b": tensor("I8", [3], 12, 15),
    }


def test_an_element_type_that_the_format_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="array 'x' is complex128"):
        files.encode_header([("x", "complex128", (1,), 16)], {})
    with pytest.raises(ValueError, match="is the name of the metadata"):
        files.encode_header([("__metadata__", "int8", (1,), 1)], {})
    for name, said in (("\ud800", {}), ("x", {"a": "\ud800"})):
        with pytest.raises(ValueError, match="half a character"):
            files.encode_header([(name, "int8", (1,), 1)], said)


def test_tensors_without_elements_may_be_listed_after_the_next_one(path: Path) -> None:
    header = {"b": PLAIN, "a": tensor("F32", [0], 0, 0), "d": tensor("I8", [1], 8, 9), "c": tensor("U8", [2, 0], 8, 8)}
    with OpenFile(written(path, header, bytes(9))) as file:
        assert [one.name for one in files.read_header(file).tensors] == ["a", "b", "c", "d"]


def test_more_tensors_than_a_payload_has_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ENTRIES_LIMIT", 2)
    header = {name: tensor("U8", [0], 0, 0) for name in ("a", "b", "c")}
    with OpenFile(written(path, header)) as file, pytest.raises(ValueError, match="has 3 tensors, .* at most 2"):
        files.read_header(file)
    del header["c"]
    with OpenFile(written(path, header)) as file:
        assert len(files.read_header(file).tensors) == 2


@pytest.mark.linux_only("FIFOs are files on Linux")
def test_a_fifo_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        OpenFile(path)


@pytest.mark.linux_only("on Windows links need a right")
def test_a_link_is_followed(path: Path) -> None:
    written(path, {"a": PLAIN}, bytes(8))
    link = path.with_name("link")
    link.symlink_to(path)
    with OpenFile(link) as file:
        assert len(files.read_header(file).tensors) == 1
