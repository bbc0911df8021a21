"""`extmem rules`: what becomes of every valid-usage rule in scope."""

from __future__ import annotations

from typing import Any, get_args

import click

from extmem.cli._guard import guarded
from extmem.cli._out import counted, emit_json, table, words

__all__ = ["rules", "rule_rows"]

_FIELDS = ("vuid", "family", "status", "checked_by", "reason", "tests")


def rule_rows(family: str | None, status: str | None) -> list[dict[str, Any]]:
    """The ledger as plain rows, filtered. BadParameter for a family or status that there is not."""
    from extmem.rules import ledger

    everything = ledger.rows()
    for given, known, what in (
        (family, {row.family for row in everything}, "family"),
        (status, set(get_args(ledger.Status)), "status"),
    ):
        if given is not None and given not in known:
            raise click.BadParameter(
                f"{given!r} is no {what}; there are: {', '.join(sorted(known))}", param_hint=f"--{what}"
            )
    return [
        {field: list(value) if isinstance(value := getattr(row, field), tuple) else value for field in _FIELDS}
        for row in everything
        if (family is None or row.family == family) and (status is None or row.status == status)
    ]


@click.command
@click.option(
    "--family",
    help="Only this family: win32-memory, fd-memory, host, generic, semaphore, fence, resource (creating buffers and "
    "images, and the commands that use them).",
)
@click.option(
    "--status",
    help="Only this status: checked, on request, by construction, left to the driver, left to the caller, planned.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def rules(family: str | None, status: str | None, as_json: bool) -> None:
    """List the specification's rules (VUIDs) and what extmem does about each.

    Exit codes: 0 listed; 2 wrong arguments.
    """
    rows = rule_rows(family, status)
    if as_json:
        emit_json(rows)
        return
    table(
        ("rule", "family", "status", "by, or why not"),
        [(row["vuid"], row["family"], row["status"], row["checked_by"] or row["reason"]) for row in rows],
    )
    checked = sum(row["status"] == "checked" for row in rows)
    words(f"{counted(len(rows), 'rule')}, {checked} of them checked. `extmem explain VUID` tells one in plain words.")
