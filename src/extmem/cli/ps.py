"""`extmem ps`: what is shared now, and which processes hold it."""

from __future__ import annotations

import functools
from typing import Any

import click

from extmem.cli._guard import guarded
from extmem.cli._out import counted, emit_json, words

__all__ = ["live_payloads", "ps"]


def live_payloads() -> list[dict[str, Any]] | None:
    """Return every live payload as plain data; None where a broker is needed and none runs. Starts none."""
    from extmem.cli._payloads import describe_payload
    from extmem.manager import manager, process_name

    owner = manager()
    if owner.has_broker and owner.status() is None:
        return None
    processes = functools.cache(process_name)  # thousands of payloads are held by a few processes
    return [describe_payload(row, processes) for row in owner.snapshot()]


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def ps(as_json: bool) -> None:
    """List live payloads: name, kind of object, size, content, share, and which processes hold them by what.

    Exit codes: 0 listed, also when there is nothing; 1 the broker does not answer.
    """
    payloads = live_payloads()
    if as_json:
        emit_json(payloads or [])
    elif payloads:
        from extmem.cli._payloads import payload_table

        payload_table(payloads)
    if payloads is None:
        words("No broker runs here, so nothing is shared. One starts when a program shares something.")
    else:
        processes = {holder["pid"] for payload in payloads for holder in payload["holders"]}
        words(f"{counted(len(payloads), 'payload')}, held by {counted(len(processes), 'process')}.")
