"""The table of `extmem top`: a widget that draws only the rows in its window, so that 10,000 cost as much as 20."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from extmem.cli._top.columns import Column, fitting, header_line, row_line
from extmem.cli._top.model import ENDED, NEW, Row, State

__all__ = ["RowTable"]


class RowTable(ScrollView, can_focus=True):
    """Rows under a line of titles that does not scroll. One row is selected, by its item, not by its place."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("right,l", "app.next_subject(1)", "Tables", key_display="left/right"),
        Binding("left,h", "app.next_subject(-1)", "Tables", show=False),
        Binding("pageup", "move_page(-1)", "Page up", show=False),
        Binding("pagedown", "move_page(1)", "Page down", show=False),
        Binding("home,g", "move_to(0)", "First", show=False),
        Binding("end,G", "move_to(-1)", "Last", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row-table--titles",
        "row-table--selected",
        "row-table--new",
        "row-table--ended",
    }
    DEFAULT_CSS = """
    RowTable { scrollbar-size-vertical: 1; overflow-x: hidden; }
    RowTable > .row-table--titles { text-style: bold underline; }
    RowTable > .row-table--selected { background: $primary; color: $text; text-style: bold; }
    RowTable > .row-table--new { color: $text-success; }
    RowTable > .row-table--ended { color: $text-muted; text-style: italic; }
    """

    cursor: reactive[int] = reactive(0, repaint=False)

    class Selected(Message):
        """Another row is selected, or the selected one has changed. `row` is None in an empty table."""

        def __init__(self, row: Row | None) -> None:
            super().__init__()
            self.row = row

    class TitleClicked(Message):
        """The title of a column was clicked."""

        def __init__(self, column: Column) -> None:
            super().__init__()
            self.column = column

    def __init__(self, columns: Sequence[Column], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._rows: Sequence[Row] = ()
        self._state: State | None = None
        self._sorted_by, self._descending = self._columns[0], False
        self._nothing = ""
        self._key: str | None = None

    # -- what is shown ------------------------------------------------------------------------------------------------

    def show(self, rows: Sequence[Row], state: State | None, *, nothing: str) -> None:
        """Show other rows. The selected item stays selected, wherever it is now. nothing: the text without rows."""
        self._rows, self._state, self._nothing = rows, state, nothing
        self.virtual_size = Size(self._width, len(rows) + 1)
        places = (index for index, row in enumerate(rows) if row.item.key == self._key)
        self.cursor = next(places, min(self.cursor, max(0, len(rows) - 1)))
        self._select()

    def set_columns(self, columns: Sequence[Column], sorted_by: Column, *, descending: bool) -> None:
        """Show these columns. The title of the one by which the rows are sorted has an arrow."""
        self._columns, self._sorted_by, self._descending = tuple(columns), sorted_by, descending
        self.refresh()

    @property
    def selected(self) -> Row | None:
        """The selected row; None in an empty table."""
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    def _select(self) -> None:
        row = self.selected
        self._key = None if row is None else row.item.key
        self._keep_visible()
        self.refresh()
        self.post_message(self.Selected(row))

    def _keep_visible(self) -> None:
        shown = max(1, self.size.height - 1)
        top = round(self.scroll_offset.y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= top + shown:
            self.scroll_to(y=self.cursor - shown + 1, animate=False)

    def on_resize(self) -> None:
        """Keep the selected row in the window."""
        self.virtual_size = Size(self._width, len(self._rows) + 1)
        self._keep_visible()

    @property
    def _width(self) -> int:
        """The columns of the window that the scroll bar leaves."""
        return int(self.scrollable_content_region.width)

    # -- keys and mouse -----------------------------------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        """Select the row so many rows below."""
        self.cursor = max(0, min(len(self._rows) - 1, self.cursor + by))
        self._select()

    def action_move_page(self, by: int) -> None:
        """Select the row so many windows below."""
        self.action_move(by * max(1, self.size.height - 2))

    def action_move_to(self, index: int) -> None:
        """Select the row with this index; -1 is the last one."""
        self.cursor = max(0, min(len(self._rows) - 1, index if index >= 0 else len(self._rows) + index))
        self._select()

    def on_click(self, event: events.Click) -> None:
        """Select the row, or report the title."""
        if event.y == 0:
            for placed in fitting(self._columns, self._width):
                if placed.at <= event.x < placed.at + placed.width:
                    self.post_message(self.TitleClicked(placed.column))
            return
        index = round(self.scroll_offset.y) + event.y - 1
        if index < len(self._rows):
            self.cursor = index
            self._select()

    # -- drawing ------------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Return one line of the window."""
        placed = fitting(self._columns, self._width)
        if y == 0:
            return self._strip(header_line(placed, self._sorted_by, descending=self._descending), "titles")
        index = round(self.scroll_offset.y) + y - 1
        if self._state is None or index >= len(self._rows):
            return self._strip(f"   {self._nothing}" if y == 1 and not self._rows else "", "")
        row = self._rows[index]
        selected = index == self.cursor
        part = "selected" if selected else {NEW: "new", ENDED: "ended"}.get(row.mark, "")
        return self._strip(row_line(row, placed, self._state, selected=selected), part)

    def _strip(self, text: str, part: str) -> Strip:
        style = self.get_component_rich_style(f"row-table--{part}") if part else Style()
        strip = Strip([Segment(text, self.rich_style + style)])
        return strip.adjust_cell_length(self._width, self.rich_style + style)
