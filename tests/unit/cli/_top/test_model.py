"""The state of the view from one look to the next."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from extmem.cli._top.items import Subject
from extmem.cli._top.model import ENDED, LINGER, NEW, OLD, Model, Row, State, arrange, differences
from extmem.errors import PeerGoneError
from tests.top_looks import CHANNEL, WALL, holder, look, memory, process, timeline


@pytest.fixture
def model() -> Model:
    return Model(process)


def rows(state: State, subject: Subject = Subject.PAYLOADS) -> dict[str, Row]:
    return {row.item.name: row for row in state.rows[subject]}


def test_what_is_there_at_first_is_older_than_the_view_and_what_comes_is_new_for_a_while(model: Model) -> None:
    first = rows(model.update(look(0, memory(1, "a"))))
    assert (first["a"].mark, first["a"].since) == (OLD, None)
    second = rows(model.update(look(1, memory(1, "a"), memory(2, "b"))))
    assert (second["a"].mark, second["b"].mark, second["b"].since) == (OLD, NEW, WALL + 1)
    assert rows(model.update(look(1 + LINGER - 0.1, memory(2, "b"))))["b"].mark == NEW
    third = rows(model.update(look(1 + LINGER, memory(2, "b"))))
    assert (third["b"].mark, third["b"].since) == (OLD, WALL + 1)


def test_what_has_ended_stays_for_a_while_and_is_not_counted(model: Model) -> None:
    model.update(look(0, memory(1, "a")))
    state = model.update(look(1))
    assert rows(state)["a"].mark == ENDED and state.live(Subject.PAYLOADS) == 0
    assert rows(model.update(look(1 + LINGER - 0.1)))["a"].mark == ENDED
    assert not rows(model.update(look(1 + LINGER)))


def test_what_ends_and_comes_back_is_one_row_that_is_new(model: Model) -> None:
    model.update(look(0, memory(1, "a")))
    model.update(look(1))
    found = model.update(look(2, memory(1, "a"))).rows[Subject.PAYLOADS]
    assert [(row.mark, row.since) for row in found] == [(NEW, WALL + 2)]


def test_holders_have_the_time_since_which_they_are_seen(model: Model) -> None:
    model.update(look(0, memory(1, "a", holder(100))))
    state = model.update(look(1, memory(1, "a", holder(100), holder(200))))
    assert rows(state)["a"].holding == {100: None, 200: WALL + 1}
    state = model.update(look(2, memory(1, "a", holder(200), holder(300))))
    assert rows(state)["a"].holding == {200: WALL + 1, 300: WALL + 2}


def test_rates_are_updates_of_memory_and_steps_of_timelines(model: Model) -> None:
    model.update(look(0, memory(1, "a", counter=2), timeline(2, "t", 10)))
    state = model.update(look(2, memory(1, "a", counter=10), timeline(2, "t", 30)))
    assert rows(state)["a"].rate == 2.0 and rows(state, Subject.TIMELINES)["t"].rate == 10.0
    state = model.update(look(3, memory(1, "a", counter=10), timeline(2, "t", None)))
    assert rows(state)["a"].rate == 0.0 and rows(state, Subject.TIMELINES)["t"].rate is None
    # A number that falls is that of something else: no rate, rather than a negative one.
    assert rows(model.update(look(4, memory(1, "a", counter=0))))["a"].rate is None


def test_what_has_not_changed_is_not_made_again(model: Model) -> None:
    made: list[int] = []

    def counting(pid: int) -> str:
        made.append(pid)
        return ""

    model = Model(counting)
    before = rows(model.update(look(0, memory(1, "a"), memory(2, "b"))))
    middle = rows(model.update(look(1, memory(1, "a"), memory(2, "b"))))
    after = rows(model.update(look(2, memory(1, "a"), memory(2, "b", holder(100), holder(200)))))
    assert middle["a"].item is before["a"].item and after["a"] is middle["a"]
    assert after["b"].item is not before["b"].item
    assert made == [100, 200], "each process is asked for its name once"
    model.update(look(3))
    model.update(look(4, memory(1, "a")))
    assert made == [100, 200, 100], "but again after it held nothing: the pid may be another process's"


def test_another_payload_with_the_number_of_an_ended_one_is_new(model: Model) -> None:
    model.update(look(0, memory(1, "a")))
    found = rows(model.update(look(1, memory(1, "other", columns=5), broker=8)))
    assert (found["other"].mark, found["other"].since) == (NEW, WALL + 1)
    # The twin: a payload that the next broker got from the clients is the same.
    model = Model(process)
    model.update(look(0, memory(1, "a")))
    assert rows(model.update(look(1, memory(1, "a"), broker=8)))["a"].since is None


def test_the_end_and_the_start_of_brokers_are_told_once(model: Model) -> None:
    assert model.update(look(0)).notice == ""
    assert model.update(look(1, broker=8)).notice == "The broker 7 has ended; process 8 is the broker now."
    assert model.update(look(2, broker=8)).notice == ""
    assert model.update(look(3, broker=None, missing="none")).notice == "The broker 8 has ended."
    assert model.update(look(4, broker=9)).notice == "A broker has started: process 9."


def test_an_error_leaves_what_was_known(model: Model) -> None:
    model.update(look(0, memory(1, "a")))
    error = PeerGoneError("the broker does not answer; try again")
    state = model.update(look(9, error=error))
    assert state.look.error is error and rows(state)["a"].mark == OLD
    # And what then is gone has ended, at the first look that knows.
    assert rows(model.update(look(10)))["a"].mark == ENDED


def test_channels_are_a_table_of_their_own(model: Model) -> None:
    model.update(look(0, channels=[CHANNEL]))
    state = model.update(look(1, channels=[replace(CHANNEL, frames=80)]))
    assert list(rows(state, Subject.CHANNELS)) == ["feed"] and rows(state, Subject.CHANNELS)["feed"].rate == 30.0
    assert not rows(state) and not rows(state, Subject.TIMELINES)


def test_differences_are_keys_in_the_order_of_their_looks(model: Model) -> None:
    def items(*names: str, size: int = 3) -> dict[str, object]:
        made = Model(process).update(look(0, *(memory(n, name, columns=size) for n, name in enumerate(names))))
        return {row.item.name: row.item for row in made.rows[Subject.PAYLOADS]}

    before, after = items("a", "b", "c"), items("c", "d", "a")
    after["a"] = before["a"]
    found = differences(before, after)  # type: ignore[arg-type]
    assert (found.added, found.changed, found.ended) == (("d",), ("c",), ("b",))
    assert differences(before, before) == differences({}, {})  # type: ignore[arg-type]


def test_rows_are_filtered_by_all_words_and_sorted_with_unknown_values_last(model: Model) -> None:
    state = model.update(
        look(
            0,
            memory(1, "small", columns=1),
            memory(2, "Large", holder(200), columns=9),
            replace(memory(3, "odd"), descriptor=b""),
            memory(4, "middle", columns=3),
        )
    )
    found = state.rows[Subject.PAYLOADS]

    def names(wanted: str, *, descending: bool) -> list[str]:
        return [row.item.name for row in arrange(found, wanted, lambda row: row.item.size, descending=descending)]

    assert names("", descending=True) == ["Large", "middle", "small", "odd"]
    assert names("", descending=False) == ["small", "middle", "Large", "odd"]
    assert names("LARGE viewer", descending=False) == ["Large"]
    assert names("large camera", descending=False) == []


def test_rows_with_equal_values_keep_the_order_of_their_names(model: Model) -> None:
    order = list(range(50))
    random.Random(1).shuffle(order)
    found = model.update(look(0, *(memory(n, f"n{n:02}") for n in order))).rows[Subject.PAYLOADS]
    for descending in (False, True):
        sizes = arrange(found, "", lambda row: row.item.size, descending=descending)
        assert [row.item.name for row in sizes] == [f"n{n:02}" for n in range(50)]
