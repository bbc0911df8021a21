"""The state of the view from one look to the next: what is new, what has ended, and how fast numbers grow. Pure.

How this works. `Model.update` takes what one look has found (`Look`) and returns an immutable `State`, which another
thread may show. An item whose row has not changed is not made again, so a look at 10,000 payloads costs little more
than the comparison of their rows. An item that has ended stays for `LINGER` seconds, with a mark, so that people see
what has ended; one that is new has a mark as long.

The object manager does not record since when a process holds something. The model records when it has first seen it:
what was there at the first look has `since` None, and is older than the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from extmem.cli._top.channels import ChannelFacts
from extmem.cli._top.items import (
    Described,
    Item,
    Subject,
    channel_item,
    describe,
    is_of_channel,
    payload_item,
    subject_of,
)
from extmem.errors import ExtmemError
from extmem.objects import ObjectKind, PayloadRow

__all__ = ["ENDED", "LINGER", "NEW", "Broker", "Differences", "Look", "Model", "Row", "State", "arrange", "differences"]

LINGER: Final = 3.0
"""Seconds for which the mark of what is new stays, and the row of what has ended."""
NEW, ENDED, OLD = "+", "-", " "
"""The mark of a row, which is its first character."""


class Broker(msgspec.Struct, frozen=True):
    """The broker that was asked. `uptime` in seconds."""

    pid: int
    uptime: float
    clients: int


class Look(msgspec.Struct, frozen=True):
    """What one look has found."""

    monotonic: float
    """When, by `time.monotonic`."""
    wall: float
    """When, by `time.time`."""
    rows: Sequence[PayloadRow] = ()
    channels: Sequence[ChannelFacts] | None = None
    """None where nothing tells of channels."""
    broker: Broker | None = None
    """None if none runs, or none is needed."""
    missing: str = ""
    """Why nothing can be shared: no broker runs. Empty otherwise."""
    error: ExtmemError | OSError | None = None
    """The error of the look; the rows are then unknown."""
    seconds: float = 0.0
    """How long the look took."""


class Row(msgspec.Struct, frozen=True):
    """An item, and what earlier looks add to it."""

    item: Item
    mark: str
    """`NEW`, `ENDED` or `OLD`."""
    since: float | None
    """When it was first seen, by `time.time`; None if it was there at the first look."""
    seen: float
    """When it was seen for the first time, or as `ENDED`, by `time.monotonic`."""
    rate: float | None = None
    """How much the number has grown since the last look, for each second: updates of memory, else its number."""
    holding: Mapping[int, float | None] = msgspec.field(default_factory=dict)
    """Pid → since when it was seen to hold the item, as `since`."""


class State(msgspec.Struct, frozen=True):
    """What the view shows."""

    look: Look
    began: float
    """The time of the first look, by `time.time`."""
    rows: Mapping[Subject, tuple[Row, ...]]
    notice: str = ""
    """What has happened to the broker since the last look, if anything."""

    def live(self, subject: Subject) -> int:
        """Return how many rows have not ended."""
        return sum(row.mark != ENDED for row in self.rows[subject])


class Differences(msgspec.Struct, frozen=True):
    """The keys that only one of two looks has, and those of items that differ. Each in the order of its look."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    ended: tuple[str, ...]


def differences(before: Mapping[str, Item], after: Mapping[str, Item]) -> Differences:
    """Return what is different in the later of two looks."""
    return Differences(
        tuple(key for key in after if key not in before),
        tuple(key for key, item in after.items() if key in before and before[key] is not item and before[key] != item),
        tuple(key for key in before if key not in after),
    )


def arrange(rows: Iterable[Row], wanted: str, key: Callable[[Row], Any], *, descending: bool) -> list[Row]:
    """Return the rows that contain all the words of `wanted`, in order. Rows without a value come last, in any order.

    Rows with equal values are in the order of their names.
    """
    words = wanted.lower().split()
    found = [row for row in rows if all(word in row.item.text for word in words)]
    found.sort(key=lambda row: (row.item.name.lower(), row.item.key))
    known = [row for row in found if key(row) is not None]
    known.sort(key=key, reverse=descending)
    return known + [row for row in found if key(row) is None]


class Model:
    """The memory of the view. One thread uses it."""

    def __init__(self, processes: Callable[[int], str]) -> None:
        """processes: returns the name of a process by its pid."""
        self._name_of = processes
        self._names: dict[int, str] = {}
        self._described: dict[tuple[ObjectKind, bytes], Described] = {}
        self._rows: dict[str, Row] = {}
        self._ended: dict[str, Row] = {}
        self._last: Look | None = None
        self._began = 0.0

    def update(self, look: Look) -> State:
        """Return the state after a look. The look must be later than the last one."""
        first = self._last is None
        if first:
            self._began = look.wall
        notice = self._notice(look)
        if look.error is not None:
            # Nothing is known: what was known stays as it was, without marks that time out.
            return self._state(look, notice)
        before = {key: row.item for key, row in self._rows.items()}
        after = {item.key: item for item in self._items(look)}
        changes = differences(before, after)
        for key in changes.ended:
            row = self._rows.pop(key)
            self._ended[key] = msgspec.structs.replace(row, mark=ENDED, seen=look.monotonic, rate=None)
        rows = {}
        for key, item in after.items():
            known = self._rows.get(key)
            if known is not None and _is_another(known.item, item):
                known = None
            rows[key] = self._first_seen(item, look, first=first) if known is None else self._again(known, item, look)
        self._rows = rows
        self._ended = {
            key: row
            for key, row in self._ended.items()
            if key not in rows and look.monotonic < row.seen + LINGER and not first
        }
        self._last = look
        self._forget()
        return self._state(look, notice)

    def _state(self, look: Look, notice: str) -> State:
        found: dict[Subject, list[Row]] = {subject: [] for subject in Subject}
        for row in (*self._rows.values(), *self._ended.values()):
            item = row.item
            found[Subject.CHANNELS if item.payload is None else subject_of(item.payload)].append(row)
        return State(look, self._began, {subject: tuple(rows) for subject, rows in found.items()}, notice)

    def _items(self, look: Look) -> Iterator[Item]:
        for row in look.rows:
            if look.channels and is_of_channel(row, look.channels):
                continue
            known = self._rows.get(f"payload {row.payload}")
            if known is not None and known.item.payload == row:
                yield known.item
            else:
                yield payload_item(row, self._describe(row), self._process)
        for channel in look.channels or ():
            yield channel_item(channel, self._process)

    def _describe(self, row: PayloadRow) -> Described:
        key = (row.object_kind, row.descriptor)
        found = self._described.get(key)
        if found is None:
            found = self._described[key] = describe(row)
        return found

    def _process(self, pid: int) -> str:
        name = self._names.get(pid)
        if name is None:
            name = self._names[pid] = self._name_of(pid) if pid else ""
        return name

    def _forget(self) -> None:
        """Drop the names of processes that hold nothing any more, and what ended payloads said."""
        used = {pid for row in self._rows.values() for pid in row.item.holders}
        self._names = {pid: name for pid, name in self._names.items() if pid in used}
        payloads = [row.item.payload for row in self._rows.values() if row.item.payload is not None]
        live = {(row.object_kind, row.descriptor) for row in payloads}
        self._described = {key: said for key, said in self._described.items() if key in live}

    def _first_seen(self, item: Item, look: Look, *, first: bool) -> Row:
        since = None if first else look.wall
        mark = OLD if first else NEW
        return Row(item, mark, since, look.monotonic, None, dict.fromkeys(item.holders, since))

    def _again(self, known: Row, item: Item, look: Look) -> Row:
        mark = NEW if known.mark == NEW and look.monotonic < known.seen + LINGER else OLD
        rate = self._rate(known.item, item, look)
        holding = known.holding
        if item.holders != known.item.holders:
            holding = {pid: holding.get(pid, look.wall) for pid in item.holders}
        if item is known.item and mark == known.mark and rate == known.rate:
            return known
        return Row(item, mark, known.since, known.seen, rate, holding)

    def _rate(self, before: Item, item: Item, look: Look) -> float | None:
        last = self._last
        if last is None or before.number is None or item.number is None or item.number < before.number:
            return None
        passed = look.monotonic - last.monotonic
        # An update counts 2: its beginning and its end.
        each = 2 if item.payload is not None and item.payload.object_kind is ObjectKind.MEMORY else 1
        return (item.number - before.number) / each / passed if passed > 0 else None

    def _notice(self, look: Look) -> str:
        last = self._last
        if last is None or look.error is not None:
            return ""
        if last.broker is not None and look.broker is None:
            return f"The broker {last.broker.pid} has ended."
        if look.broker is not None and last.broker is None:
            return f"A broker has started: process {look.broker.pid}."
        if look.broker is not None and last.broker is not None and look.broker.pid != last.broker.pid:
            return f"The broker {last.broker.pid} has ended; process {look.broker.pid} is the broker now."
        return ""


def _is_another(before: Item, after: Item) -> bool:
    """Return whether a new broker has given the number of a payload to another payload."""
    a, b = before.payload, after.payload
    if a is None or b is None:
        return a is not b
    return a.object_kind is not b.object_kind or a.descriptor != b.descriptor
