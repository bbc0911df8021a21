"""A process is killed with -9 at each step: no other loses anything, and nothing of it is left behind."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, raw
from extmem.api import Device
from extmem.manager import manager
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.behaviours.steps import KMT, PEER, by_name, export, get, import_win32, nt, put
from tests.sigstop import stop

EXPORTER = [
    "device = extmem.open_device()",
    "memory = export(device, name=name)",
    "handle = nt(device, memory)",
    "put(memory, b'step')",
    "view = memory.map()",
    "other = handle.duplicate(inherit=True)\nother.set_info(protect_from_close=True)",
    "again = by_name(device, name)",
    "import pickle\nticket = pickle.dumps(again)",
    "del view\nmemory.close()",
]


def held_by(pid: int) -> list[object]:
    return [row for row in manager().snapshot() if any(holder.pid == pid for holder in row.holders)]


@pytest.mark.parametrize("steps", range(1, len(EXPORTER) + 1))
def test_an_exporter_that_dies_leaves_nothing(steps: int, name: str) -> None:
    with Peer() as exporter:
        exporter("from tests.behaviours.steps import *")
        for step in EXPORTER[:steps]:
            exporter(step + "\nNone", name=name)
        exporter.kill()
        wait_until(lambda: not held_by(exporter.pid), "the dead exporter's references to end")
    with pytest.raises(errors.NameNotFoundError):
        extmem.open(name)


@pytest.mark.parametrize("steps", range(4, len(EXPORTER) + 1))
def test_an_importer_keeps_what_a_dead_exporter_made(steps: int, name: str, device: Device) -> None:
    with Peer() as exporter:
        exporter("from tests.behaviours.steps import *")
        for step in EXPORTER[:steps]:
            exporter(step + "\nNone", name=name)
        memory = by_name(device, name)
        exporter.kill()
        wait_until(lambda: not held_by(exporter.pid), "the dead exporter's references to end")
    assert get(memory) == b"step"
    with by_name(device, name) as again:  # the importer keeps object and name
        put(memory, b"more")
        assert get(again) == b"more"
    memory.close()
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)


IMPORTER = [
    "device = extmem.open_device()",
    "handle = extmem.open_handle(name)",
    "memory = by_name(device, name)",
    "view = memory.map()",
    "other = import_win32(device, handle)",
    "view[:4] = b'dead'",
    "import pickle\nticket = pickle.dumps(memory)",
]


@pytest.mark.parametrize("steps", range(1, len(IMPORTER) + 1))
def test_an_importer_that_dies_takes_nothing_with_it(steps: int, name: str, device: Device) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        put(memory, b"live")
        with Peer() as importer:
            importer("from tests.behaviours.steps import *")
            for step in IMPORTER[:steps]:
                importer(step + "\nNone", name=name)
            importer.kill()
            wait_until(lambda: not held_by(importer.pid), "the dead importer's references to end")
        assert get(memory) in (b"live", b"dead")
        assert handle.info.handle_count == 1
        by_name(device, name).close()
    with pytest.raises(errors.NameNotFoundError):
        by_name(device, name)


def test_a_handle_duplicated_into_a_process_dies_with_it(device: Device, peer: Peer) -> None:
    peer(PEER + "\nfrom extmem.manager import manager\nmanager().kmt_alive(0)")
    with export(device) as memory, nt(device, memory) as handle:
        handle.duplicate(into=peer.pid)
        assert handle.info.handle_count == 2
        peer.kill()
        wait_until(lambda: handle.info.handle_count == 1, "the dead process's handle to be closed")


@pytest.mark.linux_only("its child is stopped by SIGSTOP")
def test_an_exporter_that_hangs_disturbs_nobody(name: str, device: Device) -> None:
    import signal

    with Peer() as exporter:
        exporter(PEER)
        exporter("memory = export(device, name=name)\nput(memory, b'hang')", name=name)
        stop(exporter.pid)
        try:
            with by_name(device, name) as memory, export(device) as own, nt(device, own) as handle:
                assert get(memory) == b"hang"
                handle.duplicate().close()
        finally:
            exporter.process.send_signal(signal.SIGCONT)
        assert exporter("get(memory)") == b"hang"


def test_a_kmt_number_survives_its_maker_while_anyone_has_imported(device: Device, peer: Peer) -> None:
    peer(PEER)
    number = peer("memory = export(device, types=KMT)\nput(memory, b'kmt!')\nint(kmt(device, memory))")
    with import_win32(device, raw.kmt_handle(number), kind=KMT) as memory:
        peer.kill()
        wait_until(lambda: not held_by(peer.pid), "the dead exporter's references to end")
        assert get(memory) == b"kmt!" and manager().kmt_alive(number)
    assert not manager().kmt_alive(number)


def test_a_handle_waits_for_a_child_that_never_comes(device: Device) -> None:
    """A child that inherits and dies before its first message releases its handles."""
    import extmem.process
    from extmem.testing.children import Child
    from extmem.vk import SecurityAttributes

    with export(device, security=SecurityAttributes(None, True)) as memory, nt(device, memory) as handle:
        with Child.python("import os; os._exit(5)", popen=extmem.process.Popen) as child:
            child.wait(expect=5)
        wait_until(lambda: handle.info.handle_count == 1, "the inherited handle to be given back")
