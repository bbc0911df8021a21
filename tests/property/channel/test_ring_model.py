"""The protocol of a channel against a small model: any sequence of steps and deaths of a writer and several readers.

How this works. The machine has the kernel's locks as plain sets, and a writer that stops after each of its steps. A
reader takes frames by `ring.take`, whose source lets the writer make some steps before each look at the ring. Contents
are the number that is being written into a slot, and whether it is complete. Each epoch has slots of its own; the
writer makes the stores of `reclaiming.begin_epoch` one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

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

from extmem.channel.reclaiming import begin_epoch
from extmem.channel.ring import EVERYTHING, WriteOrder, first_cursor, take
from extmem.channel.source import ReadSource
from extmem.errors import ChannelCorruptError
from extmem.sharing.channel_page import Words

READERS = 4
CAPACITY = 5

Place = tuple[int, int]
"""A slot: its epoch and its index."""


class Source(ReadSource):
    """What a reader sees of the ring of the model."""

    def __init__(self, reader: Reader, ring: RingMachine) -> None:
        control: Any = ring.control
        super().__init__(control, None, None, ring.epoch, b"")
        self.reader = reader
        self.ring = ring
        self.open_up_to(control.words[Words.SLOTS])

    def open_up_to(self, count: int) -> None:
        known: list[Any] = self.slots
        known += [SimpleNamespace(index=index) for index in range(len(known), count)]

    def count(self) -> int:
        self.reader.let_others_go_on()
        return self.ring.count_word

    def slot_of(self, number: int) -> int:
        self.reader.let_others_go_on()
        return super().slot_of(number)

    def lock(self, slot: int) -> bool:
        self.reader.let_others_go_on()
        place = (self.epoch, slot)
        if self.slots[slot] is None or place in self.ring.exclusive:
            return False
        self.ring.shared.setdefault(place, set()).add(self.reader)
        return True

    def unlock(self, slot: int) -> None:
        self.ring.shared[self.epoch, slot].discard(self.reader)


class Reader:
    """A reader, and what it has seen."""

    def __init__(self, ring: RingMachine, start: str, every: bool, reliable: bool) -> None:
        self.ring = ring
        self.every = every
        self.reliable = reliable
        self.cursor = first_cursor(start, ring.count_word, ring.numbers)
        self.held: dict[int, Place] = {}
        """Number → slot."""
        self.steps: list[int] = []
        """How many steps the writer makes before each look."""
        self.source = Source(self, ring)

    def let_others_go_on(self) -> None:
        for _ in range(self.steps.pop() if self.steps else 0):
            self.ring.writer_goes_on()

    def take(self) -> tuple[int, int]:
        """As `ChannelReader._search`."""
        while True:
            number, slot = take(self.source, self.cursor, self.every)
            if slot >= 0 or number != self.cursor:
                return number, slot
            self.source = Source(self, self.ring)

    def end(self) -> None:
        for holders in self.ring.shared.values():
            holders.discard(self)


class Recorded(list[int]):
    """Numbers of the control page, whose stores are recorded."""

    def __init__(self, values: list[int], stores: list[Callable[[], None]]) -> None:
        super().__init__(values)
        self.page, self.stores = values, stores

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        self.stores.append(lambda: self.page.__setitem__(index, value))


class RingMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(slots=st.integers(1, 5))
    def begin(self, slots: int) -> None:
        self.numbers = [0] * CAPACITY
        self.table = [0] * (2 * CAPACITY)
        self.control = SimpleNamespace(
            name="of the model",
            layout=SimpleNamespace(capacity=CAPACITY, entries=2 * CAPACITY),
            numbers=self.numbers,
            table=self.table,
            words=[0] * 64,
            words64=[0] * 32,
        )
        self.control.words64[Words.EPOCH] = 1
        self.control.words[Words.SLOTS] = slots
        self.count_word = 0
        self.replaced = 0
        """The number of the last frame when the slots were replaced last: it and those before may be gone."""
        self.asked = 0
        """Slots of the epoch that the writer is to begin; 0 for none."""
        self.exclusive: set[Place] = set()
        self.shared: dict[Place, set[Reader]] = {}
        self.contents: dict[Place, tuple[int, bool]] = {}
        self.readers: list[Reader] = []
        self.published: set[int] = set()
        self.writer: Iterator[None] | None = None
        self.full = 0
        self.restart()

    @property
    def epoch(self) -> int:
        return self.control.words64[Words.EPOCH]  # type: ignore[no-any-return]

    @property
    def slots(self) -> int:
        return self.control.words[Words.SLOTS]  # type: ignore[no-any-return]

    # The writer.

    def restart(self) -> None:
        self.asked = 0
        self.order = WriteOrder(self.numbers[: self.slots], self.count_word)
        for slot, number in enumerate(self.order.numbers):
            self.numbers[slot] = number
        self.writer = self.write_for_ever()

    def write_for_ever(self) -> Iterator[None]:
        while True:
            if self.asked:
                yield from self.replace_slots(self.asked)
            order, epoch = self.order, self.epoch
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
            self.contents[epoch, slot] = (number, False)
            yield
            self.contents[epoch, slot] = (number, True)
            yield
            assert order.publish(slot) == number
            self.numbers[slot] = number
            yield
            self.table[number % len(self.table)] = slot
            yield
            self.exclusive.discard((epoch, slot))
            yield
            assert number not in self.published
            self.published.add(number)
            self.count_word = number
            yield

    def replace_slots(self, count: int) -> Iterator[None]:
        self.asked, self.replaced = 0, self.count_word
        stores: list[Callable[[], None]] = []
        recorded: Any = SimpleNamespace(
            layout=self.control.layout,
            numbers=Recorded(self.numbers, stores),
            table=Recorded(self.table, stores),
            words=Recorded(self.control.words, stores),
            words64=Recorded(self.control.words64, stores),
            set_arrays=lambda encoded: None,
        )
        begin_epoch(recorded, b"", count)
        for store in stores:
            store()
            yield
        self.order = WriteOrder([0] * count, self.order.count)

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
        place = (self.epoch, slot)
        if self.shared.get(place) or place in self.exclusive:
            return False
        self.exclusive.add(place)
        return True

    def writer_goes_on(self) -> None:
        if self.writer is not None:
            next(self.writer)

    @rule(steps=st.integers(1, 30))
    def write(self, steps: int) -> None:
        for _ in range(steps):
            self.writer_goes_on()

    @rule(slots=st.integers(1, CAPACITY))
    def reconfigure(self, slots: int) -> None:
        self.asked = slots

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
        number, slot = reader.take()
        if slot < 0:
            assert number > reader.cursor
            if not steps and not self.exclusive and self.slots > 1:  # the only frame of a ring may be overwritten
                assert self.count_word <= max(reader.cursor, self.replaced)
            return
        assert reader.cursor < number <= self.count_word
        if reader.every and not steps:
            present = {one for one in listed if reader.cursor < one <= self.count_word and one}
            locked = {self.numbers[index] for epoch, index in self.exclusive if epoch == self.epoch}
            assert number == min(present - locked)
        if not reader.every and not steps:
            assert number == self.count_word
        if reader.reliable:
            assert number <= max(reader.cursor, self.replaced) + 1, (reader.cursor, number)
        reader.cursor = number
        reader.held[number] = (reader.source.epoch, slot)

    @precondition(lambda self: any(reader.held for reader in self.readers))
    @rule(which=st.integers(0, READERS - 1))
    def release(self, which: int) -> None:
        holding = [reader for reader in self.readers if reader.held]
        reader = holding[which % len(holding)]
        _, place = reader.held.popitem()
        self.shared[place].discard(reader)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, READERS - 1))
    def kill_reader(self, which: int) -> None:
        self.readers.pop(which % len(self.readers)).end()

    # What holds at each moment.

    @invariant()
    def held_frames_are_complete_and_do_not_change(self) -> None:
        for reader in getattr(self, "readers", ()):
            for number, place in reader.held.items():
                assert self.contents[place] == (number, True)
                assert place not in self.exclusive
                if number > self.replaced:
                    assert self.numbers[place[1]] == number

    @invariant()
    def a_free_ring_is_never_full(self) -> None:
        if not hasattr(self, "control") or any(reader.reliable for reader in self.readers):
            return
        held = sum(len(reader.held) for reader in self.readers)
        if len(self.order.numbers) >= 2 + held and self.writer is not None and not self.exclusive:
            assert self.order.candidates(), "the writer has no slot to try"

    @invariant()
    def the_newest_frame_can_be_read(self) -> None:
        if hasattr(self, "control") and self.slots > 1 and self.count_word > self.replaced:
            place = (self.epoch, self.table[self.count_word % len(self.table)])
            assert self.contents[place] == (self.count_word, True)
            assert place not in self.exclusive


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


_begin_epoch = begin_epoch


def _begins_without_a_clear_table(control: Any, encoded: bytes, count: int) -> None:
    table, control.table = control.table, list(control.table)
    _begin_epoch(control, encoded, count)
    control.table = table


def _begins_before_the_numbers_are_gone(control: Any, encoded: bytes, count: int) -> None:
    control.words[Words.SLOTS] = count
    _begin_epoch(control, encoded, count)


@pytest.mark.parametrize(
    ("what", "planted"),
    [
        ("begin_epoch", _begins_without_a_clear_table),
        ("begin_epoch", _begins_before_the_numbers_are_gone),
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
    with pytest.raises((AssertionError, ChannelCorruptError)):
        run_state_machine_as_test(RingMachine, settings=searching)


@pytest.mark.slow("lets Hypothesis search long")
def test_a_long_search_finds_nothing() -> None:
    searching = settings(max_examples=400, stateful_step_count=50, deadline=None)
    run_state_machine_as_test(RingMachine, settings=searching)
