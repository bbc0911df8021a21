"""Files between extmem and the library `safetensors`: each type in both directions, and files that are damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import extmem
from extmem.errors import UnsupportedError

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
library: Any = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
numpy: Any = pytest.importorskip("numpy", reason="NumPy is not installed")

NAMES = (
    "bool uint8 int8 uint16 int16 uint32 int32 uint64 int64 float16 bfloat16 float32 float64 complex64 "
    "float8_e4m3fn float8_e5m2 float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz float4_e2m1fn_x2"
).split()


def octets(tensor: Any) -> list[int]:
    found: list[int] = tensor.contiguous().reshape(-1).view(torch.uint8).tolist()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_type_in_both_directions(name: str, tmp_path: Path) -> None:
    """The files of extmem have the bytes of the library's."""
    dtype, path, ours, shared = getattr(torch, name), tmp_path / "theirs", tmp_path / "ours", tmp_path / "shared"
    plain = torch.arange(8 * dtype.itemsize, dtype=torch.uint8)
    flat = torch.tensor([True, False] * 4) if name == "bool" else plain.view(dtype)
    tensors = {"w": flat.reshape(2, 4), "none": torch.empty((0, 3), dtype=dtype), "first": flat[:1].clone()}
    if name != "float4_e2m1fn_x2":
        tensors["scalar"] = flat[0].clone()
    library.save_file(tensors, path, {"by": "the library"})
    with extmem.load_safetensors(path, "model") as memory, extmem.open("model") as opened:
        views = opened.torch()
        for key, tensor in tensors.items():
            assert (views[key].dtype, views[key].shape) == (dtype, tensor.shape)
            assert octets(views[key]) == octets(tensor)
        extmem.save_safetensors(memory, ours)
        del views, tensor
    assert ours.read_bytes() == path.read_bytes()
    with extmem.share(tensors, metadata={"by": "the library"}) as memory:
        extmem.save_safetensors(memory, shared)
    assert shared.read_bytes() == path.read_bytes()
    found = library.load_file(shared)
    assert {key: octets(tensor) for key, tensor in found.items()} == {k: octets(t) for k, t in tensors.items()}


def test_tensors_that_are_not_aligned_to_their_elements(tmp_path: Path) -> None:
    path = tmp_path / "unaligned"
    values = numpy.arange(5, dtype="<f8")
    header = {
        "flag": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "w": {"dtype": "F64", "shape": [5], "data_offsets": [1, 41]},
    }
    body = json.dumps(header).encode() + b" " * 3
    path.write_bytes(len(body).to_bytes(8, "little") + body + b"\x07" + values.tobytes())
    with extmem.load_safetensors(path) as memory:
        assert memory["w"].offset % 256 == 0
        found = memory.torch()["w"]
        assert found.data_ptr() % 256 == 0
        assert found.tolist() == values.tolist()
        del found


@pytest.mark.parametrize(("code", "text"), [("F6_E2M3", "float6_e2m3fn_packed"), ("F6_E3M2", "float6_e3m2fn_packed")])
def test_types_that_the_library_cannot_load(code: str, text: str, tmp_path: Path) -> None:
    path, again = tmp_path / "six", tmp_path / "again"
    body = json.dumps({"w": {"dtype": code, "shape": [2, 4], "data_offsets": [0, 6]}}, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    path.write_bytes(len(body).to_bytes(8, "little") + body + bytes(range(6)))
    with extmem.load_safetensors(path) as memory:
        assert (memory["w"].dtype, memory["w"].shape, memory["w"].nbytes) == (text, (2, 4), 6)
        assert bytes(memory.read_bytes(memory["w"].offset, 6)) == bytes(range(6))
        extmem.save_safetensors(memory, again)
    assert again.read_bytes() == path.read_bytes()


def test_types_that_the_format_lacks_are_refused_by_name(tmp_path: Path) -> None:
    for name, tensor in {
        "complex128": torch.ones(2, dtype=torch.complex128),
        "datetime": numpy.array(["2026-01-01"], "datetime64[D]"),
        "text": numpy.array(["a"]),
        "big": numpy.array([1.0], ">f4"),
        "pair": numpy.zeros(2, "i4,f4"),
    }.items():
        with extmem.share({name: tensor, "plain": torch.ones(2)}) as memory:
            with pytest.raises(UnsupportedError, match=f"array '{name}' is .* a view as integers"):
                extmem.save_safetensors(memory, tmp_path / "f")
            extmem.save_safetensors(memory.select("plain"), tmp_path / "f")


def test_tied_weights_are_saved_under_each_name(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    with extmem.share({"a": weight, "b": weight}) as memory:
        assert memory["a"].offset == memory["b"].offset
        extmem.save_safetensors(memory, tmp_path / "tied")
    found = library.load_file(tmp_path / "tied")
    assert octets(found["a"]) == octets(found["b"]) == octets(weight)


def test_arrays_in_other_orders_are_saved_row_by_row(tmp_path: Path) -> None:
    weight = torch.arange(24.0).reshape(2, 3, 4)
    with extmem.share({"t": weight.permute(2, 0, 1), "columns": numpy.asfortranarray(weight.numpy()[0])}) as memory:
        extmem.save_safetensors(memory, tmp_path / "f")
    found = library.load_file(tmp_path / "f")
    assert found["t"].tolist() == weight.permute(2, 0, 1).tolist()
    assert found["columns"].tolist() == weight[0].tolist()


def test_what_the_library_refuses_is_refused(tmp_path: Path) -> None:
    """Of files with one wrong byte in the header, extmem takes none that the library does not take."""
    path = tmp_path / "f"
    library.save_file({"a": torch.arange(4.0), "b": torch.arange(3, dtype=torch.int16)}, path, {"k": "v"})
    whole = path.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    taken, refused = 0, 0
    for at in range(length):
        for byte in b'0"}x':
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            try:
                theirs = {key: octets(tensor) for key, tensor in library.load_file(path).items()}
            except Exception as error:  # noqa: BLE001  # whatever the library raises
                theirs = str(error)
            try:
                with extmem.load_safetensors(path) as memory:
                    ours = {key: octets(tensor) for key, tensor in memory.torch().items()}
            except (ValueError, UnsupportedError):
                refused += 1
            else:
                taken += 1
                assert ours == theirs, whole[:at] + bytes([byte]) + whole[at + 1 :]
    assert taken > 10 and refused > 100


@pytest.mark.linux_only("users of Linux")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be another user")
def test_a_file_of_another_user_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    library.save_file({"a": torch.arange(4.0)}, path)
    os.chown(path, 12345, 12345)
    with extmem.load_safetensors(path, "model") as memory:
        assert memory["a"].numpy().tolist() == [0, 1, 2, 3]
