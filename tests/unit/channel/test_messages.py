"""What the errors of channels say: the facts, and a remedy that helps."""

from __future__ import annotations

import os

import pytest

import extmem
from extmem import ChannelFullError, HandleStateError, NameNotFoundError, WaitTimeoutError
from extmem.channel import names
from extmem.errors import NameInvalidError, OutOfMemoryError, QuotaError


def test_a_name_without_a_channel_needs_a_writer(name: str) -> None:
    with pytest.raises(NameNotFoundError, match=rf"no channel is named '{name}': start its writer .*open_channel"):
        extmem.open_channel(name)
    with pytest.raises(NameNotFoundError, match="No live object is named"):  # memory is exported
        extmem.open(name)


@pytest.mark.parametrize("prefix", ["extmem.channel.", "Extmem.Channel."])
def test_the_names_of_parts_are_not_those_of_channels(name: str, prefix: str) -> None:
    for make in (lambda: extmem.create_channel(prefix + name, 8), lambda: extmem.open_channel(prefix + name)):
        with pytest.raises(NameInvalidError, match="names of the parts of channels.*Choose another name"):
            make()
    assert names.checked(f"extmem.{name}") == f"extmem.{name}"


def test_more_readers_than_a_channel_can_have_are_not_advised(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with extmem.create_channel(name, 8, max_readers=2, max_reliable=1) as writer, extmem.open_channel(name):
        with extmem.open_channel(name, every=True, reliable=True):
            with pytest.raises(QuotaError, match="2 readers, and its writer allows no more.*greater max_readers"):
                extmem.open_channel(name)
            with pytest.raises(QuotaError, match="1 reliable readers, .*greater max_reliable"):
                extmem.open_channel(name, every=True, reliable=True)
            monkeypatch.setattr("extmem.channel.functions.READERS_LIMIT", 2)
            with pytest.raises(QuotaError, match=r"2 readers, as many as a channel can have\. Close one\."):
                extmem.open_channel(name)
        assert len(writer.info.readers) == 1


@pytest.mark.parametrize(("most", "advice"), [(2, "max_held=3$"), (32, "or copy it$")])
def test_the_advice_about_kept_frames_stays_within_the_limit(name: str, most: int, advice: str) -> None:
    with extmem.create_channel(name, 8, slots=most + 2) as writer:
        with extmem.open_channel(name, every=True, max_held=most) as reader:
            kept = []
            for _ in range(most):
                writer.write().publish()
                kept.append(reader.read(timeout=5).hold())
            writer.write().publish()
            with pytest.raises(HandleStateError, match=advice):
                reader.read(timeout=5)
            for frame in kept:
                frame.release()
            assert reader.read(timeout=5).number == most + 1


@pytest.mark.parametrize("shape", [1 << 50, {"a": (1 << 46,), "b": (4,)}])
def test_a_slot_that_is_larger_than_all_memory_is_out_of_memory(name: str, shape: object) -> None:
    with pytest.raises(OutOfMemoryError, match=r"slot 0 .* exceed the heap .* give a smaller shape"):
        extmem.create_channel(name, shape)  # type: ignore[arg-type]
    with extmem.create_channel(name, 8) as writer:
        assert writer.slots == 4


def test_a_wait_tells_whether_the_writer_has_ended(name: str) -> None:
    writer = extmem.create_channel(name, 8)
    with extmem.open_channel(name, reconnect=True) as reader:
        with pytest.raises(WaitTimeoutError, match="which has not ended.*see what the writer does"):
            reader.read(timeout=0)
        writer.close()
        with pytest.raises(WaitTimeoutError, match="which has ended.*start it again"):
            reader.read(timeout=0)
        with extmem.create_channel(name, 8):
            with pytest.raises(WaitTimeoutError, match="which has not ended"):
                reader.read(timeout=0)


def test_a_full_ring_tells_of_arrays_of_a_reader_that_is_closed(name: str) -> None:
    with extmem.create_channel(name, 8, slots=2, when_full="raise") as writer:
        writer.write().publish()
        with extmem.open_channel(name) as reader:
            array = reader.read(timeout=5).numpy()
        writer.write().publish()
        with pytest.raises(ChannelFullError, match=rf"\(slots 0\), by arrays of .*this process \({os.getpid()}\)"):
            writer.write()
        del array
        assert writer.write().publish() == 3


def test_a_ring_of_one_slot_does_not_keep_its_newest_frame(name: str) -> None:
    with extmem.create_channel(name, 8, slots=1, when_full="raise") as writer, extmem.open_channel(name) as reader:
        writer.write().publish()
        frame = reader.read(timeout=5)
        with pytest.raises(ChannelFullError, match="it has 1; process .* holds frame 1 in slot 0"):
            writer.write()
        frame.release()
        assert writer.write().publish() == 2


def test_a_ring_of_two_slots_keeps_its_newest_frame(name: str) -> None:
    with extmem.create_channel(name, 8, slots=2, when_full="raise") as writer, extmem.open_channel(name) as reader:
        writer.write().publish()
        frame = reader.read(timeout=5)
        writer.write().publish()
        with pytest.raises(ChannelFullError, match=r"it has 2, and its newest frame \(2\) keeps one; process"):
            writer.write()
        frame.release()
