"""The handle table of one process: values, entries, flags (B36, B39, B41, B45–B49).

A handle that another process put into the table counts against that process until this one uses it, so that a process
cannot fill another one's table.
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
    """The entry of a handle value."""

    __slots__ = ("flags", "giver", "granted", "object")

    def __init__(self, kernel_object: KernelObject, granted: int, flags: int, giver: Giver | None = None) -> None:
        self.object = kernel_object
        self.granted = granted
        self.flags = flags
        self.giver = (
            giver  # the process that put it here, while it counts against that one and not against the table's process
        )


class HandleTable:
    """Values are multiples of 4 from 4 on, the lowest free one first (B41). Look-ups ignore the low two bits (B48)."""

    __slots__ = ("_burnt", "_entries", "_free", "_next", "foreign", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.foreign = 0
        """The number of entries that count against other processes."""
        self._entries: dict[int, Entry] = {}
        self._burnt: set[int] = set()
        self._free: list[int] = []  # a heap; it may contain values that `put` has used since, which are skipped
        self._next = 4

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, value: int) -> bool:
        return value in self._entries

    def __iter__(self) -> Iterator[tuple[int, Entry]]:
        return iter(sorted(self._entries.items()))

    def take_last(self) -> Entry:
        """Remove and return the newest entry of a table whose process has ended. KeyError when there is none."""
        entry = self._entries.popitem()[1]
        self.foreign -= entry.giver is not None
        return entry

    def items(self) -> list[tuple[int, Entry]]:
        """Return all values and entries, in any order."""
        return list(self._entries.items())

    def page(self, after: int, limit: int) -> tuple[list[int], int]:
        """Return the open values among the next `limit` possible ones above `after`, and the `after` of the next page.

        The values ascend; the latter is 0 after the last page. The cost depends on `limit` and not on how many are
        open.
        """
        first = (max(after, 0) & ~3) + 4
        end = min(first + 4 * limit, self._next)
        entries = self._entries
        return [value for value in range(first, end, 4) if value in entries], end - 4 if end < self._next else 0

    @property
    def own(self) -> int:
        """The number of entries that count against the process itself."""
        return len(self._entries) - self.foreign

    def room(self) -> None:
        """Raise Refused QUOTA_EXCEEDED if one more handle of the process would be too many."""
        if self.own >= self.limit:
            raise Refused(
                Status.QUOTA_EXCEEDED,
                f"This process has {self.own} handles open, the limit of one process. Close those that it no longer "
                "needs.",
            )

    def add(self, entry: Entry) -> int:
        """Enter `entry` at the lowest free value.

        Refused QUOTA_EXCEEDED when the table is full, unless the entry counts against the process that put it here.
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
        """Enter `entry` at a given value, to inherit or restore it. Refused for a value in use or an invalid one."""
        self.room()
        if value % 4 or not 0 < value <= 4 * self.limit:
            raise Refused(
                Status.INVALID_PARAMETER,
                f"{value:#x} is not a handle value. Values are multiples of 4 from 4 to {4 * self.limit:#x}.",
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
        """Never reuse this value, which is not open: the process may still use it for the closed handle."""
        if value % 4 == 0 and 0 < value <= 4 * self.limit:
            self._burnt.add(value)
            while self._next <= value:
                heapq.heappush(self._free, self._next)
                self._next += 4

    def begin_above(self, value: int) -> None:
        """Assign only values above this one: the process may still use the others. The table must be empty."""
        self._next = max(self._next, (value & ~3) + 4)

    def find(self, value: int) -> Entry:
        """Return the entry of `value`. Refused INVALID_HANDLE, with the reason that the value shows (B42, B47, B49)."""
        entry = self._entries.get(value & ~3)
        if entry is None or value < 0:
            raise Refused(Status.INVALID_HANDLE, no_entry(value))
        return entry

    def remove(self, value: int) -> Entry:
        """Remove an entry; its value is free at once. The caller has looked it up and checked its flags."""
        value &= ~3
        entry = self._entries.pop(value)
        self.foreign -= entry.giver is not None
        heapq.heappush(self._free, value)
        return entry


def no_entry(value: int) -> str:
    """Return why a value is not an open handle, as its bits show (B42, B47, B49), and the remedy."""
    if value == 0:
        return "The handle is 0 (NULL), which is never open. Pass a handle that this process holds."
    if 0 < value <= 0xFFFF_FFFF and value & _KMT_SHAPE:
        return (
            f"{value:#x} is a KMT number, not an NT handle: it is not in a handle table and cannot be closed or "
            "duplicated. Import it with the KMT handle type."
        )
    return (
        f"{value:#x} is not open in this process. It was closed, or it belongs to another process: "
        "duplicate it into this one, or pass it by pickling."
    )
