"""Timelines, semaphores and fences of two processes: sent by pickling, and the end of one of the two."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.testing.children import Child, Peer

pytestmark = [
    pytest.mark.linux_only("the semaphore and the fence are exported by fd"),
    pytest.mark.slow("starts processes"),
]


ANSWER = """
import extmem
from extmem import vk
with timeline, semaphore, fence:
    timeline.wait(1, timeout=30)
    waiting = vk.SubmitInfo([semaphore], [vk.PipelineStageFlagBits.ALL_COMMANDS])
    semaphore.device.queue_submit([waiting], fence)
    timeline.signal(2)
"""
"""In the child: wait for 1, consume the semaphore, signal the fence and 2."""


def test_all_three_are_sent_by_pickling(device: Device) -> None:
    exported = vk.ExportSemaphoreCreateInfo(vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD)
    fence_types = vk.ExportFenceCreateInfo(vk.ExternalFenceHandleTypeFlagBits.OPAQUE_FD)
    with (
        Peer() as peer,
        device.timeline() as timeline,
        device.create_semaphore(vk.SemaphoreCreateInfo(p_next=exported)) as semaphore,
        device.create_fence(vk.FenceCreateInfo(p_next=fence_types)) as fence,
    ):
        device.queue_submit([vk.SubmitInfo(signal_semaphores=[semaphore])])
        timeline.signal(1)
        peer(
            ANSWER,
            timeline=timeline,
            semaphore=semaphore,
            fence=fence,
        )
        timeline.wait(2, timeout=30)
        fence.wait(30)
        # The child has consumed the signal, so that the next one is lawful.
        device.queue_submit([vk.SubmitInfo(signal_semaphores=[semaphore])])


def test_S59_the_end_of_a_signaler_is_told_and_repaired_with_a_mark(device: Device) -> None:
    name = f"process timelines {os.getpid()}"
    with device.timeline(name=name) as timeline:
        with Peer() as peer:
            peer("import extmem; kept = extmem.open_timeline(name); kept.signal(1)", name=name)
            pid = peer.pid
            assert timeline.peer_gone is None
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(extmem.PeerGoneError, match=f"process {pid}.*the value 2"):
                timeline.wait(2, timeout=30)
        told = timeline.peer_gone
        assert told is not None and (told.pid, told.reached, told.closed, told.repaired) == (pid, 1, False, False)
        timeline.signal(2)  # the repair
        timeline.wait(2)
        told = timeline.peer_gone
        assert told is not None and told.repaired and timeline.repaired


# A program that a shell started in the background ignores SIGINT, and its child processes inherit that.
_INTERRUPT = "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT); "
ENDINGS = {
    "returns": ("", True),
    "sys.exit": ("sys.exit(0)", True),
    "sys.exit with a code": ("sys.exit(3)", True),
    "exception": ("raise ValueError", False),
    "Ctrl-C": (_INTERRUPT + "time.sleep(60)", False),
    "os._exit": ("os._exit(0)", False),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", False),
}
"""The end of a program, and whether it is a normal one."""


@pytest.mark.parametrize("how", ENDINGS)
def test_S59_a_normal_end_is_not_told_as_a_death(device: Device, how: str) -> None:
    ending, normal = ENDINGS[how]
    name = f"process timelines {os.getpid()} {how}"
    start = "import os, signal, sys, time, extmem\nkept = extmem.open_timeline(sys.argv[1])\nkept.signal(1)\n"
    with device.timeline(name=name) as timeline, Child.python(start + ending, name) as process:
        timeline.wait(1, timeout=30)
        words = "ended normally" if normal else "ended without closing it"
        with pytest.raises(extmem.PeerGoneError, match=f"process {process.pid}, .*{name}.* {words} .*the value 2"):
            timeline.wait(2, timeout=30)
        told = timeline.peer_gone
        assert told is not None and (told.pid, told.reached, told.closed) == (process.pid, 1, normal)
        timeline.signal(2)
        timeline.wait(2)
        assert timeline.repaired is not normal  # who ended normally has not failed


def test_S59_others_signal_after_a_normal_end(device: Device) -> None:
    name = f"process timelines {os.getpid()} others"
    with device.timeline(name=name) as timeline:
        timeline.signal(1)
        with Peer() as peer:
            peer("import extmem; kept = extmem.open_timeline(name); kept.signal(2)", name=name)
            peer.leave()
        assert timeline.peer_gone is None
        timeline.signal(3)
        timeline.wait(3)


WORKER = """
import multiprocessing, sys, extmem
kept = []

def work(name, how):
    timeline = extmem.open_timeline(name)
    timeline.signal(1)
    if how != "lost":
        kept.append(timeline)
    if how == "fails":
        raise ValueError

if __name__ == "__main__":
    method, how, name = sys.argv[1:]
    sys.excepthook = lambda *error: None
    process = multiprocessing.get_context(method).Process(target=work, args=(name, how))
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    ("how", "words"),
    [("kept", "ended normally"), ("lost", "closed it"), ("fails", "ended without closing it")],
)
def test_S59_the_end_of_a_child_of_multiprocessing(
    device: Device, method: str, how: str, words: str, tmp_path: Path
) -> None:
    """It may end without the functions of atexit."""
    name = f"process timelines {os.getpid()} {method} {how}"
    program = tmp_path / "program.py"
    program.write_text(WORKER)
    with device.timeline(name=name) as timeline, Child([sys.executable, str(program), method, how, name]):
        timeline.wait(1, timeout=30)
        with pytest.raises(extmem.PeerGoneError, match=words):
            timeline.wait(2, timeout=30)


def test_a_signaler_that_closes_is_told_too(device: Device) -> None:
    name = f"process timelines {os.getpid()} closed"
    with Peer() as peer:
        peer("import extmem; kept = extmem.open_device(kind='host').timeline(name=name); kept.signal(1)", name=name)
        with extmem.open_timeline(name, access=extmem.Access.READ) as timeline:
            peer("kept.close()")
            with pytest.raises(extmem.PeerGoneError, match="closed it"):
                timeline.wait(2, timeout=30)
