"""kill -9 of importers and exporters on a real GPU, in every step of their work: nothing is left behind."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.testing.children import Peer
from tests.gpu import killed

SIZE = 64 << 20
"""A size that is noticed in the free memory of the device."""
DEVICE = "extmem.open_device(kind='cuda')"
IMPORTERS, EXPORTERS = 24, 8
SEED = 5


def test_importers_killed_at_any_step_leave_nothing(
    cuda: Device, vulkan: Device, host: Device, name: str, nothing_left: None
) -> None:
    with (
        vulkan.allocate(SIZE, name=f"{name} v") as v,
        cuda.allocate(SIZE, name=f"{name} c") as c,
        host.allocate(SIZE, name=f"{name} h") as h,
    ):
        for round_, step in enumerate(killed.drawn(IMPORTERS, killed.IMPORTER, seed=SEED)):
            with Peer() as peer:
                killed.killed_at(peer, killed.IMPORTER, step, name=name, size=SIZE, expression=DEVICE)
            for memory in (v, c, h):
                memory.fill(round_ + 1)
                assert memory.read_bytes(SIZE - 1) == bytes([round_ + 1])


@pytest.mark.parametrize("maker", ["cuda", "vulkan"])
def test_a_tensor_outlives_exporters_killed_at_any_step(
    maker: str, torch: Any, cuda: Device, vulkan: Device, name: str, nothing_left: None
) -> None:
    expression = f"extmem.open_device(kind={maker!r})"
    for round_, step in enumerate(killed.drawn(EXPORTERS, killed.EXPORTER, seed=SEED, first=3)):
        with Peer() as peer:
            named = f"{name} {round_}"
            for done in killed.EXPORTER[:step]:
                peer(done + "\nNone", name=named, size=SIZE, expression=expression)
            with extmem.open(named) as memory:
                tensor = memory.torch()
                peer.start("\n".join(killed.EXPORTER[step:]))
                peer.kill()
                assert bool((tensor == 7).all())
                tensor += 1
                torch.cuda.synchronize()
                assert set(memory.read_bytes(SIZE - 16)) == {8}
                with pytest.raises(extmem.LiveViewError):
                    memory.close()
                del tensor
                gc.collect()
        with pytest.raises(extmem.NameNotFoundError):
            extmem.open(named)
    torch.cuda.empty_cache()
