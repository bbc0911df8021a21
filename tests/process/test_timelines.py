"""Timelines, semaphores and fences of two processes: sent by pickling, and the end of one of the two."""

from __future__ import annotations

import os
import signal

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.testing.children import Peer

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


def test_a_signaler_that_closes_is_told_too(device: Device) -> None:
    name = f"process timelines {os.getpid()} closed"
    with Peer() as peer:
        peer("import extmem; kept = extmem.open_device(kind='host').timeline(name=name); kept.signal(1)", name=name)
        with extmem.open_timeline(name, access=extmem.Access.READ) as timeline:
            peer("kept.close()")
            with pytest.raises(extmem.PeerGoneError, match="closed it"):
                timeline.wait(2, timeout=30)
