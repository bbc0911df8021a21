"""The ledger is correct: rules, checks and tests are the same three sets, and planted errors are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

import extmem.rules
from extmem.rules import _field_types, ledger
from extmem.rules._engine import CHECKED, Suite
from extmem.rules.ledger import Row
from tests.rules.cases import CASES
from tests.rules.names import rule_tests

TESTS = rule_tests()
HAS_CHECK = ("checked", "on request")
"""Statuses of rules that have a check: in a command of the library, or in a function of `extmem.rules` only."""


def disagreements(rows: Sequence[Row], checks: Mapping[str, object], tests: Mapping[str, Sequence[str]]) -> list[str]:
    """Return everything in which ledger, checks and tests disagree."""
    known = {row.vuid for row in rows}
    checked = {row.vuid for row in rows if row.status in HAS_CHECK}
    found = [f"unknown id {vuid}" for vuid in sorted((set(checks) | set(tests)) - known)]
    found += [f"tested but not checked: {vuid}" for vuid in sorted(set(tests) - checked)]
    found += [f"checked but not tested: {vuid}" for vuid in sorted(checked - set(tests))]
    found += [f"in the ledger as checked, but nothing checks it: {vuid}" for vuid in sorted(checked - set(checks))]
    found += [f"checked, but not in the ledger as such: {vuid}" for vuid in sorted(set(checks) & known - checked)]
    for row in rows:
        if list(row.tests) != list(tests.get(row.vuid, [])):
            found.append(f"tests of {row.vuid}: the ledger has {row.tests}, there are {tests.get(row.vuid)}")
        if row.status in HAS_CHECK and len(row.tests) != 2:
            found.append(f"{row.vuid} wants a negative and a positive test")
        if (row.status == "checked") == bool(row.reason):
            found.append(f"{row.vuid}: a reason is for rules that are not checked, and for all of them")
        if (row.status == "checked") != bool(row.checked_by):
            found.append(f"{row.vuid}: checked_by is for checked rules, and for all of them")
    return found


def test_the_ledger_is_correct() -> None:
    """If this fails about tests: `python -m tests.rules ledger`."""
    assert disagreements(ledger.rows(), CHECKED, TESTS) == []


@pytest.mark.parametrize("vuid", CASES)
def test_a_planted_error_about_any_rule_is_found(vuid: str) -> None:
    """The rule without its check, without its tests, with half of them, unchecked in the ledger, or not in it.

    The row of the rule is compared alone: with all rows, the tests of all rules would take half a minute.
    """
    row, names = ledger.find(vuid), TESTS[vuid]
    checks, tests = {vuid: CHECKED[vuid]}, {vuid: names}
    assert disagreements([row], checks, tests) == []
    assert disagreements([row], {}, tests)
    assert disagreements([row], checks, {})
    assert disagreements([row], checks, {vuid: names[:1]})
    assert disagreements([replace(row, status="planned")], checks, tests)
    assert disagreements([replace(row, tests=())], checks, tests)
    assert disagreements([], checks, tests)


SUITES: tuple[Suite[object], ...] = tuple(
    {
        id(value): value
        for module in pkgutil.iter_modules(extmem.rules.__path__, "extmem.rules.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Suite)
    }.values()
)


@contextmanager
def without_check(vuid: str) -> Iterator[None]:
    """Remove this check for the time of a block."""
    kept = [(suite, list(suite.checks)) for suite in SUITES]
    shapes, arguments = dict(_field_types.FIELD_TYPES), dict(_field_types.ARGUMENTS)
    try:
        for suite in SUITES:
            suite.checks[:] = [entry for entry in suite.checks if entry[0] != vuid]
            suite._plans.clear()
        for struct, shape in shapes.items():
            _field_types.FIELD_TYPES[struct] = tuple(field for field in shape if field[2] != vuid)
        yield
    finally:
        for suite, checks in kept:
            suite.checks[:] = checks
            suite._plans.clear()
        _field_types.FIELD_TYPES.update(shapes)
        _field_types.ARGUMENTS.update(arguments)


ARGUMENT_RULES = {vuid for vuid in CASES if CHECKED[vuid] == ["extmem.rules._field_types.misfit"]}


@pytest.mark.parametrize("vuid", [v for v in CASES if v not in ARGUMENT_RULES])
def test_without_its_check_the_rule_is_not_reported(vuid: str) -> None:
    """So the negative test depends on this check."""
    case = CASES[vuid]
    with without_check(vuid):
        try:
            found = [v.vuid for v in case.wrong()]
        except (TypeError, ValueError):
            found = []  # a value of the wrong type was accepted and failed later, as without the check
    assert vuid not in found
    assert vuid in [v.vuid for v in case.wrong()]


CREATING = {
    "semaphore": ("03252", "03279", "05118", "05119", "05120", "05121", "05146", "06789"),
    "fence": ("05106", "05107", "05108"),
}
"""Ends of the explicit ids about create infos that are not about external objects alone."""
USING = {("semaphore", False): 40, ("semaphore", True): 53, ("fence", False): 10, ("fence", True): 19}
"""Numbers of rules about submissions, operations of the host, and the ends of semaphores and fences."""


def test_all_rules_of_the_specification_are_there() -> None:
    """Explicit and implicit rules of 1.4.360 on external objects, by family, and the other rules that are checked."""
    external = [row for row in ledger.rows() if row.family != "resource"]
    count = Counter((row.family, row.implicit) for row in external)
    others_checked = 23
    parents, queues, own = 6, 2, 1
    assert count == {
        ("win32-memory", False): 24,
        ("win32-memory", True): 23,
        ("fd-memory", False): 14,
        ("fd-memory", True): 14,
        ("host", False): 16,
        ("host", True): 10,
        ("generic", False): 87 + others_checked + queues,
        ("generic", True): 33 + parents,
        ("semaphore", False): 34 + len(CREATING["semaphore"]) + own + USING["semaphore", False],
        ("semaphore", True): 43 + 10 + USING["semaphore", True],
        ("fence", False): 23 + len(CREATING["fence"]) + USING["fence", False],
        ("fence", True): 39 + 8 + USING["fence", True],
    }
    of_sync = len(CREATING["semaphore"]) + len(CREATING["fence"]) + own + 10 + 8 + sum(USING.values())
    assert len({row.vuid for row in external}) == 360 + others_checked + parents + queues + of_sync


def test_each_rule_has_one_row_and_each_family_its_subject() -> None:
    assert max(Counter(row.vuid for row in ledger.rows()).values()) == 1
    assert [*dict.fromkeys(row.family for row in ledger.rows())] == [*ledger.FAMILIES]


def test_every_explicit_memory_rule_is_checked() -> None:
    for family in ("win32-memory", "fd-memory", "host"):
        assert [r.vuid for r in ledger.rows(family=family) if not r.implicit and r.status not in HAS_CHECK] == []


def test_rules_of_create_infos_are_decided() -> None:
    for family, ends in CREATING.items():
        found = [row for row in ledger.rows(family=family) if row.vuid.endswith(ends)]
        assert len(found) == len(ends)
        assert {row.status for row in found} <= {"checked", "on request", "by construction"}


def test_sentences_are_our_own_and_whole() -> None:
    for row in ledger.rows():
        assert row.rule.endswith(".") and len(row.rule) > 20, row.vuid
        assert "**must**" not in row.rule and "must" not in row.rule.split(), row.vuid
        assert not row.reason or row.reason.endswith("."), row.vuid
