"""`extmem.open(kind=, copy=)`: on which device the memory is then, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda, fake_vulkan
from tests import cuda_bed

DATA = numpy.arange(24, dtype="float32").reshape(4, 6)


@pytest.fixture
def fakes() -> Iterator[tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]]:
    with cuda_bed.both() as both:
        yield both


@pytest.fixture(params=["host", "vulkan", "cuda"])
def published(request: pytest.FixtureRequest, fakes: object, name: str) -> Iterator[extmem.DeviceMemory]:
    with (
        extmem.open_device(kind=request.param) as device,
        device.allocate(DATA.shape, "float32", order="F", name=name) as memory,
    ):
        memory.write(DATA)
        yield memory


@pytest.mark.parametrize("kind", ["host", "vulkan", "cuda"])
def test_the_kind_chooses_the_device(kind: str, published: extmem.DeviceMemory, name: str) -> None:
    made_on = published.device.kind
    if kind == "host" != made_on:
        with pytest.raises(extmem.UnsupportedError, match="payloads of the host alone.*copy=True"):
            extmem.open(name, kind=kind)
        return
    with extmem.open(name, kind=kind) as memory:
        assert memory.device.kind == kind and (memory.read() == DATA).all()
        with extmem.open(name, kind=kind) as again:
            assert again.record is memory.record
        memory.fill(0)
        assert not published.read().any()


def test_by_cuda_no_vulkan_device_is_made(
    fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan], published: extmem.DeviceMemory, name: str
) -> None:
    before = fakes[1].calls.count("vkCreateDevice")
    with extmem.open(name, kind="cuda") as memory:
        assert (memory.read() == DATA).all()
    assert fakes[1].calls.count("vkCreateDevice") == before


@pytest.mark.parametrize("kind", ["host", "vulkan", "cuda"])
def test_a_copy_is_on_the_device_and_apart(kind: str, published: extmem.DeviceMemory, name: str) -> None:
    with extmem.open(name, kind=kind, copy=True) as memory:
        assert memory.device.kind == kind and memory.name is None
        assert memory.descriptor.array == published.descriptor.array, "the layout is the same"
        assert memory.copied and "copy=True" in str(memory.copied)
        published.fill(0)
        assert (memory.read() == DATA).all()
    with extmem.open_device(kind="host") as host, extmem.open(name, device=host, copy=True) as memory:
        assert memory.device is host and not memory.read().any()


def test_a_copy_that_fails_leaves_nothing(
    published: extmem.DeviceMemory, name: str, fakes: tuple[fake_cuda.FakeCuda, fake_vulkan.FakeVulkan]
) -> None:
    with extmem.open(name, kind="cuda", copy=True):
        pass
    fakes[0].fail(1, 700, command="cuMemcpyHtoD")
    with pytest.raises(extmem.DriverError, match="cuMemcpyHtoD"):
        extmem.open(name, kind="cuda", copy=True)


def test_what_is_refused(device: Device, name: str) -> None:
    with device.allocate(64, name=name):
        with pytest.raises(ValueError, match="omit one of them"):
            extmem.open(name, kind="host", device=device)
        with pytest.raises(ValueError, match="needs the device to copy to"):
            extmem.open(name, copy=True)
        with pytest.raises(ValueError, match='"host", "vulkan" or "cuda"'):
            extmem.open(name, kind="metal")
        with pytest.raises(TypeError, match="kind is 3"):
            extmem.open(name, kind=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="copy"):
            extmem.open(name, kind="host", copy="yes")  # type: ignore[arg-type]
        for copy in (False, True):
            with pytest.raises(TypeError, match="device is 'cpu', a str"):
                extmem.open(name, device="cpu", copy=copy)  # type: ignore[arg-type]


def test_named_arrays_are_not_copied_without_their_table(device: Device, name: str) -> None:
    with extmem.share({"a": DATA}, name=name), pytest.raises(extmem.UnsupportedError, match="table"):
        extmem.open(name, device=device, copy=True)
