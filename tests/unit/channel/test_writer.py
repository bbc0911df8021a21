"""`ChannelWriter`: publishing, full rings, reliable readers, one writer at a time, take-over, new epochs."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest

import extmem
from extmem import (
    ChannelFullError,
    ChannelReader,
    ChannelTakenError,
    ChannelWriter,
    HandleStateError,
    NameNotFoundError,
    NameTakenError,
    ObjectTypeError,
)
from extmem.errors import AccessDeniedError, QuotaError, ReaderTooSlowError
from extmem.testing.leaks import descriptors, mappings
from extmem.testing.waiting import wait_until


def publish(writer: ChannelWriter, count: int = 1) -> list[int]:
    numbers = []
    for _ in range(count):
        with writer.write() as frame:
            frame.view()[:1] = bytes([(writer.count + 1) % 256])
        numbers.append(frame.number)
    return numbers


def hold_all(writer: ChannelWriter, reader: ChannelReader) -> list[extmem.Frame]:
    """Hold each frame until no slot is free for the writer."""
    held = []
    for _ in range(writer.slots - 1):
        publish(writer)
        held.append(reader.read().hold())
    publish(writer)
    return held


def test_N2_numbers_begin_at_1_and_grow_by_1(name: str) -> None:
    with extmem.create_channel(name, 4) as writer:
        assert writer.count == 0
        assert publish(writer, 3) == [1, 2, 3]
        with pytest.raises(ZeroDivisionError), writer.write():
            raise ZeroDivisionError
        assert (writer.count, publish(writer)) == (3, [4])


def test_an_exception_in_the_block_publishes_nothing(name: str) -> None:
    with extmem.create_channel(name, 4) as writer, extmem.open_channel(name, every=True) as reader:
        with pytest.raises(ZeroDivisionError), writer.write() as frame:
            raise ZeroDivisionError
        assert frame.released and reader.poll() is None
        frame.discard()
        publish(writer)
        assert reader.read().number == 1


def test_a_frame_is_used_once(name: str) -> None:
    with extmem.create_channel(name, 4) as writer:
        with writer.write() as frame:
            assert frame.publish() == 1
        for use in (frame.publish, frame.numpy, frame.view):
            with pytest.raises(HandleStateError, match="published or given up"):
                use()
        assert writer.count == 1


def test_metadata_has_a_limit_and_is_bytes(name: str) -> None:
    with extmem.create_channel(name, 4) as writer, extmem.open_channel(name) as reader:
        with writer.write() as frame:
            frame.meta = b"x" * 256
            with pytest.raises(ValueError, match="257 bytes"):
                frame.meta = b"x" * 257
            with pytest.raises(TypeError):
                frame.meta = "text"  # type: ignore[assignment]
        assert reader.read().meta == b"x" * 256
        publish(writer)
        assert reader.read().meta == b""


def test_put_copies_arrays(name: str) -> None:
    with extmem.create_channel(name, (2, 3), "float32") as writer, extmem.open_channel(name) as reader:
        array = np.arange(6, dtype="float32").reshape(2, 3)
        assert writer.put(array, meta=b"m") == 1
        frame = reader.read()
        assert (frame.numpy() == array).all() and frame.meta == b"m"
        with pytest.raises((TypeError, ValueError)):
            writer.put(np.zeros((3, 2), "float32"))
        with pytest.raises(TypeError, match="put"):
            writer.put({"a": array})
        assert writer.count == 1


def test_a_frame_holds_many_arrays(name: str) -> None:
    shapes = {"color": ((4, 5, 4), "uint8"), "depth": ((4, 5), "float32"), "pose": (3, 4)}
    with extmem.create_channel(name, shapes, "float64") as writer, extmem.open_channel(name) as reader:
        with writer.write() as frame:
            for number, part in enumerate(frame.numpy().values()):
                part[...] = number + 1
        got = reader.read()
        assert got.keys() == ("color", "depth", "pose") and len(got) == 3
        assert {key: (one.shape, str(one.dtype), one.ravel()[0]) for key, one in got.numpy().items()} == {
            "color": ((4, 5, 4), "uint8", 1),
            "depth": ((4, 5), "float32", 2.0),
            "pose": ((3, 4), "float64", 3.0),
        }
        assert got["depth"].numpy()[0, 0] == 2.0
        with pytest.raises(KeyError, match="color, depth, pose"):
            got["alpha"]
        arrays = {key: one + 1 for key, one in got.numpy().items()}
        assert writer.put(arrays) == 2
        assert reader.read()["pose"].numpy()[0, 0] == 4.0
        with pytest.raises(ValueError, match="holds"):
            writer.put(color=arrays["color"])
        with pytest.raises(ValueError, match="depth"):
            writer.put({**arrays, "depth": arrays["pose"]})


@pytest.mark.parametrize("dtype", ["bool", "complex64", "datetime64[ns]", "bfloat16", ">i4", "S8"])
def test_any_element_type(name: str, dtype: str) -> None:
    with extmem.create_channel(name, 3, dtype) as writer, extmem.open_channel(name) as reader:
        with writer.write() as frame:
            frame.view()[:] = octets = bytes(range(frame.memory.size))
        got = reader.read()
        assert got.dtype == frame.dtype and got.tobytes() == octets
        assert writer.put(got.numpy().copy()) == 2 and reader.read().tobytes() == octets
        assert writer.put(octets) == 3 and reader.read().tobytes() == octets


def test_N5_drop_counts_and_readers_do_not_see_it(name: str) -> None:
    with extmem.create_channel(name, 4, slots=3) as writer, extmem.open_channel(name, max_held=8) as reader:
        held = hold_all(writer, reader)
        with writer.write() as frame:
            assert frame.dropped
            frame.numpy()[:] = 7
        assert (frame.number, writer.dropped, writer.count) == (0, 1, 3)
        assert writer.put(b"1234") == 0
        held[0].release()
        assert publish(writer) == [4]
        assert writer.info.dropped == 2


def test_N5_raise_names_who_holds_what_and_for_how_long(name: str) -> None:
    with (
        extmem.create_channel(name, 4, slots=3, when_full="raise") as writer,
        extmem.open_channel(name, max_held=8) as reader,
    ):
        held = hold_all(writer, reader)
        pid = os.getpid()
        with pytest.raises(
            ChannelFullError, match=rf"process {pid} holds frame 1 in slot 0 for \d+\.\d+ s.*more slots"
        ) as caught:
            writer.write()
        assert not isinstance(caught.value, ReaderTooSlowError)
        (holder,) = caught.value.holders
        assert len(held) == 2
        assert holder.pid == pid and [one.number for one in holder.held] == [1, 2]


def test_N5_wait_ends_when_a_reader_releases(name: str) -> None:
    with (
        extmem.create_channel(name, 4, slots=3, when_full="wait", timeout=20) as writer,
        extmem.open_channel(name, max_held=8) as reader,
    ):
        held = hold_all(writer, reader)
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.extend(publish(writer)))
        thread.start()
        wait_until(lambda: writer.control.words[24] != 0, "the writer to wait")
        held[1].release()
        thread.join(10)
        assert got == [4]


def test_N5_wait_has_a_limit_that_the_error_tells(name: str) -> None:
    with (
        extmem.create_channel(name, 4, slots=2, when_full="wait", timeout=0.01) as writer,
        extmem.open_channel(name, max_held=8) as reader,
    ):
        held = hold_all(writer, reader)
        with pytest.raises(ChannelFullError, match=r"free after 0\.\d+ s"):
            writer.write()
        held[0].release()
        publish(writer)


def test_N5_grow_adds_slots_up_to_the_limit(name: str) -> None:
    with (
        extmem.create_channel(name, 4, slots=2, max_slots=3, when_full="grow") as writer,
        extmem.open_channel(name, max_held=8) as reader,
    ):
        held = hold_all(writer, reader)
        assert publish(writer) == [3] and writer.slots == 3
        frame = reader.read().hold()
        assert (frame.number, frame.slot) == (3, 2)
        publish(writer)
        with writer.write() as dropped:
            assert dropped.dropped
        for one in (*held, frame):
            one.release()


def test_N6_a_reliable_reader_loses_nothing(name: str) -> None:
    with extmem.create_channel(name, 4, slots=4, when_full="raise") as writer:
        publish(writer, 2)
        with extmem.open_channel(name, every=True, reliable=True) as reader:
            publish(writer, 2)
            with pytest.raises(ReaderTooSlowError, match=rf"process {os.getpid()}, a reliable reader, has read up to"):
                publish(writer, 5)
            numbers = [reader.read().number for _ in range(writer.count - 1)]
            assert numbers == list(range(2, writer.count + 1)) and reader.lost == 0
            publish(writer)
        publish(writer, 9)  # it has gone


def test_N6_the_writer_may_refuse_reliable_readers(name: str) -> None:
    with extmem.create_channel(name, 4, reliable="refuse"):
        with pytest.raises(AccessDeniedError, match="refuses reliable readers"):
            extmem.open_channel(name, every=True, reliable=True)
        extmem.open_channel(name, every=True).close()


def test_readers_beyond_the_limit_are_refused(name: str) -> None:
    with extmem.create_channel(name, 4, max_readers=2, max_reliable=1) as writer:
        with extmem.open_channel(name), extmem.open_channel(name, every=True, reliable=True):
            assert len(writer.info.readers) == 2
            with pytest.raises(QuotaError, match="2 readers"):
                extmem.open_channel(name)
            with pytest.raises(QuotaError, match="1 reliable readers"):
                extmem.open_channel(name, every=True, reliable=True)
        extmem.open_channel(name).close()


def test_N1_a_channel_has_one_writer(name: str) -> None:
    with extmem.create_channel(name, 4):
        with pytest.raises(ChannelTakenError, match=rf"process {os.getpid()}"):
            extmem.create_channel(name, 4)
    with extmem.create_channel(name, 4) as writer:
        assert writer.count == 0


def test_N1_a_writer_goes_on_where_another_one_has_ended(name: str) -> None:
    with extmem.create_channel(name, 4, slots=3) as first:
        publish(first, 5)
        reader = extmem.open_channel(name, every=True, start="oldest", max_held=4)
        kept = reader.read().hold()
    with extmem.create_channel(name, 4, slots=3) as second:
        assert (second.count, second.info.epoch) == (5, 1)
        assert publish(second, 4) == [6, 7, 8, 9]
        assert kept.numpy()[0] == 3
        assert [frame.number for frame in iter(reader.poll, None)] == [8, 9]
    kept.release()
    reader.close()


@pytest.mark.parametrize("other", [{"shape": 8}, {"shape": 4, "resume": False}, {"shape": {"a": 4}}])
def test_N1_a_writer_of_another_shape_begins_an_epoch(name: str, other: dict[str, object]) -> None:
    with extmem.create_channel(name, 4, slots=3) as first:
        publish(first, 5)
        reader = extmem.open_channel(name)
        old = reader.read().hold()
    with extmem.create_channel(name, **other) as second:  # type: ignore[arg-type]
        assert (second.count, second.info.epoch) == (5, 2)
        assert publish(second) == [6]
        old.release()
        frame = reader.read()
        assert frame.number == 6 and frame.shape == second.shape
    reader.close()


def test_reconfigure_begins_an_epoch_and_held_frames_stay_valid(name: str) -> None:
    with extmem.create_channel(name, 4, slots=3) as writer, extmem.open_channel(name, max_held=2) as reader:
        publish(writer, 3)
        old = reader.read().hold()
        writer.reconfigure((2, 2), "float32", slots=5)
        assert reader.poll() is None
        assert (writer.slots, writer.shape, writer.dtype, writer.info.epoch) == (5, (2, 2), "float32", 2)
        publish(writer, 9)
        frame = reader.read()
        assert (frame.number, frame.shape, frame.dtype) == (12, (2, 2), "float32")
        assert old.numpy()[0] == 3 and old.shape == (4,)
        old.release()
        with pytest.raises(ValueError, match="max_slots=65"):
            writer.reconfigure(slots=65)
        with writer.write(), pytest.raises(HandleStateError, match="being written"):
            writer.reconfigure(8)
        assert reader.read().shape == (2, 2)


def test_a_ring_of_one_slot(name: str) -> None:
    with extmem.create_channel(name, 4, slots=1) as writer, extmem.open_channel(name) as reader:
        publish(writer, 3)
        assert reader.read().number == 3
        with writer.write() as frame:
            assert frame.dropped
        assert reader.poll() is None
        publish(writer)
        assert reader.read().number == 4


def test_names_of_memory_are_refused_and_the_reverse(name: str) -> None:
    with extmem.open_device(kind="host") as device, device.allocate(4, name=name):
        with pytest.raises(NameTakenError, match=r"extmem\.open\)"):
            extmem.create_channel(name, 4)
        with pytest.raises(ObjectTypeError, match=r"extmem\.open\)"):
            extmem.open_channel(name)
    with extmem.create_channel(name, 4):
        for call in (extmem.open, extmem.open_timeline):
            with pytest.raises(ObjectTypeError, match="extmem.open_channel"):
                call(name)  # type: ignore[operator]
    with pytest.raises(NameNotFoundError):
        extmem.open_channel(name)


def test_the_parts_of_a_channel_are_not_listed(name: str) -> None:
    before = extmem.names()
    with extmem.create_channel(name, 4):
        assert extmem.names() == before


def test_a_frame_that_is_lost_gives_its_slot_back(name: str) -> None:
    with extmem.create_channel(name, 4, slots=2, when_full="raise") as writer:
        publish(writer)
        writer.write()
        gc.collect()
        assert publish(writer, 2) == [2, 3]


def test_frames_may_be_written_at_the_same_time(name: str) -> None:
    with extmem.create_channel(name, 4) as writer, extmem.open_channel(name, every=True) as reader:
        first, second = writer.write(), writer.write()
        assert first.slot != second.slot
        assert (second.publish(), first.publish()) == (1, 2)
        assert [reader.read().slot for _ in range(2)] == [second.slot, first.slot]


def test_several_threads_write(name: str) -> None:
    with extmem.create_channel(name, 4, slots=6, when_full="wait", timeout=20) as writer:
        with extmem.open_channel(name, every=True, reliable=True) as reader:
            threads = [threading.Thread(target=publish, args=(writer, 50)) for _ in range(3)]
            for thread in threads:
                thread.start()
            assert [reader.read(timeout=20).number for _ in range(150)] == list(range(1, 151))
            for thread in threads:
                thread.join(20)


def test_close_leaves_arrays_and_refuses_every_use(name: str) -> None:
    writer = extmem.create_channel(name, 4)
    with writer.write() as frame:
        array = frame.numpy()
        array[:] = 5
    writer.close()
    writer.close()
    assert array[0] == 5
    for use in (writer.write, lambda: writer.put(b"1234"), lambda: writer.info, lambda: writer.reconfigure(8)):
        with pytest.raises(HandleStateError, match="is closed"):
            use()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"slots": 0}, ValueError),
        ({"slots": 1025}, ValueError),
        ({"slots": 4, "max_slots": 3}, ValueError),
        ({"when_full": "block"}, ValueError),
        ({"when_full": None}, TypeError),
        ({"reliable": True}, TypeError),
        ({"resume": 1}, TypeError),
        ({"max_readers": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"security": 5}, TypeError),
        ({"dtype": "text"}, (ValueError, TypeError)),
        ({"shape": {}}, ValueError),
        ({"shape": {1: 4}}, TypeError),
        ({"shape": -1}, ValueError),
    ],
)
def test_wrong_arguments_are_refused(name: str, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        extmem.create_channel(name, **{"shape": 4, **options})  # type: ignore[arg-type]
    with pytest.raises(NameNotFoundError):
        extmem.open_channel(name)


def test_opening_and_closing_leaves_nothing(name: str) -> None:
    def once() -> None:
        with extmem.create_channel(name, 4) as writer, extmem.open_channel(name) as reader:
            publish(writer)
            reader.read()

    once()
    gc.collect()
    before = descriptors(), mappings()
    for _ in range(5):
        once()
    gc.collect()
    assert (descriptors(), mappings()) == before
