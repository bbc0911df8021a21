"""`extmem ps`: the payloads that are shared now, with their holders."""

from __future__ import annotations

import functools
from typing import Any

import click

from extmem.cli._guard import guarded
from extmem.cli._out import counted, emit_json, words

__all__ = ["live_payloads", "ps", "tell_of_no_broker"]

_NO_BROKER = "No broker runs here, so nothing is shared. One starts when a program shares memory."
_NO_OWN_BROKER = (
    "No broker of this version of extmem runs here. What programs of another version share is listed by the "
    "`extmem ps` of that version."
)


def live_payloads() -> list[dict[str, Any]] | None:
    """Return every live payload as plain data, or None if a broker is needed and none runs. Does not start one."""
    from extmem.cli._payloads import describe_payload
    from extmem.manager import manager, process_name

    owner = manager()
    if owner.has_broker and owner.status() is None:
        return None
    processes = functools.cache(process_name)  # a few processes can hold thousands of payloads
    return [describe_payload(row, processes) for row in owner.snapshot()]


def tell_of_no_broker() -> None:
    """Say on stderr that no broker runs, and which of another version does."""
    from extmem.cli._payloads import other_broker_in_words
    from extmem.manager import manager

    others = manager().other_brokers()
    for other in others:
        words(other_broker_in_words(other.version, other.pid, other.socket))
    words(_NO_OWN_BROKER if others else _NO_BROKER)


@click.command(short_help="List live payloads and their holders.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def ps(as_json: bool) -> None:
    """List live payloads: name, size, kind (an array's shape and type), share, and who holds them.

    Holders are processes, by memory and by handles, and the broker, which keeps what was shared with keep=.

    Exit codes: 0 listed, also if there are none; 1 the broker does not reply.
    """
    payloads = live_payloads()
    if as_json:
        emit_json(payloads or [])
    elif payloads:
        from extmem.cli._payloads import payload_table

        payload_table(payloads)
    if payloads is None:
        tell_of_no_broker()
    else:
        processes = {holder["pid"] for payload in payloads for holder in payload["holders"]}
        words(f"{counted(len(payloads), 'payload')}, held by {counted(len(processes), 'process')}.")
