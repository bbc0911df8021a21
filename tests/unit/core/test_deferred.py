"""Payloads of a Vulkan device, opened by name: the device is opened when something needs it, and not for CUDA. Those of
a CUDA device are imported when something needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import extmem
from extmem.api import Device
from extmem.core import shared_devices
from extmem.testing import fake_cuda, fake_vulkan, leaks
from tests import cuda_bed

SIZE = 4096


@pytest.fixture
def fakes() -> Iterator[tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]]:
    with leaks.no_leaks(), cuda_bed.both() as both:
        yield both


@pytest.fixture
def maker(fakes: object) -> Iterator[Device]:
    with extmem.open_device(kind="vulkan") as opened:
        yield opened


@pytest.fixture(params=[False, True], ids=["plain", "dedicated"])
def published(request: pytest.FixtureRequest, maker: Device, name: str) -> Iterator[extmem.DeviceMemory]:
    with maker.allocate((SIZE,), "uint8", name=name, dedicated=request.param) as memory:
        memory.fill(7)
        yield memory


def devices(fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]) -> int:
    return fakes[1].calls.count("vkCreateDevice")


def test_an_array_of_cuda_needs_no_vulkan_device(
    published: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    before = devices(fakes)
    with extmem.open(name) as memory:
        assert (memory.device.kind, memory.device.name, memory.device.uuid) == (
            "vulkan",
            published.device.name,
            published.device.uuid,
        )
        array = memory.device_array()
        assert array.pointer and array.shape == (SIZE,)
        with extmem.open(name) as again:
            assert again.record is memory.record
        del array
        with memory.access(stream=0) as array:
            assert array.pointer
            del array
        assert devices(fakes) == before
        assert set(memory.read_bytes()) == {7}, "now it is needed"
        assert devices(fakes) == before + 1
        memory.fill(8)
        assert memory.buffer() is memory.buffer()
        assert memory.device.memory_properties is not None
    assert set(published.read_bytes()) == {8}
    with extmem.open(name) as memory:
        assert set(memory.read_bytes()) == {8} and devices(fakes) == before + 1


def test_what_was_never_needed_is_closed_too(
    published: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    before = devices(fakes), fakes[1].alive()
    with extmem.open(name) as memory:
        assert memory.nbytes == SIZE and memory.shape == (SIZE,)
        assert name in repr(memory)
    assert (devices(fakes), fakes[1].alive()) == before


def test_eight_threads_that_use_it_first_open_one_device(
    published: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    before, start = devices(fakes), threading.Barrier(8)

    def use(number: int) -> int:
        start.wait()
        with extmem.open(name) as memory:
            if number % 2:
                return int(memory.read_bytes(0, 1)[0])
            return 7 if memory.device_array().pointer else 0

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == [7] * 8
    assert devices(fakes) == before + 1


def test_a_driver_that_fails_is_told_by_the_first_use_and_tried_again(
    published: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    with extmem.open(name) as memory:
        fakes[1].fail(1, command="vkCreateDevice")
        with pytest.raises(extmem.ExtmemError, match="vkCreateDevice"):
            memory.fill(3)
        fakes[1].fail(1, command="vkAllocateMemory")
        with pytest.raises(extmem.ExtmemError, match="vkAllocateMemory"):
            memory.fill(3)
        memory.fill(3)
        assert set(published.read_bytes()) == {3}


def test_a_device_that_is_not_here_is_told_by_the_first_use(
    published: extmem.DeviceMemory, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with extmem.open(name) as memory:
        with monkeypatch.context() as patch:
            patch.setattr(shared_devices.select, "_FINDERS", {"host": shared_devices.host.offers})
            with pytest.raises(extmem.UnsupportedError, match="which this machine does not have"):
                memory.read_bytes()
        assert set(memory.read_bytes()) == {7}


# Memory that CUDA allocated.

_IMPORTING = ("cuMemImportFromShareableHandle", "cuMemAddressReserve", "cuMemMap", "cuMemSetAccess")


@pytest.fixture
def of_cuda(fakes: object, name: str) -> Iterator[extmem.DeviceMemory]:
    with extmem.open_device(kind="cuda") as gpu, gpu.allocate((SIZE,), "uint8", name=name) as memory:
        memory.fill(7)
        with extmem.open(name) as opened:  # its device stays open
            opened.device_array()
        yield memory


def imports(fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]) -> list[int]:
    return [fakes[0].calls.count(command) for command in _IMPORTING]


def test_opening_memory_of_cuda_calls_no_driver(
    of_cuda: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    before, calls = imports(fakes), len(fakes[0].calls)
    with extmem.open(name) as memory:
        assert (memory.device.kind, memory.shape, memory.nbytes, memory.name) == ("cuda", (SIZE,), SIZE, name)
        assert memory.generation == 0 and name in repr(memory)
    assert len(fakes[0].calls) == calls
    with extmem.open(name) as memory, extmem.open(name) as again:
        assert again.record is memory.record
        assert memory.device_array().pointer == again.device_array().pointer
        assert set(memory.read_bytes()) == {7}
        assert imports(fakes) == [count + 1 for count in before]


def test_eight_threads_that_use_it_first_import_it_once(
    of_cuda: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    before, start = imports(fakes), threading.Barrier(8)
    with extmem.open(name) as memory:

        def use(number: int) -> int:
            start.wait()
            return int(memory.read_bytes(0, 1)[0]) if number % 2 else 7 * bool(memory.device_array().pointer)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(use, range(8))) == [7] * 8
        assert imports(fakes) == [count + 1 for count in before]


@pytest.mark.parametrize("command", _IMPORTING)
def test_an_import_that_fails_is_tried_again_by_the_next_use(
    of_cuda: extmem.DeviceMemory,
    name: str,
    command: str,
    fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan],
) -> None:
    alive = fakes[0].alive()
    with extmem.open(name) as memory:
        fakes[0].fail(1, fake_cuda.OUT_OF_MEMORY, command=command)
        with pytest.raises(extmem.OutOfMemoryError, match=command):
            memory.device_array()
        assert fakes[0].alive() == alive
        assert set(memory.read_bytes()) == {7}
    assert fakes[0].alive() == alive
