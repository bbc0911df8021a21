"""`Frame.on` with streams and queues: the contents, the holds of slots, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import extmem
from extmem import ChannelReader, ChannelWriter, HandleStateError
from extmem.api import Device
from extmem.core import shared_devices
from extmem.testing import fake_cuda, leaks
from extmem.testing.waiting import wait_until
from tests.gpu_frames import Streams

pytestmark = pytest.mark.linux_only("semaphores of the fake drivers are shared by fd")

W, R = 0x5000, 0x6000
"""A stream of the writer, and one of the reader."""


@pytest.fixture(params=["cuda", "vulkan"])
def writer(request: pytest.FixtureRequest, cuda: Device, vulkan: Device, name: str) -> Iterator[ChannelWriter]:
    """A channel whose slots are memory of each kind of device."""
    device = {"cuda": cuda, "vulkan": vulkan}[request.param]
    with extmem.create_channel(name, 8, "uint8", device=device, slots=3) as channel:
        yield channel


@pytest.fixture
def reader(writer: ChannelWriter, cuda: Device) -> Iterator[ChannelReader]:
    with extmem.open_channel(writer.name, device=cuda) as channel:
        yield channel


def write(writer: ChannelWriter, streams: Streams, byte: int, stream: int = W) -> int:
    with writer.write() as frame, frame.on(stream) as array:
        streams.fill(array, byte, stream)
    return frame.number


def test_frames_of_a_stream_are_read_by_another(writer: ChannelWriter, reader: ChannelReader, streams: Streams) -> None:
    for byte in range(1, 8):
        assert write(writer, streams, byte) == byte
        frame = reader.read(timeout=10)
        with frame.on(R) as array:
            assert array.shape == (8,) and array.read_only
            got = streams.taken(array, R)
        assert frame.released
        wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the reader's stream")
        assert got.bytes == {byte}


def test_a_frame_is_published_before_it_is_complete_and_the_reader_waits_on_the_gpu(
    writer: ChannelWriter, reader: ChannelReader, streams: Streams
) -> None:
    with streams.gate(W) as held:
        assert write(writer, streams, 5) == 1
        frame = reader.read(timeout=10)
        with pytest.raises(extmem.WaitTimeoutError):
            frame.wait(0.001)
        with frame.on(R) as array:
            got = streams.taken(array, R)
        assert reader.poll() is None and reader.held == 1, "the stream of the reader has not read the frame yet"
        held.signal(1)
        with pytest.raises(extmem.WaitTimeoutError):
            reader.read(timeout=0.3)  # it wakes when the stream is done, and releases the slot
    assert not reader.held and got.bytes == {5}


def test_a_slot_is_not_overwritten_before_the_stream_of_a_reader_is_done(
    writer: ChannelWriter, reader: ChannelReader, streams: Streams
) -> None:
    write(writer, streams, 1)
    with streams.gate(R) as held:
        with reader.read(timeout=10).on(R) as array:
            got = streams.taken(array, R)
        for byte in range(2, 8):
            write(writer, streams, byte)
        assert writer.dropped == 0
        slots = [one.held for one in writer.info.readers]
        assert [held.number for held in slots[0]] == [1]
        held.signal(1)
    wait_until(lambda: got.bytes == {1}, lambda: "the reader's stream")
    assert got.bytes == {1}


def test_the_slots_run_out_and_the_error_names_the_reader(cuda: Device, name: str, streams: Streams) -> None:
    with (
        extmem.create_channel(name, 8, device=cuda, slots=2, when_full="raise") as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        write(writer, streams, 1)
        with streams.gate(R):
            with reader.read(timeout=10).on(R):
                pass
            write(writer, streams, 2)
            with pytest.raises(extmem.ChannelFullError, match="holds frame 1 in slot 0"):
                writer.write()
        wait_until(lambda: reader.poll() is None or True and not reader.held, lambda: "the stream")
        reader.poll()


def test_a_dropped_frame_is_written_and_not_published(
    writer: ChannelWriter, reader: ChannelReader, streams: Streams, vulkan: Device
) -> None:
    write(writer, streams, 1)
    with streams.gate(R), writer.write() as first, writer.write() as second:
        with reader.read(timeout=10).on(R):
            pass
        assert write(writer, streams, 9) == 0 and writer.dropped == 1
        assert not first.dropped and not second.dropped
        first.discard()
        second.discard()
    wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")
    assert write(writer, streams, 2) == 2


def test_frames_of_two_streams_are_complete_in_the_order_of_their_numbers(
    writer: ChannelWriter, reader: ChannelReader, streams: Streams
) -> None:
    """A fast stream does not announce the frame of a slow one."""
    with streams.gate(W) as held:
        write(writer, streams, 1)
        write(writer, streams, 2, W + 16)
        with writer.write() as frame:
            pass  # nobody has written: its order is the same
        assert frame.number == 3
        assert writer.gpu.written.timeline.value == 0
        held.signal(1)
    reader.read(timeout=10).wait(10)
    assert writer.gpu.written.page.value == 3


def test_a_slot_that_a_slow_stream_writes_is_not_written_by_a_fast_one(
    writer: ChannelWriter, cuda: Device, streams: Streams
) -> None:
    with streams.gate(W) as held:
        write(writer, streams, 1)
        for byte in (2, 3, 4):
            write(writer, streams, byte, W + 16)
        held.signal(1)
    with extmem.open_channel(writer.name, device=cuda) as reader, reader.read(timeout=10).on(R) as array:
        got = streams.taken(array, R)
    assert got.bytes == {4}


def test_the_host_writes_and_reads(writer: ChannelWriter, reader: ChannelReader) -> None:
    writer.put(bytes(range(8)))
    frame = reader.read(timeout=10)
    assert bytes(frame.memory.read_bytes()) == bytes(range(8))


def test_vulkan_commands_write_and_a_stream_reads(vulkan: Device, cuda: Device, name: str, streams: Streams) -> None:
    with (
        extmem.create_channel(name, 8, device=vulkan, slots=3) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        for byte in range(1, 6):
            with writer.write() as frame, vulkan.commands() as commands, frame.on(commands) as buffer:
                commands.fill_buffer(buffer, 0x01010101 * byte)
            with reader.read(timeout=10).on(R) as array:
                got = streams.taken(array, R)
            wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")
            assert got.bytes == {byte}


def _copy(commands: Any, source: Any, target: Any) -> None:
    commands.acquire(target)
    commands.copy_buffer(source, target)
    commands.release(target)


def test_queues_read_what_a_stream_writes(vulkan: Device, streams: Streams, name: str) -> None:
    with (
        extmem.create_channel(name, 8, device=vulkan, slots=3) as writer,
        extmem.open_channel(name, device=vulkan) as reader,
        vulkan.allocate(8) as copy,
    ):
        for byte in range(1, 4):
            write(writer, streams, byte)
            with vulkan.commands() as commands, reader.read(timeout=10).on(commands) as buffer:
                _copy(commands, buffer, copy.buffer())
            wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the queue")
            assert set(copy.read_bytes()) == {byte}
            write(writer, streams, byte + 100)
            with reader.read(timeout=10).on(vulkan) as buffer, vulkan.commands() as commands:
                _copy(commands, buffer, copy.buffer())
            assert set(copy.read_bytes()) == {byte + 100}


def test_commands_that_fail_give_the_frame_back(vulkan: Device, streams: Streams, name: str) -> None:
    with (
        extmem.create_channel(name, 8, device=vulkan, slots=3) as writer,
        extmem.open_channel(name, device=vulkan) as reader,
    ):
        write(writer, streams, 1)
        frame = reader.read(timeout=10)
        with pytest.raises(ZeroDivisionError), vulkan.commands() as commands:
            with frame.on(commands):
                pass
            assert reader.poll() is None and reader.held == 1
            raise ZeroDivisionError
        assert reader.poll() is None and not reader.held


def test_several_arrays_in_a_frame(cuda: Device, name: str, streams: Streams) -> None:
    shape = {"color": ((2, 4), "uint8"), "depth": (4, "float32")}
    with (
        extmem.create_channel(name, shape, device=cuda) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        with writer.write() as frame, frame.on(W) as arrays:
            streams.fill(arrays["color"], 3, W)
            streams.fill(arrays["depth"], 0, W)
        with reader.read(timeout=10).on(R) as arrays:
            assert arrays["depth"].shape == (4,)
            got = streams.taken(arrays["color"], R)
        wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")
        assert got.bytes == {3}


def test_put_copies_several_arrays_to_a_gpu(cuda: Device, name: str) -> None:
    shape = {"color": ((2, 4), "uint8"), "depth": (4, "float32")}
    with (
        extmem.create_channel(name, shape, device=cuda) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        assert writer.put(color=np.full((2, 4), 7, "uint8"), depth=np.arange(4, dtype="float32")) == 1
        frame = reader.read(timeout=10)
        assert (frame["color"].read() == 7).all() and frame["depth"].read().tolist() == [0, 1, 2, 3]


def test_the_queue_reads_slots_of_cuda(cuda: Device, vulkan: Device, streams: Streams, name: str) -> None:
    """`written` is a page of the host then, so the host waits before the submission."""
    with (
        extmem.create_channel(name, 8, device=cuda) as writer,
        extmem.open_channel(name, device=vulkan) as reader,
        vulkan.allocate(8) as copy,
    ):
        assert (writer.info.order, reader.info.order) == ("gpu", "host")
        for byte in (1, 2, 3):
            write(writer, streams, byte)
            with vulkan.commands() as commands, reader.read(timeout=10).on(commands) as buffer:
                _copy(commands, buffer, copy.buffer())
            assert set(copy.read_bytes()) == {byte}


def test_a_kept_frame_and_async_for(writer: ChannelWriter, reader: ChannelReader, streams: Streams) -> None:
    async def read_two() -> list[int]:
        numbers = []
        async for frame in reader:
            with frame, frame.on(R) as array:
                streams.taken(array, R)
            numbers.append(frame.number)
            if len(numbers) == 2:
                break
            write(writer, streams, 2)
        return numbers

    write(writer, streams, 1)
    assert asyncio.run(read_two()) == [1, 2]
    wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")


def test_a_reconfigured_channel(writer: ChannelWriter, cuda: Device, streams: Streams) -> None:
    with extmem.open_channel(writer.name, device=cuda, max_held=2) as reader:
        write(writer, streams, 1)
        kept = reader.read(timeout=10).hold()
        writer.reconfigure(16)
        write(writer, streams, 2)
        frame = reader.read(timeout=10)
        assert frame.number == 2 and frame.shape == (16,)
        kept.wait(10)
        with kept.on(R) as array:
            got = streams.taken(array, R)
        wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")
        assert got.bytes == {1}


class TestRefused:
    def test_a_released_frame_and_a_second_block(
        self, writer: ChannelWriter, reader: ChannelReader, streams: Streams
    ) -> None:
        write(writer, streams, 1)
        frame = reader.read(timeout=10)
        with frame.on(R):
            with pytest.raises(HandleStateError, match="already"), frame.on(R):
                pass
        with pytest.raises(HandleStateError, match="released"), frame.on(R):
            pass
        with pytest.raises(HandleStateError, match="released"):
            frame.wait()

    def test_a_frame_of_the_writer_after_its_block(self, writer: ChannelWriter) -> None:
        with writer.write() as frame:
            with frame.on(W):
                pass
            with pytest.raises(HandleStateError, match="one block"), frame.on(W):
                pass
        with pytest.raises(HandleStateError, match="published"), frame.on(W):
            pass

    def test_commands_that_are_not_submitted(self, vulkan: Device, name: str) -> None:
        with extmem.create_channel(name, 8, device=vulkan) as writer:
            frame = writer.write()
            with vulkan.commands() as commands, frame.on(commands) as buffer:
                commands.fill_buffer(buffer, 1)
                with pytest.raises(HandleStateError, match="not submitted yet"):
                    frame.publish()
            assert frame.publish() == 1

    def test_a_stream_of_another_device(self, writer: ChannelWriter) -> None:
        class Stream:
            cuda_stream, device_index = 0x7000, 5

        with writer.write() as frame:
            with pytest.raises(HandleStateError, match="CUDA device 5"), frame.on(Stream()):
                pass
            frame.discard()

    def test_no_stream_at_all(self, writer: ChannelWriter) -> None:
        with writer.write() as frame:
            with pytest.raises(TypeError, match="give a stream"), frame.on("stream"):
                pass
            with frame.on(W):  # the attempt that was refused leaves nothing
                pass

    def test_slots_of_the_host(self, name: str) -> None:
        with extmem.create_channel(name, 8) as writer, extmem.open_channel(name) as reader:
            with writer.write() as frame:
                frame.numpy()[:] = 1
                with pytest.raises(extmem.UnsupportedError, match="memory of the host"):
                    frame.on(W)
            got = reader.read(timeout=10)
            got.wait()
            with pytest.raises(extmem.UnsupportedError, match="memory of the host"):
                got.on(R)

    def test_a_device_that_is_closed_while_frames_live(self, cuda: Device, name: str, streams: Streams) -> None:
        with extmem.create_channel(name, 8, device=cuda) as writer, extmem.open_channel(name, device=cuda):
            with pytest.raises(HandleStateError):
                cuda.close()
            assert write(writer, streams, 1) == 1

    def test_a_device_of_another_gpu(self, cuda: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
        first = fake.gpus[0]
        with extmem.create_channel(name, 8, device=cuda):
            other = fake_cuda.FakeCuda([fake_cuda.Gpu(uuid=b"another gpu uuid", name="Another GPU")])
            with fake_cuda.installed(other), extmem.open_device(kind="cuda") as device:
                other.calls.clear()
                with pytest.raises(extmem.ExtmemError) as caught:
                    extmem.open_channel(name, device=device)
                text = str(caught.value)
                assert first.name in text and "Another GPU" in text
                assert not [call for call in other.calls if "Import" in call]

    def test_a_device_that_cannot_import_the_slots(self, cuda: Device, name: str) -> None:
        with extmem.create_channel(name, 8, device=cuda), extmem.open_device(kind="host") as host:
            with pytest.raises(extmem.ExtmemError) as caught:
                extmem.open_channel(name, device=host)
            assert "host" in str(caught.value)


def test_a_frame_without_a_gpu_wait_calls_the_driver_as_seldom_as_it_can(
    cuda: Device, fake: fake_cuda.FakeCuda, name: str
) -> None:
    """One wait and one signal of the reader, one signal of the writer; none of them waits on the host."""
    with (
        extmem.create_channel(name, 8, device=cuda, slots=3) as writer,
        extmem.open_channel(name, device=cuda) as reader,
        cuda.backend.device.gpu.current,  # type: ignore[attr-defined]
    ):
        for _ in range(4):
            fake.calls.clear()
            with writer.write() as frame, frame.on(W):
                pass
            wrote = list(fake.calls)
            fake.calls.clear()
            with reader.read(timeout=10).on(R):
                pass
            read: list[Any] = list(fake.calls)
        assert wrote == ["cuStreamIsCapturing", "cuStreamWriteValue64", "cuLaunchHostFunc"]
        assert read == ["cuStreamIsCapturing", "cuStreamWaitValue64", "cuEventRecord", *wrote]


def test_slots_of_the_host_are_read_by_streams(cuda: Device, vulkan: Device, streams: Streams, name: str) -> None:
    with extmem.create_channel(name, 8) as writer, extmem.open_channel(name, device=cuda) as reader:
        for byte in (1, 2, 3):
            with writer.write() as frame:
                frame.numpy()[:] = byte
            with reader.read(timeout=10).on(R) as array:
                got = streams.taken(array, R)
            wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")
            assert got.bytes == {byte}
        with pytest.raises(extmem.UnsupportedError, match="read-only here; open it on the host device"):
            extmem.open_channel(name, device=vulkan)
        del array, got


def test_an_array_that_outlives_its_frame_keeps_the_slot_until_its_stream_is_done(
    writer: ChannelWriter, reader: ChannelReader, streams: Streams
) -> None:
    write(writer, streams, 7)
    frame = reader.read(timeout=10)
    capsule = frame.__dlpack__(stream=R, max_version=(1, 0))
    with streams.gate(R) as held:
        frame.release()
        assert reader.poll() is None and reader.held == 1, "the capsule is alive"
        del capsule
        assert reader.poll() is None and reader.held == 1, "the stream is not done"
        held.signal(1)
    wait_until(lambda: reader.poll() is None and not reader.held, lambda: "the stream")


def test_info_tells_where_the_slots_are(writer: ChannelWriter, reader: ChannelReader, name: str) -> None:
    for one in (writer, reader):
        assert (one.info.device, one.info.order) == ("Fake Discrete GPU", "gpu")
    with extmem.create_channel(f"{name} of the host", 8) as other:
        assert (other.info.device, other.info.order) == ("", "host")


def test_nothing_is_left(fake: fake_cuda.FakeCuda, name: str) -> None:
    with leaks.no_leaks(), shared_devices.fresh_devices(), extmem.open_device(kind="cuda") as device:
        with (
            extmem.create_channel(name, 8, device=device) as channel,
            extmem.open_channel(name, device=device) as other,
        ):
            with channel.write() as frame, frame.on(W):
                pass
            with other.read(timeout=10).on(R):
                pass
        del channel, other, frame
