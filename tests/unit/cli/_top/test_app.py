"""The program of `extmem top`, without a terminal: keys, mouse, and what is on the screen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from extmem.cli._top.channels import ChannelFacts
from extmem.cli._top.model import Look
from extmem.cli._top.reading import NO_BROKER
from extmem.errors import PeerGoneError
from extmem.testing.waiting import DEADLINE
from tests.top_looks import CHANNEL, holder, look, memory, process, timeline

pytest.importorskip("textual", reason="Textual is not installed")

from textual.pilot import Pilot

from extmem.cli._top.app import TopApp

FRAMES = tuple(memory(n, f"frames{n:02}", columns=n + 1) for n in range(30))


class Looking:
    """Looks for the program: each gives what the test has set, and `again` lets the program look."""

    def __init__(self, *rows: Any, **changes: Any) -> None:
        self.count = 0
        self._changed = threading.Event()
        self.set(*rows, **changes)

    def set(self, *rows: Any, **changes: Any) -> None:
        self._rows, self._changes = rows, changes

    def __call__(self) -> Look:
        self.count += 1
        return look(self.count, *self._rows, **self._changes)


class Screen:
    """A running program."""

    def __init__(self, app: TopApp, pilot: Pilot[None], looking: Looking) -> None:
        self.app, self.pilot, self.looking = app, pilot, looking

    @property
    def lines(self) -> list[str]:
        """The lines on the screen."""
        return [strip.text.rstrip() for strip in self.app.screen._compositor.render_strips()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the condition is true."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await self.pilot.pause(0.005)
        await self.pilot.pause()

    async def shows(self, text: str) -> None:
        """Wait until the text is on the screen."""
        try:
            await self.until(lambda: text in self.text, text)
        except TimeoutError:
            raise AssertionError(f"{text!r} is not on the screen:\n{self.text}") from None

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def again(self, *rows: Any, **changes: Any) -> None:
        """Let the program look again, at this."""
        self.looking.set(*rows, **changes)
        before = self.app.state
        self.app._reading.again()
        await self.until(lambda: self.app.state is not before, "another look")

    @property
    def selected(self) -> str:
        """The name in the selected row."""
        (line,) = [line for line in self.lines if line.startswith(">  ")]
        return line.split()[1]

    @property
    def names(self) -> list[str]:
        """The names of the rows, in their order. The first one must be on the screen, if there is one."""
        names = [row.item.name for row in self.app._table._rows]
        assert not names or any(line[3:].startswith(names[0][:8]) for line in self.lines) or self.app._table.scroll_y
        return names


def run(
    test: Callable[[Screen], Awaitable[None]],
    *rows: Any,
    size: tuple[int, int] = (100, 30),
    provider: Callable[[Sequence[Any]], Sequence[ChannelFacts]] | None = None,
    **changes: Any,
) -> TopApp:
    """Run a test in the program, which shows these payloads. Return the program, which has ended."""
    looking = Looking(*rows, **changes)
    app = TopApp(interval=3600, looking=looking, processes=process, provider=provider)

    async def all_of_it() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            screen = Screen(app, pilot, looking)
            await screen.until(lambda: app.state is not None, "the first look")
            await test(screen)

    asyncio.run(all_of_it())
    return app


def test_a_row_tells_name_size_and_holder_and_the_details_the_rest() -> None:
    async def test(screen: Screen) -> None:
        assert "extmem top | broker 7, up 11 s, 2 clients | every 3600 s" in screen.lines[0]
        assert ">1 Payloads (2)<" in screen.lines[1] and "2 Timelines (1)" in screen.lines[1]
        assert screen.names == ["camera", "other"] and screen.selected == "camera"
        await screen.shows("200 viewer, importer, read+write, since before")
        await screen.press("down")
        assert screen.selected == "other"
        await screen.shows("held by 1 process:")

    run(
        test, memory(1, "camera", holder(100), holder(200)), memory(2, "other"), timeline(3, "clock", 5), size=(100, 50)
    )


def test_keys_move_through_more_rows_than_fit() -> None:
    async def test(screen: Screen) -> None:
        await screen.press("end")
        assert screen.selected == "frames29"
        await screen.press("up", "k")
        assert screen.selected == "frames27"
        await screen.press("home", "j")
        assert screen.selected == "frames01"
        await screen.press("pagedown")
        assert screen.selected > "frames05"
        await screen.press("pageup", "pageup", "up")
        assert screen.selected == "frames00"

    run(test, *FRAMES)


def test_the_selected_item_stays_selected_wherever_it_goes() -> None:
    async def test(screen: Screen) -> None:
        await screen.press(*["down"] * 5)
        assert screen.selected == "frames05"
        await screen.again(memory(99, "a new one"), *FRAMES[3:])
        assert screen.selected == "frames05"
        assert " + a new one" in screen.text and " - frames00" in screen.text
        await screen.press("r")
        assert screen.selected == "frames05"

    run(test, *FRAMES)


def test_sorting_by_another_column_begins_with_the_greatest_number() -> None:
    async def test(screen: Screen) -> None:
        assert "name ^" in screen.text
        await screen.press("s")
        assert "size v" in screen.text and screen.names[0] == "frames29"
        await screen.press("r")
        assert "size ^" in screen.text and screen.names[0] == "frames00"
        await screen.press("S")
        assert "name ^" in screen.text

    run(test, *FRAMES)


def test_a_click_on_a_title_sorts_and_one_on_a_row_selects_it() -> None:
    async def test(screen: Screen) -> None:
        line = next(number for number, text in enumerate(screen.lines) if text.lstrip().startswith("name ^"))
        at = screen.lines[line].index("size")
        await screen.pilot.click(offset=(at, line))
        await screen.shows("size v")
        await screen.pilot.click(offset=(at, line))
        await screen.shows("size ^")
        await screen.pilot.click(offset=(5, line + 4))
        await screen.pilot.pause()
        assert screen.selected == "frames03"

    run(test, *FRAMES)


def test_a_filter_shows_the_rows_with_all_its_words_until_escape() -> None:
    async def test(screen: Screen) -> None:
        await screen.press("slash", *"q frames1")
        assert "None of 31 rows contains 'q frames1'; Esc shows all." in screen.text and screen.names == []
        await screen.press("escape", "slash", *"FRAMES1", "enter")
        assert screen.names == [f"frames{n}" for n in range(10, 20)] and "10 of 31 shown" in screen.text
        await screen.press("slash", "end", "space", *"viewer")
        assert screen.names == []
        await screen.press("escape")
        assert len(screen.names) == 31 and "shown" not in screen.lines[1]

    run(test, *FRAMES, memory(50, "quiet"))


def test_the_tables_are_reached_by_number_and_by_arrows() -> None:
    async def test(screen: Screen) -> None:
        await screen.press("2")
        assert screen.names == ["clock"] and "value" in screen.text
        await screen.shows("value       5")
        await screen.press("right")
        assert screen.names == ["feed"] and "slowest" in screen.text
        await screen.shows("300 recorder, every, 9 behind")
        await screen.press("right")
        assert screen.names == ["camera"]
        await screen.press("left")
        assert screen.names == ["feed"]

    run(
        test,
        memory(1, "camera"),
        timeline(2, "clock", 5),
        provider=lambda rows: [CHANNEL],
        channels=[CHANNEL],
        size=(150, 30),
    )


def test_without_a_provider_there_is_no_table_of_channels() -> None:
    async def test(screen: Screen) -> None:
        assert "Channels" not in screen.text
        await screen.press("3")
        assert screen.names == ["camera"]

    run(test, memory(1, "camera"))


def test_details_are_hidden_and_shown() -> None:
    async def test(screen: Screen) -> None:
        assert "contents" in screen.text
        await screen.press("d")
        assert "contents" not in screen.text
        await screen.press("d")
        await screen.shows("contents    array 2 x 3 float32")

    run(test, memory(1, "camera"))


def test_tab_moves_to_the_details_which_arrows_scroll() -> None:
    async def test(screen: Screen) -> None:
        await screen.press("tab", "end")
        await screen.shows("handle 0x190 read")
        assert screen.selected == "camera"
        await screen.press("shift+tab", "down")
        assert screen.selected == "other"

    run(test, memory(1, "camera", holder(100, handles=range(4, 404, 4))), memory(2, "other"))


def test_a_pause_begins_no_look_and_its_end_one() -> None:
    async def test(screen: Screen) -> None:
        await screen.press("p")
        assert "| paused" in screen.lines[0]
        screen.looking.set(memory(2, "later"))
        await screen.press("p")
        await screen.shows("later")

    run(test, memory(1, "camera"))


@pytest.mark.parametrize("size", [(20, 6), (40, 12), (80, 24), (200, 60)])
def test_every_window_shows_the_names_and_no_line_is_too_long(size: tuple[int, int]) -> None:
    async def test(screen: Screen) -> None:
        assert len(screen.lines) == size[1] and all(len(line) <= size[0] for line in screen.lines)
        assert screen.names[0].startswith("frames00") and screen.selected.startswith("frames00")
        assert ("contents" in screen.text) == (size[1] >= 16)

    run(test, *FRAMES, size=size)


@pytest.mark.parametrize("rows", [3, 30])
def test_the_scroll_bar_covers_no_column(rows: int) -> None:
    async def test(screen: Screen) -> None:
        assert screen.app._table.show_vertical_scrollbar == (rows == 30)
        assert screen.lines[2].split() == ["name", "^", "size", "procs"]
        assert screen.lines[3].split()[-4:] == ["frames00", "8", "bytes", "1"]

    run(test, *FRAMES[:rows], size=(40, 12))


def test_a_window_that_changes_shows_other_columns() -> None:
    async def test(screen: Screen) -> None:
        assert "generation" not in screen.lines[2] and "size" in screen.lines[2]
        await screen.pilot.resize_terminal(260, 30)
        await screen.until(lambda: "generation" in screen.lines[2], "more columns")
        assert "since" in screen.lines[2]

    run(test, *FRAMES, size=(60, 30))


def test_no_broker_is_told_and_so_are_its_end_and_its_start() -> None:
    async def test(screen: Screen) -> None:
        await screen.again(broker=None, missing=NO_BROKER)
        assert ">- camera" in screen.text
        await screen.shows("The broker 7 has ended.")
        await screen.again(memory(1, "camera"), broker=8)
        await screen.shows("A broker has started: process 8.")
        assert "broker 8" in screen.lines[0]

    run(test, memory(1, "camera"))


def test_without_a_broker_the_table_says_why_it_is_empty() -> None:
    async def test(screen: Screen) -> None:
        await screen.shows("No broker runs here")
        await screen.again()
        await screen.shows("No payloads are shared now.")

    run(test, broker=None, missing=NO_BROKER)


def test_an_error_is_shown_with_what_was_known_before() -> None:
    async def test(screen: Screen) -> None:
        await screen.again(error=PeerGoneError("the broker does not answer [bold]; try again"))
        await screen.shows("PeerGoneError: the broker does not answer [bold]; try again")
        assert screen.names == ["camera"]
        await screen.again(memory(1, "camera"))
        assert "PeerGoneError" not in screen.text

    run(test, memory(1, "camera"))


def test_a_look_that_does_not_end_is_told_while_keys_work() -> None:
    let_go = threading.Event()
    first = look(1, memory(1, "camera"), memory(2, "other"))
    looks = iter([first])

    def looking() -> Look:
        for found in looks:
            return found
        let_go.wait(DEADLINE)
        return replace(first, monotonic=9.0)

    app = TopApp(interval=0.1, looking=looking, processes=process)

    async def test() -> None:
        async with app.run_test(size=(100, 30)) as pilot:
            screen = Screen(app, pilot, Looking())
            await screen.shows("No answer for 2")
            await screen.press("down")
            assert screen.selected == "other"

    try:
        asyncio.run(test())
    finally:
        let_go.set()


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    async def test(screen: Screen) -> None:
        assert screen.names == ["[red]x[/]"]
        await screen.shows("name        [red]x[/]")

    run(test, memory(1, "[red]x[/]"))


def test_without_colour_the_same_is_on_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def test(screen: Screen) -> None:
        assert screen.app.no_color and screen.selected == "frames00" and ">1 Payloads (30)<" in screen.text

    run(test, *FRAMES)


@pytest.mark.parametrize(("keys", "code"), [(["q"], 0), (["ctrl+c"], 130), (["slash", "a", "ctrl+c"], 130)])
def test_the_program_ends_by_q_and_by_ctrl_c_wherever_the_focus_is(keys: list[str], code: int) -> None:
    async def test(screen: Screen) -> None:
        await screen.pilot.press(*keys)

    assert (run(test, memory(1, "camera")).return_code or 0) == code


def test_an_error_of_the_thread_ends_the_program_with_it() -> None:
    def broken() -> Look:
        raise ZeroDivisionError("a bug")

    app = TopApp(looking=broken, processes=process)

    async def test() -> None:
        async with app.run_test() as pilot:
            screen = Screen(app, pilot, Looking())
            await screen.until(lambda: app.error is not None, "the error")

    asyncio.run(test())
    assert isinstance(app.error, ZeroDivisionError) and app.return_code == 1


def test_ten_thousand_rows_draw_as_many_cells_as_thirty(monkeypatch: pytest.MonkeyPatch) -> None:
    from extmem.cli._top import table

    drawn: list[object] = []
    plain = table.row_line
    monkeypatch.setattr(table, "row_line", lambda *args, **options: drawn.append(args) or plain(*args, **options))
    counts = []
    for rows in (FRAMES, tuple(replace(FRAMES[0], payload=n) for n in range(10_000))):
        drawn.clear()

        async def test(screen: Screen) -> None:
            await screen.press("end", "s", "up")

        run(test, *rows)
        counts.append(len(drawn))
    assert 0 < counts[1] <= 2 * counts[0]
