"""One process's handle table: values, entries, flags (B36, B39, B41, B45–B49).

A handle that another process put here counts against that one, until this process uses it: nobody can fill another's
table.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Protocol

from extmem.objects.kernel_object import KernelObject
from extmem.objects.security import Token
from extmem.objects.status import Refused, Status

__all__ = ["FLAG_INHERIT", "FLAG_PROTECT", "Entry", "HandleTable", "no_entry"]

FLAG_INHERIT: Final = 1
FLAG_PROTECT: Final = 2
_KMT_SHAPE: Final = 0xC000_0000  # values with one of these bits are KMT numbers, all others NT handles (B53)


class Giver(Protocol):
    """The process that put a handle into the table of another one (`entities.Process`)."""

    given: int
    """The number of handles that it put into other tables and that count against it."""
    ended: bool
    token: Token


class Entry:
    """What a handle value stands for."""

    __slots__ = ("flags", "giver", "granted", "object")

    def __init__(self, kernel_object: KernelObject, granted: int, flags: int, giver: Giver | None = None) -> None:
        self.object = kernel_object
        self.granted = granted
        self.flags = flags
        self.giver = giver  # who put it here, as long as it counts against that process and not against the table's own


class HandleTable:
    """Values are multiples of 4 from 4 on, the lowest free one first (B41); the low two bits are ignored on lookup
    (B48).
    """

    __slots__ = ("_burnt", "_entries", "_free", "_next", "foreign", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.foreign = 0
        """Entries that count against others."""
        self._entries: dict[int, Entry] = {}
        self._burnt: set[int] = set()
        self._free: list[int] = []  # a heap; may hold values that `put` has taken meanwhile, they are skipped
        self._next = 4

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, value: int) -> bool:
        return value in self._entries

    def __iter__(self) -> Iterator[tuple[int, Entry]]:
        return iter(sorted(self._entries.items()))

    def take_last(self) -> Entry:
        """Take out the entry that was put in last, of a table whose process has ended. KeyError when there is none."""
        entry = self._entries.popitem()[1]
        self.foreign -= entry.giver is not None
        return entry

    def items(self) -> list[tuple[int, Entry]]:
        """All values and entries now, in no order."""
        return list(self._entries.items())

    def page(self, after: int, limit: int) -> tuple[list[int], int]:
        """The open values above `after`, ascending, of the next `limit` that there could be; and the value to go on
        after, 0 when there are no more. Looks at `limit` values, however many are open.
        """
        first = (max(after, 0) & ~3) + 4
        end = min(first + 4 * limit, self._next)
        entries = self._entries
        return [value for value in range(first, end, 4) if value in entries], end - 4 if end < self._next else 0

    @property
    def own(self) -> int:
        """Entries that count against the process itself."""
        return len(self._entries) - self.foreign

    def room(self) -> None:
        """Refused QUOTA_EXCEEDED when one more handle of its own would be too many."""
        if self.own >= self.limit:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has {self.own} handles open, as many as one may. Close those it no longer needs.",
            )

    def add(self, entry: Entry) -> int:
        """Put `entry` at the lowest free value. Refused QUOTA_EXCEEDED when the table is full, unless it counts against
        whoever put it here.
        """
        if entry.giver is None:
            self.room()
        else:
            self.foreign += 1
        while self._free:
            value = heapq.heappop(self._free)
            if value not in self._entries and value not in self._burnt:
                break
        else:
            value = self._next
            self._next += 4
        self._entries[value] = entry
        return value

    def put(self, value: int, entry: Entry) -> None:
        """Put `entry` at a given value: inheriting and restoring. Refused when the value is taken or none that can
        exist.
        """
        self.room()
        if value % 4 or not 0 < value <= 4 * self.limit:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"{value:#x} is no handle value. Values are multiples of 4 from 4 to {4 * self.limit:#x}.",
            )
        if value in self._entries:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"The handle value {value:#x} is in use in this process. Announce every handle once.",
            )
        while self._next <= value:
            if self._next != value:
                heapq.heappush(self._free, self._next)
            self._next += 4
        self._entries[value] = entry

    def burn(self, value: int) -> None:
        """Never give this value again: somebody may take it for the handle that it was. It is not open now."""
        if value % 4 == 0 and 0 < value <= 4 * self.limit:
            self._burnt.add(value)
            while self._next <= value:
                heapq.heappush(self._free, self._next)
                self._next += 4

    def begin_above(self, value: int) -> None:
        """Give no value up to this one: all of them may be known as something else. The table is empty yet."""
        self._next = max(self._next, (value & ~3) + 4)

    def find(self, value: int) -> Entry:
        """The entry that `value` stands for. Refused INVALID_HANDLE, with the reason that the value shows (B42, B47,
        B49).
        """
        entry = self._entries.get(value & ~3)
        if entry is None or value < 0:
            raise Refused(Status.INVALID_HANDLE, no_entry(value))
        return entry

    def remove(self, value: int) -> Entry:
        """Take an entry out; its value is free at once. The caller has looked it up and minded its flags."""
        value &= ~3
        entry = self._entries.pop(value)
        self.foreign -= entry.giver is not None
        heapq.heappush(self._free, value)
        return entry


def no_entry(value: int) -> str:
    """Why a value stands for no open handle, as its shape shows (B42, B47, B49), and what to do."""
    if value == 0:
        return "The handle is 0 (NULL), which is never open. Pass a handle that this process holds."
    if 0 < value <= 0xFFFF_FFFF and value & _KMT_SHAPE:
        return (
            f"{value:#x} is a KMT number, not an NT handle: it is in no handle table, there is nothing to close or "
            "duplicate. Import it with the KMT handle type."
        )
    return (
        f"{value:#x} is not open in this process. It was closed, or it belongs to another process: "
        "duplicate it into this one, or pass it by pickling."
    )
