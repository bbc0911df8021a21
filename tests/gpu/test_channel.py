"""Channels whose slots are on a real GPU: contents, order, processes that are killed, and no wait of the host.

How this works. Both sides are given work by CUDA's own calls on streams, and by commands of Vulkan. A gate (a timeline
that the test signals) holds a stream back, so that what must come later is not done, whatever the speed of the GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import GpuFrameLostError, WriterGoneError
from extmem.api import Device
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.gpu.streams import new_stream, synchronize
from tests.gpu_frames import Streams, streams_of

SIZE = 1 << 20
FRAMES = 200
S = 30.0

MAKER = {
    "cuda": """
import extmem
from tests.gpu.streams import new_stream
from tests.gpu_frames import Streams
device = cuda = extmem.open_device(kind="cuda")
streams = Streams(cuda)
made = new_stream(cuda)  # kept: its end destroys the stream
stream = made.__enter__()
writer = extmem.create_channel(name, size, "uint8", device=device, slots=4)

def put(byte):
    with writer.write() as frame, frame.on(stream) as array:
        streams.fill(array, byte, stream)
    return frame.number

put(1)
""",
    "vulkan": """
import extmem
from tests.gpu_frames import Streams
cuda = extmem.open_device(kind="cuda")
device = extmem.open_device(kind="vulkan", uuid=cuda.uuid)
writer = extmem.create_channel(name, size, "uint8", device=device, slots=4)

def put(byte):
    with writer.write() as frame, device.commands() as commands, frame.on(commands) as buffer:
        commands.fill_buffer(buffer, 0x01010101 * byte)
    return frame.number

put(1)
""",
}
"""The writer in another process, on each device."""
HELD_BACK = """
gate = streams.gate(stream)
gate.__enter__()
put(2)
"""
READER = """
import extmem
from tests.gpu.streams import new_stream
from tests.gpu_frames import Streams
cuda = extmem.open_device(kind="cuda")
streams = Streams(cuda)
made = new_stream(cuda)  # kept: its end destroys the stream
stream = made.__enter__()
reader = extmem.open_channel(name, device=cuda)
gate = streams.gate(stream)
gate.__enter__()
with reader.read(timeout=30).on(stream):
    pass
reader.held
"""


@pytest.fixture
def streams(cuda: Device) -> Iterator[Streams]:
    with streams_of(cuda) as made:
        yield made


@pytest.fixture
def stream(cuda: Device) -> Iterator[int]:
    with new_stream(cuda) as made:
        yield made


@pytest.mark.parametrize("maker", MAKER)
def test_frames_of_another_process_are_whole(
    maker: str, cuda: Device, vulkan: Device, streams: Streams, stream: int, name: str
) -> None:
    with Peer() as peer:
        assert peer(MAKER[maker], name=name, size=SIZE) == 1
        with extmem.open_channel(name, device=cuda, every=True) as reader:
            for byte in range(1, 33):
                frame = reader.read(timeout=S)
                with frame.on(stream) as array:
                    got = streams.taken(array, stream)
                peer(f"put({byte + 1})")
                synchronize(cuda, stream)
                assert frame.number == byte and got.bytes == {byte}
        peer("writer.close()\nNone")


@pytest.mark.parametrize("maker", ["cuda", "vulkan"])
def test_a_slot_is_not_overwritten_while_a_stream_reads_it(
    maker: str, cuda: Device, vulkan: Device, streams: Streams, stream: int, name: str
) -> None:
    device = {"cuda": cuda, "vulkan": vulkan}[maker]
    with (
        new_stream(cuda) as other,
        extmem.create_channel(name, SIZE, device=device, slots=3) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):

        def put(byte: int) -> None:
            with writer.write() as frame, frame.on(other) as array:
                streams.fill(array, byte, other)

        put(1)
        with streams.gate(stream) as gate:
            with reader.read(timeout=S).on(stream) as array:
                got = streams.taken(array, stream)
            for byte in range(2, 20):
                put(byte)
            synchronize(cuda, other)
            assert writer.dropped == 0 and got.bytes == {0}
            gate.signal(1)
        synchronize(cuda, stream)
        assert got.bytes == {1}
        with reader.read(timeout=S).on(stream) as array:
            got = streams.taken(array, stream)
        synchronize(cuda, stream)
        assert got.bytes == {19}


def test_a_reader_waits_on_the_gpu_for_a_frame_that_is_not_complete(
    cuda: Device, streams: Streams, stream: int, name: str
) -> None:
    with (
        new_stream(cuda) as other,
        extmem.create_channel(name, SIZE, device=cuda, slots=3) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        with streams.gate(other) as gate:
            with writer.write() as made, made.on(other) as array:
                streams.fill(array, 7, other)
            with reader.read(timeout=S).on(stream) as array:
                got = streams.taken(array, stream)
            assert got.bytes == {0} and reader.poll() is None and reader.held == 1
            gate.signal(1)
        synchronize(cuda, stream)
        assert got.bytes == {7}
        wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the hold to end")


def test_streams_of_pytorch(torch: Any, cuda: Device, vulkan: Device, name: str) -> None:
    with (
        extmem.create_channel(name, (1 << 18,), "float32", device=vulkan, slots=3) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        total = torch.zeros((), device="cuda")
        for number in range(1, 11):
            with writer.write() as frame, frame.on(torch.cuda.current_stream()) as tensor:
                tensor.fill_(number)
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                with reader.read(timeout=S).on(torch.cuda.current_stream()) as tensor:
                    total += tensor.mean()
            torch.cuda.current_stream().wait_stream(side)
        assert float(total) == sum(range(1, 11))
        with writer.write() as frame:
            frame.torch().fill_(3)
        got = reader.read(timeout=S)
        assert bool((got.torch() == 3).all())
        got.release()
        del got, frame, tensor


def test_a_killed_writer_with_work_on_the_gpu(
    cuda: Device, vulkan: Device, streams: Streams, stream: int, name: str
) -> None:
    with Peer() as peer:
        peer(MAKER["cuda"], name=name, size=SIZE)
        with extmem.open_channel(name, device=cuda, every=True) as reader:
            with reader.read(timeout=S).on(stream) as array:
                first = streams.taken(array, stream)
            assert peer(HELD_BACK) == 2
            with reader.read(timeout=S).on(stream) as array:
                streams.taken(array, stream)
            peer.kill()
            with pytest.raises(GpuFrameLostError, match="frame 2"):
                reader.read(timeout=S)
            synchronize(cuda, stream)  # the stream goes on: it does not wait for ever
            assert first.bytes == {1}
            del array  # the traceback of the error would keep it, and that the memory
            with pytest.raises(WriterGoneError):
                reader.read(timeout=S)


@pytest.mark.parametrize("maker", MAKER)
def test_a_killed_writer_between_frames_is_replaced(
    maker: str, cuda: Device, vulkan: Device, streams: Streams, stream: int, name: str
) -> None:
    with Peer() as peer, Peer() as other:
        peer(MAKER[maker], name=name, size=SIZE)
        with extmem.open_channel(name, device=cuda, reconnect=True) as reader:
            reader.read(timeout=S).wait(S)
            peer.kill()
            assert other(MAKER[maker], name=name, size=SIZE) == 2
            with reader.read(timeout=S).on(stream) as array:
                got = streams.taken(array, stream)
            synchronize(cuda, stream)
            assert got.bytes == {1}


def test_a_killed_reader_gives_its_slot_back(cuda: Device, streams: Streams, stream: int, name: str) -> None:
    with extmem.create_channel(name, SIZE, device=cuda, slots=2, when_full="raise") as writer, Peer() as peer:

        def put(byte: int) -> int:
            with writer.write() as frame, frame.on(stream) as array:
                streams.fill(array, byte, stream)
            return frame.number

        put(1)
        assert peer(READER, name=name) == 1
        put(2)
        with pytest.raises(extmem.ChannelFullError, match="holds frame 1"):
            writer.write()
        peer.kill()
        assert put(3) == 3


class _Counted:
    """Calls of the driver that wait on the host."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        backend: Any = device.backend
        module = backend.device.module
        self.calls: list[str] = []
        for name in ("cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize"):
            monkeypatch.setattr(module, name, self._counting(name, getattr(module, name)), raising=True)

    def _counting(self, name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            return function(*arguments)

        return call


def test_no_wait_of_the_host_and_little_of_its_time(
    cuda: Device, streams: Streams, stream: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        new_stream(cuda) as other,
        extmem.create_channel(name, SIZE, device=cuda, slots=4) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        counted = _Counted(cuda, monkeypatch)
        wrote, read = [], []
        with streams.gate(other) as gate:  # whoever waited on the host would not return
            with writer.write() as frame, frame.on(other):
                pass
            with reader.read(timeout=S).on(stream):
                pass
            gate.signal(1)
        for _ in range(FRAMES):
            begin = time.perf_counter_ns()
            with writer.write() as frame, frame.on(other):
                pass
            middle = time.perf_counter_ns()
            with reader.read(timeout=S).on(stream):
                pass
            end = time.perf_counter_ns()
            wrote.append(middle - begin)
            read.append(end - middle)
            wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")
        assert counted.calls == []
        spent = [statistics.median(one) / 1000 for one in (wrote, read)]
        print(f"a frame takes {spent[0]:.1f} µs of the host's time to write, and {spent[1]:.1f} µs to read")
