"""What `extmem channel --watch` shows: rates from one look to the next, on a terminal or as lines."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from extmem.cli._channels import line_in_words, print_channel
from extmem.cli._out import clean, console, width

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Screen", "Watch", "as_line"]

_AROUND = 16
"""Lines of the screen that are not those of readers, about."""


class Watch:
    """Makes rates of the numbers of two looks. Pure."""

    def __init__(self) -> None:
        self._before: dict[str, Any] | None = None
        self._when = 0.0

    def update(self, channel: dict[str, Any], now: float) -> dict[str, Any]:
        """Return a channel, as `describe_channel` returns it, with rates since the look before. now: in seconds.

        A reader that has lost frames since then is slow, too. The first look has no rates of readers.
        """
        before, elapsed = self._before, now - self._when
        self._before, self._when = channel, now
        if before is None or elapsed <= 0 or channel["frames"] < before["frames"]:
            return channel
        earlier = {(reader["place"], reader["pid"]): reader for reader in before["readers"]}
        readers = []
        for reader in channel["readers"]:
            one = earlier.get((reader["place"], reader["pid"]))
            if one is None or reader["lost"] < one["lost"] or reader["cursor"] < one["cursor"]:
                readers.append(reader)
                continue
            lost = reader["lost"] - one["lost"]
            read = max(0, reader["cursor"] - one["cursor"] - lost)
            readers.append(
                {
                    **reader,
                    "reads_per_second": read / elapsed,
                    "lost_per_second": lost / elapsed,
                    "slow": reader["slow"] or lost > 0,
                }
            )
        return {**channel, "rate": (channel["frames"] - before["frames"]) / elapsed, "readers": readers}


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def as_line(channel: dict[str, Any], *, as_json: bool) -> str:
    """Return a look as one line: JSON, or the time and what changes."""
    return json.dumps(channel) if as_json else f"{_clock()}  {line_in_words(channel)}"


class Screen:
    """A part of the terminal that is drawn again for each look. The last one remains when it ends."""

    def __init__(self) -> None:
        self._live: Live | None = None

    def show(self, channel: dict[str, Any]) -> None:
        """Draw a look: as many readers as the window has lines for, the slowest first."""
        from rich.text import Text

        if self._live is not None:
            size, screen = shutil.get_terminal_size(), self._live.console
            screen.width, screen.height = width(sys.stdout), size.lines
            written = io.StringIO()
            print_channel(
                channel,
                heading=f"{clean(channel['name'])}  {_clock()}  (Ctrl-C ends)",
                stream=written,
                columns=screen.width,
                most=max(1, size.lines - _AROUND),
            )
            self._live.update(Text(written.getvalue().rstrip("\n")), refresh=True)

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=console(sys.stdout), auto_refresh=False)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
