"""Long copies go through pinned memory: every byte arrives, also after errors and interrupts, and nothing is left."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.devices import copy_threads
from extmem.devices.cuda import pinned_ring
from extmem.testing import fake_cuda

SIZE = 5 * (1 << 20) + 4097
"""More pieces than slots, and a last one that is shorter."""


@pytest.fixture(autouse=True)
def small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned_ring, "SLOT_SIZE", 1 << 19)
    monkeypatch.setattr(copy_threads, "_LEAST_PART", 1 << 16)


def octets(seed: int = 0, size: int = SIZE) -> bytes:
    return numpy.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("slow", [0, 7])
def test_all_bytes_are_moved_whether_the_gpu_is_fast_or_slow(slow: int, cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    """A slot that were used again too early would carry bytes of another piece."""
    fake.slow_copies = slow
    with cuda.allocate(SIZE) as memory:
        fake.calls.clear()
        memory.write(octets())
        assert fake.calls.count("cuMemcpyHtoDAsync") == 11 and "cuMemcpyHtoD" not in fake.calls
        assert memory.read_bytes() == octets()
        assert fake.calls.count("cuMemcpyDtoHAsync") == 11 and "cuMemcpyDtoH" not in fake.calls
        assert fake.calls.count("cuMemHostAlloc") == 1, "one ring serves all"
        memory.write(octets(1, 1 << 20), offset=4096)
        expected = octets()
        assert memory.read_bytes() == expected[:4096] + octets(1, 1 << 20) + expected[4096 + (1 << 20) :]


@pytest.mark.parametrize("slow", [0, 5])
@pytest.mark.parametrize("rows", [3, 1500])
def test_rows_with_gaps(rows: int, slow: int, cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    fake.slow_copies = slow
    data = numpy.frombuffer(octets(size=rows * 1001), "uint8").reshape(rows, 1001)
    with cuda.allocate(data.shape, "uint8", row_pitch=1024) as memory:
        memory.fill(0xEE)
        memory.write(data)
        assert ("cuMemcpy2DAsync" if rows > 3 else "cuMemcpy2D") in fake.calls
        assert (memory.read() == data).all()
        whole = numpy.frombuffer(memory.read_bytes(), "uint8")
        gaps = whole[: (rows - 1) * 1024].reshape(-1, 1024)[:, 1001:]
        assert (gaps == 0xEE).all()


def test_short_copies_and_pinned_memory_are_copied_directly(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate(SIZE) as memory, extmem.open_device(kind="host") as host:
        fake.calls.clear()
        memory.write(bytes(4096), offset=7)
        memory.read_bytes(0, 100)
        with host.allocate(SIZE) as source, source.export_handle() as handle, cuda.open(handle) as registered:
            source.write(octets(3))
            view = registered.map()
            memory.write(view)
            assert memory.read_bytes(0, 100) == octets(3)[:100]
            del view
        assert "cuMemHostAlloc" not in fake.calls
        assert memory.read_bytes() == octets(3)
        assert "cuMemHostAlloc" in fake.calls


@pytest.mark.parametrize("command", ["cuMemHostAlloc", "cuEventCreate"])
def test_without_pinned_memory_the_driver_copies(command: str, cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate(SIZE) as memory:
        before = fake.alive()
        fake.fail(1, command=command)
        memory.write(octets())
        assert fake.alive() == before and "cuMemcpyHtoD" in fake.calls
        assert memory.read_bytes() == octets()


@pytest.mark.parametrize("at", [1, 9])
@pytest.mark.parametrize("command", ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord"])
def test_after_an_error_the_next_copy_is_right(command: str, at: int, cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    fake.slow_copies = 5
    with cuda.allocate(SIZE) as memory:
        memory.write(octets())
        fake.fail(at, 700, command=command)
        with pytest.raises(extmem.DriverError, match=command):
            if command == "cuMemcpyDtoHAsync":
                memory.read_bytes()
            else:
                memory.write(octets(1))
        memory.write(octets(2))
        assert memory.read_bytes() == octets(2)


@pytest.mark.parametrize("at", [1, 5, 12])
@pytest.mark.parametrize("command", ["cuEventQuery", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"])
def test_an_interrupt_between_two_pieces_loses_nothing(
    command: str, at: int, cuda: Device, fake: fake_cuda.FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.slow_copies = 3
    real, calls = getattr(fake.module, command), [0]

    def interrupted(*arguments: Any) -> Any:
        answer = real(*arguments)
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt
        return answer

    with cuda.allocate(SIZE) as memory:
        memory.write(octets())
        with monkeypatch.context() as patch:
            patch.setattr(fake.module, command, interrupted)
            try:
                into = bytearray(SIZE)
                memory.read_bytes() if command == "cuMemcpyDtoHAsync" else memory.write(octets(1))
                assert at > calls[0], "it was reached"
            except KeyboardInterrupt:
                pass
            del into
        memory.write(octets(2))
        assert memory.read_bytes() == octets(2)


def test_threads_that_copy_at_the_same_time_take_turns(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    fake.slow_copies = 2
    wrong: list[int] = []

    def copy(seed: int, memory: extmem.DeviceMemory) -> None:
        for _ in range(2):
            memory.write(octets(seed))
            if memory.read_bytes() != octets(seed):
                wrong.append(seed)

    with cuda.allocate(SIZE) as first, cuda.allocate(SIZE) as second:
        threads = [threading.Thread(target=copy, args=pair) for pair in ((1, first), (2, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_ring_ends_with_the_device_that_made_it(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate(SIZE) as memory, memory.export_handle() as handle:
        with extmem.open_device(kind="cuda") as other, other.open(handle) as same:
            same.write(octets())
            assert fake.alive()["registrations"] == 1
        assert not fake.alive()["registrations"]
        assert memory.read_bytes() == octets()


def test_an_idle_ring_is_released_and_made_again(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate(SIZE) as memory:
        memory.write(octets())
        before = fake.alive()
        copy_threads.copy_threads.stop()
        assert fake.alive()["registrations"] == 0 and before["registrations"] == 1
        assert memory.read_bytes() == octets()


@pytest.mark.linux_only("Windows has no fork")
def test_a_fork_finds_no_threads_and_no_pinned_memory(cuda: Device, fake: fake_cuda.FakeCuda) -> None:
    with cuda.allocate(SIZE) as memory:
        memory.write(octets())
        child = os.fork()
        if not child:
            names = [thread.name for thread in threading.enumerate()]
            os._exit(1 if fake.alive()["registrations"] or "extmem-copy" in names else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert memory.read_bytes() == octets()
