"""A fork after use, for timelines, semaphores and fences: the child may not use its parent's and does not hang; the
parent's go on.
"""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer
from tests.behaviours.steps import PEER
from tests.process.test_fork import DAEMON, FORKED

MADE = """
import asyncio, pickle, threading
from tests import sync_operations
from tests.sync_operations import semaphore_info, fence_info, SemaphoreType, FenceType
timeline = device.timeline(name=name)
timeline.signal(3)
semaphore = device.create_semaphore(semaphore_info(device))
fence = device.create_fence(fence_info(device))
local = device.fence(signaled=True)
fd = timeline.export_handle(SemaphoreType.OPAQUE_FD)
handle = timeline.export_handle()
"""


@pytest.fixture
def forking(peer: Peer, name: str) -> Peer:
    peer(PEER + FORKED)
    peer(MADE, name=name)
    return peer


REFUSED = [
    "timeline.value",
    "timeline.signal(4)",
    "timeline.signal(2)",
    "timeline.wait(3)",
    "timeline.wait(4)",
    "timeline.wait(4, timeout=20)",
    "asyncio.run(timeline.wait_async(4))",
    "timeline.peer_gone",
    "timeline.repaired",
    "timeline.export_handle()",
    "timeline.__enter__()",
    "pickle.dumps(timeline)",
    "extmem.wait_any([(timeline, 4)])",
    "extmem.wait_all([(timeline, 3), (timeline, 4)])",
    "semaphore.export_handle()",
    "pickle.dumps(semaphore)",
    "fence.signaled",
    "fence.wait()",
    "fence.reset()",
    "fence.export_handle()",
    "local.wait()",
    "handle.info",
    "device.timeline()",
    "device.fence()",
    "device.wait_for_fences([local], 2**64 - 1)",
    "device.wait_semaphores(vk.SemaphoreWaitInfo(0, [timeline], [4]), 2**64 - 1)",
    "device.signal_semaphore(vk.SemaphoreSignalInfo(timeline, 4))",
    "device.queue_submit([vk.SubmitInfo([timeline], [1], (), [], vk.TimelineSemaphoreSubmitInfo([4], []))])",
    "device.commands(wait=(timeline, 4)).__enter__()",
    "extmem.open_device(kind='host').commands(wait=(timeline, 4))",
]


def test_a_forked_child_is_refused_what_is_its_parents(forking: Peer) -> None:
    """Also waits for values that nobody signals: none of them hangs."""
    said = forking("{source: forked(source, False) for source in sources}", sources=REFUSED)
    for source, output in said.items():
        assert output.startswith("HandleStateError") and "fork" in output and "spawn" in output, (source, output)
    assert forking("timeline.value, fence.signaled, timeline.peer_gone") == (3, True, None)
    forking("timeline.signal(5); timeline.wait(5)")


@pytest.mark.parametrize("polite", [True, False])
def test_the_child_closes_nothing_of_its_parent(forking: Peer, polite: bool) -> None:
    source = "[one.close() for one in (timeline, semaphore, fence, local)]"
    assert forking("forked(source, polite)", source=source, polite=polite) == "[None, None, None, None]"
    assert forking("timeline.value, fence.signaled, local.signaled, timeline.peer_gone") == (3, True, True, None)
    forking("with extmem.open_timeline(name) as again: again.signal(4); timeline.wait(4)\nNone")


def test_the_child_may_begin_anew_and_is_a_signaler_of_its_own(forking: Peer) -> None:
    source = "(lambda t: (t.value, t.signal(t.value + 1), t.value, t.close()))(extmem.open_timeline(name))"
    assert forking("forked(source, False)", source=source) == "(3, None, 4, None)"
    assert forking("timeline.value, timeline.peer_gone") == (4, None)
    ended = "(lambda t: (t.signal(t.value + 1), globals().update(kept=t)))(extmem.open_timeline(name))"
    assert forking("forked(source, False)", source=ended) == "(None, None)"
    forking("try: timeline.wait(9, timeout=20)\nexcept extmem.PeerGoneError as error: gone = str(error)")
    assert "could signal the timeline" in forking("gone") and "value 5" in forking("gone")
    forking("timeline.signal(9); timeline.wait(9)")  # the parent's repair


def test_waits_of_other_threads_go_on_in_the_parent_alone(forking: Peer) -> None:
    """A fork while one thread waits in the kernel, and another one in an event loop."""
    forking("""
reached = []
def sleeping():
    timeline.wait(6); reached.append("thread")
def looping():
    asyncio.run(timeline.wait_async(6)); reached.append("loop")
threads = [threading.Thread(target=target) for target in (sleeping, looping)]
for thread in threads: thread.start()
""")
    source = (
        "(lambda t: (t.signal(4), asyncio.run(t.wait_async(4, timeout=20)), t.close()))(extmem.open_timeline(name))"
    )
    assert forking("forked(source, True)", source=source) == "(None, None, None)"
    assert forking("forked(source, False)", source="timeline.wait(6)").startswith("HandleStateError")
    assert forking("reached") == []
    forking("timeline.signal(6)\nfor thread in threads: thread.join(20)")
    assert sorted(forking("reached")) == ["loop", "thread"]


HELD = """
things = {"timeline": timeline, "semaphore": semaphore, "fence": fence, "fd": fd, "handle": handle, "local": local}
things["opened"] = extmem.open_timeline(name)
del timeline, semaphore, fence, fd, handle, local
"""


@pytest.mark.parametrize(
    "lose",
    [
        "del things['timeline']",
        "things['timeline'].close(); things['opened'].close()",
        "del things['semaphore'], things['fence']",
        "things['fd'].close()",
        "things.clear()",
    ],
)
def test_a_daemon_loses_no_file_of_its_own(forking: Peer, lose: str) -> None:
    forking(DAEMON + HELD)
    assert forking("daemon([lose])", lose=lose) == (60, [])
    assert forking("things['timeline'].value, things['fence'].signaled, things['opened'].value") == (3, True, 3)
