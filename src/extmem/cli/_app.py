"""All commands under one name. What a command needs beyond typer, it imports when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import extmem
from extmem.cli import bench, broker, demo, devices, explain, ps, rules

__all__ = ["app"]

_CODES = """
Data goes to stdout, words to stderr; every command takes --json.

Exit codes: 0 done; 1 refused, failed, not found, or a bound missed; 2 wrong arguments; 130 interrupted.
EXTMEM_RUNTIME_DIR chooses the broker, EXTMEM_TRACEBACK=1 shows where an error came from.
"""

app = typer.Typer(
    name="extmem",
    help="Share memory between processes by operating-system handle: name, NT handle, KMT number or fd.\n\n" + _CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("devices")(devices.devices)
app.command("ps")(ps.ps)
app.command("rules")(rules.rules)
# Numbers of errors are often negative: -1000072003 is no option.
app.command("explain", context_settings={"ignore_unknown_options": True})(explain.explain)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.add_typer(broker.app, name="broker")


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"extmem {extmem.__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
