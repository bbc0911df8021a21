"""The broker is killed with -9 at each step: no memory, name, handle or number is lost, and no name is stolen."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.broker_files import JOURNAL
from tests.sigstop import stop

SETUP = (
    "from tests.behaviours.steps import *\nfrom extmem import raw\nfrom extmem.manager import manager\n"
    "device = extmem.open_device()\nNone"
)


@pytest.fixture
def exporter(own_runtime: Runtime) -> Iterator[Peer]:
    with Peer(env=own_runtime.environment) as peer:
        peer(SETUP)
        yield peer


@pytest.fixture
def importer(own_runtime: Runtime) -> Iterator[Peer]:
    with Peer(env=own_runtime.environment) as peer:
        peer(SETUP)
        yield peer


STEPS = [
    ("exporter", "memory = export(device, name='n')\nput(memory, b'kept')"),
    ("exporter", "handle = nt(device, memory)\nvalue = int(handle)"),
    ("importer", "memory = by_name(device, 'n')\nassert get(memory) == b'kept'"),
    ("importer", "handle = extmem.open_handle('n')\nvalue = int(handle)"),
    ("exporter", "numbered = export(device, types=KMT)\nput(numbered, b'numb')\nnumber = int(kmt(device, numbered))"),
    ("exporter", "memory.close()"),
    ("importer", "other = import_win32(device, handle)\nassert get(other) == b'kept'"),
    ("exporter", "handle.close()"),
    ("importer", "memory.close()\nother.close()"),
]


@pytest.mark.parametrize("killed_before", range(1, len(STEPS)))
def test_killed_between_any_two_steps_nothing_changes(
    own_runtime: Runtime, exporter: Peer, importer: Peer, killed_before: int
) -> None:
    peers = {"exporter": exporter, "importer": importer}
    for number, (who, step) in enumerate(STEPS):
        if number == killed_before:
            own_runtime.kill_broker()
        peers[who](step)
    # Only the importer's handle is left: it has kept object, name and bytes.
    assert importer("get(by_name(device, 'n'))") == b"kept"
    assert importer("int(handle), handle.info.name.endswith('n')") == (importer("value"), True)
    number = exporter("number")
    assert importer("get(import_win32(device, raw.kmt_handle(number), kind=KMT))", number=number) == b"numb"
    importer("import gc\nhandle.close()\ngc.collect()")
    assert exporter.fails("by_name(device, 'n')").is_a(FileNotFoundError)


def test_killed_at_every_step_in_turn(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    peers = {"exporter": exporter, "importer": importer}
    for who, step in STEPS:
        peers[who](step)
        own_runtime.kill_broker()
    assert importer("get(by_name(device, 'n'))") == b"kept"


def test_a_name_is_not_stolen_while_its_holder_reconnects(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    exporter("memory = export(device, name='mine')\nput(memory, b'mine')")
    importer("manager().kmt_alive(0)")
    for _ in range(5):
        own_runtime.kill_broker()
        # The other process calls first; the holder of the name makes no call at all.
        assert importer.fails("export(device, name='MINE')").is_a("NameTakenError")
    assert importer("get(by_name(device, 'mine'))") == b"mine"


def test_a_name_is_not_said_to_be_gone_while_its_holder_reconnects(
    own_runtime: Runtime, exporter: Peer, importer: Peer
) -> None:
    exporter("memory = export(device, name='here')\nput(memory, b'here')")
    importer("manager().kmt_alive(0)")
    for _ in range(5):
        own_runtime.kill_broker()
        assert importer("memory = by_name(device, 'here')\nfound = get(memory)\nmemory.close()\nfound") == b"here"


def test_a_dead_holders_name_does_not_outlive_it(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    exporter("memory = export(device, name='gone')")
    importer("manager().kmt_alive(0)")
    own_runtime.kill_broker()
    exporter.kill()
    assert importer.fails("by_name(device, 'gone')").is_a("NameNotFoundError")
    importer("export(device, name='gone').close()")


def test_handles_keep_values_rights_and_flags(own_runtime: Runtime, exporter: Peer) -> None:
    exporter(
        "memory = export(device)\nhandles = [nt(device, memory)]\n"
        "handles.append(handles[0].duplicate(access=READ, inherit=True))\nhandles.append(handles[0].duplicate())\n"
        "handles[2].set_info(protect_from_close=True)\n"
        "facts = lambda: [(int(h), h.access, h.info.inherit, h.info.protect_from_close) for h in handles]\n"
        "before = facts()"
    )
    own_runtime.kill_broker()
    assert exporter("facts() == before")
    assert exporter("handles[0].same_object(handles[1]) and handles[0].info.handle_count == 3")
    assert exporter.fails("handles[2].close()").is_a("InvalidHandleError")
    exporter("handles[2].set_info(protect_from_close=False)\nfor h in handles: h.close()")


def test_security_is_the_same_afterwards(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    exporter("memory = export(device, name='s', security=vk.SecurityAttributes('D:(A;;GR;;;OW)'))")
    importer("manager().kmt_alive(0)")
    own_runtime.kill_broker()
    assert importer.fails("extmem.open_handle('s', READ_WRITE)").is_a(PermissionError)
    assert importer("memory = by_name(device, 's')\nmemory.read_only")


def test_a_ticket_in_flight_arrives(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    exporter("import pickle\nmemory = export(device)\nput(memory, b'mail')")
    ticket = exporter("pickle.dumps(memory)")
    own_runtime.kill_broker()
    assert importer("import pickle\nmemory = pickle.loads(ticket)\nget(memory)", ticket=ticket) == b"mail"


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_a_claimed_ticket_stays_claimed(own_runtime: Runtime, exporter: Peer, importer: Peer, first: str) -> None:
    """Either may come back first: the sender, which has not learned of the claim, or the receiver, which made it."""
    exporter("import pickle\nmemory = export(device)\nput(memory, b'mail')")
    ticket = exporter("pickle.dumps(memory)")
    importer("import pickle\nmemory = pickle.loads(ticket)", ticket=ticket)
    stopped, back = (importer, exporter) if first == "sender" else (exporter, importer)
    stop(stopped.pid)
    own_runtime.kill_broker()
    back("manager().snapshot() and None")
    stopped.process.send_signal(signal.SIGCONT)
    stopped("manager().snapshot() and None")
    assert importer.fails("pickle.loads(ticket).map()\nNone").is_a("InvalidHandleError")
    assert importer("get(memory)") == b"mail"


def test_killed_in_the_middle_of_calls_no_call_fails(own_runtime: Runtime, exporter: Peer, importer: Peer) -> None:
    source = (
        "for index in range(150):\n"
        "    with export(device, name=f'{who} {index}') as memory, nt(device, memory) as handle:\n"
        "        put(memory, b'busy')\n"
        "        with by_name(device, f'{who} {index}') as other, import_win32(device, handle) as third:\n"
        "            assert get(other) == get(third) == b'busy'\n"
        "        handle.duplicate().close()\n"
        "len(manager().snapshot())"
    )
    everybody = {exporter.pid, importer.pid}
    for peer, who in ((exporter, "one"), (importer, "two")):
        peer.start(source, who=who)
    killed, journal = 0, 0
    while killed < 5 and not (exporter.connection.poll() or importer.connection.poll()):
        # Both are in the middle of their calls: connected to this broker, and not finished.
        written, connected = clients(own_runtime)
        if written != journal and connected >= everybody and own_runtime.kill_broker(required=False) is not None:
            killed, journal = killed + 1, written
    exporter.finish(deadline=100)
    importer.finish(deadline=100)
    assert killed
    assert exporter("manager().snapshot()") == []


def clients(runtime: Runtime) -> tuple[int, set[int]]:
    """Return the processes that the broker's journal lists, which are the connected ones, and the identity of the
    journal.

    A killed broker's journal stays until the next one writes its own.
    """
    try:
        with open(runtime.path / JOURNAL, "rb") as file:
            left: Counter[int] = Counter()
            for line in file.read().splitlines():
                come, pid, *_ = json.loads(line)
                left[pid] += 1 if come else -1
            return os.fstat(file.fileno()).st_ino, {pid for pid, count in left.items() if count > 0}
    except (OSError, ValueError):
        return 0, set()


def test_killed_while_it_starts_it_is_started_again(own_runtime: Runtime, exporter: Peer) -> None:
    exporter.start("memory = export(device, name='n')\nput(memory, b'soon')")
    wait_until(lambda: own_runtime.kill_broker(required=False) or exporter.connection.poll(), "a broker to kill")
    exporter.finish()
    assert exporter("get(by_name(device, 'n'))") == b"soon"


def test_all_processes_ended_and_the_broker_killed_leaves_nothing(own_runtime: Runtime, exporter: Peer) -> None:
    exporter("memory = export(device, name='n')")
    own_runtime.kill_broker()
    exporter.kill()
    with Peer(env=own_runtime.environment) as late:
        late(SETUP)
        assert late("manager().snapshot()") == []
        assert late.fails("by_name(device, 'n')").is_a(FileNotFoundError)
