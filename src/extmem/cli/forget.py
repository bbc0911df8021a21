"""`extmem forget`: end the keeping of memory by the broker."""

from __future__ import annotations

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import clean, emit_json, words
from extmem.errors import NameNotFoundError

__all__ = ["forget"]


@click.command(short_help="End the keeping of memory by the broker.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@guarded
def forget(name: str, as_json: bool) -> None:
    """End the keeping (keep=) of the memory named NAME. It ends now if no process has it open.

    `extmem ps` shows what is kept. On Windows nothing is kept.

    Exit codes: 0 it is not kept any more; 1 nothing has that name, or it was not kept.
    """
    from extmem.core import naming
    from extmem.manager import manager

    owner = manager()
    running = not owner.has_broker or owner.status() is not None
    try:
        forgotten = running and naming.forget(name)
    except NameNotFoundError:
        running = forgotten = False
    if as_json:
        emit_json({"name": name, "found": running, "forgotten": forgotten})
    if forgotten:
        words(f"{clean(name)} is not kept any more.")
        return
    if running:
        words(f"{clean(name)} was not kept; `extmem ps` lists what is.")
    else:
        words(f"Nothing here is named {clean(name)}; `extmem ps` lists what is shared.")
    raise click.exceptions.Exit(FAILED)
