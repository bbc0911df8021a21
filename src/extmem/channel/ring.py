"""The decisions of a ring of slots: which slot is written next, and which frame a reader takes. Pure.

How this works. The functions decide by facts that others state: the numbers of the frames in the slots, whether a lock
of a slot was got. Locks are the only thing that keeps a slot from being overwritten; numbers say what is in it. So a
reader that got the lock looks at the number again: it is then that of the frame until the reader releases the lock.

A writer overwrites the oldest frame first, so that readers that read each frame lose as few as possible. It never
overwrites the newest frame, except in a ring of one slot: readers would have nothing to read meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

__all__ = ["EVERYTHING", "Source", "WriteOrder", "first_cursor", "take"]

EVERYTHING: Final = 1 << 64
"""As the number up to which reliable readers have read: there are none."""
_MOST_ROUNDS: Final = 1000
"""A reader that was overtaken so often in one call looks again later."""


class Source(Protocol):
    """What a reader sees of a ring."""

    @property
    def numbers(self) -> Sequence[int] | memoryview[int]:
        """The number of the frame in each slot; 0 while it is written. Others change it."""
        ...

    def count(self) -> int:
        """Return the number of the last frame that was published."""

    def slot_of(self, number: int) -> int:
        """Return the slot that had this frame at its publication."""

    def lock(self, slot: int) -> bool:
        """Lock the slot with other readers, unless the writer has it. Return whether it is locked."""

    def unlock(self, slot: int) -> None:
        """Release the lock of a slot."""

    def moved(self) -> bool:
        """Return whether the slots were replaced: the reader has to open the new ones."""


def take(source: Source, cursor: int, every: bool) -> tuple[int, int]:
    """Return the number and the slot of the next frame of a reader, whose lock it has from now on.

    cursor: the number of the last frame that it has read. every: the oldest frame after it, else the newest one.
    Without a frame, the slot is -1, and the number is the one that the reader has to wait for. It is the cursor itself
    if the slots were replaced.
    """
    numbers = source.numbers
    count = source.count()
    for _ in range(_MOST_ROUNDS):
        if count <= cursor:
            return cursor + 1, -1
        for number in _present(source, cursor, count) if every else (count,):
            slot = source.slot_of(number)
            if source.lock(slot):
                if numbers[slot] == number and not source.moved():
                    return number, slot
                source.unlock(slot)
            if source.moved():
                return cursor, -1
        before, count = count, source.count()
        if count == before:
            return count + 1, -1  # the last frame is overwritten now: a ring of one slot
    return cursor + 1, -1


def _present(source: Source, cursor: int, count: int) -> Iterator[int]:
    """Yield the numbers of the frames after the cursor that are in the ring, in order."""
    following = cursor + 1
    if source.numbers[source.slot_of(following)] == following:
        yield following
    yield from sorted(number for number in source.numbers if following <= number <= count)


def first_cursor(start: str, count: int, numbers: Sequence[int]) -> int:
    """Return the cursor of a new reader: it reads the newest frame first, or the next one, or the oldest one.

    Every frame after the cursor is one that it can lose. So without the newest frame, which is in no slot after the
    slots were replaced, or while the only slot is overwritten, it reads the next one.
    """
    if start == "oldest":
        return min((number for number in numbers if 0 < number <= count), default=count + 1) - 1
    return count - 1 if start == "newest" and count and count in numbers else count


class WriteOrder:
    """The order in which a writer overwrites the slots. Use it in one thread at a time."""

    __slots__ = ("count", "numbers", "order", "unowed")

    def __init__(self, numbers: Sequence[int], count: int) -> None:
        """numbers: of the frames in the slots, as an earlier writer left them. count: the last that it published."""
        self.count = count
        self.numbers = [number if number <= count else 0 for number in numbers]
        """What is in each slot. A number beyond the count is of a frame that was never published."""
        self.order = sorted(range(len(self.numbers)), key=self.numbers.__getitem__)
        """The slots that are not being written, the oldest frame first."""
        self.unowed = 0
        """Frames with smaller numbers are owed to no reliable reader, and are not the newest."""

    def note_readers(self, read: int) -> None:
        """Note the number up to which every reliable reader has read now.

        A reliable reader that comes later begins with the newest frame of that time, or behind it. So until frames of
        now are to be overwritten, nobody needs to look for new reliable readers.
        """
        self.unowed = self.count if read is EVERYTHING else 0

    def candidates(self, read: int = EVERYTHING) -> list[int]:
        """Return the slots that may be overwritten if nobody holds them, in the order in which to try them.

        read: the number up to which every reliable reader has read.
        """
        numbers, order = self.numbers, self.order
        kept = self.count if len(numbers) > 1 else 0
        return [slot for slot in order if not kept or numbers[slot] != kept if numbers[slot] <= read]

    def unread(self, read: int) -> list[int]:
        """Return the slots that are kept for reliable readers alone."""
        kept = self.count if len(self.numbers) > 1 else 0
        return [slot for slot in self.order if read < self.numbers[slot] != kept]

    def take(self, slot: int) -> None:
        """The slot is written from now on, and has no frame."""
        self.numbers[slot] = 0
        self.order.remove(slot)

    def publish(self, slot: int) -> int:
        """The slot has a new frame. Return its number."""
        self.count = number = self.count + 1
        self.numbers[slot] = number
        self.order.append(slot)
        return number

    def give_back(self, slot: int) -> None:
        """The slot has no frame: writing it was given up."""
        self.order.insert(0, slot)

    def grow(self) -> int:
        """Add a slot. Return it."""
        self.numbers.append(0)
        slot = len(self.numbers) - 1
        self.order.insert(0, slot)
        return slot
