"""What the client does besides requests: one deadline for all threads, lost names, and no thread during a fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from extmem.manager.linux.connection import Connection
from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until
from extmem.wire.runtime_dir import RuntimeDir
from tests.process.broker.conftest import Start
from tests.process.broker.test_resume import IMPATIENT, stopped

# -- one deadline

THREADS = 8
CALLS = {
    "the same call": ["m.snapshot()"] * THREADS,
    "any calls": [
        "share('new')",
        "m.import_by_name('x')",
        "m.offer(reference=a.number)",
        "m.kmt_alive(1)",
        "m.release(a.number)",
        "m.close(h)",
        "m.get_handle(a.number)",
        "m.inherit_socket()",
    ],
}
IN_THREADS = """
a = share('x', b'hello')
h = m.get_handle(a.number)
asked, said = [], []
ask = m.client._round_trip
def counted(*what):
    asked.append(what)
    return ask(*what)
m.client._round_trip = counted
def call(text):
    try:
        said.append(repr(eval(text)))
    except PeerGoneError as error:
        said.append(str(error))
def queued(thread):
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code.co_name == '_queue' and 'began' in frame.f_locals
def in_threads(calls):
    '''The first is asking when the others come.'''
    threads = [threading.Thread(target=call, args=(text,)) for text in calls]
    threads[0].start()
    while not asked:
        time.sleep(0.001)
    for thread in threads[1:]:
        thread.start()
    while asked and not said and not all(map(queued, threads[1:])):
        time.sleep(0.001)
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("calls", CALLS)
def test_all_threads_give_up_together_on_a_silent_broker(own_runtime: Runtime, start: Start, calls: str) -> None:
    """The first thread gets no answer, and the others, which have waited for the same broker, do not try one by one."""
    peer = start()
    peer(f"{IMPATIENT.format(timeout=2)}\nimport sys\n{IN_THREADS}")
    pid = own_runtime.broker_pid()
    with stopped(pid):
        peer("in_threads(calls)", calls=CALLS[calls])
        assert peer("len(asked)") == 1
        said = peer("said")
    assert len(said) == THREADS
    for sentence in said:
        assert f"the broker in {own_runtime.path} (process {pid}) did not answer within 2 s" in sentence
        assert f"`kill -9 {pid}`" in sentence and "broker stop" not in sentence
        assert f"see {RuntimeDir(own_runtime.path).log}." in sentence
    assert peer("reads('x'), len(m.snapshot()), m.kmt_alive(1)") == (b"hello", 1, False)


def test_the_log_is_named_only_if_it_exists(tmp_path: Path) -> None:
    directory = RuntimeDir(tmp_path)
    assert directory.see_log() == "" and str(directory.log) not in Connection(directory)._silence()
    directory.log.touch()
    assert directory.see_log() == f"; see {directory.log}" in Connection(directory)._silence()


def test_a_thread_whose_turn_comes_in_time_asks(own_runtime: Runtime, start: Start) -> None:
    """The broker continues before the deadline: the first thread gets its answer, and so do the others."""
    peer = start()
    peer(f"{IMPATIENT.format(timeout=30)}\nimport sys\n{IN_THREADS}")
    pid = own_runtime.broker_pid()
    with stopped(pid):
        peer("threading.Thread(target=in_threads, args=(calls,)).start()", calls=["m.kmt_alive(1)"] * THREADS)
        wait_until(lambda: peer("len(asked)") == 1, "the first to ask")
    wait_until(lambda: len(peer("said")) == THREADS, "all to be answered")
    assert set(peer("said")) == {"False"} and peer("len(asked)") == THREADS


# -- what finalizers release

GIVEN_UP = """
import gc, warnings
from tests.behaviours.steps import *
from extmem.manager import manager
warnings.simplefilter('ignore', ResourceWarning)
device = extmem.open_device(kind='host')
lock = manager().client.lock
def names():
    return [name for row in manager().snapshot() for name in row.names]
def times(count, verb):
    # All of it is one turn of this thread: the watcher cannot be what frees the name.
    with lock:
        for _ in range(count):
            verb()
        return names()
"""
WAYS = {
    "memory": "memory = export(device, name='n')",
    "memory and handle": "memory = export(device, name='n')\nhandle = nt(device, memory)",
    "a handle that is left": "memory = export(device, name='n')\nhandle = nt(device, memory)\nmemory.close()",
    "an array that is left": "memory = export(device, name='n')\narray = memory.numpy()\ndel memory\narray[0] = 1",
    "two imports": "memory = export(device, name='n')\nagain = by_name(device, 'n')\nhandle = extmem.open_handle('n')",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_del_gave_up_is_free_for_the_next_call(own_runtime: Runtime, way: str) -> None:
    with Peer(env=own_runtime.environment) as peer:
        peer(GIVEN_UP)
        source = "".join(f"    {line}\n" for line in WAYS[way].splitlines())
        peer(f"def verb():\n{source}")
        assert peer("times(50, verb)") == []
        assert peer("with export(device, name='n') as last: found = names()\nlen(found)") == 1


def test_what_is_still_held_is_not_given_up(own_runtime: Runtime) -> None:
    """The twin: the array keeps the memory, so the name is taken."""
    with Peer(env=own_runtime.environment) as peer:
        peer(GIVEN_UP)
        peer("memory = export(device, name='n')\narray = memory.numpy()\ndel memory")
        assert peer.fails("export(device, name='n')").is_a("NameTakenError")
        peer("del array")
        peer("export(device, name='n').close()")


# -- forks

THREADS_AT_FORK = """
import os
counts = []
os.register_at_fork(before=lambda: counts.append(len(os.listdir('/proc/self/task'))))  # runs after those of extmem
"""
SHARES = """
import extmem, os, pathlib, sys, time
from extmem.manager import manager
device = extmem.open_device(kind='host')
memory = device.allocate(64, name='kept')
def threads():
    return len(os.listdir('/proc/self/task'))
assert threads() == 3, threads()  # one watches, one frees what was lost
"""
FORKS = {
    "fork": "child = os.fork()\nif child == 0:\n    os._exit(0)\nos.waitpid(child, 0)",
    "many forks": """
for _ in range(20):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
""",
    "forkpty": "child, fd = os.forkpty()\nif child == 0:\n    os._exit(0)\nos.close(fd)\nos.waitpid(child, 0)",
    "multiprocessing": """
import multiprocessing
process = multiprocessing.get_context('fork').Process(target=print)
process.start()
process.join()
assert process.exitcode == 0
""",
    "a child that shares, too": """
child = os.fork()
if child == 0:
    with extmem.open_device(kind='host') as other, other.allocate(8, name='other'):
        sure = threads() == 3
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0)
        os.waitpid(grandchild, 0)
    os._exit(0 if sure and counts[-1] == 1 else 3)
assert os.waitpid(child, 0)[1] == 0
""",
}
WATCHED = """
assert counts and set(counts) == {1}, counts
assert threads() == 3, 'the watcher is there again'
print('forked', flush=True)
sys.stdin.readline()
memory.close()
device.close()
"""


@pytest.mark.parametrize("way", FORKS)
def test_no_thread_of_ours_is_there_at_a_fork_and_one_watches_afterwards(own_runtime: Runtime, way: str) -> None:
    source = THREADS_AT_FORK + SHARES + FORKS[way] + WATCHED
    with Child([sys.executable, "-c", source], env=own_runtime.environment, stdin=subprocess.PIPE) as child:
        wait_until(lambda: "forked" in child.output or not child.alive, "the fork")
        assert child.alive, child.output
        own_runtime.kill_broker()
        # it makes no call: the watcher announces the memory again
        wait_until(lambda: own_runtime.broker_pid() is not None, "another broker")
        with Peer(env=own_runtime.environment) as peer:
            peer("from extmem.manager import manager")
            wait_until(lambda: peer("len(manager().snapshot())") == 1, "the memory to be back")
        child.process.communicate(b"\n")
        child.wait()


def test_a_thread_that_stays_is_counted(own_runtime: Runtime) -> None:
    """The twin: the count at the fork is one of all threads."""
    source = THREADS_AT_FORK + SHARES + "import threading\nstop = threading.Event()\n"
    source += "thread = threading.Thread(target=stop.wait)\nthread.start()\n" + FORKS["fork"]
    source += "\nassert counts == [2], counts\nstop.set()\nthread.join()\nmemory.close()\ndevice.close()"
    with Child([sys.executable, "-c", source], env=own_runtime.environment) as child:
        child.wait()


LATER = """
import sys
from extmem.manager import Reference
a = share('x', b'hello')
b = share('y', b'other')
def lose(exported):
    reference = Reference(m)
    reference.record(exported.number)
def asking():
    frames = list(sys._current_frames().values())
    while frames:
        frame = frames.pop()
        if frame.f_code.co_name == '_round_trip': return True
        if frame.f_back is not None: frames.append(frame.f_back)
    return False
def fork():
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("forks", [1, 3])
def test_a_fork_does_not_wait_for_a_silent_broker(own_runtime: Runtime, start: Start, forks: int) -> None:
    """The thread that waits for an answer is not disturbed; it goes on afterwards, also with what is lost later."""
    peer = start()
    peer(IMPATIENT.format(timeout=60) + LATER)
    with stopped(own_runtime.broker_pid()):
        peer("lose(a)\nwhile not asking(): time.sleep(0.001)")
        peer("for _ in range(forks): fork()", forks=forks)
        assert peer("asking()"), "that fork was in the middle of its request"
    wait_until(lambda: peer("a.number not in m.client.state.references"), "the first to be freed")
    peer("lose(b)")  # no call follows: the thread still exists
    wait_until(lambda: peer("b.number not in m.client.state.references"), "the second to be freed")
    assert peer("m.snapshot()") == []
    own_runtime.kill_broker()
    assert peer("share('x') and len(m.snapshot())") == 1


def test_what_is_lost_after_a_fork_is_freed_without_a_call(own_runtime: Runtime, start: Start) -> None:
    """The twin: the broker answers."""
    peer = start()
    peer(LATER)
    peer("lose(a)\nfork()\nlose(b)")
    wait_until(lambda: peer("list(m.client.state.references)") == [], "both to be freed")


# -- names that are not found


def test_a_name_that_is_not_found_says_where_it_was_looked_for(own_runtime: Runtime, start: Start) -> None:
    peer = start()
    for call in ("m.import_by_name('gone')", "m.open_handle('gone', READ)"):
        error = peer.fails(call)
        assert error.is_a("NameNotFoundError") and f"The broker in {own_runtime.path} was asked." in error.message
    error = peer.fails("share('x') and share('x')")
    assert error.is_a("NameTakenError") and "was asked" not in error.message


def test_another_broker_of_this_user_is_named(start: Start, tmp_path: Path) -> None:
    """One program was started with XDG_RUNTIME_DIR, the other without it."""
    (tmp_path / "session").mkdir(mode=0o700)
    (tmp_path / "other").mkdir(mode=0o700)
    session = {"EXTMEM_RUNTIME_DIR": "", "XDG_RUNTIME_DIR": str(tmp_path / "session")}
    here = {"EXTMEM_RUNTIME_DIR": str(tmp_path / "other"), "XDG_RUNTIME_DIR": str(tmp_path / "session")}
    one, other = start(session), start(here)
    one("share('cam', b'hello')")
    message = other.fails("m.import_by_name('cam')").message
    assert f"The broker in {tmp_path / 'other'} was asked." in message
    assert f"Another broker of this user runs in {tmp_path / 'session' / 'extmem'}" in message
    one("m.stop(force=True)")
    other("m.stop(force=True)")
