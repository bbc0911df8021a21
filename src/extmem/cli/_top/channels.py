"""What the view shows of channels, and who tells it: the interface between channels and `extmem top`. Pure.

A provider is a function that gets the rows of a snapshot and returns the channels among them. It is called in the
reading thread, once for each look, and must return within a bounded time whatever writers and readers do: it takes no
lock of a channel and waits for no process. What it opens, it closes before it returns: a view keeps nothing alive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from extmem.objects import PayloadRow

__all__ = ["ChannelFacts", "ChannelProvider", "ReaderFacts"]


class ReaderFacts(msgspec.Struct, frozen=True):
    """A reader of a channel."""

    pid: int
    mode: str
    """`newest`, `every` or `reliable`."""
    cursor: int
    """The number of the frame that it has read last; 0 before the first one."""
    held: int = 0
    """The number of frames that it holds now."""
    held_for: float | None = None
    """Seconds for which it has held the oldest of them; None if it holds none."""
    skipped: int = 0
    """The number of frames that were overwritten before it read them."""


class ChannelFacts(msgspec.Struct, frozen=True):
    """A channel."""

    name: str
    """The name, as `extmem.open_channel` takes it."""
    writer: int
    """The pid of its writer; 0 if none lives."""
    frames: int
    """The number of the frame that was published last; 0 before the first one."""
    age: float | None
    """Seconds since it was published; None before the first one."""
    slots: int
    epoch: int = 1
    dropped: int = 0
    """The number of frames that were not published, because no slot was free."""
    readers: tuple[ReaderFacts, ...] = ()
    parts: str = ""
    """With this begin the names of the payloads that it consists of; empty where that is not known."""

    @property
    def slowest(self) -> ReaderFacts | None:
        """The reader that is farthest behind; None without readers."""
        return min(self.readers, key=lambda reader: (reader.cursor, reader.pid), default=None)


ChannelProvider: TypeAlias = Callable[[Sequence[PayloadRow]], Sequence[ChannelFacts]]
"""Returns the channels among the payloads. Errors: as of `manager().snapshot()`."""
