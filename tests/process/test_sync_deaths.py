"""S59: kill -9 of each role at each step. No wait is stuck, the error names the process, and a survivor goes on.

Two processes hand work back and forth by two timelines of the host, or one waits for a fence or a semaphore of another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

pytestmark = [
    pytest.mark.slow("processes are started and killed in each test"),
    pytest.mark.linux_only("there is no broker on Windows; tests of the host device there have their own"),
]

SETUP = """
import asyncio, time
import extmem
from extmem import vk
from extmem.errors import PeerGoneError
device = extmem.open_device(kind="host")

def outcome(call, *values, **options):
    # What a wait ends with, and when.
    try:
        call(*values, **options)
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic()
    return "reached", "", time.monotonic()

def wait_async(timeline, value):
    asyncio.run(timeline.wait_async(value, timeout=30))
None
"""

PRODUCER, CONSUMER = "producer", "consumer"
STEPS = [
    (PRODUCER, "ready = device.timeline(name='ready')"),
    (CONSUMER, "ready = extmem.open_timeline('ready')\ndone = device.timeline(name='done')"),
    (PRODUCER, "done = extmem.open_timeline('done')"),
    (PRODUCER, "ready.signal(1)"),
    (CONSUMER, "ready.wait(1, timeout=20)"),
    (CONSUMER, "done.signal(1)"),
    (PRODUCER, "done.wait(1, timeout=20)\nready.signal(2)"),
    (CONSUMER, "ready.wait(2, timeout=20)\ndone.signal(2)"),
]
WAITS = {PRODUCER: "done", CONSUMER: "ready"}
"""What each role waits for."""
BOTH_OPEN = 3
"""The number of steps after which each role has what it waits for."""


@pytest.fixture
def producer(own_runtime: Runtime) -> Iterator[Peer]:
    yield from peer(own_runtime)


@pytest.fixture
def consumer(own_runtime: Runtime) -> Iterator[Peer]:
    yield from peer(own_runtime)


def peer(runtime: Runtime) -> Iterator[Peer]:
    with Peer(env=runtime.environment) as started:
        started(SETUP)
        yield started


def killed(one: Peer) -> tuple[int, float]:
    """Kill the process. Return its pid and the time."""
    pid = int(one("import os\nos.getpid()"))
    os.kill(pid, signal.SIGKILL)
    return pid, time.monotonic()


@pytest.mark.parametrize("victim", [PRODUCER, CONSUMER])
@pytest.mark.parametrize(
    ("how", "steps"),
    [
        *(("timeline.wait", steps) for steps in range(BOTH_OPEN, len(STEPS) + 1)),
        *((how, steps) for how in ("wait_async", "extmem.wait_any", "before") for steps in (BOTH_OPEN, 6)),
    ],
)
def test_S59_killed_after_any_step_the_other_is_told_and_goes_on(
    producer: Peer, consumer: Peer, victim: str, steps: int, how: str
) -> None:
    peers = {PRODUCER: producer, CONSUMER: consumer}
    for who, step in STEPS[:steps]:
        peers[who](step)
    survivor = peers[CONSUMER if victim == PRODUCER else PRODUCER]
    survivor(f"timeline = {WAITS[CONSUMER if victim == PRODUCER else PRODUCER]}\nowed = timeline.value + 7")
    wait = {
        "timeline.wait": "outcome(timeline.wait, owed, timeout=30)",
        "before": "outcome(timeline.wait, owed, timeout=30)",
        "wait_async": "outcome(wait_async, timeline, owed)",
        "extmem.wait_any": "outcome(extmem.wait_any, [(timeline, owed), (timeline, owed + 1)], timeout=30)",
    }[how]
    if how != "before":
        survivor.start(wait)
    pid, when = killed(peers[victim])
    if how == "before":
        wait_until(lambda: survivor("timeline.peer_gone is not None"), "the mark")
        survivor.start(wait)
    kind, message, told = survivor.finish()
    assert kind == "PeerGoneError" and f"process {pid}" in message, message
    assert told - when < 20  # the time limit of the wait is 30
    # A survivor repairs: it signals what was owed, marked so that it is not taken for success.
    assert survivor("timeline.signal(owed)\ntimeline.wait(owed, timeout=0)\ntimeline.value == owed")
    assert survivor("timeline.peer_gone.pid, timeline.peer_gone.repaired") == (pid, True)


def test_S59_a_signaler_that_closed_the_timeline_and_opened_it_again(
    own_runtime: Runtime, producer: Peer, consumer: Peer
) -> None:
    consumer("ready = device.timeline(name='ready')")
    with contextlib.contextmanager(peer)(own_runtime) as third:
        third("ready = extmem.open_timeline('ready')")  # it may signal, too: what the page says decides
        producer("ready = extmem.open_timeline('ready')\nready.signal(1)\npage = ready.record.page\nready.close()")
        producer("ready = extmem.open_timeline('ready')\nready.signal(2)")
        consumer.start("outcome(ready.wait, 5, timeout=30)")
        pid, _ = killed(producer)
        kind, message, _ = consumer.finish()
    assert kind == "PeerGoneError" and f"process {pid}" in message, message


@pytest.mark.parametrize("waiting", ["ready.wait, 5, timeout=30", "extmem.wait_all, [(ready, 5)], timeout=30"])
def test_S59_the_broker_killed_with_the_signaler_is_told_of_by_the_next_broker(
    own_runtime: Runtime, producer: Peer, consumer: Peer, waiting: str
) -> None:
    for who, step in STEPS[:5]:
        (producer if who == PRODUCER else consumer)(step)
    consumer.start(f"outcome({waiting})")
    own_runtime.kill_broker()
    pid, _ = killed(producer)
    kind, message, _ = consumer.finish()
    assert kind == "PeerGoneError" and f"process {pid}" in message, message


def test_S59_the_broker_killed_alone_changes_nothing(own_runtime: Runtime, producer: Peer, consumer: Peer) -> None:
    for who, step in STEPS[:5]:
        (producer if who == PRODUCER else consumer)(step)
    consumer.start("outcome(ready.wait, 5, timeout=30)")
    own_runtime.kill_broker()
    producer("ready.signal(5)")
    assert consumer.finish()[0] == "reached"
    assert consumer("ready.peer_gone") is None
    own_runtime.kill_broker(required=False)
    consumer.start("outcome(ready.wait, 6, timeout=30)")
    pid, _ = killed(producer)
    kind, message, _ = consumer.finish()
    assert kind == "PeerGoneError" and f"process {pid}" in message, message


@pytest.mark.parametrize("signaled", [False, True])
def test_S59_a_fence_whose_signaler_is_killed(producer: Peer, consumer: Peer, signaled: bool) -> None:
    named = "vk.ExportFenceWin32HandleInfoKHR(None, 0x1F0003, 'fence')"
    consumer(f"fence = device.create_fence(vk.FenceCreateInfo(0, vk.ExportFenceCreateInfo(0x2, {named})))")
    producer("fence = device.create_fence(vk.FenceCreateInfo())")
    producer("device.import_fence_win32_handle(vk.ImportFenceWin32HandleInfoKHR(fence, 0, 0x2, None, 'fence'))")
    if signaled:
        producer("device.queue_submit([], fence)")
    else:
        consumer.start("outcome(fence.wait, timeout=30)")
    pid, _ = killed(producer)
    if signaled:
        # What was signaled stays signaled.
        assert consumer("outcome(fence.wait, timeout=30)[0]") == "reached"
        consumer.start("fence.reset()\noutcome(fence.wait, timeout=30)")
    kind, message, _ = consumer.finish()
    assert kind == "PeerGoneError" and f"process {pid}" in message, message


def test_many_deaths_leave_nothing(own_runtime: Runtime, consumer: Peer) -> None:
    consumer("ready = device.timeline(name='ready')\nfrom extmem.manager import manager")
    before = consumer("s = manager().status()\n(s.payloads, s.fds)")
    for number in range(12):
        with Peer(env=own_runtime.environment) as doomed:
            doomed("import extmem\nready = extmem.open_timeline('ready')")
            doomed(f"ready.signal({3 * number + 1})")
            consumer.start(f"outcome(ready.wait, {3 * number + 2}, timeout=30)[0]")
            os.kill(int(doomed("import os\nos.getpid()")), signal.SIGKILL)
            assert consumer.finish() == "PeerGoneError"
            consumer(f"ready.signal({3 * number + 2})")
    wait_until(lambda: consumer("s = manager().status()\n(s.payloads, s.fds)") == before, "the end of the dead")
