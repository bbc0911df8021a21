"""Channels on a GPU between processes, when one of them is killed with work on the GPU: on scripted drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

import extmem
from extmem import ChannelReader, GpuFrameLostError, WriterGoneError
from extmem.api import Device
from extmem.testing import fake_cuda
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests import cuda_bed
from tests.gpu_frames import Streams, streams_of

pytestmark = [
    pytest.mark.linux_only("semaphores of the fake drivers are shared by fd"),
    pytest.mark.slow("each test starts a process"),
]

W, R = 0x5000, 0x6000

WRITER = """
import extmem
from tests.gpu_frames import Streams
device = eval(expression)
streams = Streams(device)
writer = extmem.create_channel(name, 8, device=device, slots=3)

def put(byte):
    with writer.write() as frame, frame.on(0x5000) as array:
        streams.fill(array, byte, 0x5000)
    return frame.number

put(1)
"""
HELD_BACK = """
gate = streams.gate(0x5000)
gate.__enter__()
put(2)
"""
"""The second frame is published, and its stream never finishes it."""
READER = """
import extmem
from tests.gpu_frames import Streams
device = eval(expression)
streams = Streams(device)
reader = extmem.open_channel(name, device=device)
gate = streams.gate(0x6000)
gate.__enter__()
with reader.read(timeout=10).on(0x6000):
    pass
reader.held
"""


@pytest.fixture
def fake() -> Iterator[fake_cuda.FakeCuda]:
    with cuda_bed.both() as (made, _):
        yield made


@pytest.fixture
def cuda(fake: fake_cuda.FakeCuda) -> Iterator[Device]:
    with extmem.open_device(kind="cuda") as opened:
        yield opened


@pytest.fixture
def streams(cuda: Device) -> Iterator[Streams]:
    with streams_of(cuda) as made:
        yield made


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as made:
        yield made


Opening = Callable[[], AbstractContextManager[ChannelReader]]


@pytest.fixture
def opening(peer: Peer, fake: fake_cuda.FakeCuda, cuda: Device, name: str) -> Opening:
    """Open a reader of the peer's channel, whose first frame is complete. Its mappings live as long as it does."""
    assert peer(WRITER, name=name, expression=fake_cuda.elsewhere(fake)) == 1
    return lambda: extmem.open_channel(name, device=cuda, every=True)


def test_streams_of_two_processes(peer: Peer, opening: Opening, streams: Streams) -> None:
    with opening() as reader:
        for byte in range(1, 6):
            frame = reader.read(timeout=10)
            with frame.on(R) as array:
                got = streams.taken(array, R)
            wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the reader's stream")
            assert got.bytes == {byte} and frame.number == byte
            peer(f"put({byte + 1})")
        reader.read(timeout=10).wait(10)


def test_a_stream_goes_on_when_the_writer_is_killed_and_the_reader_is_told(
    peer: Peer, opening: Opening, streams: Streams
) -> None:
    with opening() as reader:
        with reader.read(timeout=10).on(R) as array:
            first = streams.taken(array, R)
        assert peer(HELD_BACK) == 2
        with reader.read(timeout=10).on(R) as array:
            streams.taken(array, R)
        assert reader.poll() is None and reader.held == 1, "its stream waits for the writer's"
        peer.kill()
        with pytest.raises(GpuFrameLostError, match="frame 2 .* completed frame 1; what was computed") as caught:
            reader.read(timeout=20)
        assert (caught.value.first, caught.value.count) == (2, 1)
        del caught, array  # its traceback would keep the array, and that the memory
        wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the reader's stream")
        assert first.bytes == {1}
        with pytest.raises(WriterGoneError):
            reader.read(timeout=20)


def test_a_frame_that_the_writer_did_not_finish_is_refused(peer: Peer, opening: Opening) -> None:
    with opening() as reader:
        reader.read(timeout=10).wait(10)
        assert peer(HELD_BACK) == 2
        frame = reader.read(timeout=10)
        peer.kill()
        with pytest.raises(GpuFrameLostError):
            frame.wait(20)
        with pytest.raises(GpuFrameLostError), frame.on(R):
            pass
        with pytest.raises(GpuFrameLostError):
            _ = frame.memory


def test_another_writer_goes_on_with_slots_of_its_own(
    peer: Peer, opening: Opening, cuda: Device, streams: Streams, name: str
) -> None:
    with opening() as reader:
        assert peer(HELD_BACK) == 2
        frame = reader.read(timeout=10)
        frame.wait(10)
        peer.kill()

        def taken_over() -> bool:
            try:
                extmem.create_channel(name, 8, device=cuda, slots=3).close()
            except extmem.ChannelTakenError:
                return False
            return True

        wait_until(taken_over, lambda: "the lock of the writer that was killed")
        with extmem.create_channel(name, 8, device=cuda, slots=3) as writer:
            with writer.write() as made, made.on(W) as array:
                streams.fill(array, 9, W)
            assert made.number == 3
            frame = reader.read(timeout=10)
            assert frame.number == 3
            with frame.on(R) as array:
                got = streams.taken(array, R)
            wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the reader's stream")
            assert got.bytes == {9}


def test_the_slot_of_a_killed_reader_is_used_again(
    peer: Peer, fake: fake_cuda.FakeCuda, cuda: Device, name: str
) -> None:
    with extmem.create_channel(name, 8, device=cuda, slots=2, when_full="raise") as writer:
        with writer.write() as frame, frame.on(W):
            pass
        assert peer(READER, name=name, expression=fake_cuda.elsewhere(fake)) == 1
        with writer.write() as frame, frame.on(W):
            pass
        with pytest.raises(extmem.ChannelFullError, match="holds frame 1"):
            writer.write()
        peer.kill()
        with writer.write() as frame, frame.on(W):
            pass
        assert frame.number == 3
