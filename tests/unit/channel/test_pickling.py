"""Pickles and copies of channels, and of what they consist of."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

import extmem
from extmem import ChannelReader, ChannelWriter, HandleStateError, UnsupportedError


@pytest.fixture
def writer(name: str) -> Iterator[ChannelWriter]:
    with extmem.create_channel(name, {"color": (4, 4), "depth": (4,)}) as channel:
        yield channel


def test_memory_of_a_frame_is_not_pickled_since_the_receiver_would_not_hold_it(writer: ChannelWriter) -> None:
    with extmem.open_channel(writer.name) as reader, writer.write() as frame:
        for part in (frame.memory, frame["depth"], frame):
            with pytest.raises(TypeError, match=r"cannot be pickled.*Pickle the channel"):
                pickle.dumps(part)
        frame.publish()
        got = reader.read(timeout=5)
        for part in (got.memory, got["color"], got):
            with pytest.raises(TypeError, match=r"cannot be pickled.*Pickle the channel"):
                pickle.dumps(part)
        with pickle.loads(pickle.dumps(writer)) as received:
            assert received.read(timeout=5).number == 1
    with extmem.open_device(kind="host").allocate(4, "uint8") as memory, pickle.loads(pickle.dumps(memory)) as other:
        assert other.size == memory.size


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_the_copy_module_does_not_make_a_reader_of_a_writer(writer: ChannelWriter, copied: object) -> None:
    assert callable(copied)
    with extmem.open_channel(writer.name) as reader:
        for channel in (writer, reader):
            with pytest.raises(UnsupportedError, match="does not copy a channel .*open_channel"):
                copied(channel)
        assert len(writer.info.readers) == 1


def test_a_closed_side_says_how_it_is_made_again(writer: ChannelWriter) -> None:
    reader = extmem.open_channel(writer.name)
    sent = pickle.dumps(reader)
    with pickle.loads(sent) as received:
        assert isinstance(received, ChannelReader)
    reader.close()
    with pytest.raises(HandleStateError, match=r"is closed; open it again by extmem\.open_channel$"):
        reader.poll()
    second = pickle.loads(sent)  # the ticket was claimed
    with pytest.raises(HandleStateError, match=r"not be received: .*[^.]; open it again by extmem\.open_channel$"):
        second.poll()
    writer.close()
    with pytest.raises(HandleStateError, match=r"is closed; create it again by extmem\.create_channel$"):
        writer.write()
