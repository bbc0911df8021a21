"""A hostile peer: what it does to a payload's file, to names and to its handle table harms no other process."""

from __future__ import annotations

from pathlib import Path

import pytest

import extmem
from extmem.api import Device
from extmem.errors import NameNotFoundError
from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.vk import SecurityAttributes
from tests.behaviours.steps import FD, PEER, READ, SIZE, W32, by_name, export, fd, get, nt, put

RIGHTS = [None, SecurityAttributes("D:(A;;GR;;;OW)")]


FILES = pytest.mark.linux_only("payloads are files, which peers hold by descriptor, on Linux alone")


@pytest.fixture
def hostile(peer: Peer) -> Peer:
    peer(PEER + "\nimport mmap\nfrom extmem.manager import manager")
    return peer


@FILES
@pytest.mark.parametrize("security", RIGHTS, ids=["writable", "read-only"])
@pytest.mark.parametrize(
    "attack",
    [
        "os.ftruncate(number, 0)",
        "os.ftruncate(number, 1 << 20)",
        "fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)",
    ],
)
def test_the_files_size_and_seals_cannot_be_changed(
    hostile: Peer, device: Device, name: str, security: SecurityAttributes | None, attack: str
) -> None:
    """A file that shrinks under a mapping raises SIGBUS in all that read it; one sealed for writing loses a frame."""
    with export(device, name=name, security=security) as memory:
        put(memory, b"safe")
        hostile("import fcntl\nmemory = by_name(device, name)\nnumber = memory.record.allocation.fd", name=name)
        assert hostile.fails(attack).is_a(OSError)
        assert get(memory, SIZE)[:4] == b"safe"
        put(memory, b"more")
        assert hostile("get(memory)") == b"more"


@FILES
def test_later_writers_can_be_sealed_out_only_by_who_may_write(hostile: Peer, device: Device, name: str) -> None:
    """F_SEAL_FUTURE_WRITE (0x10): memory that is mapped stays writable, and a later process gets a clear error."""
    opened = "import fcntl\nmemory = by_name(device, name)"
    seal = "fcntl.fcntl(memory.record.allocation.fd, fcntl.F_ADD_SEALS, 0x10)"
    with export(device, name=name, security=RIGHTS[1]):
        hostile(opened, name=name)
        assert hostile.fails(seal).is_a(OSError)
        hostile("memory.close()")
    with export(device, name=name) as memory, Peer() as late:
        put(memory, b"safe")
        hostile(opened, name=name)
        hostile(seal)
        put(memory, b"more")
        late("import extmem\nmemory = extmem.open(name)", name=name)
        assert late.fails("memory.write(b'late')").is_a("AccessDeniedError")
        assert get(memory, SIZE)[:4] == b"more"


@FILES
def test_an_fd_that_was_sent_cannot_shrink_either(hostile: Peer, device: Device) -> None:
    with export(device, types=FD) as memory, fd(device, memory) as handle:
        put(memory, b"sent")
        hostile("number = int(handle)", handle=handle)
        assert hostile.fails("os.ftruncate(number, 0)").is_a(OSError)
        hostile("handle.close()")
        assert get(memory) == b"sent"


@FILES
def test_a_reader_cannot_make_itself_a_writer(hostile: Peer, device: Device, name: str) -> None:
    with export(device, name=name, security=RIGHTS[1]) as memory, nt(device, memory) as handle:
        put(memory, b"safe")
        hostile("memory = by_name(device, name)\nnumber = memory.record.allocation.fd", name=name)
        hostile("manager().kmt_alive(0)")
        weak = handle.duplicate(access=READ, into=hostile.pid)
        for attempt in (
            "put(memory, b'evil')",
            "memory.numpy().flags.writeable = True",
            "mmap.mmap(number, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)",
            "os.pwrite(number, b'evil', 0)",
            "os.open(f'/proc/self/fd/{number}', os.O_RDWR)",
            "extmem.open_handle(name, READ_WRITE)",
            f"manager().duplicate({weak}, desired=READ_WRITE, inherit=False, same_attributes=False, "
            "close_source=False, into=None)",
        ):
            hostile.fails(attempt)
        assert get(memory) == b"safe"


def test_handles_can_be_put_into_ones_own_table_alone(hostile: Peer, device: Device) -> None:
    """A value of another process's table does not close, read or duplicate what that process holds."""
    with export(device, types=W32) as memory, nt(device, memory) as handle:
        value = int(handle)
        for call in ("close({})", "info({})", "set_flags({}, 2, 2)", "import_by_handle({})"):
            assert hostile.fails(f"manager().{call.format(value)}").is_a("InvalidHandleError")
        assert handle.info.handle_count == 1


def test_a_peer_that_fills_its_table_fills_its_own(hostile: Peer, device: Device, name: str) -> None:
    with export(device, name=name) as memory:
        hostile("handles = [extmem.open_handle(name) for _ in range(2000)]", name=name)
        with by_name(device, name) as other, nt(device, memory) as handle:
            assert get(other) == b"\0\0\0\0"
            assert handle.info.handle_count == 2001
        hostile("for handle in handles: handle.close()\nhandles.clear()")


def test_a_handle_put_into_another_process_keeps_the_name_while_that_lives(
    hostile: Peer, device: Device, name: str
) -> None:
    """A name requires a living process that has its object: so a process gives one to another process of its user."""
    with Peer() as other:
        other(PEER + "\nfrom extmem.manager import manager\nmanager().kmt_alive(0)")
        hostile("memory = export(device, name=name)\nhandle = nt(device, memory)\nput(memory, b'mine')", name=name)
        value = hostile("value = handle.duplicate(into=pid)\nvalue", pid=other.pid)
        hostile.kill()
        with by_name(device, name) as found, extmem.open_handle(name) as handle:
            wait_until(lambda: handle.info.handle_count == 2, "the killed process's handle to be closed")
            assert get(found) == b"mine"
        other("manager().close(value)", value=value)
        with pytest.raises(NameNotFoundError):
            by_name(device, name)


@pytest.mark.linux_only("the example attacks the broker")
def test_the_hostile_example_achieves_nothing(own_runtime: Runtime) -> None:
    path = Path(__file__).parents[2] / "examples" / "hostile_client.py"
    with Child.python(
        f"import runpy\nrunpy.run_path({str(path)!r}, run_name='__main__')", env=own_runtime.environment
    ) as child:
        child.wait()
        attempts = [line for line in child.output.splitlines() if line.startswith("hostile: ")]
        assert len(attempts) == 8 and not any("DONE" in line for line in attempts), child.output
        assert "all bytes are still 42: True" in child.output
