"""Each turn of the broker's loop does a limited amount of work: what takes longer is done in pages or in steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from extmem.broker import background, snapshot_pages
from extmem.broker.tickets import SECONDS, Tickets
from extmem.objects import GENERIC_ALL, STEP, Limits, Part, Share, Token
from tests.described_manager import DescribedManager

TOKEN = Token(1000, 1000)
MANY = 20_000


@pytest.fixture(scope="module")
def model() -> DescribedManager:
    """One process with very many objects of each kind, and one with few."""
    import random

    made = DescribedManager(random=random.Random(1).randrange, limits=Limits(tickets=MANY))
    for number in (1, 2):
        made.attach(TOKEN, number)
    exported = made.export(
        1, ((1, 1),), b"d" * 4000, share=Share.NT, name="x", access=GENERIC_ALL, sddl=None, inherit=True
    )
    for _ in range(MANY):
        made.get_handle(1, exported.reference)
        made.import_by_name(1, "x")
    for number in range(2_000):
        made.export(
            2,
            ((2, number),),
            b"d" * 4000,
            share=Share.NT,
            name=f"n{number}",
            access=GENERIC_ALL,
            sddl=None,
            inherit=False,
        )
    return made


class Counted:
    """A walk whose steps are counted."""

    def __init__(self, steps: Iterator[Part | None]) -> None:
        self._steps = steps
        self.visited = 0

    def __iter__(self) -> Iterator[Part | None]:
        return self

    def __next__(self) -> Part | None:
        part = next(self._steps)
        self.visited += STEP if part is None else 1 + (0 if part.holder is None else len(part.holder.handles))
        return part


def test_a_page_of_a_snapshot_visits_so_many_things_and_has_so_many_bytes(model: DescribedManager) -> None:
    walk = Counted(model.walk())
    telling = snapshot_pages.SnapshotPages(walk, lambda payload, kind: None)
    count = 0
    while telling.number:
        before = walk.visited
        page = telling.page()
        count += 1
        assert walk.visited - before <= snapshot_pages.VISITED + STEP
        assert len(page) <= snapshot_pages.ROOM + 50_000
    assert count > 2 * MANY / snapshot_pages.VISITED


def test_the_pages_together_are_the_snapshot(model: DescribedManager) -> None:
    from extmem import wire
    from extmem.objects import assemble

    telling = snapshot_pages.SnapshotPages(model.walk(), lambda payload, kind: None)
    parts: list[Part] = []
    while telling.number:
        parts += wire.decode_parts(telling.page())
    assert assemble(parts) == model.snapshot()


def test_a_page_of_handle_values_looks_at_so_many_values(model: DescribedManager) -> None:
    values, after, rounds = [], 0, 0
    while True:
        page, after = model.handle_values(1, after, 1_024)
        assert len(page) <= 1_024
        values += page
        rounds += 1
        if not after:
            break
    assert values == list(range(4, 4 * MANY + 4, 4)) and rounds == -(-MANY // 1_024)


def test_a_page_of_an_almost_empty_table_looks_at_no_more_values() -> None:
    made = DescribedManager(random=lambda n: 1 % n)
    made.attach(TOKEN, 1)
    exported = made.export(1, (1, 1), b"", share=Share.NT, name=None, access=GENERIC_ALL, sddl=None, inherit=False)
    handles = [made.get_handle(1, exported.reference) for _ in range(5_000)]
    for handle in handles[:-1]:
        made.close_handle(1, handle)
    found, after = made.handle_values(1, 0, 1_000)
    assert found == [] and after == 4_000
    assert made.handle_values(1, 16_000, 1_024) == ([20_000], 0)


def test_the_end_of_a_process_is_done_in_steps() -> None:
    made = DescribedManager(random=lambda n: 1 % n, limits=Limits())
    made.attach(TOKEN, 1)
    exported = made.export(1, (1, 1), b"", share=Share.NT, name=None, access=GENERIC_ALL, sddl=None, inherit=False)
    for _ in range(3_000):
        made.get_handle(1, exported.reference)
        made.import_by_handle(1, 4)
    left = []
    for _ in made.detaching(1):
        counts = made.counts()
        left.append(counts["handles"] + counts["references"])
    assert all(before - after <= STEP for before, after in zip([6_001, *left], left, strict=False))
    assert len(left) == 6_001 // STEP and not any(made.counts().values())


def test_a_turn_does_so_many_steps_of_what_is_left_to_do() -> None:
    done: list[str] = []

    def piece(name: str, steps: int) -> Iterator[None]:
        for _ in range(steps):
            done.append(name)
            yield

    todo = background.BackgroundWork()
    todo.add(piece("a", 10))
    todo.add(piece("b", 3))
    assert todo.pieces and done == ["a"]
    turns = 0
    while todo.pieces:
        before = len(done)
        todo.step()
        assert len(done) - before <= background.STEPS
        turns += 1
    assert done == ["a"] * 10 + ["b"] * 3 and turns >= 3
    todo.add(piece("small", 0))
    assert not todo.pieces


def test_so_many_references_end_at_a_time(model: DescribedManager) -> None:
    tickets = Tickets(model)
    for _ in range(1_000):
        tickets.offered(model.offer(2, reference=1), 2, 0.0)
    rounds = 0
    while tickets.next_deadline is not None:
        before = len(tickets._strong)
        tickets.expire(SECONDS)
        assert before - len(tickets._strong) <= STEP
        rounds += 1
    assert rounds == -(-1_000 // STEP)
