"""How measured times become figures."""

from __future__ import annotations

import gc
import os

import pytest

from extmem.cli._bench.measure import (
    Figure,
    at_least,
    at_most,
    interleaved,
    percentile,
    ratio,
    ratio_in_turns,
    size_text,
    unbounded,
)
from extmem.cli.bench import figure_row


def test_an_upper_bound_holds_up_to_itself() -> None:
    assert at_most("x", 2.0, 2.0).ok
    assert not at_most("x", 2.001, 2.0).ok


def test_a_lower_bound_holds_down_to_itself() -> None:
    assert at_least("x", 50.0, 50.0).ok
    assert not at_least("x", 49.9, 50.0).ok


def test_a_bound_of_zero_is_a_bound() -> None:
    assert at_most("x", 0, 0).ok
    assert not at_most("x", 1, 0).ok
    assert figure_row(at_most("x", 1, 0, "left")) == ("x", "1 left", "at most 0", "MISSED")


def test_a_figure_without_a_bound_is_fine() -> None:
    assert unbounded("x", 1e9, "µs").to_dict() == {"name": "x", "value": 1e9, "unit": "µs", "bound": None, "ok": True}
    assert figure_row(unbounded("x", 12.5, "µs")) == ("x", "12.5 µs", "-", "-")


def test_rounding_cannot_change_a_verdict() -> None:
    figure = at_most("x", 2.00001, 2.0)
    assert figure.ok == (figure.value <= 2.0)


def test_json_has_exactly_the_documented_keys() -> None:
    assert at_most("x", 1.0, 2.0).to_dict() == {"name": "x", "value": 1.0, "unit": "ratio", "bound": 2.0, "ok": True}


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentiles_by_nearest_rank(share: float, value: int) -> None:
    assert percentile(range(100, 0, -1), share) == value


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_ratio_in_turns_compares_neighbours() -> None:
    """A machine that is three times as slow in the second of three turns changes nothing; medians would differ."""
    first, second = [20, 21, 60, 63, 22, 20], [10, 10, 30, 31, 11, 10]
    assert ratio_in_turns(first, second, 2) == pytest.approx(2.02, abs=0.05)
    drifting = [10, 10, 10, 40, 40, 40]
    assert ratio_in_turns(drifting, [10, 10, 10, 10, 40, 40], 3) == pytest.approx(1.0)
    assert ratio_in_turns([30, 30, 30, 30], [10, 10, 10, 10], 2) == 3.0


def test_a_ratio_is_of_medians_and_ignores_outliers() -> None:
    assert ratio([10, 10, 10_000], [5, 5, 90_000]) == 2


@pytest.mark.parametrize(
    ("size", "text"), [(4 << 30, "4 GiB"), (62 << 20, "62 MiB"), (3 << 29, "1.5 GiB"), (1 << 19, "0.5 MiB")]
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert size_text(size) == text


def _order(rounds: int, names: str, turn: int = 1) -> tuple[str, list[list[int]]]:
    order: list[str] = []

    def step(name: str) -> int:
        order.append(name)
        return ord(name)

    times = interleaved(rounds, *(lambda name=name: step(name) for name in names), warm_up=0, turn=turn)
    return "".join(order), times


def test_every_round_has_each_step_once_and_an_order_of_its_own() -> None:
    order, times = _order(40, "abc")
    rounds = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6
    assert times == [[ord("a")] * 40, [ord("b")] * 40, [ord("c")] * 40]
    assert gc.isenabled()


def test_a_turn_may_be_several_rounds_of_the_same() -> None:
    order, times = _order(8, "ab", turn=4)
    assert {order[at : at + 4] for at in range(0, len(order), 4)} == {"aaaa", "bbbb"}
    assert [len(one) for one in times] == [8, 8]


def test_collection_comes_back_after_a_step_that_fails() -> None:
    def fails() -> int:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        interleaved(1, fails, warm_up=0)
    assert gc.isenabled()


def test_figures_know_their_direction() -> None:
    assert Figure("x", 1.0, "ratio").direction == ""
    assert at_most("x", 1.0, 2.0).direction == "at most"
    assert at_least("x", 1.0, 2.0).direction == "at least"


@pytest.mark.linux_only("processes are bound to processors for the broker, which is Linux's")
def test_a_process_is_on_one_processor_for_the_time_of_a_block() -> None:
    from extmem.cli._bench.machine import on_processor, processors

    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), on_processor(processors()[-1], os.getpid()):
        assert os.sched_getaffinity(0) == {processors()[-1]}
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before
