"""The names of the tests of each rule: the parameters of test_negative and test_positive."""

from __future__ import annotations

from collections.abc import Callable

from tests.rules import test_rules

__all__ = ["parameters", "rule_tests"]


def parameters(test: Callable[[str], None]) -> list[str]:
    """Return the ids that a test of test_rules.py runs with, from its `parametrize` mark."""
    (mark,) = (m for m in test.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]  # pytest puts it there
    return list(mark.args[1])


def rule_tests() -> dict[str, list[str]]:
    """Return the names of each rule's tests by its id, the negative one first."""
    found: dict[str, list[str]] = {}
    for test in (test_rules.test_negative, test_rules.test_positive):
        for vuid in parameters(test):
            found.setdefault(vuid, []).append(f"tests/rules/test_rules.py::{test.__name__}[{vuid}]")
    return found
