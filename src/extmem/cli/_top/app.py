"""The program of `extmem top`: tables of what is shared, a filter, an order of rows, and the details of one row.

How this works. A thread looks at the object manager (`reading`) and posts each state; the widgets sort and draw it.
Nothing here asks the object manager, so keys work while a look takes long, or the broker does not answer. The program
changes nothing of what it shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.driver import Driver
from textual.message import Message
from textual.widgets import Footer, Input, Static

from extmem.cli._guard import INTERRUPTED
from extmem.cli._out import clean, counted
from extmem.cli._top.channels import ChannelProvider
from extmem.cli._top.columns import COLUMNS, Column, seconds_in_words
from extmem.cli._top.details import details, wrapped
from extmem.cli._top.items import Subject
from extmem.cli._top.model import Look, Row, State, arrange
from extmem.cli._top.reading import Reading, look
from extmem.cli._top.table import RowTable
from extmem.manager import process_name

__all__ = ["Looked", "TopApp"]

_SLOW: Final = 2.0
"""Seconds after which it is shown that a look has not ended yet."""


class Looked(Message):
    """A look has ended: its state, or the error that ended the thread."""

    def __init__(self, state: State | Exception) -> None:
        super().__init__()
        self.state = state


class TopApp(App[None]):
    """The view. Its return code is that of the process."""

    TITLE = "extmem top"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]
    CSS = """
    #status { height: 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
    #problem { height: auto; max-height: 3; text-style: bold; color: $text-warning; display: none; }
    #problem.shown { display: block; }
    #subjects { height: 1; }
    #filter { height: 1; border: none; padding: 0 1; display: none; }
    #filter.shown { display: block; }
    #body { height: 1fr; layout: vertical; }
    #rows { height: 1fr; }
    #details { height: 40%; border-top: solid $primary; scrollbar-size-vertical: 1; }
    #details > Static { width: 100%; padding: 0 1; }
    #details.hidden, .-short #details { display: none; }
    .-wide #body { layout: horizontal; }
    .-wide #rows { width: 1fr; height: 100%; }
    .-wide #details { width: 40%; height: 100%; border-top: none; border-left: solid $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "interrupt", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False),
        Binding("1", "subject(0)", "Payloads", show=False),
        Binding("2", "subject(1)", "Timelines", show=False),
        Binding("3", "subject(2)", "Channels", show=False),
        Binding("slash,f", "filter", "Filter", key_display="/"),
        Binding("escape", "no_filter", "No filter", show=False),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort back", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("d", "details", "Details"),
        Binding("p,space", "pause", "Pause", key_display="p"),
    ]

    def __init__(
        self,
        *,
        interval: float = 1.0,
        provider: ChannelProvider | None = None,
        looking: Callable[[], Look] | None = None,
        processes: Callable[[int], str] = process_name,
        driver: type[Driver] | None = None,
    ) -> None:
        """interval: seconds between two looks. provider: tells of channels. looking: looks once; `look` if not given.
        processes: returns the name of a process by its pid. driver: what draws; the terminal's if not given.
        """
        super().__init__(driver_class=driver)
        self._interval = interval
        self._processes = processes
        self._subjects = [subject for subject in Subject if subject is not Subject.CHANNELS or provider is not None]
        self._subject = Subject.PAYLOADS
        self._orders: dict[Subject, tuple[Column, bool]] = {
            subject: (columns[0], columns[0].number) for subject, columns in COLUMNS.items()
        }
        self._status = Static(id="status", markup=False)
        self._problem = Static(id="problem", markup=False)
        self._titles = Static(id="subjects")
        self._filter = Input(placeholder="words that a row must contain", id="filter")
        self._table = RowTable(COLUMNS[self._subject], id="rows")
        self._pane = VerticalScroll(id="details", can_focus=True)
        self._about = Static(id="about", markup=False)
        self.state: State | None = None
        """What is shown; None before the first look."""
        self._paused = False
        self.error: Exception | None = None
        """The error that ended the program, if one did."""
        self._reading = Reading(
            lambda state: self.post_message(Looked(state)),
            interval,
            functools.partial(look, provider) if looking is None else looking,
            processes,
        )

    # -- widgets ------------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Arrange the widgets."""
        yield self._status
        yield self._problem
        yield self._titles
        yield self._filter
        with Container(id="body"):
            yield self._table
            with self._pane:
                yield self._about
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look."""
        self._table.focus()
        if not self.is_headless:
            self._leave_on_signals()
        self.set_interval(0.5, self._show_status)
        self._draw()
        self._reading.start()

    def on_unmount(self) -> None:
        """End the thread's work."""
        self._reading.stop()

    def _leave_on_signals(self) -> None:
        """Let the signals that end a command restore the terminal first. Windows has no such signals."""
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None:
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.add_signal_handler(number, self._leave, 128 + int(number))

    def _leave(self, code: int) -> None:
        self.exit(return_code=code)

    # -- what is shown ------------------------------------------------------------------------------------------------

    def on_looked(self, message: Looked) -> None:
        """Show a state."""
        if isinstance(message.state, Exception):
            self.error = message.state
            self.exit(return_code=1)
            return
        self.state = message.state
        if message.state.notice:
            self.notify(message.state.notice, markup=False)
        self._draw()

    def _draw(self) -> None:
        if not self._table.is_attached:
            return  # the program is ending
        column, descending = self._orders[self._subject]
        state = self.state
        rows: Sequence[Row] = () if state is None else state.rows[self._subject]
        wanted = self._filter.value
        found = arrange(rows, wanted, column.key, descending=descending)
        self._table.set_columns(COLUMNS[self._subject], column, descending=descending)
        self._table.show(found, state, nothing=self._nothing(rows, wanted))
        self._show_status()
        self._show_subjects(len(found), len(rows), wanted)

    def _nothing(self, rows: Sequence[Row], wanted: str) -> str:
        if self.state is None:
            return "Looking …"
        if rows:
            return f"None of {counted(len(rows), 'row')} contains {clean(wanted.strip())!r}; Esc shows all."
        return self.state.look.missing or f"No {self._subject.value.lower()} are shared now."

    def _show_status(self) -> None:
        """Show the broker, and whether it answers."""
        parts = ["extmem top"]
        state, asking = self.state, self._reading.asking_for
        problem = ""
        if state is not None:
            found = state.look
            if found.broker is not None:
                broker = found.broker
                parts.append(
                    f"broker {broker.pid}, up {seconds_in_words(broker.uptime)}, {counted(broker.clients, 'client')}"
                )
            if found.seconds > 0.1:
                parts.append(f"a look takes {seconds_in_words(found.seconds)}")
            if found.error is not None:
                problem = f"{type(found.error).__name__}: {found.error}"
        if asking > _SLOW:
            problem = f"No answer for {seconds_in_words(asking)}; this is what was shared before."
        parts.append("paused" if self._paused else f"every {self._interval:g} s")
        self._status.update(" | ".join(parts))
        self._problem.update(clean(problem))
        self._problem.set_class(bool(problem), "shown")

    def _show_subjects(self, found: int, rows: int, wanted: str) -> None:
        titles = []
        for number, subject in enumerate(self._subjects):
            count = 0 if self.state is None else self.state.live(subject)
            title = f"{number + 1} {subject.value} ({count})"
            if subject is self._subject:
                titles.append(f"[b reverse]>{title}<[/]")
            else:
                titles.append(f" [@click=app.subject({number})]{title}[/] ")
        column, descending = self._orders[self._subject]
        order = f"by {column.title}, {'greatest' if descending else 'least'} first"
        shown = f"  {found} of {rows} shown" if wanted.strip() else ""
        self._titles.update(" ".join(titles) + f"  [dim]{order}{shown}[/]")

    @on(RowTable.Selected)
    def _show_details(self, message: RowTable.Selected) -> None:
        if message.row is None or self.state is None:
            self._about.update("")
        elif self._pane.display:
            lines = details(message.row, self.state, self._processes)
            self._about.update("\n".join(wrapped(lines, self._about.container_size.width - 3)))

    def on_resize(self) -> None:
        """Wrap the details to the new width."""
        self.call_after_refresh(self._draw)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def action_interrupt(self) -> None:
        """End as Ctrl-C ends a command."""
        self.exit(return_code=INTERRUPTED)

    def action_subject(self, number: int) -> None:
        """Show the table with this number."""
        if number < len(self._subjects):
            self._subject = self._subjects[number]
            self._table.action_move_to(0)
            self._draw()

    def action_next_subject(self, by: int) -> None:
        """Show the next table."""
        self.action_subject((self._subjects.index(self._subject) + by) % len(self._subjects))

    def action_sort(self, by: int) -> None:
        """Sort by the next column, in the direction that is usual for it."""
        columns = COLUMNS[self._subject]
        at = (columns.index(self._orders[self._subject][0]) + by) % len(columns)
        self._sort_by(columns[at])

    def _sort_by(self, column: Column) -> None:
        self._orders[self._subject] = (column, column.number)
        self._draw()

    def action_reverse(self) -> None:
        """Sort in the other direction."""
        column, descending = self._orders[self._subject]
        self._orders[self._subject] = (column, not descending)
        self._draw()

    @on(RowTable.TitleClicked)
    def _title_clicked(self, message: RowTable.TitleClicked) -> None:
        if message.column is self._orders[self._subject][0]:
            self.action_reverse()
        else:
            self._sort_by(message.column)

    def action_details(self) -> None:
        """Show or hide the details."""
        self._pane.toggle_class("hidden")
        self._table.post_message(RowTable.Selected(self._table.selected))

    def action_pause(self) -> None:
        """Begin no other look, or begin again."""
        self._paused = not self._paused
        self._reading.pause(self._paused)
        self._show_status()

    def action_filter(self) -> None:
        """Type the words that rows must contain."""
        self._filter.add_class("shown")
        self._filter.focus()

    def action_no_filter(self) -> None:
        """Show all rows."""
        self._filter.value = ""
        self._filter.remove_class("shown")
        self._table.focus()
        self._draw()

    @on(Input.Changed, "#filter")
    def _filter_changed(self) -> None:
        self._draw()

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        if not self._filter.value.strip():
            self.action_no_filter()
        self._table.focus()
