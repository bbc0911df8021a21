"""`no_fork`: a fork waits for the late imports of other threads, so that the child can make them itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from extmem.testing.children import python_environment
from extmem.testing.runtime import Runtime

pytestmark = pytest.mark.linux_only("Windows has no fork")
DEADLINE = 60

FORK = """
import importlib.machinery, math, os, signal, sys, threading, time
events, last_hook = [], lambda: None
# Registered first: called last before the fork, and first after it.
os.register_at_fork(before=lambda: last_hook(), after_in_parent=lambda: events.append("forked"))
import extmem, extmem.forks
extmem.forks._LONGEST_S = math.inf
MAIN, PARENT = threading.main_thread().ident, os.getpid()

def waits_in_forks(thread):
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_code.co_filename == extmem.forks.__file__

def fork(child):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        child()
        os._exit(0)
    return pid
"""
IMPORT = """
started, forked = threading.Event(), threading.Event()

class Delaying:
    # Keeps a module's import in progress until the fork waits for its end, or is over.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def delayed(module):
            if os.getpid() == PARENT:
                started.set()
                while not forked.is_set() and not waits_in_forks(MAIN):
                    time.sleep(0.001)
            execute(module)
        spec.loader.exec_module = delayed
        return spec

memory = extmem.open_device(kind="host").allocate(64) if OPENED else None
assert MODULE not in sys.modules
sys.meta_path.insert(0, Delaying)
thread = threading.Thread(target=lambda: eval(CALL))
thread.start()
started.wait()

def child():
    global memory
    memory = extmem.open_device(kind="host").allocate(64)
    eval(CALL)

pid = fork(child)
forked.set()
thread.join()
print(os.waitpid(pid, 0)[1])
"""


def run(code: str) -> str:
    with Runtime() as own_runtime:
        done = subprocess.run(
            [sys.executable, "-c", FORK + code],
            env=python_environment(own_runtime.environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("module", "call", "opened"),
    [
        ("extmem.interop.numpy_views", "memory.numpy()", True),
        ("numpy", "memory.numpy()", True),
        ("extmem.api.pickling", "__import__('pickle').dumps(memory)", True),
        ("extmem.api", "extmem.open_device(kind='host')", False),
    ],
)
def test_a_child_can_import_what_another_thread_imported_at_the_fork(module: str, call: str, opened: bool) -> None:
    assert run(f"MODULE, CALL, OPENED = {module!r}, {call!r}, {opened}\n" + IMPORT) == "0"


def test_a_fork_does_not_wait_for_a_block_of_its_own_thread() -> None:
    code = """
with extmem.forks.no_fork():
    pid = fork(lambda: extmem.forks.no_fork().release())
print(os.waitpid(pid, 0)[1])
"""
    assert run(code) == "0"


def test_a_block_that_begins_during_a_fork_waits_for_its_end() -> None:
    code = """
def block():
    with extmem.forks.no_fork():
        events.append("block")

def last_hook():
    thread.start()
    while thread.is_alive() and not waits_in_forks(thread.ident):
        time.sleep(0.001)

thread = threading.Thread(target=block)
os.waitpid(fork(lambda: None), 0)
thread.join()
print(*events)
"""
    assert run(code) == "forked block"
