"""`extmem top`: a live view of what is shared, over the whole terminal, or in a browser."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from extmem.cli._guard import INTERRUPTED, guarded
from extmem.cli._out import emit_json
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.cli._top.model import Look

__all__ = ["top"]

_ADVICE = "pip install 'extmem[top]'; `extmem ps` needs nothing more"


def _require_packages(*, web: bool) -> None:
    from extmem.optional import load

    load("textual.app", what="Textual, which extmem top draws with,", advice=_ADVICE, package="Textual")
    if web:
        for module, package in (("textual_serve", "textual-serve"), ("aiohttp.web", "aiohttp")):
            load(module, what=f"{package}, which extmem top --web needs,", advice=_ADVICE, package=package)


def _require_terminal() -> None:
    closed = [name for name in ("stdin", "stdout", "stderr") if not getattr(sys, name).isatty()]
    if closed:
        raise UnsupportedError(
            f"extmem top draws on a terminal, and {' and '.join(closed)} {'is' if len(closed) == 1 else 'are'} none; "
            "start it in a terminal, use --web for a browser, or --json or `extmem ps` for a list",
            requires_one_of=["a terminal"],
        )


def _as_data(found: Look) -> dict[str, Any]:
    """Return one look as plain data."""
    import functools

    import msgspec

    from extmem.cli._payloads import describe_payload
    from extmem.cli._top.items import Subject, subject_of
    from extmem.manager import process_name

    processes = functools.cache(process_name)
    payloads = {subject: [] for subject in Subject}  # type: dict[Subject, list[dict[str, Any]]]
    for row in found.rows:
        payloads[subject_of(row)].append(describe_payload(row, processes))
    return {
        "broker": None if found.broker is None else msgspec.to_builtins(found.broker),
        "payloads": payloads[Subject.PAYLOADS],
        "timelines": payloads[Subject.TIMELINES],
        "channels": None if found.channels is None else msgspec.to_builtins(list(found.channels)),
    }


@click.command(short_help="Show what is shared, live, on the whole terminal.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks. With very many payloads it is longer.",
)
@click.option("--web", is_flag=True, help="Show it in a browser on this machine: print the address, and serve it.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port for --web on 127.0.0.1; any free one if not given."
)
@click.option("--json", "as_json", is_flag=True, help="Print what one look finds as a JSON object, and end.")
@click.option("--served", is_flag=True, hidden=True, help="Started by --web, which draws what this process writes.")
@guarded
def top(interval: float, web: bool, port: int, as_json: bool, served: bool) -> None:
    """Show payloads, timelines and their holders, live. Keys: / filters, s sorts, d shows details, q ends it.

    With --web the same program runs in a browser: each page is a process of its own. Whoever has the address can see
    what you share, so it contains a secret; it works on this machine only.

    Exit codes: 0 ended by q, or JSON printed; 1 no terminal, a package is missing, or the broker does not reply;
    2 wrong arguments; 130 ended by Ctrl-C.
    """
    from extmem.cli._top.reading import channel_provider, look

    if port and not web:
        raise click.BadParameter("a port is for --web: give both, or none", param_hint="--port")
    if as_json:
        found = look(channel_provider())
        if found.error is not None:
            raise found.error
        emit_json(_as_data(found))
        return
    if not served and not web:
        _require_terminal()
    _require_packages(web=web)
    if web:
        from extmem.cli._top.web import serve

        serve(port, interval)
        return
    from extmem.cli._top.app import TopApp

    if served:
        from extmem.cli._top.served import ServedDriver

        app = TopApp(interval=interval, provider=channel_provider(), driver=ServedDriver)
    else:
        app = TopApp(interval=interval, provider=channel_provider())
    app.run()
    if app.error is not None:
        raise app.error
    if app.return_code == INTERRUPTED and not served:
        raise KeyboardInterrupt
    if app.return_code and not served:
        raise click.exceptions.Exit(app.return_code)
