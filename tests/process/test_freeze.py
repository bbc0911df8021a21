"""Memory that was frozen: nobody writes to it any more, in no process, also after the broker was killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime

SETUP = """
import ctypes, fcntl, mmap, os
import numpy as np
import extmem
from extmem.errors import *
RW, READ = extmem.Access.READ_WRITE, extmem.Access.READ

def outcome(call, *values, **options):
    # What a call ends with.
    try:
        return call(*values, **options)
    except Exception as error:
        return type(error).__name__, str(error)

def refusals():
    # How each attempt to write ends.
    return [
        outcome(extmem.open, 'frozen', access=RW)[0],
        outcome(extmem.open_handle, 'frozen', RW)[0],
        outcome(m.fill, 1)[0],
        outcome(m.write, b'x')[0],
        outcome(m.update)[0],
    ]
None
"""
SHARE = "m = extmem.open_device(kind='host').allocate(64, name='frozen', access=RW); m.fill(7)"
OPEN = "m = extmem.open('frozen', access={})"
DENIED = ["AccessDeniedError"] * 5
Start = Callable[..., Peer]


@pytest.fixture
def start(own_runtime: Runtime) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def started(*steps: str) -> Peer:
            peer = stack.enter_context(Peer(env=own_runtime.environment))
            for step in (SETUP, *steps):
                peer(step)
            return peer

        yield started


def test_nobody_writes_to_frozen_memory(start: Start) -> None:
    writer, reader = start(SHARE), start(OPEN.format("READ"))
    assert writer("m.frozen, m.read_only") == (False, False)
    writer("m.freeze(); m.freeze()")
    assert writer("m.frozen, m.read_only, refusals(), bytes(m.read_bytes(0, 2))") == (True, True, DENIED, b"\7\7")
    assert reader("m.frozen, refusals(), extmem.open('frozen').read_only") == (True, DENIED, True)
    assert "frozen" in writer("outcome(m.fill, 1)[1]") and "frozen" in reader(
        "outcome(extmem.open, 'frozen', access=RW)[1]"
    )


def test_the_kernel_keeps_those_out_who_have_the_file_open_for_writing(start: Start) -> None:
    writer = start(SHARE, "fd = os.dup(m.record.allocation.fd)")
    assert writer("os.pwrite(fd, b'a', 0)") == 1
    writer("m.freeze()")
    attempts = writer(
        """
mapped = outcome(mmap.mmap, fd, 64, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0]
again = outcome(os.open, f'/proc/self/fd/{fd}', os.O_RDWR)
written = outcome(os.pwrite, fd, b'b', 0)[0], outcome(os.pwrite, again, b'b', 0)[0] if type(again) is int else again[0]
mapped, written, outcome(os.ftruncate, fd, 0)[0], bytes(m.read_bytes(0, 1))
"""
    )
    assert attempts[:3] == ("PermissionError", ("PermissionError", "PermissionError"), "PermissionError")
    assert attempts[3] == b"a"


@pytest.mark.parametrize("holder", ["other", "own"])
def test_those_who_have_it_open_for_writing_are_named(start: Start, holder: str) -> None:
    writer, other = start(SHARE), start(OPEN.format("RW"))
    if holder == "own":
        other("m.close()")
        writer("second = extmem.open_device(kind='host').open('frozen', access=RW)")
    kind, text = writer("outcome(m.freeze)")
    assert kind == "LiveViewError"
    assert f"in process {other.pid};" in text if holder == "other" else "another memory object of this process" in text
    assert writer("m.frozen, m.fill(3)") == (False, None)
    (other if holder == "other" else writer)("(globals().get('second') or m).close()")
    assert writer("m.freeze(); m.frozen") is True


def test_a_mapping_that_extmem_does_not_know_prevents_it(start: Start) -> None:
    writer = start(SHARE, "fd = os.dup(m.record.allocation.fd); mapped = mmap.mmap(fd, 64)")
    kind, text = writer("outcome(m.freeze)")
    assert kind == "LiveViewError" and "mapped its file for writing" in text
    assert writer("m.frozen, m.read_only, m.fill(3), extmem.open('frozen', access=RW).close()") == (
        False, False, None, None,
    )  # fmt: skip
    assert writer("mapped.close(); m.freeze(); m.frozen") is True


def test_a_view_prevents_it(start: Start) -> None:
    writer = start(SHARE)
    assert writer("a = m.numpy(); outcome(m.freeze)[0]") == "LiveViewError"
    writer("a[0] = 1; del a; m.freeze()")
    assert writer("a = m.numpy(); a.flags.writeable, int(a[0]), outcome(a.__setitem__, 0, 2)[0]") == (
        False, 1, "ValueError",
    )  # fmt: skip


def test_handles_and_tickets_with_the_right_to_write_give_what_is_left_of_it(start: Start) -> None:
    writer = start(SHARE, "import pickle; h = m.export_handle(); sent = pickle.dumps(m); m.freeze()")
    reader = start("import pickle")
    assert writer("other = extmem.open(h); other.read_only, other.frozen, outcome(other.fill, 1)[0]") == (
        True, True, "AccessDeniedError",
    )  # fmt: skip
    assert reader(f"p = pickle.loads({writer('sent')!r}); p.read_only, p.frozen, p.read_bytes(0, 1)[0]") == (
        True, True, 7,
    )  # fmt: skip


def test_an_update_ends_before_and_none_begins_after(start: Start) -> None:
    writer, other = start(SHARE), start("one = extmem.open_device(kind='host').allocate(8)")
    writer("block = m.update(); block.__enter__(); None")
    assert writer("outcome(m.freeze)[0]") == "HandleStateError"  # the block of this thread
    kind = writer(
        """
import threading
found = []
thread = threading.Thread(target=lambda: found.append(outcome(m.freeze, timeout=0.01)[0]))
thread.start(); thread.join()
found
"""
    )
    assert kind == ["WaitTimeoutError"]
    writer("block.__exit__(None, None, None); m.freeze()")
    assert writer("m.generation, m.torn, outcome(m.update)[0]") == (2, False, "AccessDeniedError")
    assert other("one.frozen") is False


def test_those_who_wait_are_woken(start: Start) -> None:
    writer, reader = start(SHARE), start(OPEN.format("READ"))
    reader.start("m.wait(timeout=60), m.frozen")
    writer("m.freeze()")
    assert reader.finish() == (0, True)
    assert reader("m.wait(after=0, timeout=60)") == 0


def test_torn_memory_is_not_frozen(start: Start) -> None:
    writer = start(SHARE, "try:\n    with m.update(): raise OSError\nexcept OSError: pass")
    assert writer("outcome(m.freeze)[0], m.frozen") == ("PeerGoneError", False)
    assert writer("with m.update(): pass\nm.freeze()\nm.frozen") is True


def test_it_stays_frozen_when_the_broker_is_killed(own_runtime: Runtime, start: Start) -> None:
    writer, reader = start(SHARE, "h = m.export_handle(); m.freeze()"), start(OPEN.format("READ"))
    own_runtime.kill_broker()
    assert reader("m.frozen, refusals()") == (True, DENIED)
    assert writer("refusals(), extmem.open(h).read_only") == (DENIED, True)
    assert reader("extmem.open('frozen').read_only") is True


def test_a_death_between_the_request_and_the_seal_freezes_nothing(start: Start) -> None:
    writer, other = start(SHARE), start(OPEN.format("READ"))
    writer(
        """
from extmem.core import freezing
def end(record):
    os.kill(os.getpid(), 9)
freezing._seal = end
"""
    )
    writer.start("m.freeze()")
    writer.wait(expect=-9)
    assert other("m.frozen, extmem.open('frozen', access=RW).fill(1)") == (False, None)


def test_named_arrays_are_frozen_together(start: Start) -> None:
    writer = start("m = extmem.share({'w': np.zeros(3), 'b': np.ones(2)}, 'frozen', access=RW)")
    writer("with m.update(['w']): m['w'].numpy()[:] = 5")
    writer("m.freeze()")
    reader = start(OPEN.format("READ"))
    assert reader("m.frozen, m['w'].generation, m['b'].generation, m['w'].numpy().tolist()") == (
        True, 2, 0, [5, 5, 5],
    )  # fmt: skip
    assert reader("outcome(extmem.open, 'frozen', access=RW)[0]") == "AccessDeniedError"


def test_a_part_that_was_shared_is_frozen_with_the_whole(start: Start) -> None:
    writer = start(SHARE, "part = m[2:5].share(name='frozen part', access=RW)")
    reader = start("p = extmem.open('frozen part', access=READ)")
    writer("del part; m.freeze()")
    assert reader("p.frozen, p.wait(after=0, timeout=60)") == (True, 0)
    assert reader("outcome(extmem.open, 'frozen part', access=RW)[0]") == "AccessDeniedError"
    writer("other = m[3:6].share(name='other part')")
    assert reader("q = extmem.open('other part'); q.frozen, q.read_only, q.read_bytes(0, 1)[0]") == (True, True, 7)
