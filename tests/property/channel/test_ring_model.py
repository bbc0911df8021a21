"""The protocol of a channel against a small model: any sequence of steps and deaths of a writer and several readers.

How this works. The machine has the kernel's locks as plain sets, and a writer that stops after each of its steps. A
reader takes frames by `ring.take`, whose source lets the writer make some steps before each look at the ring. Contents
are the number that is being written into a slot, and whether it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from extmem.channel.ring import EVERYTHING, WriteOrder, first_cursor, take

READERS = 4


class Reader:
    """A reader, and what it has seen."""

    def __init__(self, ring: RingMachine, start: str, every: bool, reliable: bool) -> None:
        self.ring = ring
        self.numbers = ring.numbers
        self.every = every
        self.reliable = reliable
        self.cursor = first_cursor(start, ring.count_word, ring.numbers)
        self.first = True
        self.held: dict[int, int] = {}
        """Number → slot."""
        self.steps: list[int] = []
        """How many steps the writer makes before each look."""

    def _let_others_go_on(self) -> None:
        for _ in range(self.steps.pop() if self.steps else 0):
            self.ring.writer_goes_on()

    def count(self) -> int:
        self._let_others_go_on()
        return self.ring.count_word

    def slot_of(self, number: int) -> int:
        self._let_others_go_on()
        return self.ring.table[number % len(self.ring.table)]

    def lock(self, slot: int) -> bool:
        self._let_others_go_on()
        if slot in self.ring.exclusive:
            return False
        self.ring.shared[slot].add(self)
        return True

    def unlock(self, slot: int) -> None:
        self.ring.shared[slot].discard(self)

    def moved(self) -> bool:
        return False

    def end(self) -> None:
        for holders in self.ring.shared:
            holders.discard(self)


class RingMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(slots=st.integers(1, 5))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.numbers = [0] * slots
        self.table = [0] * (2 * slots)
        self.count_word = 0
        self.exclusive: set[int] = set()
        self.shared: list[set[Reader]] = [set() for _ in range(slots)]
        self.contents: list[tuple[int, bool]] = [(0, False)] * slots
        self.readers: list[Reader] = []
        self.published: set[int] = set()
        self.writer: Iterator[None] | None = None
        self.full = 0
        self.restart()

    # The writer.

    def restart(self) -> None:
        self.order = WriteOrder(self.numbers, self.count_word)
        for slot, number in enumerate(self.order.numbers):
            self.numbers[slot] = number
        self.writer = self.write_for_ever()

    def write_for_ever(self) -> Iterator[None]:
        order = self.order
        while True:
            slot = self.claim()
            if slot < 0:
                self.full += 1
                yield
                continue
            order.take(slot)
            yield
            self.numbers[slot] = 0
            yield
            number = order.count + 1
            self.contents[slot] = (number, False)
            yield
            self.contents[slot] = (number, True)
            yield
            assert order.publish(slot) == number
            self.numbers[slot] = number
            yield
            self.table[number % len(self.table)] = slot
            yield
            self.exclusive.discard(slot)
            yield
            assert number not in self.published
            self.published.add(number)
            self.count_word = number
            yield

    def claim(self) -> int:
        """As `ChannelWriter.write`, its usual case first."""
        order = self.order
        if order.order:
            slot = order.order[0]
            if order.numbers[slot] < order.unowed and self.lock_alone(slot):
                return slot
        cursors = [reader.cursor for reader in self.readers if reader.reliable]
        read = min(cursors, default=EVERYTHING)
        order.note_readers(read)
        for slot in order.candidates(read):
            if self.lock_alone(slot):
                return slot
        return -1

    def lock_alone(self, slot: int) -> bool:
        if self.shared[slot] or slot in self.exclusive:
            return False
        self.exclusive.add(slot)
        return True

    def writer_goes_on(self) -> None:
        if self.writer is not None:
            next(self.writer)

    @rule(steps=st.integers(1, 30))
    def write(self, steps: int) -> None:
        for _ in range(steps):
            self.writer_goes_on()

    @rule()
    def kill_writer(self) -> None:
        self.writer = None
        self.exclusive.clear()

    @precondition(lambda self: self.writer is None)
    @rule()
    def restart_writer(self) -> None:
        self.restart()

    # The readers.

    @precondition(lambda self: len(self.readers) < READERS)
    @rule(start=st.sampled_from(("newest", "next", "oldest")), every=st.booleans(), reliable=st.booleans())
    def join(self, start: str, every: bool, reliable: bool) -> None:
        if reliable:  # as `open_channel`: reliable readers read each frame; they are owed nothing older than the newest
            start = "newest" if start == "oldest" else start
        self.readers.append(Reader(self, start, every or reliable, reliable))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, READERS - 1), steps=st.lists(st.integers(0, 25), max_size=12))
    def read(self, which: int, steps: list[int]) -> None:
        reader = self.readers[which % len(self.readers)]
        reader.steps = list(steps)
        # A frame that somebody held while others went round twice may have left the table: it counts as skipped.
        listed = {one for slot, one in enumerate(self.numbers) if self.table[one % len(self.table)] == slot}
        number, slot = take(reader, reader.cursor, reader.every)
        if slot < 0:
            assert number > reader.cursor
            if not steps and not self.exclusive and self.slots > 1:  # the only frame of a ring may be overwritten
                assert self.count_word <= reader.cursor
            return
        assert reader.cursor < number <= self.count_word
        skipped = number - reader.cursor - 1
        if reader.every and not steps:
            present = {one for one in listed if reader.cursor < one <= self.count_word and one}
            locked = {self.numbers[one] for one in self.exclusive}
            assert number == min(present - locked)
        if not reader.every and not steps:
            assert number == self.count_word
        if reader.reliable and not reader.first:
            assert skipped == 0, (reader.cursor, number)
        reader.first = False
        reader.cursor = number
        reader.held[number] = slot

    @precondition(lambda self: any(reader.held for reader in self.readers))
    @rule(which=st.integers(0, READERS - 1))
    def release(self, which: int) -> None:
        holding = [reader for reader in self.readers if reader.held]
        reader = holding[which % len(holding)]
        _, slot = reader.held.popitem()
        reader.unlock(slot)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, READERS - 1))
    def kill_reader(self, which: int) -> None:
        self.readers.pop(which % len(self.readers)).end()

    # What holds at each moment.

    @invariant()
    def held_frames_are_complete_and_do_not_change(self) -> None:
        for reader in getattr(self, "readers", ()):
            for number, slot in reader.held.items():
                assert self.contents[slot] == (number, True)
                assert self.numbers[slot] == number
                assert slot not in self.exclusive

    @invariant()
    def a_free_ring_is_never_full(self) -> None:
        if not hasattr(self, "slots") or any(reader.reliable for reader in self.readers):
            return
        held = sum(len(reader.held) for reader in self.readers)
        if self.slots >= 2 + held and self.writer is not None and not self.exclusive:
            assert self.order.candidates(), "the writer has no slot to try"

    @invariant()
    def the_newest_frame_can_be_read(self) -> None:
        if getattr(self, "slots", 0) > 1 and self.count_word:
            slot = self.table[self.count_word % len(self.table)]
            assert self.contents[slot] == (self.count_word, True)
            assert slot not in self.exclusive


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)


# Planted faults, each of which the model must find.


def _without_a_second_look(source: Reader, cursor: int, every: bool) -> tuple[int, int]:
    count = source.count()
    if count <= cursor:
        return cursor + 1, -1
    slot = source.slot_of(count)
    return (count, slot) if source.lock(slot) else (count + 1, -1)


class _OverwritesTheNewest(WriteOrder):
    def candidates(self, read: int = EVERYTHING) -> list[int]:
        return [slot for slot in reversed(self.order) if self.numbers[slot] <= read]


class _LooksForReadersTooLate(WriteOrder):
    def note_readers(self, read: int) -> None:
        self.unowed = self.count + 1


@pytest.mark.parametrize(
    ("what", "planted"),
    [
        ("take", _without_a_second_look),
        ("WriteOrder", _OverwritesTheNewest),
        ("WriteOrder", _LooksForReadersTooLate),
    ],
)
@pytest.mark.slow("lets Hypothesis search until it finds a planted fault")
def test_planted_faults_are_found(monkeypatch: pytest.MonkeyPatch, what: str, planted: object) -> None:
    monkeypatch.setitem(globals(), what, planted)
    searching = settings(
        max_examples=3000,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(RingMachine, settings=searching)


@pytest.mark.slow("lets Hypothesis search long")
def test_a_long_search_finds_nothing() -> None:
    searching = settings(max_examples=400, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(RingMachine, settings=searching)
