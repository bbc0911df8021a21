"""Processes are identified by pidfd: other pid namespaces, numbers of other processes, forks that Python misses."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from tests.process.broker.conftest import Start
from tests.process.broker.steps import PEER, needs_root

UNSHARED = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

PROCESSES = """
import extmem, multiprocessing as mp, os, sys
def look(memory): memory.numpy().sum()
if __name__ == "__main__":
    for _ in range(300):                      # to pids that the other namespace has given to others, or not yet
        child = os.fork()
        if not child: os._exit(0)
        os.waitpid(child, 0)
    memory = extmem.open_device(kind="host").allocate(4)
    codes = []
    for _ in range(5):
        process = mp.get_context("spawn").Process(target=look, args=(memory,))
        process.start(); process.join(60); codes.append(process.exitcode)
    print(codes)
"""


def unshared(runtime: Runtime, source: str, tmp_path: Path) -> Child:
    """Run a Python program in a pid namespace of its own, with the same runtime directory."""
    needs_root()
    script = tmp_path / "program.py"
    script.write_text(source)
    return Child([*UNSHARED, sys.executable, str(script)], env=runtime.environment)


def test_children_in_another_pid_namespace_get_what_is_sent_to_them(
    own_runtime: Runtime, start: Start, tmp_path: Path
) -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    start()("share('keep', b'hello')")
    with unshared(own_runtime, PROCESSES, tmp_path) as child:
        child.wait(deadline=100)
        assert child.output.strip() == "[0, 0, 0, 0, 0]"


def test_a_broker_in_another_pid_namespace_serves_all_the_same(
    own_runtime: Runtime, start: Start, tmp_path: Path
) -> None:
    """The broker cannot read the pids of processes outside: it identifies them by their pidfds, or not at all."""
    source = "import os, sys\n" + PEER + "share('inside', b'hello')\nprint('ready', flush=True)\nsignal.pause()"
    with unshared(own_runtime, source, tmp_path) as child:
        wait_until(lambda: "ready" in child.output or not child.alive, "the broker inside")
        first, second = start({"EXTMEM_BROKER_START": "never"}), start({"EXTMEM_BROKER_START": "never"})
        second("m.kmt_alive(1)")
        assert first("reads('inside')") == b"hello"
        value = first(
            "a = share('x', b'outer')\nh = m.get_handle(a.number)\n"
            "t = m.offer(reference=a.number); m.bind_offer(t, pid)\n"
            "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=pid)",
            pid=second.pid,
        )
        assert second("text(m.import_by_handle(value))", value=value) == b"outer"
        assert second("text(m.claim(ticket))", ticket=first("t")) == b"outer"


DUPLICATES = (
    "import os, sys\n"
    + PEER
    + """
number = int({number})
with open("/proc/sys/kernel/ns_last_pid", "w") as file: file.write(str(number - 1))
child = os.fork()
if not child:
    import time
    time.sleep(60)
    os._exit(0)
assert child == number, (child, number)
a = share('mine', b'hello')
h = m.get_handle(a.number)
try: print("gave", m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=child))
except InvalidHandleError as error: print(error)
import signal
os.kill(child, signal.SIGKILL)
"""
)


def test_a_number_of_another_namespace_reaches_no_unrelated_process(
    own_runtime: Runtime, start: Start, tmp_path: Path
) -> None:
    victim = start()
    victim("a = share('x', b'hello')\nh = m.get_handle(a.number)")
    with unshared(own_runtime, DUPLICATES.format(number=victim.pid), tmp_path) as child:
        child.wait()
        assert "uses no shared memory" in child.output, child.output
    assert victim("[len(h.handles) for row in m.snapshot() for h in row.holders if h.pid == os.getpid()]") == [1]


WITHIN = (
    "import os, sys\n"
    + PEER
    + """
here, there = os.pipe(), os.pipe()
child = os.fork()
if not child:
    m.kmt_alive(1)
    os.write(here[1], b"!")
    value = int(os.read(there[0], 20))
    print(text(m.import_by_handle(value)), flush=True)
    os._exit(0)
os.read(here[0], 1)
a = share('mine', b'hello')
h = m.get_handle(a.number)
value = m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=child)
os.write(there[1], str(value).encode())
os.waitpid(child, 0)
"""
)


def test_within_one_namespace_the_right_process_is_reached(own_runtime: Runtime, start: Start, tmp_path: Path) -> None:
    start()("share('keep', b'hello')")
    with unshared(own_runtime, WITHIN, tmp_path) as child:
        child.wait()
        assert child.output.strip() == "b'hello'"


@pytest.mark.parametrize("into", ["0", "-1", "2**22 + 1", "2**40", "threading.get_native_id()"])
def test_what_is_no_process_is_refused(start: Start, into: str) -> None:
    peer = start()
    peer(
        "a = share('x', b'hello')\nh = m.get_handle(a.number)\nids = []\n"
        "def work(): ids.append(threading.get_native_id()); done.wait()\n"
        "done = threading.Event()\nt = threading.Thread(target=work, daemon=True); t.start()\n"
        "while not ids: time.sleep(0.001)"
    )
    into = into.replace("threading.get_native_id()", "ids[0]")
    call = f"m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into={into})"
    error = peer.fails(call)
    assert error.is_a("InvalidHandleError") and error.ntstatus == 0xC000000B and "no handle table" in error.message
    peer("done.set()")


FORKED_IN_C = """
import ctypes
libc = ctypes.PyDLL(None)
child = libc.fork()
if not child:
    while True: libc.pause()
child
"""
HELD = {
    "a name": ("share('x', b'hello')", "m.snapshot()"),
    "a handle": (
        "a = share('x', b'hello')\nh = m.get_handle(a.number)\nm.release(a.number)",
        "m.snapshot()",
    ),
    "what another made": (
        "i = m.import_by_name('theirs')\nh = m.open_handle('theirs', READ)",
        "[h for row in m.snapshot() for h in row.holders if h.pid != os.getpid()]",
    ),
}


@pytest.mark.parametrize("what", HELD)
def test_what_a_process_holds_ends_with_it_whoever_has_a_copy_of_its_connection(start: Start, what: str) -> None:
    """A fork in C, which Python does not notice, leaves a copy of the socket open in the child."""
    source, left = HELD[what]
    other = start()
    other("a = share('theirs', b'there')" if what == "what another made" else "m.kmt_alive(1)")
    holder = start()
    holder(source)
    pid = holder(FORKED_IN_C)
    try:
        assert other(left), "it is held"
        holder.kill()
        wait_until(lambda: other(left) == [], f"{what} to end with its process")
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_peers_are_distinguished(start: Start) -> None:
    """One process with two managers is one process; another process with the same objects is another one."""
    first, second = start(), start()
    first(
        "m.kmt_alive(1)\nfrom extmem.manager.linux.manager import LinuxManager\n"
        "other = LinuxManager()\nother.kmt_alive(1)"
    )
    second("a = share('x', b'hello')\nh = m.get_handle(a.number)")
    value = second(
        "m.duplicate(h, desired=None, inherit=False, same_attributes=False, close_source=False, into=pid)",
        pid=first.pid,
    )
    assert first("other.info(value).granted_access & 1", value=value) == 1
    assert isinstance(first, Peer)
