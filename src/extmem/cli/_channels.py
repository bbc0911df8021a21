"""Channels as plain data and as text, for `extmem channels`, `extmem channel`, `extmem top` and the demo.

A look at a channel opens its control page for reading, and closes it again. It takes no place of a reader, locks
nothing, waits for no process, and keeps nothing alive.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from extmem.api.sync_functions import open_timeline
from extmem.channel import control, names
from extmem.channel import info as channel_info
from extmem.cli._out import bytes_in_words, clean, counted, table, width
from extmem.core.naming import CHANNEL_PARTS, short_name
from extmem.errors import DescriptorError
from extmem.handles import Access
from extmem.manager import process_name
from extmem.objects import ObjectKind, PayloadRow
from extmem.sharing import table as arrays_table
from extmem.sharing.descriptor import Descriptor

if TYPE_CHECKING:
    from extmem.channel.control import ControlPage
    from extmem.channel.info import ChannelInfo, ReaderInfo

__all__ = [
    "ChannelLook",
    "channel_names",
    "contents_in_words",
    "describe_channel",
    "facts_in_words",
    "is_slow",
    "line_in_words",
    "look_at",
    "mode_of",
    "process_in_words",
    "rate_in_words",
    "print_channel",
    "seconds_in_words",
    "slowest_in_words",
    "state_in_words",
    "writer_in_words",
]

_LIMIT: Final = 24
"""The number of readers that are listed; of the others there is the number. `--json` has all."""
_STATES: Final = {"closed": "closed the channel", "gone": "ended without closing the channel"}


class ChannelLook(msgspec.Struct, frozen=True):
    """A channel at one moment."""

    info: ChannelInfo
    arrays: tuple[tuple[str | None, tuple[int, ...], str], ...]
    """Name, shape and element type of each array of a frame; the one array has no name. Empty if that is not known."""
    slot_size: int | None
    """Bytes of a slot; None if that is not known."""
    device: str
    """The name of the device whose memory the slots are; empty if that is not known."""
    parts: str
    """With this begin the names of the payloads that it consists of."""


def channel_names(rows: Sequence[PayloadRow]) -> Iterator[str]:
    """Yield the names of the channels among these payloads."""
    for row in rows:
        if row.object_kind is ObjectKind.CHANNEL:
            for path in row.names:
                name = short_name(path)
                if not name.startswith(CHANNEL_PARTS):
                    yield name


def look_at(name: str, rows: Sequence[PayloadRow]) -> ChannelLook:
    """Return what there is to know of the channel with this name. rows: of a snapshot of now.

    Errors: NameNotFoundError, ObjectTypeError, AccessDeniedError, ChannelCorruptError; PeerGoneError if the object
    manager does not answer.
    """
    with (
        closing(control.find(name, writable=False)) as page,
        open_timeline(names.frames(page.identity), access=Access.READ) as frames,
        frames.use() as record,
    ):
        info = channel_info.of(page, record.page, rows=rows)
        arrays, size, device = _slots_of(page, info, rows)
        return ChannelLook(info, arrays, size, device, names.parts(page.identity))


def _slots_of(
    page: ControlPage, info: ChannelInfo, rows: Sequence[PayloadRow]
) -> tuple[tuple[tuple[str | None, tuple[int, ...], str], ...], int | None, str]:
    """Return the arrays of a frame, the size of a slot and its device, by its descriptor and the table in the page."""
    wanted = names.slot(page.identity, info.epoch, 0)
    for row in rows:
        if any(short_name(path) == wanted for path in row.names):
            with contextlib.suppress(DescriptorError):
                slot = Descriptor.parse(row.descriptor)
                encoded = page.arrays()
                if encoded:
                    entries = arrays_table.decode(encoded, slot.payload_size).entries
                    arrays = tuple((one.name, tuple(one.shape), one.dtype) for one in entries)
                    return arrays, slot.payload_size, slot.device_name
                if slot.array is not None:
                    return ((None, tuple(slot.array.shape), slot.array.dtype),), slot.payload_size, slot.device_name
    return (), None, ""


def mode_of(reader: ReaderInfo) -> str:
    """Return how a reader reads: `newest`, `every`, or `reliable`, for which the writer waits."""
    return "reliable" if reader.reliable else "every" if reader.every else "newest"


def is_slow(reader: ReaderInfo, slots: int) -> bool:
    """Return whether a reader is as far behind as the ring is long: it loses frames, or keeps the writer waiting."""
    return reader.behind >= max(2, slots - 1)


def describe_channel(look: ChannelLook, processes: Callable[[int], str] = process_name) -> dict[str, Any]:
    """Return a channel as plain data. processes: returns the name of a process by its pid."""
    info = look.info
    slowest = info.slowest
    return {
        "name": info.name,
        "arrays": [{"name": name, "shape": list(shape), "dtype": dtype} for name, shape, dtype in look.arrays],
        "slots": info.slots,
        "max_slots": info.max_slots,
        "slot_size": look.slot_size,
        "device": look.device,
        "epoch": info.epoch,
        "writer": info.writer,
        "process": processes(info.writer) if info.state == "alive" else "",
        "state": info.state,
        "frames": info.count,
        "rate": info.rate,
        "age": info.age,
        "dropped": info.dropped,
        "max_readers": info.max_readers,
        "max_reliable": info.max_reliable,
        "lost": sum(reader.lost for reader in info.readers),
        "slowest": slowest.pid if slowest is not None and slowest.behind else None,
        "readers": [
            {
                "place": reader.place,
                "pid": reader.pid,
                "process": processes(reader.pid),
                "mode": mode_of(reader),
                "cursor": reader.cursor,
                "behind": reader.behind,
                "slow": is_slow(reader, info.slots),
                "lost": reader.lost,
                "reads_per_second": None,
                "lost_per_second": None,
                "max_held": reader.max_held,
                "held": [{"frame": held.number, "slot": held.slot, "seconds": held.seconds} for held in reader.held],
            }
            for reader in info.readers
        ],
    }


# Text. All of it is made of the plain data, and safe to print.


def seconds_in_words(seconds: float) -> str:
    """Return a duration: `0.3 ms`, `42 ms`, `4.2 s`, `12 min`."""
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def rate_in_words(rate: float | None) -> str:
    """Return frames per second; `-` if they are not known."""
    if rate is None:
        return "-"
    return f"{rate:.1f}" if rate < 99.95 else f"{rate:.0f}"


def process_in_words(pid: int, process: str) -> str:
    """Return a process by its pid and name."""
    return f"{pid} {clean(process)}".strip() if pid else "?"


def writer_in_words(channel: dict[str, Any]) -> str:
    """Return who writes; the last writer is in brackets, with how it ended."""
    if channel["state"] == "alive":
        return process_in_words(channel["writer"], channel["process"])
    return f"({channel['writer']}, {'closed' if channel['state'] == 'closed' else 'ended'})"


def contents_in_words(channel: dict[str, Any]) -> str:
    """Return what a frame is, a line for each array: `270 x 480 x 4 uint8`, or `depth: 270 x 480 float32`."""
    lines = []
    for one in channel["arrays"]:
        shape = " x ".join(map(str, one["shape"])) or "one"
        label = "" if one["name"] is None else f"{clean(one['name'])}: "
        lines.append(f"{label}{shape} {clean(one['dtype'])}")
    return "\n".join(lines) or "?"


def facts_in_words(channel: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts about a channel itself: pairs of a label and text."""
    ended = _STATES.get(channel["state"])
    writer = (
        f"process {channel['writer']}, which {ended}"
        if ended
        else process_in_words(channel["writer"], channel["process"])
    )
    size = "" if channel["slot_size"] is None else f" of {bytes_in_words(channel['slot_size'])}"
    where = f", in {clean(channel['device'])}" if channel["device"] else ""
    epoch = f"; its slots were replaced, and this is epoch {channel['epoch']}" * (channel["epoch"] > 1)
    frames = [str(channel["frames"])]
    if channel["rate"] is not None:
        frames.append(f"{rate_in_words(channel['rate'])} per second")
    if channel["age"] is not None:
        frames.append(f"the last one {seconds_in_words(channel['age'])} ago")
    facts = [
        ("frame", contents_in_words(channel)),
        ("slots", f"{channel['slots']}{size}{where}{epoch}"),
        ("writer", writer),
        ("frames", ", ".join(frames)),
    ]
    if channel["dropped"]:
        facts.append(("dropped", f"{counted(channel['dropped'], 'frame')}, because no slot was free"))
    return facts


def print_channel(
    channel: dict[str, Any],
    *,
    heading: str = "",
    stream: IO[str] | None = None,
    columns: int | None = None,
    most: int = _LIMIT,
) -> None:
    """Print a channel: the facts, a table of its readers, and sentences about what is not as usual.

    heading: the first line; the name of the channel if it is not given. columns: of the window, if it is not that of
    the stream. most: the number of readers that are listed, those that are furthest behind first.
    """
    target = sys.stdout if stream is None else stream
    lines = [heading or clean(channel["name"])]
    for label, text in facts_in_words(channel):
        first, *more = text.split("\n")
        lines += [f"  {label:8} {first}", *(f"  {'':8} {one}" for one in more)]
    wide = width(target) if columns is None else columns
    for line in lines:
        for part in textwrap.wrap(line, max(wide, 20), subsequent_indent=" " * 11, break_on_hyphens=False) or [""]:
            target.write(part + "\n")
    target.write("\n")
    readers = sorted(channel["readers"], key=lambda reader: (-reader["behind"], reader["pid"]))
    if readers:
        live = any(reader["reads_per_second"] is not None for reader in readers)
        headers = ("reader", "reads", *(("per s",) if live else ()), "frame", "behind", "lost", "holds")
        table(headers, [_reader_cells(one, live=live) for one in readers[:most]], stream=target, columns=columns)
    sentences = [f"And {counted(len(readers) - most, 'reader')} more."] if len(readers) > most else []
    sentences += filter(None, (slowest_in_words(channel), state_in_words(channel)))
    for sentence in sentences:
        for part in textwrap.wrap(sentence, max(wide, 20), break_on_hyphens=False):
            target.write(part + "\n")


def _reader_cells(reader: dict[str, Any], *, live: bool) -> tuple[str, ...]:
    held = [
        f"frame {one['frame']}"
        + (f" in slot {one['slot']}" if one["slot"] is not None else "")
        + f" for {seconds_in_words(one['seconds'])}"
        for one in reader["held"]
    ]
    rate = (rate_in_words(reader["reads_per_second"]),) if live else ()
    lost = str(reader["lost"])
    if reader["lost_per_second"]:
        lost += f", {rate_in_words(reader['lost_per_second'])} per s"
    return (
        process_in_words(reader["pid"], reader["process"]),
        reader["mode"],
        *rate,
        str(reader["cursor"]),
        str(reader["behind"]) + ", slow" * reader["slow"],
        lost,
        "\n".join(held) or "nothing",
    )


def slowest_in_words(channel: dict[str, Any]) -> str:
    """Return a sentence about the reader that is furthest behind, and what that means; "" if none is behind."""
    behind = [reader for reader in channel["readers"] if reader["behind"]]
    if not behind:
        return ""
    slowest = max(behind, key=lambda reader: (reader["behind"], reader["pid"]))
    who = process_in_words(slowest["pid"], slowest["process"])
    text = f"The slowest reader is {who}: {counted(slowest['behind'], 'frame')} behind"
    if not slowest["slow"]:
        return text + "."
    if slowest["mode"] == "reliable":
        return text + ", and the writer does not overwrite what it has not read."
    return text + ", and frames are overwritten before it reads them."


def state_in_words(channel: dict[str, Any]) -> str:
    """Return a sentence about a writer that has ended, with the remedy; "" while it lives."""
    if channel["state"] == "alive":
        return ""
    if channel["state"] == "closed":
        return "The channel is closed: readers get what is published. It ends when they have closed it, too."
    return (
        "The channel has no writer: start it again, and it goes on with the next frame while readers keep the channel."
    )


def line_in_words(channel: dict[str, Any]) -> str:
    """Return a channel in one line, for a pipe: what changes from one look to the next."""
    age = "-" if channel["age"] is None else seconds_in_words(channel["age"])
    parts = [f"frame {channel['frames']}", f"{rate_in_words(channel['rate'])} per s", f"age {age}"]
    if channel["state"] != "alive":
        parts.append(f"writer {writer_in_words(channel)}")
    parts.append(counted(len(channel["readers"]), "reader"))
    if channel["dropped"]:
        parts.append(f"{channel['dropped']} dropped")
    parts.append(f"{channel['lost']} lost")
    behind = [reader for reader in channel["readers"] if reader["behind"]]
    if behind:
        slowest = max(behind, key=lambda reader: (reader["behind"], reader["pid"]))
        who = process_in_words(slowest["pid"], slowest["process"])
        text = f"slowest {who}: {slowest['behind']} behind" + ", slow" * slowest["slow"]
        if slowest["held"]:
            longest = max(slowest["held"], key=lambda one: one["seconds"])
            text += f", holds frame {longest['frame']} for {seconds_in_words(longest['seconds'])}"
        parts.append(text)
    return "  ".join(parts)
