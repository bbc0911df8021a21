"""`extmem channels`: the channels that there are now."""

from __future__ import annotations

from typing import Any

import click

from extmem.cli._guard import FAILED, describe_error, guarded
from extmem.cli._out import counted, emit_json, words

__all__ = ["channels"]


def _live_channels() -> tuple[list[dict[str, Any]], list[str]] | None:
    """Return the channels as plain data, and lines about those that could not be looked at.

    None if a broker is needed and none runs. Does not start one.
    """
    import functools

    from extmem.cli._channels import channel_names, describe_channel, look_at
    from extmem.errors import ExtmemError, NameNotFoundError, PeerGoneError
    from extmem.manager import manager, process_name

    owner = manager()
    if owner.has_broker and owner.status() is None:
        return None
    rows = owner.snapshot()
    processes = functools.cache(process_name)
    found, wrong = [], []
    for name in sorted(channel_names(rows)):
        try:
            found.append(describe_channel(look_at(name, rows), processes))
        except PeerGoneError:
            raise  # no answer: the next channel would not have one either
        except NameNotFoundError:
            continue  # it has just ended
        except (ExtmemError, OSError) as error:
            wrong += [f"the channel {name!r} could not be read:", *describe_error(error)]
    return found, wrong


@click.command(short_help="List channels, their writers and readers.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def channels(as_json: bool) -> None:
    """List channels: what a frame is, slots, frames, rate, age of the last frame, readers, what they lost, the writer.

    `extmem channel NAME` shows one of them with its readers. The writer is in brackets if it has ended.

    Exit codes: 0 listed, also if there are none; 1 the broker does not reply, or a channel could not be read.
    """
    looked = _live_channels()
    found, wrong = looked if looked is not None else ([], [])
    if as_json:
        emit_json(found)
    elif found:
        _print_table(found)
    if looked is None:
        from extmem.cli.ps import tell_of_no_broker

        tell_of_no_broker()
        return
    for line in wrong:
        words(line)
    readers = sum(len(channel["readers"]) for channel in found)
    words(f"{counted(len(found), 'channel')}, read by {counted(readers, 'reader')}.")
    if wrong:
        raise click.exceptions.Exit(FAILED)


def _print_table(found: list[dict[str, Any]]) -> None:
    from extmem.cli._channels import contents_in_words, rate_in_words, seconds_in_words, writer_in_words
    from extmem.cli._out import clean, table

    table(
        ("name", "frame", "slots", "frames", "per s", "age", "readers", "lost", "writer"),
        [
            (
                clean(channel["name"]),
                contents_in_words(channel),
                str(channel["slots"]),
                str(channel["frames"]),
                rate_in_words(channel["rate"]),
                "-" if channel["age"] is None else seconds_in_words(channel["age"]),
                str(len(channel["readers"])),
                str(channel["lost"]),
                writer_in_words(channel),
            )
            for channel in found
        ],
    )
