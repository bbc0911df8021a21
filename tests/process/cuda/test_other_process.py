"""A CUDA device's memory in another process, on the fake driver: by name, by pickle, and when one is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda, leaks
from extmem.testing.children import Peer
from tests import cuda_bed


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with leaks.no_leaks(), cuda_bed.both() as (made, _):
        yield made


@pytest.fixture
def cuda(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    with extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.fixture
def there(fake: fake_cuda.FakeCuda) -> Iterator[Peer]:
    """Another process, whose `device` is the same fake GPU's CUDA device."""
    with Peer() as other:
        other(f"device = {fake_cuda.elsewhere(fake)}")
        yield other


def test_each_sees_the_others_writes(cuda: Device, there: Peer, name: str) -> None:
    with cuda.allocate(5000, name=name) as memory:
        memory.fill(5)
        there("other = device.open(name)", name=name)
        assert there("set(other.read_bytes())") == {5}
        there("other.fill(6)")
        assert set(memory.read_bytes()) == {6}
    assert there("set(other.read_bytes())") == {6}, "it keeps the payload"
    there("other.close()\ndevice.close()")


def test_what_vulkan_made_and_what_the_host_has(cuda: Device, there: Peer, name: str) -> None:
    for kind in ("vulkan", "host"):
        with extmem.open_device(kind=kind) as device, device.allocate(5000, name=f"{name} {kind}") as memory:
            there("other = device.open(name)\nother.fill(7)\nother.close()", name=f"{name} {kind}")
            assert set(memory.read_bytes()) == {7}
    there("device.close()")


def test_memory_goes_through_pickle(cuda: Device, there: Peer) -> None:
    with cuda.allocate(5000) as memory:
        memory.fill(8)
        there("got = memory", memory=memory)
        assert there("got.device.kind, set(got.read_bytes())") == ("cuda", {8})
        there("got.close()")
    there("device.close()")


def test_an_array_survives_its_exporter(cuda: Device, there: Peer, name: str) -> None:
    there("made = device.allocate(5000, name=name)\nmade.fill(9)", name=name)
    with cuda.open(name) as memory:
        array = memory.device_array()
        there.kill()
        assert set(memory.read_bytes()) == {9}
        del array


def test_a_killed_importer_leaves_nothing(cuda: Device, there: Peer, name: str) -> None:
    with cuda.allocate(5000, name=name) as memory:
        there("kept = [device.open(name), device.allocate(70000)]", name=name)
        there.kill()
        memory.fill(3)
        assert set(memory.read_bytes()) == {3}
    with cuda.allocate(5000, name=name):
        pass  # the name is free again


def test_updates_are_counted_beside_the_memory_of_a_gpu(cuda: Device, there: Peer, name: str) -> None:
    with cuda.allocate(5000, name=name, access=extmem.Access.READ_WRITE) as memory:
        there("import extmem\nother = device.open(name)", name=name)
        there.start("other.wait(after=0, timeout=60), set(other.read_bytes())")
        with memory.update():
            memory.fill(5)
        assert there.finish() == (2, {5})
        assert there("with other.update(): other.fill(6)\nother.generation") == 4
        with memory.stable() as look:
            assert set(memory.read_bytes()) == {6}
        assert (look.changed, look.generation, memory.torn) == (False, 4, False)
    there("other.close()\ndevice.close()")
