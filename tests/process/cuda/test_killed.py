"""kill -9 of importers and exporters in every step of their work, on the fake driver: as tests/gpu does on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda, leaks
from extmem.testing.children import Peer
from tests import cuda_bed
from tests.gpu import killed

SIZE = 1 << 16


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with leaks.no_leaks(everybody=True), cuda_bed.both() as (made, _):
        yield made


@pytest.fixture
def cuda(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    with extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.mark.parametrize("step", range(len(killed.IMPORTER)))
def test_an_importer_that_is_killed_leaves_nothing(
    step: int, fake: fake_cuda.FakeCuda, cuda: Device, name: str
) -> None:
    with (
        extmem.open_device(kind="vulkan") as vulkan,
        extmem.open_device(kind="host") as host,
        vulkan.allocate(SIZE, name=f"{name} v") as v,
        cuda.allocate(SIZE, name=f"{name} c") as c,
        host.allocate(SIZE, name=f"{name} h") as h,
    ):
        with Peer() as peer:
            killed.killed_at(peer, killed.IMPORTER, step, name=name, size=SIZE, expression=fake_cuda.elsewhere(fake))
        for memory in (v, c, h):
            memory.fill(5)
            assert set(memory.read_bytes()) == {5}


@pytest.mark.parametrize("step", range(3, len(killed.EXPORTER)))
def test_an_array_outlives_an_exporter_that_is_killed(
    step: int, fake: fake_cuda.FakeCuda, cuda: Device, name: str
) -> None:
    with Peer() as peer:
        for done in killed.EXPORTER[:step]:
            peer(done + "\nNone", name=name, size=SIZE, expression=fake_cuda.elsewhere(fake))
        with cuda.open(name) as memory:
            array = memory.device_array()
            peer.start("\n".join(killed.EXPORTER[step:]))
            peer.kill()
            assert set(memory.read_bytes()) == {7}
            memory.fill(8)
            assert set(memory.read_bytes()) == {8}
            with pytest.raises(extmem.LiveViewError):
                memory.close()
            del array
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open(name)
