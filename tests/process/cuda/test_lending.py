"""Lent memory and other processes: who has the payload keeps its source, until it closes it or is killed."""

from __future__ import annotations

import gc
import os
import signal
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


OPEN = """
import os
memory = extmem.open({name!r}, device=device)
len(os.listdir("/proc/self/fd"))
"""


@pytest.fixture
def there(fake: fake_cuda.FakeCuda) -> Iterator[Peer]:
    """Another process, whose `device` is the same scripted GPU."""
    with Peer() as other:
        other(f"device = {fake_cuda.elsewhere(fake)}\nprobe = device.allocate(4, name=f'probe {{os.getpid()}}')")
        other("extmem.open(f'probe {os.getpid()}', device=device).close()")
        yield other
        if other.alive:
            other("probe.close()\ndevice.close()")


@pytest.mark.slow("starts a process with a scripted GPU")
def test_an_importer_keeps_no_file_descriptors_of_many_allocations(
    fake: fake_cuda.FakeCuda, there: Peer, name: str
) -> None:
    with segment(fake, *[1] * 40) as address, extmem.share(Foreign(address, 40 * GRANULE), name):
        before = there("import os\nlen(os.listdir('/proc/self/fd'))")
        # The scripted driver keeps one for each allocation, as an open file; a driver of hardware does not.
        assert there(OPEN.format(name=name)) - before < 40 + 8
        assert there("memory.read_bytes()[:: 65536].hex()") == bytes(range(1, 41)).hex()
        with_another = "other = extmem.open(name, device=device)\npart = memory[65536:].share(name + ' part')\n"
        assert there(with_another + "other.read_bytes()[-1]", name=name) == 40
        with extmem.open(name + " part") as opened:
            assert opened.read_bytes()[::GRANULE] == bytes(range(2, 41))
        there("for one in (part, other, memory): one.close()")


@pytest.mark.slow("starts a process with a scripted GPU for each point of the kill")
@pytest.mark.parametrize("at", [1, 3])
def test_a_reader_that_is_killed_between_two_allocations_takes_nothing_along(
    fake: fake_cuda.FakeCuda, there: Peer, name: str, at: int
) -> None:
    killing = """
import os, signal
from extmem.devices.cuda import spans
before, left = spans.take, [at]
def take(undo, step, call, *arguments):
    answer = before(undo, step, call, *arguments)
    left[0] -= len(arguments) == 5  # cuMemMap
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
spans.take = take
extmem.open(name, device=device)
"""
    with segment(fake, 1, 1, 1, 1) as address:
        source = Foreign(address, 4 * GRANULE)
        kept = weakref.ref(source)
        with extmem.share(source, name):
            there.start(killing, name=name, at=at)
            there.wait(expect=-signal.SIGKILL)
            with extmem.open(name) as opened:
                assert opened.read_bytes()[::GRANULE] == bytes([1, 2, 3, 4])
        del source
        wait_until(lambda: kept() is None, what="the source is not kept any more")


@pytest.mark.slow("replaces brokers")
@pytest.mark.parametrize("exporter", ["stays", "has ended"])
def test_what_was_set_aside_is_announced_to_another_broker(
    fake: fake_cuda.FakeCuda, there: Peer, name: str, exporter: str
) -> None:
    with segment(fake, *[1] * 40) as address:
        shared = extmem.share(Foreign(address, 40 * GRANULE), name)
        there(OPEN.format(name=name))
        if exporter == "has ended":
            shared.close()
        status = manager().status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        there("from extmem.manager import manager\nmanager().snapshot()")
        with extmem.open(name) as opened:
            assert opened.read_bytes()[::GRANULE] == bytes(range(1, 41))
        there("memory.close()")
        shared.close()


@pytest.mark.slow("replaces brokers")
def test_what_a_driver_does_not_export_again_stays_open(fake: fake_cuda.FakeCuda, there: Peer, name: str) -> None:
    there("from extmem.devices.cuda.spans import Spans\nSpans._exports_again = lambda spans, handle: False")
    with segment(fake, *[1] * 40) as address:
        shared = extmem.share(Foreign(address, 40 * GRANULE), name)
        before = there("import os\nlen(os.listdir('/proc/self/fd'))")
        assert there(OPEN.format(name=name)) - before >= 80
        shared.close()
        assert manager().stop(force=True)
        there("from extmem.manager import manager\nmanager().snapshot()")
        there("memory.close()")
