"""`extmem channel NAME`: one channel with its readers, once or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import clean, emit_json, words

__all__ = ["channel"]

_INTERVAL = 1.0
_GRACE, _SOON = 3.0, 0.1
"""Seconds for which a channel that was there is looked for: a broker or a writer may be starting again. And how often.
"""


def _look(name: str) -> dict[str, Any] | None:
    """Return the channel as plain data; None if there is none with this name. Starts no broker."""
    from extmem.cli._channels import describe_channel, look_at
    from extmem.errors import NameNotFoundError
    from extmem.manager import manager

    owner = manager()
    if owner.has_broker and owner.status() is None:
        return None
    try:
        return describe_channel(look_at(name, owner.snapshot()))
    except NameNotFoundError:
        return None


def _looks(name: str, interval: float) -> Iterator[dict[str, Any]]:
    """Yield the channel again and again, with rates; end when it has ended. Errors: PeerGoneError."""
    from extmem.cli._watching import Watch
    from extmem.errors import PeerGoneError

    watch = Watch()
    seen = 0.0
    while True:
        began = time.monotonic()
        try:
            found = _look(name)
        except PeerGoneError:
            if not seen or began - seen > _GRACE:
                raise
            found = None
        if found is not None:
            seen = time.monotonic()
            yield watch.update(found, seen)
            took = time.monotonic() - began
            time.sleep(max(interval - took, 4 * took))
        elif not seen or time.monotonic() - seen > _GRACE + interval:
            return
        else:
            time.sleep(_SOON)


def _not_found(name: str) -> None:
    """Say what to do about a name that no channel has, and end with the exit code for that."""
    import difflib

    from extmem.cli._channels import channel_names
    from extmem.manager import manager

    owner = manager()
    running = not owner.has_broker or owner.status() is not None
    names = sorted(channel_names(owner.snapshot())) if running else []
    near = difflib.get_close_matches(name, names, 3)
    text = f"No channel here is named {clean(name)}"
    if near:
        text += f". Did you mean {' or '.join(map(clean, near))}?"
    else:
        text += (
            "; `extmem channels` lists those that there are. Start the program that creates it, and then look again."
        )
    words(text)
    raise click.exceptions.Exit(FAILED)


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of channels that begin so, for the completion of a shell. Starts no broker."""
    from extmem.cli._channels import channel_names
    from extmem.errors import ExtmemError
    from extmem.manager import manager

    try:
        owner = manager()
        if owner.has_broker and owner.status() is None:
            return []
        # A shell takes a line for each name.
        found = [name for name in channel_names(owner.snapshot()) if name.isprintable()]
    except (ExtmemError, OSError):
        return []
    return sorted(name for name in found if name.startswith(incomplete))


@click.command(short_help="Show one channel and its readers, once or live.")
@click.argument("name", shell_complete=_names)
@click.option("--watch", is_flag=True, help="Show it live, until it ends or Ctrl-C is pressed.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help=f"Time between two looks of --watch: {_INTERVAL:g} if not given.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; with --watch one in a line for each look.")
@guarded
def channel(name: str, watch: bool, interval: float | None, as_json: bool) -> None:
    """Show the channel NAME: its frames, rate and writer, and of each reader how it reads, where it is, what it lost
    and what it holds.

    A reader is called slow if it is about as many frames behind as the ring has slots, or loses frames meanwhile. With
    --watch into a pipe there is a line for each look.

    Exit codes: 0 shown, or the channel has ended meanwhile; 1 there is no such channel, the name is that of something
    else, or the broker does not reply; 2 wrong arguments; 130 ended by Ctrl-C.
    """
    from extmem.core.everyday_names import everyday_name

    if interval is not None and not watch:
        raise click.BadParameter("an interval is for --watch: give both, or none", param_hint="--interval")
    name = everyday_name(name) or name
    if not watch:
        found = _look(name)
        if found is None:
            _not_found(name)
        elif as_json:
            emit_json(found)
        else:
            from extmem.cli._channels import print_channel

            print_channel(found)
        return
    if not _watch(_looks(name, interval or _INTERVAL), as_json):
        _not_found(name)


def _watch(looks: Iterator[dict[str, Any]], as_json: bool) -> bool:
    """Show each look until the channel ends, or nobody reads the output. Return whether there was one."""
    from extmem.cli._streams import reader_has_gone
    from extmem.cli._watching import Screen, as_line

    last = None
    if not as_json and sys.stdout.isatty():
        with Screen() as screen:
            for last in looks:
                screen.show(last)
    else:
        for last in looks:
            sys.stdout.write(as_line(last, as_json=as_json) + "\n")
            sys.stdout.flush()
            if reader_has_gone():
                return True
    if last is not None:
        closed = last["state"] == "closed"
        how = "its writer has closed it" if closed else "no process has it open any more"
        words(f"The channel {clean(last['name'])} has ended: {how}. Start its writer to have it again.")
    return last is not None
