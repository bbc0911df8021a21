"""Writers that take over a channel, and the limits that they have."""

from __future__ import annotations

import pytest

import extmem
from extmem import ChannelWriter
from extmem.errors import AccessDeniedError, ReaderTooSlowError


def publish(writer: ChannelWriter, count: int = 1) -> None:
    for _ in range(count):
        writer.write().publish()


def test_N6_no_other_reader_keeps_the_writer_in_the_place_of_a_reliable_one(name: str) -> None:
    with extmem.create_channel(name, 4, when_full="raise", max_readers=3, max_reliable=2) as writer:
        with extmem.open_channel(name, every=True), extmem.open_channel(name, every=True):
            assert [one.place for one in writer.info.readers] == [1, 2]
            publish(writer, 9)
            with extmem.open_channel(name, every=True, reliable=True), pytest.raises(ReaderTooSlowError):
                publish(writer, 9)
            publish(writer, 9)


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
    with extmem.create_channel(name, 4, when_full="raise") as first:
        assert first.info.max_reliable == 8
        reader = extmem.open_channel(name, every=True, reliable=True, reconnect=True)
    with extmem.create_channel(name, 4, when_full="raise", reliable="refuse") as second:
        with pytest.raises(AccessDeniedError, match="refuses reliable readers"):
            extmem.open_channel(name, every=True, reliable=True)
        assert second.info.max_reliable == 0
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


def test_N6_a_writer_that_takes_over_may_allow_reliable_readers(name: str) -> None:
    with extmem.create_channel(name, 4, reliable="refuse", max_reliable=2) as first:
        other = extmem.open_channel(name, reconnect=True)
        with pytest.raises(AccessDeniedError, match="refuses reliable readers"):
            extmem.open_channel(name, every=True, reliable=True)
        assert first.info.max_reliable == 0
    with extmem.create_channel(name, 4, when_full="raise") as second:
        assert second.info.max_reliable == 2
        with extmem.open_channel(name, every=True, reliable=True) as reader, pytest.raises(ReaderTooSlowError):
            assert reader.reliable
            publish(second, 9)
    other.close()
