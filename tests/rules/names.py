"""The names of the tests of each rule, by convention: what test_negative and test_positive are parametrised with."""

from __future__ import annotations

from collections.abc import Callable

from tests.rules import test_rules

__all__ = ["parameters", "rule_tests"]


def parameters(test: Callable[[str], None]) -> list[str]:
    """The ids that a test of test_rules.py runs with, read from its own mark."""
    (mark,) = (m for m in test.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]  # pytest puts it there
    return list(mark.args[1])


def rule_tests() -> dict[str, list[str]]:
    """Id → names of its tests, the negative one first."""
    found: dict[str, list[str]] = {}
    for test in (test_rules.test_negative, test_rules.test_positive):
        for vuid in parameters(test):
            found.setdefault(vuid, []).append(f"tests/rules/test_rules.py::{test.__name__}[{vuid}]")
    return found
