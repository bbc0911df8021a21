"""Streams of one process, ordered with another one by timelines, on the fake drivers; a process that is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda, leaks
from extmem.testing.children import Peer
from tests import cuda_bed

pytestmark = [
    pytest.mark.linux_only("streams wait for pages of the host on Linux only"),
    pytest.mark.slow("each test starts a process"),
]

FORWARD = """
import extmem
device = eval(expression)
timeline = extmem.open_timeline(name, device=device)
native, backend = timeline.record.native, device.backend
backend.stream_wait(0x5000, [(native, 1)])
backend.stream_signal(0x5000, [(native, 2)])
None
"""
"""What the other process gives to a stream: it waits for 1, and signals 2."""
DONE = """
timeline.close()
backend.finish_submitted()
device.close()
None
"""


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with leaks.no_leaks(everybody=True), cuda_bed.both() as (made, _):
        yield made


@pytest.fixture(params=["host", "cuda", "vulkan"])
def device(request: pytest.FixtureRequest, fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    """The device that makes the timeline: a page of the host, or the Vulkan driver's semaphore and its page."""
    with extmem.open_device(kind=request.param) as opened:
        yield opened


def test_a_stream_of_another_process_signals_a_waiter_here(fake: fake_cuda.FakeCuda, device: Device, name: str) -> None:
    with device.timeline(name=name) as timeline, Peer() as peer:
        peer(FORWARD, name=name, expression=fake_cuda.elsewhere(fake))
        assert timeline.value == 0
        timeline.signal(1)
        timeline.wait(2, 10)
        peer(DONE)


def test_the_end_of_the_process_whose_stream_owed_a_value_is_told(
    fake: fake_cuda.FakeCuda, device: Device, name: str
) -> None:
    with device.timeline(name=name) as timeline, Peer() as peer:
        peer(FORWARD, name=name, expression=fake_cuda.elsewhere(fake))
        peer.kill()
        with pytest.raises(extmem.PeerGoneError, match="ended"):
            timeline.wait(2, 10)
        timeline.signal(3)
        timeline.wait(3, 10)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_S56_a_process_ends_though_its_stream_waits(
    closed: bool, fake: fake_cuda.FakeCuda, device: Device, name: str
) -> None:
    """What the stream still uses is not released: the fake driver would note that, and the exit code would tell."""
    with device.timeline(name=name) as timeline, Peer() as peer:
        peer(FORWARD, name=name, expression=fake_cuda.elsewhere(fake))
        if closed:
            peer("timeline.close()\ndevice.close()\nNone")
        peer.leave()
        with pytest.raises(extmem.PeerGoneError):
            timeline.wait(2, 10)
