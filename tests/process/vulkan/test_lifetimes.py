"""A process that dies, forks or ends first on Vulkan takes nothing from others and leaves nothing behind."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, raw
from extmem.api import Device
from extmem.manager import manager
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.behaviours.steps import KMT, PEER, by_name, export, get, import_win32, nt, put
from tests.process.test_crashes import held_by
from tests.process.test_fork import FORKED
from tests.process.vulkan.conftest import ENVIRONMENT
from tests.process.vulkan.steps import visible_type

STEPS = (
    "from extmem.devices.host import HAS_FDS\n"
    "from tests.behaviours.steps import *\nfrom tests.process.vulkan.steps import visible_type"
)
EXPORTER = [
    "device = extmem.open_device()",
    "memory = device.allocate(4096, name=name, memory_type=visible_type(device))\nmemory.write(b'step')",
    "handle = memory.export_handle()\nfd = memory.export_handle(FD if HAS_FDS else W32)",
    "again = import_win32(device, None, name, size=memory.allocation_size, index=memory.memory_type_index)\n"
    "view = again.map() if again.host_visible else again.read_bytes()",
]


@pytest.mark.parametrize("steps", range(1, len(EXPORTER) + 1))
def test_an_exporter_that_is_killed_leaves_nothing(device: Device, name: str, steps: int) -> None:
    with Peer(env=ENVIRONMENT) as exporter:
        exporter(STEPS)
        for step in EXPORTER[:steps]:
            exporter(step + "\nNone", name=name)
        exporter.kill()
        wait_until(lambda: not held_by(exporter.pid), "the dead exporter's references to end")
    with pytest.raises(errors.NameNotFoundError):
        extmem.open(name)
    with device.allocate(64, name=name) as memory, extmem.open(name) as other:
        memory.write(b"next")
        assert other.read().tobytes()[:4] == b"next"


@pytest.mark.parametrize("steps", range(2, len(EXPORTER) + 1))
def test_an_importer_keeps_what_a_killed_exporter_made(device: Device, name: str, steps: int) -> None:
    with Peer(env=ENVIRONMENT) as exporter:
        exporter(STEPS)
        for step in EXPORTER[:steps]:
            exporter(step + "\nNone", name=name)
        memory = device.open(name)
        exporter.kill()
        wait_until(lambda: not held_by(exporter.pid), "the dead exporter's references to end")
    assert memory.read().tobytes()[:4] == b"step"
    with extmem.open(name) as again:
        memory.write(b"more")
        assert again.read().tobytes()[:4] == b"more"
    memory.close()
    with pytest.raises(errors.NameNotFoundError):
        device.open(name)


IMPORTER = [
    "memory = extmem.open(name)",
    "put(memory, b'dead')\nview = memory.map() if memory.host_visible else memory.read_bytes()",
    "import pickle\nticket = pickle.dumps(memory)",
    "other = extmem.open_device().open(name)\nother.write(b'dead')",
]


@pytest.mark.parametrize("steps", range(1, len(IMPORTER) + 1))
def test_an_importer_that_is_killed_takes_nothing_with_it(device: Device, name: str, steps: int) -> None:
    shown = device.allocate(4096, name=name, memory_type=visible_type(device))
    with shown as memory, memory.export_handle() as handle:
        memory.write(b"live")
        before = handle.info.handle_count  # type: ignore[union-attr]  # an NT handle; a driver may have one of its own
        with Peer(env=ENVIRONMENT) as importer:
            importer(STEPS)
            for step in IMPORTER[:steps]:
                importer(step + "\nNone", name=name)
            importer.kill()
            wait_until(lambda: not held_by(importer.pid), "the dead importer's references to end")
        assert memory.read().tobytes()[:4] in (b"live", b"dead")
        assert handle.info.handle_count == before  # type: ignore[union-attr]  # as above
        device.open(name).close()
    with pytest.raises(errors.NameNotFoundError):
        device.open(name)


def test_an_importer_killed_while_it_writes_leaves_the_device_and_the_payload_usable(device: Device, name: str) -> None:
    with device.allocate(1 << 20, name=name) as memory:
        for _ in range(3):
            with Peer(env=ENVIRONMENT) as importer:
                importer("memory = extmem.open(name)\ndata = bytes(1 << 20)", name=name)
                importer.start("while True: memory.write(data)")
                memory.fill(1)
                importer.kill()
                wait_until(lambda pid=importer.pid: not held_by(pid), "its references to end")  # type: ignore[misc]
            memory.fill(7)
            assert set(memory.read().tobytes()) == {7}


def test_an_exporter_may_close_first(device: Device, name: str) -> None:
    memory = device.allocate(64, name=name)
    memory.write(b"stay")
    with device.open(name) as other, memory.export_handle() as handle:
        memory.close()
        assert other.read().tobytes()[:4] == b"stay"
        other.close()
        with device.open(handle) as again:
            assert again.read().tobytes()[:4] == b"stay"


def test_a_kmt_number_lives_as_long_as_the_payload(device: Device, peer: Peer) -> None:
    peer(PEER)
    number = peer("memory = export(device, types=KMT)\nput(memory, b'kmt!')\nint(kmt(device, memory))")
    with import_win32(device, raw.kmt_handle(number), kind=KMT) as memory:
        peer.kill()
        wait_until(lambda: not held_by(peer.pid), "the dead exporter's references to end")
        assert get(memory) == b"kmt!" and manager().kmt_alive(number)
    assert not manager().kmt_alive(number)


def test_a_device_that_is_dropped_with_everything_on_it(device: Device, peer: Peer) -> None:
    """Without any close the process ends with exit code 0."""
    peer("import warnings\nwarnings.simplefilter('ignore', ResourceWarning)")
    peer(STEPS + "\ndevice = extmem.open_device()\nmemory = device.allocate(64, memory_type=visible_type(device))")
    peer("memory.fill(1)\nview = memory.map() if memory.host_visible else memory.read_bytes()\nNone")
    peer.leave()


# Forks. Mesa's software driver has threads of its own, which a forked child lacks: it would wait for them for ever.


@pytest.fixture
def forking(peer: Peer, name: str) -> Peer:
    peer(PEER + FORKED)
    peer("memory = export(device, name=name)\nhandle = nt(device, memory)\nmemory.write(b'mine')", name=name)
    peer("high_level = extmem.open(name)\nassert high_level.device.kind == 'vulkan'")
    return peer


@pytest.mark.linux_only("Windows has no fork")
@pytest.mark.parametrize(
    "source",
    [
        "memory.read()",
        "memory.write(b'x')",
        "memory.fill(0)",
        "memory.map()",
        "device.allocate(64)",
        "export(device)",
        "device.create_buffer(vk.BufferCreateInfo(size=64, usage=vk.BufferUsageFlagBits.TRANSFER_SRC))",
        "by_name(device, name)",
        "high_level.read()",
        "handle.info",
    ],
)
def test_a_forked_child_is_refused_what_is_its_parents(forking: Peer, source: str) -> None:
    output = forking("forked(source, False)", source=source)
    assert output.startswith("HandleStateError") and "fork" in output and "spawn" in output, output
    assert forking("bytes(memory.read()[:4]), handle.info.handle_count") == (b"mine", 1)


@pytest.mark.linux_only("Windows has no fork")
@pytest.mark.parametrize("polite", [True, False])
def test_a_forked_child_closes_nothing_of_its_parent(forking: Peer, polite: bool) -> None:
    forking(
        "forked('memory.close() or high_level.close() or handle.close() or device.backend.close()', polite)",
        polite=polite,
    )
    assert forking("bytes(memory.read()[:4]), bytes(high_level.read()[:4]), handle.info.handle_count") == (
        b"mine",
        b"mine",
        1,
    )


@pytest.mark.linux_only("Windows has no fork")
def test_a_forked_child_may_begin_anew(forking: Peer, device: Device) -> None:
    if not device.name.startswith("llvmpipe"):
        # A GPU's driver starts once in a process, and its forked child cannot use it: an error reports that.
        text = forking("forked(source, False)", source="bytes(extmem.open(name).read()[:4])")
        assert text == "b'mine'" or (device.name in text and "VK_ERROR_INITIALIZATION_FAILED" in text)
    else:
        for source in ("extmem.open(name)", "extmem.open_device().open(name)"):
            assert forking("forked(source, False)", source=f"bytes({source}.read()[:4])") == "b'mine'"
    assert forking("bytes(memory.read()[:4]), handle.info.handle_count") == (b"mine", 1)


def test_words_of_the_specification_work_after_the_others_are_gone(device: Device, name: str) -> None:
    memory = export(device, name=name)
    with nt(device, memory) as handle:
        put(memory, b"last")
        first = by_name(device, name)
        memory.close()
        first.close()
        with by_name(device, name) as again:
            assert get(again) == b"last"
        assert not handle.closed
