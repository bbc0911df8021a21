"""What hostile processes, other users, faulty writers and a lack of memory can do to a channel, and what not."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable

import pytest

import extmem
from extmem import ChannelCorruptError, ChannelFullError, ChannelWriter, NameNotFoundError
from extmem.sharing.channel_page import Words
from extmem.testing.children import Peer
from extmem.testing.faults import Countdown, failing_system_calls
from extmem.testing.runtime import Runtime
from tests.process.broker.steps import BECOME, PEER, broker_fds, needs_root, wait_for_broker_fds

pytestmark = pytest.mark.linux_only("other users, the broker and failing calls are those of Linux")

LOCK_ALL = """
import extmem
reader = extmem.open_channel(name)
control = reader.control
locked = [control.locks.try_shared(control.slot_range(control.epoch, slot)) for slot in range(control.layout.capacity)]
"""


def put(writer: ChannelWriter, times: int = 1) -> None:
    for _ in range(times):
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1


@pytest.mark.slow("starts a process")
def test_N12_a_reader_that_locks_every_slot_is_named_and_keeps_the_writer_no_longer_than_its_policy(
    peer: Peer, name: str
) -> None:
    with extmem.create_channel(name, 8, slots=3, max_slots=4, when_full="raise") as writer:
        put(writer, 3)
        peer(LOCK_ALL, name=name)
        assert peer("all(locked)")
        with pytest.raises(ChannelFullError, match=rf"without telling.*{peer.pid}") as caught:
            writer.write()
        assert [one.pid for one in caught.value.holders] == [peer.pid]
        writer._when_full = "wait"
        writer._timeout = 0.05
        with pytest.raises(ChannelFullError, match=rf"after 0\.\d+ s.*{peer.pid}"):
            writer.write()
        writer._when_full = "drop"
        put(writer)
        assert (writer.count, writer.dropped) == (3, 1)
        peer("reader.close()")
        put(writer)
        assert writer.count == 4


IMPORTED = """
import contextlib, mmap, os, pkgutil
import numpy
import extmem
# Another user cannot import anything later.
for module in pkgutil.walk_packages(extmem.__path__, "extmem."):
    if not any(part in module.name for part in ("__main__", "win32", "windows", "torch", ".cli")):
        with contextlib.suppress(Exception):
            __import__(module.name)
"""
HEIR = """
import subprocess, sys
with m.inherit_socket() as channel:
    environment = dict(os.environ, EXTMEM_INHERIT_FD=inheritance(channel))
    child = subprocess.Popen([sys.executable, '-c', script], env=environment,
        pass_fds=[channel.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
child.communicate(timeout=60)[0].strip()
"""
REFUSED = """
from extmem.channel import names
from extmem.devices.host.range_locks import Range, reopen
channel = extmem.open_channel(name)
frame = channel.read(timeout=10)
found = [(frame.number, bytes(frame.view()))]
page = channel.control._imported.payload
def refuses(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        found.append(type(error).__name__)
    else:
        found.append(f"allowed: {call}")
refuses(mmap.mmap, page.fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
refuses(os.pwrite, page.fd, b"x", 0)
refuses(os.open, f"/proc/self/fd/{page.fd}", os.O_RDWR)
refuses(lambda: reopen(page.pages[0].handle, writable=True))
refuses(channel.control.locks.try_exclusive, Range(1 << 40))
refuses(channel.frames_page.raise_to, 100)
refuses(lambda: extmem.open_timeline(names.frames(channel.control.identity), access=extmem.Access.READ_WRITE))
refuses(lambda: extmem.open(names.slot(channel.control.identity, 1, 0), access=extmem.Access.READ_WRITE))
refuses(lambda: extmem.open(names.writer(channel.control.identity)))
refuses(os.pwrite, frame.memory.record.allocation.fd, b"x", 0)
refuses(frame.numpy().fill, 1)
refuses(lambda: extmem.create_channel(name, 8))
refuses(lambda: extmem.open_channel(hidden))
print(found)
"""


@pytest.mark.slow("starts processes")
def test_N12_a_reader_of_another_user_reads_and_does_nothing_else(own_runtime: Runtime, name: str) -> None:
    needs_root()
    with Peer(env=own_runtime.environment) as owner:
        owner(
            PEER
            + """
import extmem
everybody = "D:(A;;GR;;;WD)(A;;GA;;;OW)"
shown = extmem.create_channel(name, 8, when_full="raise", security=everybody)
hidden = extmem.create_channel(name + ".hidden", 8)
shown.put(b"a frame!")
""",
            name=name,
        )
        script = IMPORTED + BECOME + f"become()\nname, hidden = {name!r}, {name + '.hidden'!r}\n" + REFUSED
        output = owner(HEIR, script=script)
        assert output.startswith("[(1, b'a frame!'), "), output
        assert "allowed" not in output and output.count("Error'") == 13, output
        # Its locks have ended with it, and nothing has changed.
        assert owner("[shown.put(b'another!') for _ in range(6)]") == [2, 3, 4, 5, 6, 7]


@pytest.mark.slow("starts and kills processes")
def test_nothing_is_left_when_everybody_is_killed(own_runtime: Runtime, name: str) -> None:
    environment = own_runtime.environment
    with Peer(env=environment) as witness:
        witness("import extmem, extmem.manager; kept = extmem.open_device(kind='host').allocate(1, name='kept')")
        broker = own_runtime.broker_pid()
        assert broker is not None
        fds, files = broker_fds(broker), sorted(os.listdir(own_runtime.path))
        with Peer(env=environment) as writer, Peer(env=environment) as first, Peer(env=environment) as second:
            writer("import extmem; w = extmem.create_channel(name, 4096, slots=3); w.put(bytes(4096))", name=name)
            first("import extmem; r = extmem.open_channel(name); frame = r.read(timeout=10).hold()", name=name)
            second("import extmem; r = extmem.open_channel(name, every=True, reliable=True); r.poll() and 1", name=name)
            writer("frame = w.write()")
            for peer in (writer, first, second):
                os.kill(peer.pid, signal.SIGKILL)
            for peer in (writer, first, second):
                peer.process.wait()
        wait_for_broker_fds(broker, fds)
        assert witness.fails("extmem.open_channel(name)", name=name).is_a("NameNotFoundError")
        assert witness("[one for row in extmem.manager.manager().snapshot() for one in row.names]")[0].endswith("kept")
        assert len(witness("[one for row in extmem.manager.manager().snapshot() for one in row.names]")) == 1
        assert sorted(os.listdir(own_runtime.path)) == files
        witness("extmem.create_channel(name, 4096).close()", name=name)


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE, errno.ENOSPC])
def test_grow_without_memory_drops_the_frame(name: str, code: int) -> None:
    outcomes = set()
    for at in range(1, 60):
        with extmem.create_channel(f"{name}.{at}", 8, slots=1, max_slots=4, when_full="grow") as writer:
            with writer.write(), failing_system_calls(countdown := Countdown(at), code):
                try:
                    with writer.write() as second:
                        outcomes.add("dropped" if second.dropped else "grown")
                    assert (writer.dropped, writer.slots) == ((1, 1) if second.dropped else (0, 2))
                except (extmem.ExtmemError, OSError) as error:
                    outcomes.add(type(error).__name__)
                    error.__traceback__ = None
            with writer.write() as frame:  # nothing is lost
                frame.numpy()[:] = 1
        if countdown.failed is None:
            break
    assert {"dropped", "grown"} <= outcomes, outcomes


@pytest.mark.parametrize(
    "damage",
    [
        lambda page: page.words64.__setitem__(Words.EPOCH, (1 << 64) - 1),
        lambda page: page.words64.__setitem__(Words.EPOCH, 0),
        lambda page: page.words.__setitem__(Words.SLOTS, 0),
        lambda page: page.words.__setitem__(Words.SLOTS, (1 << 32) - 1),
        lambda page: page.words.__setitem__(Words.ARRAYS, (1 << 32) - 1),
        lambda page: page.words.__setitem__(12, 0),
        lambda page: page.words.__setitem__(3, 0),
        lambda page: page.words.__setitem__(2, 7),
    ],
    ids=["a late epoch", "no epoch", "no slots", "many slots", "large arrays", "limits", "no capacity", "version"],
)
def test_each_number_of_the_header_that_cannot_be_true_is_refused(name: str, damage: Callable[[object], None]) -> None:
    with extmem.create_channel(name, 8) as writer, extmem.open_channel(name) as reader:
        put(writer)
        damage(writer.control)
        for use in (lambda: extmem.open_channel(name), lambda: reader.info):
            with pytest.raises(ChannelCorruptError, match=name):
                use()


def test_times_and_numbers_of_a_faulty_writer_do_no_harm(name: str) -> None:
    with extmem.create_channel(name, 8) as writer, extmem.open_channel(name) as reader:
        put(writer)
        for far in (0, (1 << 64) - 1):
            writer.control.times[0] = far
            assert (writer.info.age or 0) >= 0
            with extmem.open_channel(name, start="next") as late, pytest.raises(TimeoutError, match="s old"):
                late.read(timeout=0)
        frame = reader.read(timeout=0)
        assert frame.age == 0 and frame.published == (1 << 64) - 1
        put(writer)
        writer.control.numbers[writer.control.table[2 % writer.control.layout.entries]] = 77
        assert reader.poll() is None
        put(writer)
        assert reader.read(timeout=5).number == 3


def test_a_clock_that_jumps_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with extmem.create_channel(name, 8, slots=2, when_full="wait", timeout=0.01) as writer:
        with extmem.open_channel(name) as reader:
            for hours in (-1000, 1000):
                monkeypatch.setattr(time, "time", lambda hours=hours: 1e9 + 3600 * hours)
                monkeypatch.setattr(time, "time_ns", lambda hours=hours: int(1e18) + 3600 * hours * 10**9)
                put(writer)
                frame = reader.read(timeout=5).hold()
                assert 0 <= frame.age < 60
                with extmem.open_channel(name, start="next") as late, pytest.raises(TimeoutError):
                    late.read(timeout=0.001)
                put(writer)
                with pytest.raises(ChannelFullError):
                    writer.write()
                frame.release()
    with pytest.raises(NameNotFoundError):
        extmem.open_channel(name)
