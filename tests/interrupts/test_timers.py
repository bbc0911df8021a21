"""A timer's signal raises in the middle of calls, as Ctrl-C does: no name, fd or memory object is lost.

`test_interrupts` tries the points of each operation one by one. Here the time determines the point, as in programs.
"""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime

pytestmark = pytest.mark.linux_only("Windows has only Ctrl-C, and no signal that a process can send to itself")

SOURCE = """
import gc, pickle, random, signal, time, warnings
from extmem import errors
from extmem.testing.leaks import descriptors, object_manager
warnings.simplefilter("ignore", ResourceWarning)
device = extmem.open_device(kind="host")
kept = device.allocate(64, name="kept")
pickle.loads(pickle.dumps(kept)).close()
draw = random.Random(11)

class Interrupted(Exception): pass

def stop(*_):
    raise Interrupted

def held():
    gc.collect()
    device.allocate(16, name="last").close()  # a request, which gives back what was left
    return len(descriptors()), object_manager(os.getpid())

def interrupted(operation, hits):
    '''Call the operation until that many calls were interrupted. Return the lost names, and what is held besides.'''
    signal.signal(signal.SIGALRM, stop)
    lost, seen, longest, until = [], 0, 1e-3, time.monotonic() + 45
    before = held()
    while seen < hits and time.monotonic() < until:
        name, made = f"n{seen}", []
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, longest))
                operation(name, made)
                longest = max(longest * 0.9, 5e-5)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            seen += 1
            longest = min(longest * 1.2, 5e-3)
        for thing in made:
            thing.close()
        del made
        try:
            device.allocate(16, name=name).close()
        except errors.NameTakenError:
            lost.append(name)
    after = held()
    return seen, lost, [] if after == before else [before, after]
"""
VERBS = {
    "allocate": "made.append(device.allocate(4096, name=name))",
    "allocate and close": "device.allocate(4096, name=name).close()",
    "allocate and lose": "device.allocate(4096, name=name)",
    "close again": "made.append(device.allocate(4096, name=name)); made[0].close()",
    "open": "made.append(extmem.open('kept'))",
    "open a handle": "extmem.open_handle('kept').close()",
    "close a handle again": "made.append(kept.export_handle()); made[0].close()",
    "pickle": "pickle.loads(pickle.dumps(kept)).close()",
}


@pytest.mark.parametrize("operation", VERBS)
def test_nothing_is_lost_by_a_timer(own_runtime: Runtime, operation: str) -> None:
    with Peer(env=own_runtime.environment) as peer:
        peer(SOURCE)
        peer(f"def operation(name, made):\n    {VERBS[operation]}")
        seen, lost, more = peer("interrupted(operation, 60)")
        assert seen == 60 and not lost
        tickets = [key for key in more and more[1][1] - more[0][1] if "tickets" not in key]
        assert not tickets and (not more or more[0][0] == more[1][0]), more


def test_an_operation_that_loses_names_is_found_out(own_runtime: Runtime) -> None:
    with Peer(env=own_runtime.environment) as peer:
        peer(SOURCE + "forgotten = []")
        peer("def operation(name, made):\n    forgotten.append(device.allocate(4096, name=name))\n    time.sleep(1)")
        seen, lost, more = peer("interrupted(operation, 40)")
        assert seen == 40 and lost and more
