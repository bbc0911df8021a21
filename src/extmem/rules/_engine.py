"""How checks are registered and run.

How this works: a suite belongs to one command. A check is a small function of that command's *call* (a plain object
with the structs and facts as attributes); it returns None, or where the fault is, what it is, and what to do. The
`@rule` decorator names the rules that a check decides, the suite, and the *traits* that a call must have for the
check to apply (bits such as "imports by Win32 handle" or "the payload is known"). The list of checks that apply to a
set of traits is computed once. After that, a valid call costs one dict look-up and its own checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from extmem.rules.violation import Violation

__all__ = ["CHECKED", "Check", "Finding", "Suite", "rule"]

Call = TypeVar("Call")
Finding: TypeAlias = tuple[str, str, str]
"""Path of the field, problem, remedy."""
Check: TypeAlias = Callable[[Call], Finding | None]

CHECKED: dict[str, list[str]] = {}
"""The rules that are checked, each with the names of its checks."""


class Suite(Generic[Call]):
    """The checks of one command."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.checks: list[tuple[str, Check[Call], int, int]] = []
        self._plans: dict[int, tuple[tuple[str, Check[Call]], ...]] = {}

    def add(self, vuid: str, check: Check[Call], needs: int, never: int) -> None:
        """Register a check for calls that have all the traits `needs` and none of `never`."""
        self.checks.append((vuid, check, needs, never))
        self._plans.clear()

    def run(self, call: Call, traits: int) -> list[Violation]:
        """Return all rules that the call breaks, in the order of registration."""
        plan = self._plans.get(traits)
        if plan is None:
            plan = tuple((v, c) for v, c, needs, never in self.checks if traits & needs == needs and not traits & never)
            self._plans[traits] = plan
        violations = []
        for vuid, check in plan:
            finding = check(call)
            if finding is not None:
                violations.append(Violation(vuid, *finding))
        return violations


def rule(
    *vuids: str, on: Suite[Call] | Sequence[Suite[Call]], needs: int = 0, never: int = 0
) -> Callable[[Check[Call]], Check[Call]]:
    """Register the decorated check under each id.

    With one suite, every id is reported when the check fails. With as many suites as ids (a command that exists in two
    forms), each suite reports its own id.
    """
    suites = [on] * len(vuids) if isinstance(on, Suite) else list(on)
    if len(suites) != len(vuids):
        raise ValueError(f"{len(vuids)} ids for {len(suites)} suites: {', '.join(vuids)}")

    def register(check: Check[Call]) -> Check[Call]:
        for vuid, suite in zip(vuids, suites, strict=True):
            full = vuid if vuid.startswith("VUID-") else f"VUID-{vuid}"
            suite.add(full, check, needs, never)
            CHECKED.setdefault(full, []).append(f"{check.__module__}.{check.__qualname__}")
        return check

    return register
