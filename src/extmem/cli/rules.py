"""`extmem rules`: the status of every valid-usage rule in scope."""

from __future__ import annotations

from typing import Any, get_args

import click

from extmem.cli._guard import guarded
from extmem.cli._out import counted, emit_json, table, words

__all__ = ["complete_family", "complete_status", "rule_rows", "rules"]

_FIELDS = ("vuid", "family", "status", "checked_by", "reason", "tests")


def complete_family(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the families that begin with the incomplete word."""
    from extmem.rules import ledger

    return [family for family in dict.fromkeys(row.family for row in ledger.rows()) if family.startswith(incomplete)]


def complete_status(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the statuses that begin with the incomplete word, with hyphens: shells would split them at spaces."""
    from extmem.rules import ledger

    hyphenated = (status.replace(" ", "-") for status in get_args(ledger.Status))
    return [status for status in hyphenated if status.startswith(incomplete.replace(" ", "-"))]


def rule_rows(family: str | None, status: str | None) -> list[dict[str, Any]]:
    """Return the selected rows of the ledger as plain data. Errors: BadParameter for an unknown family or status."""
    from extmem.rules import ledger

    everything = ledger.rows()
    if status is not None and (spaced := status.replace("-", " ")) in get_args(ledger.Status):
        status = spaced
    for given, choices, option in (
        (family, {row.family for row in everything}, "family"),
        (status, set(get_args(ledger.Status)), "status"),
    ):
        if given is not None and given not in choices:
            raise click.BadParameter(
                f"{given!r} is not a {option}; choose from: {', '.join(sorted(choices))}", param_hint=f"--{option}"
            )
    return [
        {field: list(value) if isinstance(value := getattr(row, field), tuple) else value for field in _FIELDS}
        for row in everything
        if (family is None or row.family == family) and (status is None or row.status == status)
    ]


@click.command(short_help="List the valid-usage rules with their status.")
@click.option(
    "--family",
    shell_complete=complete_family,
    help="List only this family: win32-memory, fd-memory, host, generic, semaphore, fence, resource (creation of "
    "buffers and images, and the commands that use them).",
)
@click.option(
    "--status",
    shell_complete=complete_status,
    help="List only this status: checked, on request, by construction, left to the driver, left to the caller. "
    "Hyphens may replace the spaces.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def rules(family: str | None, status: str | None, as_json: bool) -> None:
    """List the specification's rules (VUIDs) with the status of each.

    Exit codes: 0 listed; 2 wrong arguments.
    """
    rows = rule_rows(family, status)
    if as_json:
        emit_json(rows)
        return
    table(
        ("rule", "family", "status", "source, or reason"),
        [(row["vuid"], row["family"], row["status"], row["checked_by"] or row["reason"]) for row in rows],
    )
    checked = sum(row["status"] == "checked" for row in rows)
    words(f"{counted(len(rows), 'rule')}, {checked} of them checked. `extmem explain VUID` explains a rule.")
