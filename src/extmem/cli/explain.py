"""`extmem explain`: the meaning of a rule or an error, with a wrong and a right example."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import clean, console, emit_json, emit_line, width, words

if TYPE_CHECKING:
    from extmem.rules.explain import Explanation

__all__ = ["explain"]

_READABLE = 100


def _paragraphs(text: str) -> None:
    """Write text, wrapped to the window. Into a pipe, write the lines unchanged."""
    columns = min(width(sys.stdout), _READABLE)
    for paragraph in text.split("\n\n"):
        for line in paragraph.splitlines():
            fitted = textwrap.wrap(
                line, columns, subsequent_indent="  " if line.startswith("- ") else "", break_on_hyphens=False
            )
            for piece in fitted if sys.stdout.isatty() or columns < _READABLE else [line]:
                emit_line(piece)
        emit_line()


def _code(title: str, source: str) -> None:
    emit_line(title)
    if sys.stdout.isatty():
        from rich.syntax import Syntax

        console(sys.stdout).print(
            Syntax(
                source.strip("\n"),
                "python",
                theme="ansi_dark",
                background_color="default",
                padding=(0, 0, 0, 4),
                word_wrap=True,
            )
        )
    else:
        for line in source.strip("\n").splitlines():
            emit_line(f"    {line}".rstrip())
    emit_line()


def _draw(found: Explanation) -> None:
    emit_line(found.title)
    emit_line("=" * min(len(found.title), width(sys.stdout)))
    for label, value in (
        ("kind", found.kind),
        ("family", found.family),
        ("status", f"{found.status}, by {found.checked_by}" if found.checked_by else found.status),
        ("also", ", ".join(found.aliases)),
    ):
        if value:
            emit_line(f"{label}: {value}")
    emit_line()
    _paragraphs(found.text)
    if found.wrong_example:
        _code("Wrong:", found.wrong_example)
    if found.right_example:
        _code("Right:", found.right_example)
    if found.link:
        emit_line(f"See {found.link}")
        emit_line()


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from extmem.rules import explain as explaining

    return [topic for topic in explaining.topics() if topic.startswith(incomplete)]


# Error numbers can be negative: -1000072003 is not an option.
@click.command(short_help="Explain a rule or an error.", context_settings={"ignore_unknown_options": True})
@click.argument("topics", metavar="VUID|ERROR...", nargs=-1, required=True, shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@guarded
def explain(topics: tuple[str, ...], as_json: bool) -> None:
    """Explain rules and errors, with a wrong and a right example.

    VUID is the id of a rule or the end of the id. ERROR is an error class, or the name or number of a VkResult,
    NTSTATUS or Win32 error.

    Exit codes: 0 all explained; 1 one is unknown (similar names are printed); 2 wrong arguments.
    """
    from extmem.rules import explain as explaining

    found, unknown = [], []
    for topic in topics:
        if topic.startswith("--"):
            raise click.BadParameter(f"no such option: {topic}", param_hint="VUID|ERROR")
        try:
            found.append(explaining.explain(topic))
        except LookupError as missing:
            unknown.append(clean(str(missing)))
    if as_json:
        emit_json([explanation.to_dict() for explanation in found])
    else:
        for explanation in found:
            _draw(explanation)
    for problem in unknown:
        words(problem)
    if unknown:
        raise click.exceptions.Exit(FAILED)
