"""The decisions of a ring: which slot is written next, and which frame a reader takes."""

from __future__ import annotations

import pytest

from extmem.channel.ring import EVERYTHING, WriteOrder, first_cursor, take


class Ring:
    """A ring whose locks a test sets. `events` are called one by one, each before a lock is tried."""

    def __init__(self, numbers: list[int], count: int) -> None:
        self.numbers = numbers
        self.published = count
        self.table = {number: slot for slot, number in enumerate(numbers) if number}
        self.writing: set[int] = set()
        self.locked: list[int] = []
        self.events: list[object] = []
        self.epoch_over = False

    def count(self) -> int:
        return self.published

    def slot_of(self, number: int) -> int:
        return self.table.get(number, 0)

    def lock(self, slot: int) -> bool:
        if self.events:
            self.events.pop(0)()  # type: ignore[operator]
        if slot in self.writing:
            return False
        self.locked.append(slot)
        return True

    def unlock(self, slot: int) -> None:
        self.locked.remove(slot)

    def moved(self) -> bool:
        return self.epoch_over

    def publish(self, slot: int) -> None:
        self.published += 1
        self.numbers[slot] = self.published
        self.table[self.published] = slot


def test_newest_is_the_last_frame_and_every_the_one_after_the_cursor() -> None:
    assert take(Ring([4, 5, 6], 6), 3, False) == (6, 2)
    assert take(Ring([4, 5, 6], 6), 3, True) == (4, 0)
    assert take(Ring([4, 5, 6], 6), 1, True) == (4, 0)  # 2 and 3 were overwritten
    assert take(Ring([4, 5, 6], 6), 4, True) == (5, 1)


def test_without_a_new_frame_the_next_number_is_waited_for() -> None:
    for every in (False, True):
        ring = Ring([4, 5, 6], 6)
        assert take(ring, 6, every) == (7, -1)
        assert not ring.locked
    assert take(Ring([0, 0], 0), 0, False) == (1, -1)


def test_a_frame_beyond_the_count_is_not_published_yet() -> None:
    assert take(Ring([7, 5, 6], 6), 6, True) == (7, -1)
    assert take(Ring([7, 5, 6], 6), 5, True) == (6, 2)


def test_a_slot_that_is_being_overwritten_is_passed_over() -> None:
    ring = Ring([4, 5, 6], 6)
    ring.writing = {0}
    assert take(ring, 3, True) == (5, 1)
    assert ring.locked == [1]


def test_a_frame_that_was_overwritten_before_the_lock_is_looked_up_again() -> None:
    ring = Ring([4, 5, 6], 6)
    ring.events = [lambda: (ring.publish(0), ring.publish(1), ring.publish(2))]
    assert take(ring, 3, False) == (9, 2)
    assert ring.locked == [2]


def test_the_only_slot_that_is_written_leads_to_a_wait_for_the_next_frame() -> None:
    ring = Ring([6], 6)
    ring.writing = {0}
    assert take(ring, 5, False) == (7, -1)
    assert take(ring, 5, True) == (7, -1)


def test_replaced_slots_are_told_by_the_cursor() -> None:
    ring = Ring([4, 5, 6], 6)
    ring.epoch_over = True
    assert take(ring, 5, False) == (5, -1)
    assert not ring.locked


@pytest.mark.parametrize(
    ("start", "count", "numbers", "cursor"),
    [
        ("newest", 6, [4, 5, 6], 5),
        ("next", 6, [4, 5, 6], 6),
        ("oldest", 6, [4, 5, 6], 3),
        ("oldest", 6, [0, 5, 6, 9], 4),
        ("newest", 6, [0, 5], 6),
        ("oldest", 6, [0, 0], 6),
        ("newest", 0, [0, 0], 0),
        ("next", 0, [0, 0], 0),
        ("oldest", 0, [0, 0], 0),
    ],
)
def test_a_late_joiner_begins_where_it_says(start: str, count: int, numbers: list[int], cursor: int) -> None:
    assert first_cursor(start, count, numbers) == cursor


def test_the_oldest_frame_is_overwritten_first_and_the_newest_never() -> None:
    order = WriteOrder([4, 6, 5], 6)
    assert order.candidates() == [0, 2]
    order.take(0)
    assert order.candidates() == [2]
    assert order.publish(0) == 7
    assert order.candidates() == [2, 1]


def test_the_only_slot_is_overwritten_nevertheless() -> None:
    order = WriteOrder([3], 3)
    assert order.candidates() == [0]


def test_frames_that_reliable_readers_have_not_read_are_kept() -> None:
    order = WriteOrder([4, 6, 5], 6)
    assert order.candidates(read=4) == [0]
    assert order.candidates(read=3) == []
    assert order.unread(3) == [0, 2]
    assert order.unread(EVERYTHING) == []


def test_a_frame_that_was_never_published_is_forgotten() -> None:
    order = WriteOrder([4, 7, 5], 6)
    assert order.numbers == [4, 0, 5]
    assert order.candidates()[0] == 1


def test_a_frame_that_is_given_up_leaves_its_slot_first() -> None:
    order = WriteOrder([4, 6, 5], 6)
    order.take(0)
    order.give_back(0)
    assert order.candidates() == [0, 2]
    assert order.count == 6


def test_a_slot_more_is_used_first() -> None:
    order = WriteOrder([4, 6, 5], 6)
    assert order.grow() == 3
    assert order.candidates() == [3, 0, 2]


def test_readers_are_looked_for_again_before_a_frame_of_now_is_overwritten() -> None:
    order = WriteOrder([4, 6, 5], 6)
    assert order.unowed == 0  # nobody has looked yet
    order.note_readers(EVERYTHING)
    assert [order.numbers[slot] < order.unowed for slot in order.order] == [True, True, False]
    order.note_readers(5)
    assert order.unowed == 0
