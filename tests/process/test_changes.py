"""Changes of memory in place between processes: one updater at a time, readers that are told, and deaths."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import extmem
from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

SETUP = """
import os, threading
import numpy as np
import extmem
from extmem.errors import *

def outcome(call, *values, **options):
    # What a call ends with.
    try:
        return call(*values, **options)
    except Exception as error:
        return type(error).__name__, str(error)

def hold(memory, **options):
    global block
    made = memory.update(**options)
    made.__enter__()
    block = made
    return memory.generation

def enter(memory, **options):
    with memory.update(**options):
        pass
    return memory.generation
None
"""
ROUNDS_IN_A_TEST = 300
SHARE = "m = extmem.open_device(kind='host').allocate(64, name='changes', access=extmem.Access.READ_WRITE)"
OPEN = "m = extmem.open('changes', access=extmem.Access.{})"
Start = Callable[..., Peer]


@pytest.fixture
def start(own_runtime: Runtime) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def started(*steps: str) -> Peer:
            peer = stack.enter_context(Peer(env=own_runtime.environment))
            peer(SETUP)
            for step in steps:
                peer(step)
            return peer

        yield started


def test_a_reader_is_told_of_an_update_and_sees_its_bytes(start: Start) -> None:
    writer, reader = start(SHARE), start(OPEN.format("READ"))
    assert reader("m.generation, m.torn") == (0, False)
    reader.start("m.wait(after=0, timeout=60), m.read_bytes(0, 1)[0]")
    assert writer("hold(m)") == 1
    assert writer("m.fill(7); block.__exit__(None, None, None); m.generation") == 2
    assert reader.finish() == (2, 7)


def test_the_second_updater_waits_for_the_first_and_then_for_its_time(start: Start) -> None:
    one, two = start(SHARE), start(OPEN.format("READ_WRITE"))
    one("hold(m)")
    kind, text = two("outcome(hold, m, timeout=0.01)")
    assert kind == "WaitTimeoutError" and "'changes', 64 bytes" in text
    two.start("enter(m, timeout=60)")
    one("block.__exit__(None, None, None)")
    assert two.finish() == 4
    assert one("enter(m, timeout=60)") == 6


def test_a_reader_may_not_update(start: Start) -> None:
    _writer, reader = start(SHARE), start(OPEN.format("READ"))
    assert reader("outcome(hold, m)")[0] == "AccessDeniedError"
    assert reader("m.generation") == 0


def test_the_death_of_an_updater_is_told_and_the_next_update_heals(start: Start) -> None:
    reader, writer, next_one = start(SHARE), start(OPEN.format("READ_WRITE")), start(OPEN.format("READ_WRITE"))
    writer("enter(m)")
    assert writer("hold(m)") == 3
    reader.start("outcome(m.wait, after=2, timeout=60)")
    writer.kill()
    kind, text = reader.finish()
    next_one.start("hold(m)")
    assert kind == "PeerGoneError" and f"process {writer.pid} ended during an update" in text and "generation 2" in text
    assert next_one.finish() == 5
    assert next_one("m.torn") is False
    assert next_one("block.__exit__(None, None, None); m.generation, m.torn") == (6, False)
    assert reader("m.wait(after=2, timeout=60), m.torn") == (6, False)


def test_memory_is_torn_until_the_next_update(start: Start) -> None:
    reader, writer = start(SHARE), start(OPEN.format("READ_WRITE"))
    writer("hold(m)")
    writer.kill()
    wait_until(lambda: reader("m.torn"), "the mark")
    assert reader("outcome(m.wait, timeout=60)")[0] == "PeerGoneError"
    assert reader("outcome(m.stable().__enter__)")[0] == "PeerGoneError"
    assert reader("enter(m)") == 4
    assert reader("m.torn, m.stable().__enter__().generation") == (False, 4)


def test_a_death_outside_an_update_tears_nothing(start: Start) -> None:
    reader, writer = start(SHARE), start(OPEN.format("READ_WRITE"))
    writer("enter(m)")
    writer.kill()
    assert reader("enter(m), m.torn") == (4, False)


@pytest.mark.linux_only("there is no broker on Windows that could be killed")
def test_a_death_that_no_broker_sees_is_found_all_the_same(own_runtime: Runtime, start: Start) -> None:
    reader, writer = start(SHARE), start(OPEN.format("READ_WRITE"))
    writer("hold(m)")
    os.kill(writer.pid, signal.SIGSTOP)
    own_runtime.kill_broker()
    writer.kill()
    assert reader("m.torn") is True
    assert reader("outcome(m.wait, after=0, timeout=60)")[0] == "PeerGoneError"
    assert reader("enter(m, timeout=60), m.torn") == (4, False)


@pytest.mark.linux_only("there is no broker on Windows that could be killed")
def test_an_update_outlives_the_broker(own_runtime: Runtime, start: Start) -> None:
    one, two = start(SHARE), start(OPEN.format("READ_WRITE"))
    one("hold(m)")
    own_runtime.kill_broker()
    assert two("outcome(hold, m, timeout=0.1)")[0] == "WaitTimeoutError"
    assert one("block.__exit__(None, None, None); m.generation") == 2
    assert two("enter(m, timeout=60)") == 4


@pytest.mark.linux_only("Windows has no fork")
def test_a_forked_child_ends_no_update_of_its_parent(start: Start) -> None:
    writer = start(SHARE)
    writer("hold(m)")
    child = writer(
        """
pid = os.fork()
if not pid:
    block.__exit__(None, None, None)
    os._exit(0 if outcome(enter, m)[0] == 'HandleStateError' else 1)
os.waitpid(pid, 0)[1]
"""
    )
    assert child == 0
    assert writer("m.generation, outcome(hold, m, timeout=0.01)[0]") == (1, "HandleStateError")


@pytest.mark.linux_only("Windows has no file descriptors of payloads")
def test_memory_of_a_file_descriptor_is_read_and_not_updated(start: Start) -> None:
    writer = start(SHARE)
    found = writer(
        """
with m.export_handle(extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD) as handle:
    other = extmem.open(handle)
enter(m), other.generation, outcome(hold, other)
"""
    )
    assert found[:2] == (2, 2) and found[2][0] == "UnsupportedError" and "file descriptor" in found[2][1]


@pytest.mark.linux_only("the Windows kernel gives no name to another object")
def test_a_wait_ends_when_other_memory_gets_the_name(start: Start) -> None:
    writer, reader = start(SHARE), start(OPEN.format("READ"))
    writer("enter(m)")
    reader.start("m.wait(after=2, timeout=60), m.superseded")
    writer("other = m.device.allocate(64, name='changes', replace=True)")
    assert reader.finish() == (2, True)


def test_named_arrays_have_a_generation_each(start: Start) -> None:
    writer = start("m = extmem.share({'w': np.zeros(3), 'b': np.ones(2)}, 'changes', access=extmem.Access.READ_WRITE)")
    reader = start(OPEN.format("READ"))
    writer("with m.update(['w']): m['w'].numpy()[:] = 5")
    assert reader("m.generation, m['w'].generation, m['b'].generation") == (2, 2, 0)
    writer("with m.update('b'): pass")
    assert reader("m.generation, m['w'].generation, m['b'].generation, m['w'][1:].generation") == (4, 2, 4, 2)
    writer("with m.update(): pass")
    assert reader("m['w'].generation, m['b'].generation") == (6, 6)
    kind, text = writer("outcome(m.update, ['other'])")
    assert kind == "KeyError" and "'other'" in text
    # Nobody knows which arrays an update changed that was not finished.
    writer("try:\n    with m.update(['w']): raise OSError\nexcept OSError: pass")
    writer("with m.update(['b']): pass")
    assert reader("m.generation, m['w'].generation, m['b'].generation") == (10, 10, 10)


@pytest.mark.linux_only("a section of Windows has one name")
def test_a_part_that_was_shared_counts_with_the_whole(start: Start) -> None:
    writer = start(SHARE, "part = m[2:5].share(name='changes part', access=extmem.Access.READ_WRITE)")
    reader = start("p = extmem.open('changes part', access=extmem.Access.READ_WRITE)")
    writer("hold(m)")
    assert reader("p.generation, outcome(hold, p, timeout=0.01)[0]") == (1, "WaitTimeoutError")
    writer("block.__exit__(None, None, None)")
    assert reader("enter(p, timeout=60)") == 4
    assert writer("m.generation") == 4


def _no_torn_read_passes(start: Start, rounds: int) -> None:
    """A process changes all elements in place, and no read that `stable` accepts has elements of two updates."""
    share = SHARE.replace("allocate(64", "allocate(20_000, 'uint32'")
    writer, reader = start(share), start(OPEN.format("READ"))
    writer.start(
        """
array = m.numpy()
value = 0
while not (m.generation >= ROUNDS * 2):
    value += 1
    with m.update():
        array[:] = value
del array
value
""".replace("ROUNDS", str(rounds))
    )
    accepted, refused, torn, unnoticed = reader(
        """
array = m.numpy()
accepted = refused = torn = unnoticed = 0
while m.generation < ROUNDS * 2:
    with m.stable() as look:
        copy = array.copy()
    differs = bool((copy != copy[0]).any())
    if look.changed:
        refused += 1
        torn += differs
    else:
        accepted += 1
        unnoticed += differs or 2 * int(copy[0]) != look.generation
del array
accepted, refused, torn, unnoticed
""".replace("ROUNDS", str(rounds)),
        deadline=300,
    )
    assert writer.finish(deadline=60) == rounds
    assert unnoticed == 0 and accepted + refused > 0
    assert torn <= refused


def test_no_torn_read_is_accepted(start: Start) -> None:
    _no_torn_read_passes(start, ROUNDS_IN_A_TEST)


def test_no_torn_read_is_accepted_in_many_rounds(start: Start) -> None:
    _no_torn_read_passes(start, 5_000)


def test_a_read_during_an_update_is_refused() -> None:
    """The planted fault of the test above: the bytes change between the two looks."""
    with extmem.open_device(kind="host") as device, device.allocate(2, "uint32") as memory:
        array = memory.numpy()
        with memory.stable() as look:
            first = int(array[0])
            with memory.update():
                array[:] = 5
            read = np.array([first, array[1]])
        assert look.changed and read.tolist() == [0, 5]
        with memory.stable() as look:
            read = array.copy()
        assert look.changed is False and read.tolist() == [5, 5] and look.generation == 2
        del array
