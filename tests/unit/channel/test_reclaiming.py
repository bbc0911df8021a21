"""New epochs, and frames that a reader has not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import ChannelWriter, FramesLostError
from extmem.errors import OutOfMemoryError


def publish(writer: ChannelWriter, count: int = 1) -> None:
    for _ in range(count):
        writer.write().publish()


@pytest.fixture
def writer(name: str) -> Iterator[ChannelWriter]:
    with extmem.create_channel(name, 4, "int32", slots=4) as channel:
        yield channel


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


@pytest.mark.parametrize(("start", "lost"), [("newest", 7), ("next", 6), ("oldest", 9)])
def test_N11_frames_that_are_overwritten_before_the_first_read_are_counted(
    writer: ChannelWriter, start: Any, lost: int
) -> None:
    publish(writer, 3)
    with (
        extmem.open_channel(writer.name, every=True, start=start) as reader,
        extmem.open_channel(writer.name, every=True, start=start, strict=True) as strict,
    ):
        with extmem.open_channel(writer.name, every=True, start=start) as in_time:
            first = in_time.poll()
            assert (first is None and start == "next") or (first is not None and first.skipped == 0)
        publish(writer, 10)
        frame = reader.read()
        assert (frame.number, frame.skipped, reader.lost) == (10, lost, lost)
        with pytest.raises(FramesLostError, match="too slow") as caught:
            strict.read()
        assert (caught.value.first, caught.value.count) == (10 - lost, lost)
        assert strict.read().number == 10


def test_N11_frames_of_a_reliable_reader_that_end_with_their_slots_are_counted(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name, every=True, reliable=True, strict=True) as reader:
        publish(writer, 3)
        writer.reconfigure(8)
        publish(writer)
        with pytest.raises(FramesLostError, match="has replaced") as caught:
            reader.read()
        assert (caught.value.first, caught.value.count) == (1, 3)
        assert reader.read().number == 4
