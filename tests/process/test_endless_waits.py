"""What ends a wait of the host without a limit: Ctrl-C, the signal, or the death of the signaler; closing does not."""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer
from tests.behaviours.steps import PEER

pytestmark = pytest.mark.linux_only("Windows has only Ctrl-C, and no signal that a process can send to itself")

SOURCE = """
import asyncio, signal, threading
from extmem.testing.leaks import descriptors
from tests.sync_operations import semaphore_info
device = extmem.open_device(kind="host")
ALL = vk.PipelineStageFlagBits.ALL_COMMANDS
timeline, fence = device.timeline(name=name), device.fence()
binary = device.create_semaphore(semaphore_info(device))
fd = binary.export_handle(vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD)  # others may signal it

def wait_binary():
    device.queue_submit([vk.SubmitInfo([binary], [ALL], ())])

def signal_binary():
    device.queue_submit([vk.SubmitInfo((), (), (), [binary])])

WAITS = {
    "binary": wait_binary,
    "timeline": lambda: timeline.wait(5),
    "any": lambda: extmem.wait_any([(timeline, 5), (timeline, 6)]),
    "all": lambda: extmem.wait_all([(timeline, 5), (timeline, 6)]),
    "commands": lambda: device.commands(wait=(timeline, 5)).__enter__().__exit__(None, None, None),
    "fence": fence.wait,
    "semaphores": lambda: device.wait_semaphores(vk.SemaphoreWaitInfo(0, [timeline], [5]), 2**64 - 1),
    "fences": lambda: device.wait_for_fences([fence], 2**64 - 1),
    "async": lambda: asyncio.run(timeline.wait_async(5)),
}
# Names of functions that sleep: the signal is sent again until it comes while one of them runs.
SLEEPS = {"_poll", "sleep", "sleep_on_pages", "wait_events", "take", "wait_pages", "select", "wait"}

def interrupted(wait):
    def stop(number, frame):
        names = set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if names & SLEEPS:
            raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        wait()
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "ended"
None
"""


@pytest.fixture
def waiter(peer: Peer, name: str) -> Peer:
    peer(PEER)
    peer(SOURCE, name=name)
    return peer


def test_a_signal_handler_ends_every_wait_and_the_objects_go_on(waiter: Peer) -> None:
    ways = waiter("list(WAITS)")
    assert [(way, waiter("interrupted(WAITS[way])", way=way)) for way in ways] == [(way, "interrupted") for way in ways]
    # What was interrupted has consumed nothing, and all of it can be used.
    waiter("signal_binary()\nwait_binary()")
    waiter("timeline.signal(6)\nfor way in ('timeline', 'any', 'all', 'commands', 'semaphores', 'async'): WAITS[way]()")
    waiter("device.queue_submit([], fence)\nfence.wait()\ndevice.wait_for_fences([fence], 2**64 - 1)")
    assert waiter("interrupted(lambda: timeline.wait(6))") == "ended"  # the twin


def test_a_binary_wait_ends_with_the_signal_and_not_when_it_is_closed(waiter: Peer) -> None:
    waiter("""
other = device.create_semaphore(semaphore_info(device))
device.import_semaphore_fd(vk.ImportSemaphoreFdInfoKHR(other, handle_type=1, fd=fd))
ended = threading.Event()
thread = threading.Thread(target=lambda: (wait_binary(), ended.set()))
thread.start()
""")
    waiter("binary.close()")
    assert waiter("other.closed, ended.is_set(), binary.closed, thread.is_alive()") == (False, False, True, True)
    waiter("device.queue_submit([vk.SubmitInfo((), (), (), [other])])\nthread.join(20)")
    assert waiter("ended.is_set()")
    waiter("other.close()")
