"""`extmem ps`: the payloads that are shared now, with their holders."""

from __future__ import annotations

import functools
from typing import Any

import click

from extmem.cli._guard import guarded
from extmem.cli._out import counted, emit_json, words

__all__ = ["live_payloads", "ps"]


def live_payloads() -> list[dict[str, Any]] | None:
    """Return every live payload as plain data, or None if a broker is needed and none runs. Does not start one."""
    from extmem.cli._payloads import describe_payload
    from extmem.manager import manager, process_name

    owner = manager()
    if owner.has_broker and owner.status() is None:
        return None
    processes = functools.cache(process_name)  # a few processes can hold thousands of payloads
    return [describe_payload(row, processes) for row in owner.snapshot()]


@click.command(short_help="List live payloads and their holders.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def ps(as_json: bool) -> None:
    """List live payloads: name, size, kind, share, and the processes that hold them.

    Exit codes: 0 listed, also if there are none; 1 the broker does not reply.
    """
    payloads = live_payloads()
    if as_json:
        emit_json(payloads or [])
    elif payloads:
        from extmem.cli._payloads import payload_table

        payload_table(payloads)
    if payloads is None:
        words("No broker runs here, so nothing is shared. One starts when a program shares memory.")
    else:
        processes = {holder["pid"] for payload in payloads for holder in payload["holders"]}
        words(f"{counted(len(payloads), 'payload')}, held by {counted(len(processes), 'process')}.")
