"""Items: what a row of a table is about."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from extmem.cli._top.items import Item, Subject, channel_item, describe, is_of_channel, payload_item, subject_of
from extmem.objects import PayloadRow
from extmem.sharing.kinds import ObjectKind
from tests.top_looks import CHANNEL, PATH, holder, memory, process, timeline


def item(row: PayloadRow) -> Item:
    return payload_item(row, describe(row), process)


def test_memory_is_its_name_contents_and_holders_the_exporter_first() -> None:
    found = item(memory(1, "frames", holder(50), holder(100), holder(200), counter=4))
    assert (found.name, found.kind, found.size, found.number) == ("frames", "array 2 x 3 float32", 24, 4)
    assert found.holders == (50, 100, 200) and found.held_by == "100 camera and 2 more"
    assert "frames" in found.text and "200 viewer" in found.text and "float32" in found.text
    assert subject_of(memory(1)) is Subject.PAYLOADS


def test_timelines_have_a_value_and_no_size() -> None:
    row = timeline(2, "clock", 41)
    assert (item(row).kind, item(row).size, item(row).number) == ("timeline", None, 41)
    assert subject_of(row) is Subject.TIMELINES
    assert item(timeline(2, "clock", None)).number is None


@pytest.mark.parametrize(
    ("row", "name", "held_by"),
    [
        (memory(1), "(unnamed)", "100 camera"),
        (replace(memory(1), objects=(replace(memory(1).objects[0], superseded=True),)), "(superseded)", "100 camera"),
        (replace(memory(1, "k"), holders=(), objects=(replace(memory(1, "k").objects[0], kept="taken"),)),
         "k", "the broker"),
        (replace(memory(1, "sent"), holders=(), in_flight=1), "sent", "in flight"),
        (replace(memory(1, "alone"), holders=()), "alone", "no process"),
        (memory(1, "child", holder(0)), "child", "a child that is starting"),
    ],
)  # fmt: skip
def test_payloads_without_names_or_holders_say_so(row: PayloadRow, name: str, held_by: str) -> None:
    assert (item(row).name, item(row).held_by) == (name, held_by)


def test_text_of_other_programs_is_made_safe() -> None:
    row = memory(1, "a\x1b]0;x\x07\n\u202eb", holder(200))
    found = payload_item(row, describe(row), lambda pid: "\x1b[31m")
    assert (found.name + found.held_by + found.kind).isprintable()
    assert "\\x1b" in found.name and "\\x1b" in found.held_by
    assert channel_item(replace(CHANNEL, name="\x1bfeed"), process).name == "\\x1bfeed"


def test_any_descriptor_makes_an_item() -> None:
    choose = random.Random(3)
    for _ in range(200):
        data = bytearray(memory(1, "x").descriptor)
        data[choose.randrange(len(data))] = choose.randrange(256)
        for kind in (memory(1, "x"), timeline(1, "x", 1)):
            found = item(replace(kind, descriptor=bytes(data)))
            assert (found.name, found.kind.isprintable()) == ("x", True)
    assert item(replace(memory(1, "x"), descriptor=b"")).kind == "?"


def test_the_parts_of_the_channels_that_are_shown_are_no_rows_and_those_of_others_are() -> None:
    channel = replace(CHANNEL, parts="extmem.channel.ab12.")
    of_it = [memory(1, "extmem.channel.ab12.1.slot.0"), timeline(2, "extmem.channel.ab12.frames", 5)]
    page = replace(memory(3, "feed"), object_kind=ObjectKind.CHANNEL)
    assert all(is_of_channel(row, [channel]) for row in (*of_it, page))
    others = [
        memory(4, "feed"),
        memory(5, "extmem.channel.ab13.1.slot.0"),
        replace(memory(6), object_kind=page.object_kind),
    ]
    assert not any(is_of_channel(row, [channel]) for row in others)
    assert not any(is_of_channel(row, []) for row in (*of_it, page, *others))
    assert not is_of_channel(of_it[0], [CHANNEL]) and describe(page).kind == "channel"


def test_a_channel_is_held_by_its_writer_and_its_readers() -> None:
    found = channel_item(CHANNEL, process)
    assert (found.name, found.number, found.held_by, found.holders) == ("feed", 50, "100 camera", (100, 200, 300))
    orphan = channel_item(replace(CHANNEL, writer=0), process)
    assert (orphan.held_by, orphan.holders) == ("no writer", (200, 300))
    assert PATH not in found.name
