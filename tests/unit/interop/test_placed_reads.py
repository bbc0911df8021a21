"""Tensors of a file at their places in a payload: on the host, on a GPU through pinned memory, on other devices."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import extmem
from extmem.devices import copy_threads
from extmem.devices.cuda import pinned_ring, transfers
from extmem.interop import placed_reads, positioned_reads
from extmem.interop.placed_reads import PlacedTensors
from extmem.interop.safetensors_files import OpenFile, read_header
from extmem.testing import fake_cuda, leaks
from tests import cuda_bed

SIZES = [0, 300_001, 5, 0, 1, 4096, 700_000, 0]
GAP = 256


def written(path: Path, sizes: list[int] = SIZES) -> bytes:
    """Write a file with tensors of so many bytes. Return what a payload with it contains."""
    header, data, payload, end = {}, b"", b"", 0
    for number, size in enumerate(sizes):
        octets = os.urandom(size)
        header[f"t{number}"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
        data += octets
        payload += bytes(-len(payload) % GAP) * bool(size) + octets
    body = json.dumps(header).encode()
    path.write_bytes(len(body).to_bytes(8, "little") + body + data)
    return payload


def placed(file: OpenFile, sizes: list[int] = SIZES) -> PlacedTensors:
    offsets, end = [], 0
    for size in sizes:
        offsets.append(-(-end // GAP) * GAP)
        end = offsets[-1] + size if size else end
    return PlacedTensors(file, read_header(file).tensors, offsets)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture
def expected(path: Path) -> bytes:
    return written(path)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pieces, slots and parts so small that a file of one MiB has many."""
    monkeypatch.setattr(placed_reads, "PIECE", 70_001)
    monkeypatch.setattr(transfers, "_LONG", 1000)
    monkeypatch.setattr(transfers, "_UNPINNED", 90_001)
    monkeypatch.setattr(pinned_ring, "SLOT_SIZE", 1 << 17)
    monkeypatch.setattr(copy_threads, "_LEAST_PART", 1 << 13)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)


def test_any_range_is_filled_and_gaps_are_zero(path: Path, expected: bytes) -> None:
    with OpenFile(path) as file:
        tensors = placed(file)
        assert tensors.size == len(expected)
        edges = [0, 1, 255, 256, 300_000, 300_001, 300_031, 300_032, 300_036, 300_037, 300_288, 304_700, len(expected)]
        for begin in edges:
            for end in edges:
                octets = bytearray(b"\xee") * max(end - begin, 0)
                tensors.fill(memoryview(octets), begin)
                assert octets == expected[begin:end], (begin, end)
        beyond = bytearray(b"\xee" * 9)
        tensors.fill(memoryview(beyond), len(expected) - 1)
        assert beyond == expected[-1:] + bytes(8)


@pytest.mark.parametrize("most", [1, 3, 100_000])
def test_reads_that_return_less_are_continued(
    most: int, path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = positioned_reads.read_into

    def less(fd: int, file: str, views: list[memoryview], offset: int) -> int:
        return real(fd, file, [views[0][:most]], offset)

    with OpenFile(path) as file:
        monkeypatch.setattr(positioned_reads, "read_into", less)
        octets = bytearray(4000)
        placed(file).fill(memoryview(octets), 299_000)
    assert octets == expected[299_000:303_000]


def test_more_tensors_than_one_call_of_the_kernel_takes(path: Path) -> None:
    sizes = [1] * (2 * positioned_reads.BUFFERS + 3)
    expected = written(path, sizes)
    with OpenFile(path) as file:
        octets = bytearray(len(expected))
        placed_reads.read_into(memoryview(octets), placed(file, sizes))
    assert octets == expected


def test_the_host_gets_all_bytes_and_reports(path: Path, expected: bytes, small: None) -> None:
    reports: list[tuple[int, int]] = []
    octets = bytearray(len(expected))
    with OpenFile(path) as file:
        placed_reads.read_into(memoryview(octets), placed(file), lambda *report: reports.append(report))
    assert octets == expected
    assert reports[-1] == (len(expected), len(expected)) and len(reports) > 3
    assert reports == sorted(reports)


def test_a_file_that_is_cut_off_while_it_is_read_is_refused(path: Path, expected: bytes) -> None:
    with OpenFile(path) as file:
        tensors = placed(file)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ValueError, match="cut off while it was read"):
            placed_reads.read_into(memoryview(bytearray(len(expected))), tensors)


def test_an_error_ends_all_reads(path: Path, expected: bytes, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real, numbers = positioned_reads.read_into, itertools.count(1)
    begun: list[None] = []
    ended: list[None] = []

    def fails(*arguments: Any) -> int:
        begun.append(None)
        try:
            if next(numbers) == 3:
                raise OSError("planted")
            return real(*arguments)
        finally:
            ended.append(None)

    with OpenFile(path) as file:
        tensors = placed(file)
        monkeypatch.setattr(positioned_reads, "read_into", fails)
        with pytest.raises(OSError, match="planted"):
            placed_reads.read_into(memoryview(bytearray(len(expected))), tensors)
        assert len(begun) == len(ended), "no thread reads any more"


def test_an_exception_of_progress_ends_the_reading(path: Path, expected: bytes, small: None) -> None:
    def stop(done: int, size: int) -> None:
        raise KeyboardInterrupt

    with OpenFile(path) as file, pytest.raises(KeyboardInterrupt):
        placed_reads.read_into(memoryview(bytearray(len(expected))), placed(file), stop)


# On devices.


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with leaks.no_leaks(), cuda_bed.both() as (made, _):
        yield made


def loaded(device: extmem.Device, path: Path, progress: Callable[[int, int], object] | None = None) -> bytes:
    with OpenFile(path) as file, device.allocate(placed(file).size) as memory:
        placed_reads.read_to(record_of(memory), False, placed(file), progress)
        return bytes(memory.read_bytes())


def record_of(memory: extmem.DeviceMemory) -> Any:
    with memory.use() as record:
        return record


@pytest.mark.parametrize("slow", [0, 5])
@pytest.mark.parametrize("reports", [False, True])
def test_a_gpu_gets_the_bytes_through_its_ring(
    reports: bool, slow: int, path: Path, expected: bytes, fake: fake_cuda.FakeCuda, small: None
) -> None:
    fake.slow_copies = slow
    reported: list[tuple[int, int]] = []
    with extmem.open_device(kind="cuda") as device:
        assert loaded(device, path, (lambda *r: reported.append(r)) if reports else None) == expected
    assert fake.calls.count("cuMemcpyHtoDAsync") > 5
    assert "cuMemcpyHtoD" not in fake.calls, "no buffer of the host is between the file and the ring"
    assert bool(reported) == reports and (not reported or reported[-1] == (len(expected), len(expected)))


def test_without_pinned_memory_a_buffer_is_used(
    path: Path, expected: bytes, fake: fake_cuda.FakeCuda, small: None
) -> None:
    with extmem.open_device(kind="cuda") as device:
        fake.fail(1, command="cuMemHostAlloc")
        assert loaded(device, path) == expected
    assert "cuMemcpyHtoD" in fake.calls


def test_a_vulkan_device_copies_each_piece(path: Path, expected: bytes, fake: fake_cuda.FakeCuda, small: None) -> None:
    with extmem.open_device(kind="vulkan") as device:
        assert loaded(device, path) == expected


@pytest.mark.parametrize("at", [1, 6, 30])
def test_an_error_of_a_thread_is_raised_and_the_next_reading_is_right(
    at: int, path: Path, expected: bytes, fake: fake_cuda.FakeCuda, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.slow_copies = 3
    real, lock, calls = positioned_reads.read_into, threading.Lock(), [0]

    def fails(*arguments: Any) -> int:
        with lock:
            calls[0] += 1
            if calls[0] == at:
                raise OSError("planted")
        return real(*arguments)

    with extmem.open_device(kind="cuda") as device:
        with monkeypatch.context() as patched:
            patched.setattr(positioned_reads, "read_into", fails)
            with pytest.raises(OSError, match="planted"):
                loaded(device, path)
        assert loaded(device, path) == expected


def test_a_file_that_is_changed_meanwhile_is_refused(
    path: Path, expected: bytes, fake: fake_cuda.FakeCuda, small: None
) -> None:
    with extmem.open_device(kind="cuda") as device, pytest.raises(ValueError, match="was changed while it was read"):
        loaded(device, path, lambda done, size: os.utime(path, ns=(1, 1)))
