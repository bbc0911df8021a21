"""`ChannelReader`: newest and every frame, loss, late joiners, kept frames, waits, and the end of the writer."""

from __future__ import annotations

import asyncio
import gc
import importlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import extmem
from extmem import ChannelReader, ChannelWriter, FramesLostError, HandleStateError, WriterGoneError
from extmem.testing.waiting import wait_until


@pytest.fixture
def writer(name: str) -> Iterator[ChannelWriter]:
    with extmem.create_channel(name, 4, "int32", slots=4) as channel:
        yield channel


def publish(writer: ChannelWriter, count: int = 1) -> None:
    for _ in range(count):
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1
            frame.meta = b"%d" % (writer.count + 1)


def seen(reader: ChannelReader) -> list[int]:
    """The numbers that it reads without waiting; each frame has its number in it."""
    found = []
    while (frame := reader.poll()) is not None:
        assert frame.numpy().tolist() == [frame.number] * 4
        assert frame.meta == b"%d" % frame.number
        found.append(frame.number)
    return found


def test_N3_newest_reads_the_last_frame_and_counts_what_it_skips(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        assert reader.poll() is None
        publish(writer)
        assert seen(reader) == [1]
        publish(writer, 3)
        frame = reader.read()
        assert (frame.number, frame.skipped, reader.lost) == (4, 2, 2)
        assert reader.poll() is None


def test_N3_every_reads_each_frame_in_order_and_tells_what_was_overwritten(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name, every=True) as reader:
        publish(writer, 3)
        assert seen(reader) == [1, 2, 3]
        publish(writer, 6)
        frame = reader.read()
        assert (frame.number, frame.skipped, reader.lost) == (6, 2, 2)
        assert seen(reader) == [7, 8, 9]


def test_N11_a_strict_reader_raises_and_goes_on_behind_the_loss(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name, every=True, strict=True) as reader:
        publish(writer)
        assert seen(reader) == [1]
        publish(writer, 6)
        with pytest.raises(FramesLostError, match=r"2 frames .* from 2 on") as caught:
            reader.poll()
        assert (caught.value.first, caught.value.count) == (2, 2)
        assert seen(reader) == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("start", "every", "numbers"),
    [
        ("newest", False, [6]),
        ("next", False, []),
        ("newest", True, [6]),
        ("oldest", True, [3, 4, 5, 6]),
        ("next", True, []),
    ],
)
def test_N7_a_late_joiner_begins_where_it_says(
    writer: ChannelWriter, start: str, every: bool, numbers: list[int]
) -> None:
    publish(writer, 6)
    with extmem.open_channel(writer.name, start=start, every=every) as reader:  # type: ignore[arg-type]
        assert seen(reader) == numbers
        assert reader.lost == 0
        publish(writer)
        assert seen(reader) == [7]


def test_a_frame_is_released_by_the_next_read_and_cannot_be_used_then(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        first = reader.read()
        assert not first.released and reader.held == 1
        assert reader.poll() is None
        assert first.released and reader.held == 0
        for use in (first.numpy, first.hold, first.view, lambda: first.memory):
            with pytest.raises(HandleStateError, match="frame 1 .* released"):
                use()
        first.release()  # safe to call again


def test_N4_a_held_frame_is_not_overwritten(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name, max_held=2) as reader:
        publish(writer)
        kept = reader.read().hold()
        publish(writer, 20)
        assert kept.numpy().tolist() == [1] * 4
        assert seen(reader) == [21]
        kept.release()
        publish(writer, 4)
        assert {writer.write().slot for _ in range(3)} >= {kept.slot}


def test_max_held_is_a_limit_and_the_error_names_the_frames(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        kept = reader.read().hold()
        publish(writer)
        with pytest.raises(HandleStateError, match=r"keeps 1 frames \(1\).*max_held=2"):
            reader.poll()
        kept.release()
        assert seen(reader) == [2]


def test_a_with_block_keeps_its_frame(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name, max_held=2) as reader:
        publish(writer)
        with reader.read() as frame:
            publish(writer, 9)
            assert seen(reader) == [10]
            assert frame.numpy().tolist() == [1] * 4
        assert frame.released


def test_N10_an_array_that_outlives_its_frame_keeps_the_slot(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        array = reader.read().numpy()[1:]
        publish(writer, 20)
        assert seen(reader) == [21]
        assert array.tolist() == [1] * 3
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
        assert reader.held == 1
        del array
        gc.collect()
        assert reader.held == 0


def test_N10_more_arrays_than_max_held_are_warned_of(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        arrays = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                publish(writer)
                arrays.append(reader.read().numpy())
            publish(writer)
            reader.poll()
        assert [one.category for one in caught] == [ResourceWarning]
        assert "2 released frames" in str(caught[0].message)
        assert [array[0] for array in arrays] == [1, 2]
        arrays.clear()


def test_an_array_outlives_its_channel(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        array = reader.read().numpy()
    publish(writer, 20)
    assert array.tolist() == [1] * 4
    del array


def test_a_kept_frame_that_is_lost_is_warned_of_and_released(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        with pytest.warns(ResourceWarning, match="unreleased <Frame 1"):
            reader.read().hold()
            gc.collect()
        publish(writer)
        assert seen(reader) == [2]


@pytest.mark.parametrize("how", ["numpy", "memory", "part"])
def test_N10_an_array_of_a_kept_frame_that_is_lost_keeps_the_slot(writer: ChannelWriter, how: str) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        with pytest.warns(ResourceWarning, match="unreleased <Frame 1"):
            frame = reader.read().hold()
            of_memory = {"memory": frame.memory.numpy, "part": frame[1:].numpy} if how != "numpy" else {}
            array = of_memory.pop(how, frame.numpy)()
            of_memory.clear()
            del frame
            gc.collect()
        publish(writer, 9)
        assert seen(reader) == [10]
        assert set(array.tolist()) == {1}
        assert [held.number for one in writer.info.readers for held in one.held] == [1]
        del array
        assert seen(reader) == []
        assert not [held.number for one in writer.info.readers for held in one.held]


def test_N8_a_timeout_names_the_writer_and_the_age_of_its_last_frame(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        with pytest.raises(TimeoutError, match=r"no frame .* in 0 s.*no frame yet"):
            reader.read(timeout=0)
        publish(writer)
        assert reader.read(timeout=0).number == 1
        with pytest.raises(extmem.WaitTimeoutError, match=r"process \d+.*frame 1, 0\.\d+ s old") as caught:
            reader.read(timeout=0.01)
        assert (caught.value.value, caught.value.reached) == (2, 1)


def test_a_read_waits_for_the_next_frame(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.append(reader.read().number))
        thread.start()
        publish(writer)
        thread.join(10)
        assert got == [1]


def test_N8_close_in_another_thread_ends_a_read(writer: ChannelWriter) -> None:
    reader = extmem.open_channel(writer.name)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            reader.read()
        except HandleStateError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    reader.close()
    thread.join(10)
    assert [type(one) for one in errors] == [HandleStateError]


@pytest.fixture
def long_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeps end when somebody wakes them, and not by themselves after half a second."""
    futex = importlib.import_module("extmem.devices.host.futex")
    _, slice_of_minutes = made = futex._timespec(600 * 10**9)
    monkeypatch.setattr(futex, "_SLICE", slice_of_minutes)
    monkeypatch.setattr(futex, "_slice", made)
    monkeypatch.setattr(futex, "SLICE_NS", 600 * 10**9)


@pytest.mark.linux_only("it lets the sleeps on futexes last for minutes, and Windows has none")
@pytest.mark.usefixtures("long_slices")
def test_N8_close_wakes_a_reader_that_is_about_to_sleep(writer: ChannelWriter) -> None:
    for _ in range(50):
        reader = extmem.open_channel(writer.name)
        errors: list[type[BaseException]] = []

        def read(reader: ChannelReader = reader, errors: list[type[BaseException]] = errors) -> None:
            try:
                reader.read()
            except HandleStateError as error:
                errors.append(type(error))

        thread = threading.Thread(target=read)
        thread.start()
        reader.close()
        thread.join(20)
        assert errors == [HandleStateError]


def test_N8_close_ends_the_wait_of_a_coroutine(writer: ChannelWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extmem.channel.waiting.SLICE", 600)
    reader = extmem.open_channel(writer.name)

    async def main() -> None:
        waiting = asyncio.create_task(reader.read_async())
        await asyncio.sleep(0)
        reader.close()
        with pytest.raises(HandleStateError, match="is closed"):
            await asyncio.wait_for(waiting, 20)

    asyncio.run(main())


@pytest.mark.linux_only("it lets the sleeps on futexes last for minutes, and Windows has none")
@pytest.mark.usefixtures("long_slices")
def test_no_wake_is_lost_by_readers_that_begin_to_sleep_at_any_moment(writer: ChannelWriter) -> None:
    rounds, seen_by = 150, [0] * 4

    def read(place: int) -> None:
        with extmem.open_channel(writer.name) as reader:
            while seen_by[place] < rounds:
                with reader.read() as frame:
                    seen_by[place] = frame.number

    threads = [threading.Thread(target=read, args=(place,), daemon=True) for place in range(len(seen_by))]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(writer.info.readers) == len(threads), "the readers to come")
    for number in range(1, rounds + 1):
        publish(writer)
        if number % 3:
            wait_until(lambda number=number: min(seen_by) >= number, "all readers to read", deadline=20)  # type: ignore[misc]
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_a_loop_ends_when_the_writer_closes(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name, every=True) as reader:
        publish(writer, 3)
        writer.close()
        assert [frame.number for frame in reader] == [1, 2, 3]
        with pytest.raises(WriterGoneError, match="closed the channel") as caught:
            reader.read()
        assert caught.value.closed


def test_reconnect_waits_for_the_next_writer_which_goes_on(writer: ChannelWriter, name: str) -> None:
    with extmem.open_channel(name, reconnect=True) as reader:
        publish(writer, 2)
        assert seen(reader) == [2]
        writer.close()
        with pytest.raises(TimeoutError):
            reader.read(timeout=0.01)
        with extmem.create_channel(name, 4, "int32") as second:
            assert second.count == 2
            publish(second)
            assert reader.read(timeout=10).number == 3


def test_async_for_reads_what_for_reads(writer: ChannelWriter) -> None:
    async def read_all() -> list[int]:
        with extmem.open_channel(writer.name, every=True) as reader:
            found = []

            async def write() -> None:
                for _ in range(5):
                    publish(writer)
                    await asyncio.sleep(0)
                writer.close()

            task = asyncio.create_task(write())
            async for frame in reader:
                found.append(frame.number)
            await task
            return found

    assert asyncio.run(read_all()) == [1, 2, 3, 4, 5]


def test_a_cancelled_read_leaves_nothing(writer: ChannelWriter) -> None:
    async def cancel() -> None:
        with extmem.open_channel(writer.name) as reader:
            publish(writer)
            assert (await reader.read_async()).number == 1
            task = asyncio.create_task(reader.read_async())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert reader.held == 0
            publish(writer, 9)
            assert (await reader.read_async(timeout=5)).number == 10
            with pytest.raises(TimeoutError):
                await reader.read_async(timeout=0.01)

    asyncio.run(cancel())


def test_threads_that_share_a_reader_get_each_frame_once(writer: ChannelWriter) -> None:
    writer.close()
    with extmem.create_channel(writer.name, 1, slots=8, when_full="wait", timeout=20) as other:
        with extmem.open_channel(writer.name, every=True, reliable=True, max_held=3) as reader:
            found: list[int] = []

            def read() -> None:
                for frame in reader:
                    with frame:
                        found.append(frame.number)

            threads = [threading.Thread(target=read) for _ in range(2)]
            for thread in threads:
                thread.start()
            for _ in range(200):
                with other.write():
                    pass
            wait_until(lambda: reader.cursor == 200, "the frames to be read")
            other.close()
            for thread in threads:
                thread.join(10)
            assert sorted(found) == list(range(1, 201))


def test_the_age_of_a_frame_grows(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        frame = reader.read()
        assert 0 <= frame.age < 10 and frame.published <= time.monotonic_ns()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"start": "first"}, ValueError),
        ({"start": 1}, TypeError),
        ({"every": 1}, TypeError),
        ({"max_held": 0}, ValueError),
        ({"max_held": 33}, ValueError),
        ({"max_held": "2"}, TypeError),
        ({"reliable": True}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"device": "gpu"}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(writer: ChannelWriter, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        extmem.open_channel(writer.name, **options)  # type: ignore[arg-type]


def test_a_closed_reader_refuses_every_use(writer: ChannelWriter) -> None:
    reader = extmem.open_channel(writer.name)
    reader.close()
    reader.close()
    assert reader.closed
    uses: list[Callable[[], object]] = [reader.poll, reader.read, lambda: iter(reader), lambda: reader.info]
    for use in uses:
        with pytest.raises(HandleStateError, match="is closed"):
            use()


def test_reading_does_not_need_the_arrays(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader:
        publish(writer)
        frame = reader.read()
        assert frame.tobytes() == np.full(4, 1, "int32").tobytes()
        assert frame.view().readonly and frame.memory.read_only
