"""Files of named tensors, into shared memory and out of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import extmem
from extmem.api import safetensors
from extmem.errors import NameNotFoundError, NameTakenError, UnsupportedError
from extmem.interop import placed_reads
from tests import cuda_bed

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

ARRAYS = {
    "w": numpy.arange(12, dtype="float32").reshape(3, 4),
    "columns": numpy.asfortranarray(numpy.arange(6, dtype="int16").reshape(2, 3)),
    "scalar": numpy.array(7, "int64"),
    "none": numpy.zeros((0, 2), "uint8"),
    "flags": numpy.array([True, False]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    with extmem.share(ARRAYS, metadata={"format": "np", "step": 3}) as memory:
        extmem.save_safetensors(memory, path)
    return path


def test_what_was_saved_is_loaded(path: Path) -> None:
    with extmem.load_safetensors(path, "model") as memory, extmem.open("model") as opened:
        assert dict(memory.metadata) == {"format": "np", "step": "3"}
        assert set(opened) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert opened[name].numpy().tolist() == array.tolist()
            assert opened[name].dtype == array.dtype.name
        assert all(part.offset % 256 == 0 for part in memory.values() if part.nbytes)


def test_a_file_without_a_name_is_loaded_for_this_process(path: Path) -> None:
    with extmem.load_safetensors(path, align=64) as memory:
        assert memory.name is None
        assert memory["w"].numpy().tolist() == ARRAYS["w"].tolist()


def test_the_second_call_opens_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with extmem.load_safetensors(path, "model"):
        monkeypatch.setattr(safetensors, "_load", lambda *_: pytest.fail("the file was read again"))
        with extmem.load_safetensors(path, "model") as again:
            assert again["scalar"].read() == 7


def test_threads_that_load_at_once_read_the_file_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load, started, go = safetensors._load, threading.Event(), threading.Event()

    def counted(*arguments: object) -> extmem.NamedArrays:
        loads.append(1)
        started.set()
        assert go.wait(30)
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(safetensors, "_load", counted)
    found: list[extmem.NamedArrays] = []
    threads = [threading.Thread(target=lambda: found.append(extmem.load_safetensors(path, "m"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    go.set()
    for thread in threads:
        thread.join(60)
    assert len(loads) == 1
    assert [memory["w"].read().tolist() for memory in found] == [ARRAYS["w"].tolist()] * 3
    for memory in found:
        memory.close()


def test_a_loader_that_fails_leaves_the_file_to_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise OSError("planted")

    with monkeypatch.context() as patched:
        patched.setattr(placed_reads, "read_to", fails)
        with pytest.raises(OSError, match="planted"):
            extmem.load_safetensors(path, "model")
    with pytest.raises(NameNotFoundError):
        extmem.open("model")
    with extmem.load_safetensors(path, "model") as memory:
        assert len(memory) == len(ARRAYS)


def test_a_file_that_is_cut_off_is_not_published(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(ValueError, match="not complete"):
        extmem.load_safetensors(path, "model")
    with pytest.raises(NameNotFoundError):
        extmem.open("model")


def test_a_name_of_other_arrays_is_refused(path: Path) -> None:
    with extmem.share({"other": numpy.ones(2)}, "model"):
        with pytest.raises(NameTakenError, match="other arrays than"):
            extmem.load_safetensors(path, "model")
    with extmem.share(b"bytes", "model"), pytest.raises(NameTakenError, match="other arrays than"):
        extmem.load_safetensors(path, "model")


def test_arguments_are_checked(path: Path) -> None:
    with pytest.raises(ValueError, match="device is 'tpu'"):
        extmem.load_safetensors(path, device="tpu")
    with pytest.raises(ValueError, match="align is 3"):
        extmem.load_safetensors(path, align=3)
    with pytest.raises(TypeError, match=r"align is 256\.0"):
        extmem.load_safetensors(path, align=256.0)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        extmem.load_safetensors(path.with_name("absent"))
    with extmem.load_safetensors(path, device="cpu") as memory:
        assert memory.device.kind == "host"


def test_a_file_is_replaced_when_it_is_complete(path: Path) -> None:
    before = path.read_bytes()
    with extmem.share({"x": numpy.ones(2, "complex128")}) as memory:
        with pytest.raises(UnsupportedError, match="array 'x' is complex128"):
            extmem.save_safetensors(memory, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_an_error_while_writing_leaves_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fails(file: object, part: object) -> None:
        raise OSError("planted")

    monkeypatch.setattr(safetensors, "_write", fails)
    with extmem.share(ARRAYS) as memory, pytest.raises(OSError, match="planted"):
        extmem.save_safetensors(memory, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_selection_is_saved(path: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    with extmem.load_safetensors(path) as memory:
        extmem.save_safetensors(memory.select("w", "f*"), chosen, metadata={"a": "b"})
    with extmem.load_safetensors(chosen) as memory:
        assert sorted(memory) == ["flags", "w"]
        assert dict(memory.metadata) == {"a": "b"}
    with pytest.raises(TypeError, match="give NamedArrays"):
        extmem.save_safetensors({"a": 1}, chosen)  # type: ignore[arg-type]


def test_the_library_reads_what_was_saved(path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    found = library.load_file(path)
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    library.save_file(found, path, {"by": "the library"})
    with extmem.load_safetensors(path) as memory:
        assert memory.metadata["by"] == "the library"
        assert memory["columns"].numpy().tolist() == ARRAYS["columns"].tolist()


def test_a_file_that_is_changed_while_it_is_read_is_not_published(path: Path) -> None:
    def change(done: int, size: int) -> None:
        os.utime(path, ns=(1, 1))

    with pytest.raises(ValueError, match="was changed while it was read"):
        extmem.load_safetensors(path, "model", progress=change)
    for name in ("model", "model.loading"):
        with pytest.raises(NameNotFoundError):
            extmem.open(name)
    with extmem.load_safetensors(path, "model") as memory:
        assert len(memory) == len(ARRAYS)


def test_progress_is_reported_and_its_exception_ends_the_reading(path: Path) -> None:
    reports: list[tuple[int, int]] = []
    with extmem.load_safetensors(path, "model", progress=lambda *report: reports.append(report)):
        assert reports and reports[-1][0] == reports[-1][1] > 0
        with extmem.load_safetensors(path, "model", progress=lambda *report: pytest.fail("it was read again")):
            pass

    def stop(done: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extmem.load_safetensors(path, "model", progress=stop)
    with pytest.raises(NameNotFoundError):
        extmem.open("model")
    with pytest.raises(TypeError, match="progress is 3"):
        extmem.load_safetensors(path, progress=3)  # type: ignore[arg-type]


def test_a_file_is_loaded_onto_a_gpu_and_saved_from_it(path: Path, tmp_path: Path) -> None:
    with cuda_bed.both() as (fake, _):
        with extmem.load_safetensors(path, "model", device="cuda") as memory:
            assert memory.device.kind == "cuda"
            again = tmp_path / "again"
            extmem.save_safetensors(memory, again)
            assert again.read_bytes() == path.read_bytes()
            for device in (None, "cuda", "cuda:0"):
                with extmem.load_safetensors(path, "model", device=device) as other:
                    assert other["scalar"].read() == 7
            with pytest.raises(NameTakenError, match=r"and device='cpu' was passed"):
                extmem.load_safetensors(path, "model", device="cpu")
        with extmem.load_safetensors(path, "model", device="cpu"):
            with pytest.raises(NameTakenError, match=r"on extmem host memory .* device='cuda' was passed"):
                extmem.load_safetensors(path, "model", device="cuda")
            with extmem.load_safetensors(path, "model", device="host") as memory:
                assert memory.device.kind == "host"
        assert "cuMemHostAlloc" not in fake.calls, "small files need no pinned memory"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        extmem.load_safetensors(tmp_path, "model")
    with pytest.raises(FileNotFoundError):
        extmem.load_safetensors(tmp_path / "absent", "model")
    with extmem.share(ARRAYS) as memory, pytest.raises(ValueError, match="not a regular file"):
        extmem.save_safetensors(memory, tmp_path)
    with pytest.raises(NameNotFoundError):
        extmem.open("model")
