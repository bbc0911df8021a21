"""`extmem bench`: the cost of sharing. Each figure is a ratio against an alternative that runs in the same run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import emit_json, table, words
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.cli._bench.measure import Figure

__all__ = ["bench"]


_SUBJECTS = {
    "open": ("opening", 500),
    "broker": ("many_clients", 400),
    "checks": ("checking", 2000),
    "imports": ("importing", 200),
    "start": ("starting", 200),
    "sync": ("ordering", 100),
    "tensors": ("tensors", 100),
    "channel": ("channel", 1000),
    "vulkan": ("gpu", 200),
    "cuda": ("cuda", 200),
}
"""The module of each subject, and its number of rounds."""
_EVERYWHERE = ("open", "checks", "start")
"""Subjects that are also measured on Windows."""
_KILLING = ("vulkan", "sync", "tensors", "channel")
_PARTS = {
    "tensors": (
        "changes",
        "reads",
        "table",
        "files",
        "torch-files",
        "gpu-files",
        "passing",
        "gpu-changes",
        "lent",
        "rounds",
        "start",
        "copies",
    ),
    "channel": ("hops", "fan-out", "calls", "opens", "gpu", "deaths", "holders", "storm"),
}
"""The parts of the subjects that have some."""
_QUICK = 20


def _available() -> Iterable[str]:
    """Return the subjects that can be measured on this machine, which may lack a Vulkan or a CUDA device."""
    if sys.platform != "linux":
        return _EVERYWHERE
    from extmem.devices import cuda, vulkan

    devices = {"vulkan": vulkan.offers, "cuda": cuda.offers}
    return [subject for subject in _SUBJECTS if subject not in devices or devices[subject]()]


def _measure(subject: str, *, quick: bool, kills: int | None, parts: tuple[str, ...]) -> Iterator[Figure]:
    from extmem.cli._bench.environment import Environment

    if sys.platform != "linux" and subject not in _EVERYWHERE:
        raise UnsupportedError(
            f"the subject {subject} needs Linux, for its broker, fds and /proc; choose from: {', '.join(_EVERYWHERE)}"
        )
    module, rounds = _SUBJECTS[subject]
    figures = import_module(f"extmem.cli._bench.{module}").figures
    more: dict[str, Any] = {"kills": kills} if subject in _KILLING else {}
    if subject in _PARTS:
        more["parts"] = parts
    with contextlib.closing(Environment()) as env:
        yield from figures(
            env, _QUICK if quick else rounds, lambda text: words(f"{subject}: {text} ..."), quick=quick, **more
        )


def figure_row(figure: Figure) -> tuple[str, str, str, str]:
    """Return a row of the table: name, value with its unit, bound, verdict."""
    value = f"{figure.value:,.0f}" if figure.value == int(figure.value) else f"{figure.value:,.4g}"
    return (
        figure.name,
        f"{value} {figure.unit}",
        f"{figure.direction} {figure.bound or 0:g}" if figure.direction else "-",
        "-" if figure.bound is None else "ok" if figure.ok else "MISSED",
    )


@click.command(short_help="Measure what sharing costs.")
@click.argument("subjects", metavar="[SUBJECT]...", type=click.Choice(list(_SUBJECTS)), nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of name, value, unit, bound (or null), ok.")
@click.option(
    "--kills",
    type=click.IntRange(min=1),
    help="Processes killed: 200 by vulkan and sync, 500 by tensors, 60 by channel.",
)
@click.option(
    "--part",
    "parts",
    metavar="PART",
    type=click.Choice([part for parts in _PARTS.values() for part in parts]),
    multiple=True,
    help="Only this part; "
    + "; ".join(f"those of {subject}: {', '.join(parts)}" for subject, parts in _PARTS.items())
    + ". Repeatable.",
)
@click.option("--quick", is_flag=True, help="Few rounds, to try it out: the figures vary, and bounds may be missed.")
@guarded
def bench(subjects: tuple[str, ...], as_json: bool, kills: int | None, parts: tuple[str, ...], quick: bool) -> None:
    """Measure opening, the broker, the cost of the rules, imports, starting, timelines, tensors, channels, and a GPU.

    SUBJECT is one of open, broker, checks, imports, start, sync, tensors, channel, vulkan and cuda. Without a subject,
    all are measured; vulkan and cuda only if there is such a device. The benchmarks start a broker and processes of
    their own.

    A figure with a bound is a ratio against an alternative that runs in turns with it in the same run, or a count that
    must be 0. Bounds are upper bounds, except for "times as fast" and "opens per second". The unit "not measured" tells
    that the machine lacks what the name of the figure says.

    Exit codes: 0 all bounds hold; 1 one is missed, or measuring failed; 2 wrong arguments; 130 interrupted.
    """
    if parts and not (len(subjects) == 1 and set(parts) <= set(_PARTS.get(subjects[0], ()))):
        raise click.UsageError(
            "--part selects parts of one subject, tensors or channel; use it as: extmem bench tensors --part changes"
        )
    figures = [
        figure
        for subject in subjects or _available()
        for figure in _measure(subject, quick=quick, kills=kills, parts=parts)
    ]
    if as_json:
        emit_json([figure.to_dict() for figure in figures])
    else:
        table(("figure", "value", "bound", "verdict"), [figure_row(figure) for figure in figures])
    missed = [figure for figure in figures if not figure.ok]
    for figure in missed:
        words(f"missed: {figure.name} is {figure.value:g}, but must be {figure.direction} {figure.bound:g}")
    if missed:
        raise click.exceptions.Exit(FAILED)
