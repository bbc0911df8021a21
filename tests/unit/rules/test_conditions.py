"""Conditions of rows: each is broken by one call, and not by its nearest legal twin; and the words of a report."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from extmem.rules import _conditions as c
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules.violation import Violation


def call(*, extensions: Sequence[str] | None = (), features: Sequence[str] | None = (), **fields: Any) -> Any:
    """A call with these fields, on a device with these extensions and features."""
    sets = {"extensions": extensions, "features": features}
    known = {name: None if names is None else frozenset(names) for name, names in sets.items()}
    return SimpleNamespace(device=SimpleNamespace(**known), **fields)


@pytest.mark.parametrize(
    ("condition", "wrong", "value", "right"),
    [
        (c.always, call(), True, None),
        (c.is_zero("a"), call(a=0), True, call(a=1)),
        (c.is_zero("a.b"), call(a=SimpleNamespace(b=())), True, call(a=SimpleNamespace(b=(0,)))),
        (c.is_true("a"), call(a=3), 3, call(a=0)),
        (c.is_given("a"), call(a=0), True, call(a=None)),
        (c.not_positive("a"), call(a=-1), True, call(a=1)),
        (c.not_one_of("a", (1, 2)), call(a=0), True, call(a=2)),
        (c.equals("a", 0), call(a=0), True, call(a=1)),
        (c.above("a", "b"), call(a=1, b=0), (1, 0), call(a=1, b=1)),
        (c.above("a", "b"), call(a=1, b=0), (1, 0), call(a=1, b=None)),
        (c.not_index("a", "b"), call(a=2, b=2), True, call(a=1, b=2)),
        (c.not_index("a", "b"), call(a=-1, b=2), True, call(a=0, b=None)),
        (c.reaches_past("a", "b", "c"), call(a=3, b=5, c=7), 4, call(a=3, b=4, c=7)),
        (c.reaches_past("a", "b", "c"), call(a=6, b=2, c=7), 1, call(a=7, b=2, c=7)),
        (c.not_multiple("a", 4), call(a=6), (4, 8), call(a=8)),
        (c.not_multiple("a", "b"), call(a=-1, b=4), (-4, 0), call(a=1, b=0)),
        (c.has_bits("a", 6), call(a=5), 4, call(a=9)),
        (c.has_bits("a", 6, without=8), call(a=2), 2, call(a=10)),
        (c.undefined_bits("a", 7), call(a=9), 8, call(a=7)),
        (c.lacks_feature("f"), call(features=["g"]), True, call(features=["f"])),
        (c.lacks_feature("f"), call(), True, call(features=None)),
        (c.lacks_extension("e", "f"), call(), True, call(extensions=["f"])),
        (c.lacks_extension("e"), call(), True, call(extensions=None)),
        (c.all_of(c.is_zero("a"), c.has_bits("b", 3)), call(a=0, b=2), 2, call(a=1, b=2)),
        (c.all_of(c.is_zero("a"), c.has_bits("b", 3)), call(a=0, b=1), 1, call(a=0, b=4)),
    ],
)
def test_a_condition(condition: Condition, wrong: Any, value: object, right: Any) -> None:
    assert condition(wrong) == value
    assert right is None or not condition(right)


def test_words_are_formatted_with_the_call_and_the_value_of_the_condition() -> None:
    suite: Suite[Any] = Suite("vkTest")
    words = ("{call.where}.a", "{found[0]} is above {found[1]}", "Give {call.b} or less.")
    suite.checks.append(("VUID-test-1", Demand("test-1", c.above("a", "b"), *words)))
    assert suite.run(call(where="x", a=9, b=7), 0) == [
        Violation("VUID-test-1", "x.a", "9 is above 7", "Give 7 or less.")
    ]
    assert suite.run(call(where="x", a=7, b=7), 0) == []


def test_rows_apply_to_calls_with_their_traits_and_are_reported_in_their_order() -> None:
    suite: Suite[Any] = Suite("vkTest")
    for vuid, needs, never in (("VUID-test-1", 1, 0), ("VUID-test-2", 0, 2), ("VUID-test-3", 0, 0)):
        suite.checks.append((vuid, Demand(vuid, c.always, "a", "it is", "Do.", needs, never)))
    reported = {traits: [v.vuid[-1] for v in suite.run(call(), traits)] for traits in range(4)}
    assert reported == {0: ["2", "3"], 1: ["1", "2", "3"], 2: ["3"], 3: ["1", "3"]}


def test_as_many_ids_as_suites_or_one_suite() -> None:
    one: Suite[Any] = Suite("a")
    with pytest.raises(ValueError, match="2 ids for 3 suites: x, y"):
        demand((one, one, one), Demand(("x", "y"), c.always))
    assert one.checks == []
