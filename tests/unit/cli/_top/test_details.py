"""All that is known of one row."""

from __future__ import annotations

from msgspec.structs import replace

from extmem.cli._top.columns import clock
from extmem.cli._top.details import MOST, details, wrapped
from extmem.cli._top.items import Subject
from extmem.cli._top.model import Model, State
from tests.top_looks import CHANNEL, READ, SIGNAL, WAIT, WALL, holder, look, memory, process, timeline


def text(state: State, subject: Subject = Subject.PAYLOADS) -> str:
    (row,) = state.rows[subject]
    return "\n".join(line.text for line in details(row, state, process))


def test_memory_tells_who_holds_it_with_which_rights_since_when() -> None:
    model = Model(process)
    model.update(look(0, memory(1, "frames", holder(100), counter=4)))
    found = text(model.update(look(5, memory(1, "frames", holder(100), holder(200, READ, [4, 8]), counter=6))))
    before, later = f"since before {clock(WALL)}", f"since {clock(WALL + 5)}"
    assert "name        frames" in found and "path        \\Sessions\\1\\BaseNamedObjects\\frames" in found
    assert "contents    array 2 x 3 float32" in found and "device      some device" in found
    assert "generation  6: 3 finished updates, 0.2 each second" in found
    assert f"  100 camera, exporter, read+write, {before}" in found
    assert f"  200 viewer, importer, read, {later}\n    handle 0x4 read\n    handle 0x8 read" in found
    assert (
        "held by 2 processes:" in found and f"shared      {before}" in found and "security    D:(A;;GA;;;OW)" in found
    )


def test_an_odd_generation_is_an_update_that_runs_or_was_not_finished() -> None:
    assert "generation  5: an update runs, or was not finished" in text(
        Model(process).update(look(0, memory(1, counter=5)))
    )
    assert "generation" not in text(Model(process).update(look(0, memory(1, counter=None))))


def test_timelines_tell_their_value_and_who_may_signal_and_wait() -> None:
    model = Model(process)
    row = timeline(1, "clock", 7, holder(100, SIGNAL), holder(200, WAIT))
    found = text(model.update(look(0, row)), Subject.TIMELINES)
    assert "contents    timeline\n" in found and "value       7\n" in found
    assert "signal      100\n" in found and "only wait   200\n" in found
    assert "value       not known" in text(model.update(look(1, replace(row, counter=None))), Subject.TIMELINES)


def test_what_keeps_or_lends_memory_is_told() -> None:
    row = memory(1, "kept")
    kept = replace(row, objects=(replace(row.objects[0], kept="until forgotten", superseded=True),), in_flight=2)
    found = text(Model(process).update(look(0, kept)))
    assert "kept        by the broker, until forgotten" in found
    assert "superseded  another object has got its name" in found
    assert "in flight   2, from processes that have ended" in found


def test_the_work_is_bounded_however_many_processes_hold_it() -> None:
    asked: list[int] = []

    def name(pid: int) -> str:
        asked.append(pid)
        return ""

    row = memory(1, "popular", *(holder(1000 + n, READ, range(4, 4 + 4 * 300, 4)) for n in range(3 * MOST)))
    state = Model(process).update(look(0, row))
    lines = details(state.rows[Subject.PAYLOADS][0], state, name)
    assert len(lines) <= 20 + MOST * (MOST + 2) and len(asked) <= MOST + 1
    assert "held by 600 processes:" in [line.text for line in lines]
    assert lines[-1].text == "  and 400 more processes" and lines[-2].text == "    and 100 more handles"


def test_a_row_that_has_ended_says_so() -> None:
    model = Model(process)
    model.update(look(0, memory(1, "frames")))
    assert "state       ended: nobody holds it any more" in text(model.update(look(1)))


def test_channels_tell_their_readers_and_who_is_slow() -> None:
    found = text(Model(process).update(look(0, channels=[CHANNEL])), Subject.CHANNELS)
    assert "writer      100 camera" in found and "frames      50, 3 dropped" in found
    assert "ring        4 slots, epoch 2" in found
    assert "  200 viewer, newest, 1 behind, 7 skipped, holds 1 frame for 0.5 s, since before" in found
    assert "  300 recorder, every, 9 behind, 1 skipped, since before" in found
    assert "writer      none lives" in text(
        Model(process).update(look(0, channels=[replace(CHANNEL, writer=0)])), Subject.CHANNELS
    )


def test_lines_are_wrapped_below_their_values() -> None:
    state = Model(process).update(look(0, memory(1, "a name of many words in one line")))
    lines = wrapped(details(state.rows[Subject.PAYLOADS][0], state, process), 30)
    assert lines[:2] == ["name        a name of many", "            words in one line"]
    assert all(len(line) <= 30 for line in lines)
    path = lines.index("path        \\Sessions\\1\\BaseNa")
    assert lines[path + 1] == "            medObjects\\a name"
    assert wrapped(details(state.rows[Subject.PAYLOADS][0], state, process), 1), "a window of any width"


def test_text_of_other_programs_is_made_safe() -> None:
    row = memory(1, "a\x1b[2Jb", holder(200))
    state = Model(process).update(look(0, row))
    lines = details(state.rows[Subject.PAYLOADS][0], state, lambda pid: "\x07bell\n")
    assert all(line.text.isprintable() for line in lines) and any("\\x07bell" in line.text for line in lines)
