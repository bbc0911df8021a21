"""Waits for frames: their deadlines, the errors that end them, and how `close` of another thread does."""

from __future__ import annotations

import time
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from extmem.core.name_waits import checked_timeout
from extmem.errors import WaitTimeoutError, WriterGoneError
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.channel.base import Channel

__all__ = ["SLICE", "Waits", "check_writer", "deadline_after", "end_waits", "gone_error", "timeout_error"]

SLICE: Final = 0.5
"""Seconds after which a silent writer is looked for, whose end the object manager could not tell."""
_LONGEST: Final = 1e9
"""Seconds beyond which a wait has no limit."""
_NAP: Final = 0.0002
_PATIENCE_NS: Final = 1_000_000_000

Waits = dict[Any, int]
"""The waits of a reader that run: an object of each thread that sleeps, with the thread's id; the watch of each
coroutine, with 0.
"""


def end_waits(page: Any, waits: Waits) -> None:
    """Let the waits of a reader that is closed look at it, now. Return when no other thread sleeps any more.

    page: of the frames, which this process cannot write to. So a thread that is about to sleep can miss that it is
    woken, and is woken again.
    """
    this_thread, end = get_ident(), time.monotonic_ns() + _PATIENCE_NS
    for watch, thread in list(waits.items()):
        if not thread:
            watch.complete()
    while True:
        page.nudge()
        if not any(thread not in (0, this_thread) for thread in list(waits.values())) or time.monotonic_ns() > end:
            return
        time.sleep(_NAP)


def deadline_after(timeout: float) -> int | None:
    """Return the deadline, of `time.monotonic_ns`; None for a timeout without end. Errors: TypeError; ValueError."""
    seconds = checked_timeout(timeout)
    return None if seconds > _LONGEST else time.monotonic_ns() + int(seconds * 1e9)


def last_frame(channel: Channel) -> str:
    """Return the last frame and its age, in words."""
    control, count = channel.control, channel.count
    slot = control.table[count % control.layout.entries]
    if not count or slot >= control.layout.capacity or control.numbers[slot] != count:
        return f"frame {count}" if count else "no frame yet"
    return f"frame {count}, {max(0, time.monotonic_ns() - control.times[slot]) / 1e9:.3f} s old"


def timeout_error(channel: Channel, timeout: float, awaited: int) -> WaitTimeoutError:
    """Return the error to raise when no frame came in time."""
    pid, ended = channel.control.words64[Words.WRITER], has_writer_ended(channel)
    state, remedy = ("has ended", "start it again") if ended else ("has not ended", "see what the writer does")
    return WaitTimeoutError(
        f"no frame of {channel.name!r} came in {timeout:g} s: frame {awaited} is waited for, and the last one of its "
        f"writer (process {pid}, which {state}) is {last_frame(channel)}; wait longer, or {remedy}",
        value=awaited,
        reached=channel.count,
    )


def gone_error(channel: Channel, awaited: int) -> WriterGoneError | None:
    """Return the error to raise if the writer has closed the channel, or the object manager has told its end."""
    control, page = channel.control, channel.frames_page
    if control.words[Words.CLOSED]:
        return _gone(channel, awaited, control.words64[Words.WRITER], True)
    facts = page.abandoned_below(awaited)
    return None if facts is None else _gone(channel, awaited, facts.pid, facts.closed)


def has_writer_ended(channel: Channel) -> bool:
    """Return whether the writer has closed the channel or has ended, as far as this process can find out."""
    words, page = channel.control.words64, channel.frames_page
    if channel.control.words[Words.CLOSED] or page.abandoned_below(1 << 64) is not None:
        return True
    try:
        return bool(page.has_ended(words[Words.WRITER], words[Words.WRITER + 1], words[Words.WRITER + 2]))
    except OSError:
        return False


def check_writer(channel: Channel, awaited: int) -> None:
    """Raise WriterGoneError if the process of the writer has ended, whoever may have missed that."""
    words = channel.control.words64
    pid, start, namespace = words[Words.WRITER], words[Words.WRITER + 1], words[Words.WRITER + 2]
    try:
        ended = channel.frames_page.has_ended(pid, start, namespace)
    except OSError:  # this process cannot find out now
        return
    if ended and words[Words.WRITER] == pid:
        raise _gone(channel, awaited, pid, False)


def _gone(channel: Channel, awaited: int, pid: int, closed: bool) -> WriterGoneError:
    how = "closed the channel, or its program ended normally" if closed else "ended without closing the channel"
    return WriterGoneError(
        f"the writer of {channel.name!r} (process {pid}) {how}, and frame {awaited} will not come: the last one is "
        f"{last_frame(channel)}; start the writer again, and open the channel with reconnect=True to wait for it",
        pid=pid,
        closed=closed,
    )
