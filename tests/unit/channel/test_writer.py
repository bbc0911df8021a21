"""`ChannelWriter`: publishing, full rings, reliable readers, one writer at a time, take-over, new epochs."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

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
from extmem.errors import AccessDeniedError, OutOfMemoryError, QuotaError, ReaderTooSlowError
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


_WHOLE = np.arange(4, dtype="uint8").reshape(2, 2)


@pytest.mark.parametrize(
    "given", [_WHOLE, _WHOLE.tobytes(), bytearray(_WHOLE), memoryview(_WHOLE), _WHOLE.T.copy().T, [[0, 1], [2, 3]]]
)
def test_put_takes_a_whole_frame(name: str, given: Any) -> None:
    with extmem.create_channel(name, (2, 2)) as writer, extmem.open_channel(name) as reader:
        assert writer.put(given) == 1
        assert reader.read().numpy().tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (_WHOLE[:1], ValueError, r"shape \(1, 2\)"),
        (_WHOLE.reshape(4), ValueError, r"shape \(4,\)"),
        (b"12", ValueError, "2 bytes.*has 4"),
        (b"12345", ValueError, "5 bytes.*has 4"),
        (memoryview(b""), ValueError, "0 bytes.*has 4"),
        ([1, 2, 3, 4], ValueError, r"\(4,\)"),
        (_WHOLE.astype("int8"), TypeError, "int8"),
        (None, TypeError, "no array"),
        ({"a": _WHOLE}, TypeError, r"\['a'\]"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_put_refuses_what_is_no_whole_frame(
    name: str, given: Any, error: type[Exception], text: str, full: bool
) -> None:
    with extmem.create_channel(name, (2, 2), slots=1) as writer, extmem.open_channel(name) as reader:
        writer.put(_WHOLE)
        held = reader.read() if full else None
        with pytest.raises(error, match=text):
            writer.put(given)
        with pytest.raises(TypeError, match=r"keywords \['metadata'\].*meta="):
            writer.put(_WHOLE, metadata=b"x")
        assert (writer.count, writer.dropped) == (1, 0)
        assert held is None or writer.put(_WHOLE) == 0


@pytest.mark.parametrize("full", [False, True])
def test_put_refuses_other_arrays_than_those_of_a_frame(name: str, full: bool) -> None:
    with extmem.create_channel(name, {"a": (2, 2), "b": 3}, slots=1) as writer, extmem.open_channel(name) as reader:
        b = np.zeros(3, "uint8")
        writer.put(a=_WHOLE, b=b)
        held = reader.read() if full else None
        wrong: list[tuple[Any, dict[str, Any], type[Exception]]] = [
            (_WHOLE, {}, TypeError),
            ({"a": _WHOLE}, {}, ValueError),
            ({"a": _WHOLE, "b": b}, {"a": _WHOLE}, ValueError),
            ({"a": _WHOLE, "b": b}, {"metadata": b"x"}, ValueError),
            ({"a": _WHOLE.reshape(4), "b": b}, {}, ValueError),
            ({"a": _WHOLE, "b": b"12"}, {}, ValueError),
            ({"a": _WHOLE, "b": 5}, {}, TypeError),
        ]
        for array, arrays, error in wrong:
            with pytest.raises(error):
                writer.put(array, **arrays)
        assert (writer.count, writer.dropped) == (1, 0)
        assert writer.put({"a": _WHOLE}, b=b) == (0 if held else 2)


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


def test_N6_no_other_reader_keeps_the_writer_in_the_place_of_a_reliable_one(name: str) -> None:
    with extmem.create_channel(name, 4, when_full="raise", max_readers=3, max_reliable=2) as writer:
        with extmem.open_channel(name, every=True), extmem.open_channel(name, every=True):
            assert [one.place for one in writer.info.readers] == [1, 2]
            publish(writer, 9)
            with extmem.open_channel(name, every=True, reliable=True), pytest.raises(ReaderTooSlowError):
                publish(writer, 9)
            publish(writer, 9)


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


def test_N1_a_writer_that_takes_over_has_the_slots_that_it_asks_for(name: str) -> None:
    with extmem.create_channel(name, 4, slots=3, max_slots=8) as first:
        publish(first, 3)
        reader = extmem.open_channel(name, every=True, start="oldest", reconnect=True)
    with extmem.create_channel(name, 4, slots=5) as more:
        assert (more.slots, more.info.epoch, reader.read().number) == (5, 1, 1)
        publish(more, 2)
        assert [reader.read().number for _ in range(4)] == [2, 3, 4, 5]
        more.reconfigure(slots=8)
    with extmem.create_channel(name, 4, slots=4, max_slots=6, when_full="grow") as fewer:  # 8 are too many
        assert (fewer.slots, fewer.info.epoch) == (4, 3)
        publish(fewer)
        assert reader.read().number == 6
        with pytest.raises(ValueError, match="max_slots=7"):
            fewer.reconfigure(slots=7)
        fewer.reconfigure(slots=6)
    with extmem.create_channel(name, 4, slots=4, when_full="grow") as grown:
        assert (grown.slots, grown.info.epoch) == (6, 4)
    with extmem.create_channel(name, 4, slots=4) as fixed:
        assert (fixed.slots, fixed.info.epoch) == (4, 5)
    for _ in range(2):
        with pytest.raises(ValueError, match="slots is 9, and the channel .* has room for 8"):
            extmem.create_channel(name, 4, slots=9)
    reader.close()


def test_N1_a_writer_that_takes_over_grows_up_to_its_own_limit(name: str) -> None:
    with extmem.create_channel(name, 4, slots=2):
        reader = extmem.open_channel(name, max_held=8)
    with extmem.create_channel(name, 4, slots=2, max_slots=3, when_full="grow") as second:
        held = []
        for _ in range(3):
            publish(second)
            held.append(reader.read().hold())
        with second.write() as frame:
            assert frame.dropped
        assert second.slots == 3
        for one in held:
            one.release()
    reader.close()


def test_N6_a_writer_that_takes_over_may_refuse_reliable_readers(name: str) -> None:
    with extmem.create_channel(name, 4, when_full="raise"):
        reader = extmem.open_channel(name, every=True, reliable=True, reconnect=True)
    with extmem.create_channel(name, 4, when_full="raise", reliable="refuse") as second:
        with pytest.raises(AccessDeniedError, match="refuses reliable readers"):
            extmem.open_channel(name, every=True, reliable=True)
        publish(second, 9)
        assert not reader.reliable and not second.info.readers[0].reliable
        frame = reader.read()
        assert (frame.number, frame.skipped, reader.lost) == (6, 5, 5)
        frame.release()
    with extmem.create_channel(name, 4, when_full="raise") as third:
        extmem.open_channel(name, every=True, reliable=True).close()
        assert reader.reliable
        with pytest.raises(ReaderTooSlowError):
            publish(third, 9)
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


@pytest.mark.parametrize("every", [False, True])
def test_frames_that_end_with_their_slots_are_skipped(name: str, every: bool) -> None:
    with extmem.create_channel(name, 4, slots=4) as writer, extmem.open_channel(name, every=every) as reader:
        publish(writer)
        assert reader.read().number == 1
        publish(writer, 3)
        writer.reconfigure(8, slots=2)  # frame 4 was in slot 3
        assert reader.poll() is None
        with extmem.open_channel(name, every=every) as late:
            assert late.poll() is None
            for number in range(5, 24):  # the table of slots begins again within these
                publish(writer)
                frame, of_late = reader.read(), late.read()
                assert (frame.number, frame.skipped, frame.shape) == (number, 3 if number == 5 else 0, (8,))
                assert (of_late.number, of_late.skipped) == (number, 0)
        assert reader.lost == 3


def test_a_reader_that_has_not_read_moves_to_fewer_slots(name: str) -> None:
    with extmem.create_channel(name, 4, slots=1, max_slots=4, when_full="grow") as writer:
        with extmem.open_channel(name, max_held=4, every=True) as holder, extmem.open_channel(name) as reader:
            publish(writer)
            held = [holder.read().hold()]
            publish(writer)
            held.append(holder.read().hold())
            publish(writer)  # into slot 2, which the reader has not opened
            writer.reconfigure(slots=1)
            assert reader.poll() is None and holder.poll() is None
            publish(writer)
            assert reader.read().number == 4 and holder.read().number == 4
            for one in held:
                one.release()


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"shape": {f"a{index}": 3 for index in range(5000)}}, ValueError, "5000 arrays.*65536 is the limit"),
        ({"shape": (2, -1)}, ValueError, "-1"),
        ({"shape": 4, "dtype": "no type"}, ValueError, "no type"),
        ({"shape": 1 << 62}, (ValueError, OutOfMemoryError), "4611686018427387904"),
        ({"slots": 0}, ValueError, "slots is 0"),
        ({"slots": "3"}, TypeError, "a str"),
        ({"slots": True}, TypeError, "a bool"),
    ],
)
def test_a_reconfigure_that_fails_changes_nothing(
    name: str, change: dict[str, Any], error: type[Exception] | tuple[type[Exception], ...], text: str
) -> None:
    with extmem.create_channel(name, 4) as writer:
        with extmem.open_channel(name, every=True, reliable=True, strict=True) as reader:
            publish(writer, 2)
            with pytest.raises(error, match=text):
                writer.reconfigure(**change)
            assert (writer.shape, writer.slots, writer.info.epoch) == ((4,), 4, 1)
            publish(writer)
            assert [reader.read().number for _ in range(3)] == [1, 2, 3]


def test_more_arrays_than_a_page_can_list_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="65536 is the limit"):
        extmem.create_channel(name, {f"a{index}": 3 for index in range(5000)})
    extmem.create_channel(name, {f"a{index}": 3 for index in range(500)}, slots=1).close()


def test_reconfigure_keeps_the_element_types_that_there_are(name: str) -> None:
    with extmem.create_channel(name, {"a": 4, "b": (2, "float32")}, slots=1) as writer:
        with extmem.open_channel(name) as reader:
            writer.reconfigure({"a": (2, 2), "b": 8})
            publish(writer)
            kinds = {key: (one.shape, str(one.dtype)) for key, one in reader.read().numpy().items()}
            assert kinds == {"a": ((2, 2), "uint8"), "b": ((8,), "float32")}
            for change, text in (
                ({"dtype": "float32"}, "several arrays"),
                ({"shape": {"a": 4, "z": 4}}, "'z' is new"),
                ({"shape": 16}, "the dtype of the one array"),
            ):
                with pytest.raises(ValueError, match=text):
                    writer.reconfigure(**change)  # type: ignore[arg-type]
            writer.reconfigure({"a": 4, "z": (4, "int16")}, slots=np.int64(2))
            assert writer.slots == 2
            writer.reconfigure({"z": 4, "y": 2}, "float64")
            publish(writer)
            assert {str(one.dtype) for one in reader.read().numpy().values()} == {"float64"}
            writer.reconfigure(3, "int32")
            writer.reconfigure((3, 1))
            assert (writer.shape, writer.dtype) == ((3, 1), "int32")
            writer.reconfigure({"k": 2})
            publish(writer)
            assert str(reader.read()["k"].numpy().dtype) == "int32"


@pytest.mark.parametrize("shape", [(4, 5), (np.int64(4), np.int64(5)), (np.uint8(4), 5), [4, np.int16(5)]])
def test_a_shape_of_integers_of_any_type(name: str, shape: Any) -> None:
    with extmem.create_channel(name, {"color": shape, "typed": (shape, np.float32)}, slots=1) as writer:
        with writer.write() as frame:
            kinds = {key: (one.shape, str(one.dtype)) for key, one in frame.numpy().items()}
        assert kinds == {"color": ((4, 5), "uint8"), "typed": ((4, 5), "float32")}
    with extmem.create_channel(name, shape, slots=np.int64(1)) as one_array:
        assert (one_array.shape, one_array.slots) == ((4, 5), 1)


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
