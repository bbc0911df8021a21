"""One line of a table, and which columns fit into a window."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from extmem.cli._top.columns import COLUMNS, clock, fitting, header_line, row_line, seconds_in_words
from extmem.cli._top.items import Subject
from extmem.cli._top.model import Model, Row, State
from tests.top_looks import CHANNEL, look, memory, process, timeline

WIDTHS = (1, 10, 20, 39, 40, 60, 80, 100, 120, 200, 500)


def shown(*rows: object, subject: Subject = Subject.PAYLOADS) -> tuple[Row, State]:
    state = Model(process).update(look(0, *rows, channels=[CHANNEL]))  # type: ignore[arg-type]
    return state.rows[subject][0], state


@pytest.mark.parametrize("subject", Subject)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_line_is_as_wide_as_the_window_or_only_the_name_is_left(subject: Subject, width: int) -> None:
    row, state = shown(memory(1, "日本語 and a very long name" * 3), timeline(2, "clock" * 9, 3), subject=subject)
    columns = COLUMNS[subject]
    placed = fitting(columns, width)
    assert placed[0].column is columns[0]
    lines = [row_line(row, placed, state, selected=False), header_line(placed, columns[0], descending=False)]
    for line in lines:
        assert cell_len(line) == max(width, 4)
    last = placed[-1]
    assert last.at + last.width == max(width, 4)


@pytest.mark.parametrize("subject", Subject)
def test_a_window_shows_columns_until_there_is_room_for_no_other(subject: Subject) -> None:
    columns = COLUMNS[subject]
    assert (len(fitting(columns, 1)), len(fitting(columns, 500))) == (1, len(columns))
    for width in range(1, 200):
        placed = fitting(columns, width)
        shown = [one.column for one in placed]
        assert shown == [one for one in columns if one in shown], "in their order"
        room = placed[0].width - 12
        assert all(one.width + 2 + (12 if one.rank > 3 else 0) > room for one in columns if one not in shown)
        # Each column that is left out has a rank as great as the least one that is shown, or is too wide for its rank.
        before = [one for one in columns[1:] if one.rank < min((c.rank for c in columns if c not in shown), default=9)]
        assert all(one in shown for one in before)


@pytest.mark.parametrize("subject", Subject)
def test_every_title_has_room_for_its_arrow(subject: Subject) -> None:
    placed = fitting(COLUMNS[subject], 300)
    for one in placed:
        for descending, arrow in ((True, "v"), (False, "^")):
            assert f"{one.column.title} {arrow}" in header_line(placed, one.column, descending=descending)


def test_marks_are_characters_and_cells_that_are_cut_end_with_an_ellipsis() -> None:
    row, state = shown(memory(1, "frames" * 20))
    line = row_line(row, fitting(COLUMNS[Subject.PAYLOADS], 80), state, selected=True)
    assert line.startswith(">  framesframes") and "…" in line
    assert row_line(row, fitting(COLUMNS[Subject.PAYLOADS], 80), state, selected=False).startswith("   framesframes")


def test_the_cells_of_each_table() -> None:
    row, state = shown(memory(1, "frames", columns=300, counter=6))
    words = row_line(row, fitting(COLUMNS[Subject.PAYLOADS], 300), state, selected=False).split("  ")
    assert [word.strip() for word in words if word.strip()] == [
        "frames", "2.34 KiB", "6", "-", "1", "100 camera", "array 2 x 300 float32", f"<{clock(state.began)}",
    ]  # fmt: skip
    row, state = shown(timeline(2, "clock", 41), subject=Subject.TIMELINES)
    assert " 41 " in row_line(row, fitting(COLUMNS[Subject.TIMELINES], 300), state, selected=False)
    row, state = shown(subject=Subject.CHANNELS)
    words = row_line(row, fitting(COLUMNS[Subject.CHANNELS], 300), state, selected=False).split("  ")
    assert [word.strip() for word in words if word.strip()][:9] == [
        "feed", "100 camera", "50", "-", "20 ms", "2", "1", "8", "300, 9 behind",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (-1, "0 ms"), (0.0003, "0.3 ms"), (0.0099, "9.9 ms"), (0.02, "20 ms"), (0.1, "0.1 s"),
        (9.94, "9.9 s"), (59, "59 s"), (119.9, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"),
        (172_800, "2 d"),
    ],
)  # fmt: skip
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert seconds_in_words(seconds) == text
