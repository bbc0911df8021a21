"""How checks are registered and run.

How this works: a suite belongs to one command. Its checks are the rows of tables: a `Demand` has the ids of the rules,
the condition under which a *call* (a plain object with the structs and facts as attributes) breaks them, and the words
of the report, which are formatted only if the call breaks the rule. Most conditions are comparisons of fields
(`_conditions`). A condition that is one of its kind is a function beside its table; it may return the whole finding:
where the fault is, what it is, and what to do.

A row names the *traits* that a call must have for the check to apply (bits such as "imports by Win32 handle" or "the
payload is known"). The list of conditions that apply to a set of traits is computed once. After that, a valid call
costs one dict look-up and its own conditions. Conditions are pure: those of a call that breaks a rule are evaluated
again for the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from extmem.rules.violation import OWN, Violation

__all__ = ["CHECKED", "Condition", "Demand", "Finding", "Suite", "demand"]

Call = TypeVar("Call")
Finding: TypeAlias = tuple[str, str, str]
"""Path of the field, problem, remedy."""
Condition: TypeAlias = Callable[[Any], object]
"""Function of a call that returns a true value if the call breaks the rule."""

CHECKED: dict[str, list[str]] = {}
"""The rules that are checked, each with the names of its conditions."""


class Demand(NamedTuple):
    """A row of a table of rules. `VUID-` may be omitted from its ids; those of extmem begin with `EXTMEM-`.

    The words are formatted with `call`, and with `found`, the value that the condition returned: `"{call.size} bytes"`.
    A row without words has a condition that returns the finding itself.
    """

    vuids: str | tuple[str, ...]
    broken: Condition
    where: str = ""
    problem: str = ""
    remedy: str = ""
    needs: int = 0
    never: int = 0


class Suite(Generic[Call]):
    """The checks of one command."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.checks: list[tuple[str, Demand]] = []
        self._plans: dict[int, tuple[Condition, ...]] = {}

    def run(self, call: Call, traits: int) -> list[Violation]:
        """Return all rules that the call breaks, in the order of registration."""
        plan = self._plans.get(traits)
        if plan is None:
            plan = tuple(row.broken for _, row in self._rows(traits))
            self._plans[traits] = plan
        for broken in plan:
            if broken(call):
                return self._report(call, traits)
        return []

    def _rows(self, traits: int) -> list[tuple[str, Demand]]:
        """Return the checks that apply to a call with these traits."""
        return [(vuid, row) for vuid, row in self.checks if traits & row.needs == row.needs and not traits & row.never]

    def _report(self, call: Call, traits: int) -> list[Violation]:
        violations = []
        for vuid, row in self._rows(traits):
            found: Any = row.broken(call)
            if found:
                words = [text.format(call=call, found=found) for text in row[2:5]] if row.where else found
                violations.append(Violation(vuid, *words))
        return violations


def demand(on: Suite[Call] | Sequence[Suite[Call]], *rows: Demand) -> None:
    """Register the rows of a table, in the order in which violations are reported.

    With one suite, each id of a row is reported when the call breaks it. With as many suites as ids (a command that
    exists in two forms), each suite reports its own id.
    """
    for row in rows:
        vuids = (row.vuids,) if isinstance(row.vuids, str) else row.vuids
        suites = [on] * len(vuids) if isinstance(on, Suite) else on
        if len(suites) != len(vuids):
            raise ValueError(f"{len(vuids)} ids for {len(suites)} suites: {', '.join(vuids)}")
        for vuid, suite in zip(vuids, suites, strict=True):
            full = vuid if vuid.startswith(("VUID-", OWN)) else f"VUID-{vuid}"
            suite.checks.append((full, row))
            suite._plans.clear()
            CHECKED.setdefault(full, []).append(f"{row.broken.__module__}.{row.broken.__qualname__}")
