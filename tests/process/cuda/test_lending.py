"""Lent memory and other processes: who has the payload keeps its source, until it closes it or is killed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

import extmem
from extmem.core import shared_devices
from extmem.devices.host import loans
from extmem.manager import manager
from extmem.testing import fake_cuda
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests import cuda_bed
from tests.unit.core.test_lending import GRANULE, Foreign
from tests.unit.devices.cuda.test_adopted import segment

IMPORT = """
from extmem.manager import Reference, manager
owner = manager()
held = owner.import_by_name({name!r}, 0x2000000, Reference(owner))
len(held.payload.fds)
"""


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with cuda_bed.both() as (cuda, _), shared_devices.fresh_devices():
        with extmem.open_device(kind="cuda"):
            yield cuda


@pytest.mark.parametrize("ending", ["killed", "released", "after another broker"])
def test_the_source_is_kept_while_another_process_has_the_payload(
    fake: fake_cuda.FakeCuda, name: str, ending: str
) -> None:
    with segment(fake, 1, 1, 1) as address, Peer() as peer:
        source = Foreign(address, 3 * GRANULE)
        kept = weakref.ref(source)
        with extmem.share(source, name):
            assert peer(IMPORT.format(name=name)) == 3
        del source
        if ending == "after another broker":
            assert manager().stop(force=True)
            peer("owner.snapshot()")
        gc.collect()
        assert kept() is not None and loans.lent()
        if ending == "killed":
            peer.kill()
        else:
            peer("held.give_back()")
        wait_until(lambda: kept() is None, what="the source is not kept any more")


def test_a_ticket_in_flight_keeps_the_source(fake: fake_cuda.FakeCuda) -> None:
    with segment(fake, 1, 1) as address:
        source = Foreign(address, 2 * GRANULE)
        kept = weakref.ref(source)
        with extmem.share(source) as memory:
            ticket = manager().offer(reference=memory.record.references[0].number)
        del source
        gc.collect()
        assert kept() is not None
        assert manager().withdraw(ticket)
        wait_until(lambda: kept() is None, what="the source is not kept any more")
