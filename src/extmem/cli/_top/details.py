"""All that is known of one row, as lines of text. Pure, apart from the names of processes, which a function tells."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from extmem.cli._out import bytes_in_words, clean, counted
from extmem.cli._payloads import describe_payload, kind_in_words
from extmem.cli._top.channels import ChannelFacts
from extmem.cli._top.columns import clock, seconds_in_words
from extmem.cli._top.model import ENDED, Row, State
from extmem.objects import PayloadRow

__all__ = ["MOST", "Line", "details", "wrapped"]

MOST: Final = 200
"""The number of holders and of handles that are listed; of the others there is the number."""
_WIDTH: Final = 11
_COUNTS: Final = ("memory_objects", "semaphores", "fences", "channels")
"""The keys of the number of a holder's objects, of which a payload has one."""


class Line(NamedTuple):
    """A line, and the place below which a window that is too narrow for it continues it.

    What is before that place in a line with a label is kept together.
    """

    text: str
    indent: int = 4
    labelled: bool = False


def details(row: Row, state: State, processes: Callable[[int], str]) -> list[Line]:
    """Return the lines about a row: what it is, its order, and who holds it with which rights since when.

    processes: returns the name of a process by its pid.
    """
    item = row.item
    lines = [*_line("name", item.name)]
    if row.mark == ENDED:
        lines += _line("state", "ended: nobody holds it any more")
    if item.payload is not None:
        lines += _payload_lines(item.payload, row, state, processes)
    elif item.channel is not None:
        lines += _channel_lines(item.channel, row, state, processes)
    return lines


def wrapped(lines: Iterable[Line], width: int) -> list[str]:
    """Return the lines as text, wrapped to a window of this width."""
    found: list[str] = []
    for line in lines:
        most = max(width, line.indent + 8)
        head, rest = (line.text[: line.indent], line.text[line.indent :]) if line.labelled else ("", line.text)
        indent = " " * line.indent
        begin = indent if head else ""
        first, *more = textwrap.wrap(
            rest, most, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False
        ) or [begin]
        found += [head + first[len(head) :], *more]
    return found


def _line(label: str, value: object) -> Iterator[Line]:
    text = str(value)
    if text:
        first, *more = text.split("\n")
        yield Line(f"{label:{_WIDTH}} {clean(first)}", _WIDTH + 1, labelled=True)
        for one in more:
            yield Line(f"{'':{_WIDTH}} {clean(one)}", _WIDTH + 1, labelled=True)


def _since(wall: float | None, state: State) -> str:
    return f"since before {clock(state.began)}" if wall is None else f"since {clock(wall)}"


def _payload_lines(payload: PayloadRow, row: Row, state: State, processes: Callable[[int], str]) -> Iterator[Line]:
    count = len(payload.holders)
    facts = describe_payload(msgspec.structs.replace(payload, holders=payload.holders[:MOST]), processes)
    for path in facts["paths"]:
        yield from _line("path", path)
    handles = f", {payload.handle_count} handles" * (payload.handle_count > 1)
    kmt = f" {payload.kmt:#x}" if payload.kmt else ""
    yield from _line("object", f"{facts['object_kind']}, payload {payload.payload}, {facts['share']}{kmt}{handles}")
    yield from _line("contents", kind_in_words({**kind, "value": None}) if (kind := facts["kind"]) else "?")
    if facts["size"] is not None:
        allocated = f", {bytes_in_words(facts['allocation_size'])} allocated"
        exact = f" ({facts['size']} bytes)" * (facts["size"] >= 1024)
        yield from _line("size", f"{bytes_in_words(facts['size'])}{exact}{allocated}")
    if facts["device"]:
        yield from _line("device", f"{clean(facts['device'])}{', published read-only' * bool(facts['read_only'])}")
    yield from _line("generation" if facts["object_kind"] == "memory" else "value", _order(facts, row))
    yield from _line("shared", _since(row.since, state))
    for text in facts["security"]:
        yield from _line("security", text)
    for text in facts["kept"]:
        yield from _line("kept", f"by the broker, {text}")
    if facts["superseded"]:
        yield from _line("superseded", "another object has got its name")
    lent = facts["lent"]
    if lent is not None:
        who = f"by {lent['pid']} {clean(lent['process'])}".strip() + ", which has ended" * (not lent["running"])
        yield from _line(
            "lent", f"{who}: {bytes_in_words(lent['bytes'])} of {counted(lent['allocations'], 'allocation')}"
        )
    if facts["in_flight"]:
        yield from _line("in flight", f"{facts['in_flight']}, from processes that have ended")
    yield from _order_roles(facts)
    yield Line(f"held by {counted(count, 'process')}{':' * bool(count)}")
    for holder in facts["holders"]:
        yield from _holder_lines(holder, facts, _since(row.holding.get(holder["pid"]), state))
    if count > MOST:
        yield Line(f"  and {counted(count - MOST, 'more process')}")


def _order(facts: dict[str, Any], row: Row) -> str:
    """Return the state of an object that orders work or changes, in words."""
    number = row.item.number
    if number is None:
        return (
            "" if facts["object_kind"] == "memory" or (facts["kind"] or {}).get("type") != "timeline" else "not known"
        )
    rate = "" if row.rate is None else f", {row.rate:.1f} each second"
    if facts["object_kind"] != "memory":
        return f"{number}{rate}"
    what = "an update runs, or was not finished" if number & 1 else counted(number // 2, "finished update")
    return f"{number}: {what}{rate}"


def _order_roles(facts: dict[str, Any]) -> Iterator[Line]:
    """Who may signal and who may only wait, for what orders work: of the holders that are listed."""
    if facts["object_kind"] == "memory":
        return
    rights = [(holder["pid"], holder["rights"].split("+")) for holder in facts["holders"] if holder["rights"]]
    for label, having in (
        ("signal", [pid for pid, words in rights if "signal" in words]),
        ("only wait", [pid for pid, words in rights if "signal" not in words and "wait" in words]),
    ):
        yield from _line(label, ", ".join(map(str, having)))


def _holder_lines(holder: dict[str, Any], facts: dict[str, Any], since: str) -> Iterator[Line]:
    process = f"{holder['pid']} {clean(holder['process'])}".strip() if holder["pid"] else "a child that is starting"
    count = next((int(holder[key]) for key in _COUNTS if key in holder), 0)
    parts = [process]
    if count:
        parts.append("exporter" if holder["exporter"] else "importer")
        parts += [f"{count} objects"] * (count > 1)
        parts += [holder["rights"]] * (holder["rights"] not in ("", "nothing"))
    parts += [f"{holder['in_flight']} in flight"] * bool(holder["in_flight"])
    yield Line("  " + ", ".join([*parts, since]))
    handles = holder["handles"]
    for handle in handles[:MOST]:
        yield Line(f"    handle {handle['value']:#x} {handle['rights']}")
    if len(handles) > MOST:
        yield Line(f"    and {counted(len(handles) - MOST, 'more handle')}")


def _channel_lines(channel: ChannelFacts, row: Row, state: State, processes: Callable[[int], str]) -> Iterator[Line]:
    writer = f"{channel.writer} {clean(processes(channel.writer))}" if channel.writer else "none lives"
    yield from _line("writer", writer)
    rate = "" if row.rate is None else f", {row.rate:.1f} each second"
    yield from _line("frames", f"{channel.frames}{rate}, {channel.dropped} dropped")
    yield from _line(
        "age", "no frame yet" if channel.age is None else f"{seconds_in_words(channel.age)} (newest frame)"
    )
    yield from _line("ring", f"{counted(channel.slots, 'slot')}, epoch {channel.epoch}")
    yield from _line("shared", _since(row.since, state))
    yield Line(f"{counted(len(channel.readers), 'reader')}{':' * bool(channel.readers)}")
    for reader in channel.readers[:MOST]:
        held = ""
        if reader.held:
            held = f", holds {counted(reader.held, 'frame')} for {seconds_in_words(reader.held_for)}"
        yield Line(
            f"  {reader.pid} {clean(processes(reader.pid))}, {clean(reader.mode)}, {channel.frames - reader.cursor} "
            f"behind, {reader.skipped} skipped{held}, {_since(row.holding.get(reader.pid), state)}"
        )
    if len(channel.readers) > MOST:
        yield Line(f"  and {counted(len(channel.readers) - MOST, 'more reader')}")
