"""What the view shows of channels, and that looking at one neither joins it nor keeps it alive."""

from __future__ import annotations

import os

import pytest

from extmem.channel.info import ChannelInfo, HeldFrame, ReaderInfo
from extmem.cli._top.channel_facts import channels_of, facts_of
from extmem.cli._top.channels import ReaderFacts
from extmem.cli._top.items import Subject
from extmem.cli._top.model import Model
from extmem.cli._top.reading import channel_provider, look
from extmem.manager import manager
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.top_looks import process

READER = ReaderInfo(3, 200, False, False, 49, 1, 7, 1, (HeldFrame(49, 1, 0.5), HeldFrame(48, 0, 0.7)))
INFO = ChannelInfo("feed", 100, "alive", 2, 4, 64, 50, 0.02, 3, 64, 8, (READER,))


def changed(info: ChannelInfo, **changes: object) -> ChannelInfo:
    import msgspec

    return msgspec.structs.replace(info, **changes)


def test_the_facts_of_a_channel_are_those_of_its_info() -> None:
    found = facts_of(INFO)
    assert (found.name, found.writer, found.frames, found.age) == ("feed", 100, 50, 0.02)
    assert (found.slots, found.epoch, found.dropped) == (4, 2, 3)
    assert found.readers == (ReaderFacts(200, "newest", 49, held=2, held_for=0.7, skipped=7),)


@pytest.mark.parametrize("state", ["gone", "closed"])
def test_a_writer_that_has_ended_is_none(state: str) -> None:
    assert facts_of(changed(INFO, state=state)).writer == 0


@pytest.mark.parametrize(
    ("every", "reliable", "mode"), [(False, False, "newest"), (True, False, "every"), (True, True, "reliable")]
)
def test_the_mode_of_a_reader_is_a_word(every: bool, reliable: bool, mode: str) -> None:
    import msgspec

    reader = msgspec.structs.replace(READER, every=every, reliable=reliable, held=())
    (found,) = facts_of(changed(INFO, readers=(reader,))).readers
    assert (found.mode, found.held, found.held_for) == (mode, 0, None)


def test_a_look_at_a_channel_neither_joins_it_nor_keeps_it() -> None:
    with Peer() as writer, Peer() as reader:
        writer("channel = extmem.create_channel('facts', (4, 4), 'uint8')")
        reader("channel = extmem.open_channel('facts', every=True)")
        writer("for _ in range(5):\n    with channel.write(): pass")
        provider = channel_provider()
        assert provider is channels_of
        found = look(provider)
        assert found.error is None and found.channels is not None
        (one,) = found.channels
        assert (one.name, one.writer, one.frames) == ("facts", writer.pid, 5)
        (other,) = one.readers
        assert (other.pid, other.mode, other.cursor) == (reader.pid, "every", 0)
        # Its parts are rows of no other table.
        state = Model(process).update(found)
        assert not state.rows[Subject.PAYLOADS] and not state.rows[Subject.TIMELINES]
        assert [row.item.name for row in state.rows[Subject.CHANNELS]] == ["facts"]
        held = [row.names for row in manager().snapshot() if any(one.pid == os.getpid() for one in row.holders)]
        assert not held
        reader("channel.close()")
        writer("channel.close()")

    def nothing() -> bool:
        again = look(provider)
        return not again.rows and not again.channels

    wait_until(nothing, "the channel to end, though it is looked at")
