"""The ledger: how extmem treats every valid-usage rule (VUID) in scope.

The table is `ledger.json`, one row a line, edited by hand. It is read on first use, not on import. A rule is `checked`
if a call of the library raises it, and `on request` if only a function of `extmem.rules` reports it, for programs that
record or submit such calls with another binding. Tests prove that each row of these two statuses has a check and two
tests, that no other row has any, and that public calls raise the `checked` rules.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

__all__ = ["FAMILIES", "CheckedBy", "Row", "Status", "find", "near_misses", "rows"]

Status = Literal["checked", "on request", "by construction", "left to the driver", "left to the caller"]
CheckedBy = Literal["", "structs", "tracked state", "device query", "descriptor", "object manager"]

_BEGIN = ("VUID-", "EXTMEM-")
"""How ids begin. The second is `violation.OWN`, which is not imported because that module imports this one."""

FAMILIES = {
    "win32-memory": "memory that is shared by NT handles, KMT numbers and names",
    "fd-memory": "memory that is shared by file descriptors",
    "host": "host memory that a device imports by its address",
    "generic": "external memory of any handle type, dedicated allocation, binding, barriers",
    "semaphore": "external semaphores",
    "fence": "external fences",
    "resource": "creating buffers and images, and the commands that use them: rules that protect the process",
}
"""The families of rules, in the ledger's order, each with its subject."""


class Row(msgspec.Struct, frozen=True):
    """One rule of the specification and how extmem treats it."""

    vuid: str
    """Its id. A rule that the specification states without an id has one of extmem, which begins with `EXTMEM-`."""
    struct: str
    """The structure or command that the rule belongs to."""
    family: str
    """win32-memory, fd-memory, host, generic, semaphore, fence or resource (see `FAMILIES`)."""
    implicit: bool
    """Whether the rule follows from the registry alone (types, pointers, chains)."""
    rule: str
    """The rule in one sentence."""
    decidable_by: str
    """The source of the facts that decide it: structs, tracked state, device query, operating system or exporter."""
    aliases: tuple[str, ...]
    """Ids of the same rule in other versions of the specification."""
    status: Status
    checked_by: CheckedBy
    """Where the deciding facts come from; empty unless `status` is "checked"."""
    reason: str
    """Why the rule is not checked; empty when it is."""
    tests: tuple[str, ...]
    """Names of the negative and the positive test of a rule with status "checked" or "on request"."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under fixed keys; every key is always present."""
        return {
            "vuid": self.vuid,
            "struct": self.struct,
            "family": self.family,
            "implicit": self.implicit,
            "rule": self.rule,
            "decidable_by": self.decidable_by,
            "aliases": list(self.aliases),
            "status": self.status,
            "checked_by": self.checked_by,
            "reason": self.reason,
            "tests": list(self.tests),
        }


@functools.cache
def _table() -> tuple[Row, ...]:
    text = importlib.resources.files(__package__).joinpath("ledger.json").read_text(encoding="utf-8")
    rows = []
    for raw in json.loads(text):
        raw["aliases"] = tuple(raw["aliases"])
        raw["tests"] = tuple(raw["tests"])
        rows.append(Row(**raw))
    return tuple(rows)


@functools.cache
def _index() -> Mapping[str, Row]:
    """Return the rows by every accepted form of an id: full, without `VUID-`, old ids, unambiguous last parts."""
    named: dict[str, Row] = {}
    for row in _table():
        for vuid in (row.vuid, *row.aliases):
            named[vuid] = row
            named[vuid.removeprefix("VUID-")] = row
    tails: dict[str, set[str]] = {}
    for name, row in named.items():
        if name.startswith(_BEGIN):
            parts = name.split("-")
            for length in range(1, len(parts) - 1):
                tails.setdefault("-".join(parts[-length:]), set()).add(row.vuid)
    for tail, vuids in tails.items():
        if len(vuids) == 1:
            named.setdefault(tail, named[next(iter(vuids))])
    return named


def rows(*, family: str | None = None, status: str | None = None) -> list[Row]:
    """Return all rules in scope, in the ledger's order; only those of a family or status, if given."""
    return [
        row for row in _table() if (family is None or row.family == family) and (status is None or row.status == status)
    ]


def find(vuid: str) -> Row:
    """Return the row of an id. Accepts old ids, ids without `VUID-`, and last parts that name one rule ("01441").

    Raises:
        LookupError: no rule, or more than one, has that id; the message names the candidates.
    """
    key = vuid.strip()
    row = _index().get(key)
    if row is not None:
        return row
    if key and not key.startswith(_BEGIN):
        shared = [r.vuid for r in _table() if any(v.endswith(f"-{key}") for v in (r.vuid, *r.aliases))]
        if shared:
            raise LookupError(f"{len(shared)} rules end in {key!r}: {', '.join(shared)}. Give more of the id.")
    near = near_misses(key)
    hint = f" Did you mean {', '.join(near)}?" if near else " `extmem rules` lists all rules in scope."
    raise LookupError(f"no rule in scope has the id {vuid!r}.{hint}")


def near_misses(text: str, count: int = 3) -> list[str]:
    """Return ids in scope that are similar to the text, best first."""
    ids = {vuid.removeprefix("VUID-").casefold(): row.vuid for row in _table() for vuid in (row.vuid, *row.aliases)}
    key = text.removeprefix("VUID-").casefold()
    close = difflib.get_close_matches(key, ids, n=count, cutoff=0.6)
    if not close and key:
        close = [name for name in ids if key in name][:count]
    return list(dict.fromkeys(ids[name] for name in close))
