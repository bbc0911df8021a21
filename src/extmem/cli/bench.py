"""`extmem bench`: the cost of sharing. Each figure is a ratio against an alternative that runs in the same run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import emit_json, table, words
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.cli._bench.measure import Figure

__all__ = ["Subject", "bench"]


class Subject(StrEnum):
    """The subjects of the benchmarks."""

    OPEN = "open"
    BROKER = "broker"
    CHECKS = "checks"
    IMPORTS = "imports"
    START = "start"
    VULKAN = "vulkan"
    CUDA = "cuda"


_MODULES = {
    Subject.OPEN: "opening",
    Subject.BROKER: "many_clients",
    Subject.CHECKS: "checking",
    Subject.IMPORTS: "importing",
    Subject.START: "starting",
    Subject.VULKAN: "gpu",
    Subject.CUDA: "cuda",
}
_EVERYWHERE = (Subject.OPEN, Subject.CHECKS, Subject.START)
"""Subjects that are also measured on Windows."""
_ROUNDS = {
    Subject.OPEN: 500,
    Subject.BROKER: 400,
    Subject.CHECKS: 2000,
    Subject.IMPORTS: 200,
    Subject.START: 200,
    Subject.VULKAN: 200,
    Subject.CUDA: 200,
}
_QUICK = 20


def _available() -> list[Subject]:
    """Return the subjects that can be measured on this machine, which may lack a Vulkan or a CUDA device."""
    if sys.platform != "linux":
        return list(_EVERYWHERE)
    from extmem.devices import cuda, vulkan

    devices = {Subject.VULKAN: vulkan.offers, Subject.CUDA: cuda.offers}
    return [subject for subject in Subject if subject not in devices or devices[subject]()]


def _measure(subject: Subject, *, quick: bool, kills: int | None) -> Iterator[Figure]:
    from extmem.cli._bench.environment import Environment

    if sys.platform != "linux" and subject not in _EVERYWHERE:
        raise UnsupportedError(
            f"the subject {subject.value} needs Linux, for its broker, fds and /proc; "
            f"choose from: {', '.join(_EVERYWHERE)}"
        )
    figures = import_module(f"extmem.cli._bench.{_MODULES[subject]}").figures
    more = {"kills": kills} if subject is Subject.VULKAN else {}
    with Environment() as env:
        rounds = _QUICK if quick else _ROUNDS[subject]
        yield from figures(env, rounds, _reporter(subject), quick=quick, **more)


def _reporter(subject: Subject) -> Callable[[str], None]:
    return lambda text: words(f"{subject.value}: {text} ...")


def figure_row(figure: Figure) -> tuple[str, str, str, str]:
    """Return a row of the table: name, value with its unit, bound, verdict."""
    value = f"{figure.value:,.0f}" if figure.value == int(figure.value) else f"{figure.value:,.4g}"
    verdict = "-" if figure.bound is None else "ok" if figure.ok else "MISSED"
    return (
        figure.name,
        f"{value} {figure.unit}",
        f"{figure.direction} {figure.bound or 0:g}" if figure.direction else "-",
        verdict,
    )


@click.command(short_help="Measure what sharing costs.")
@click.argument("subjects", metavar="[SUBJECT]...", type=click.Choice([subject.value for subject in Subject]), nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of name, value, unit, bound (or null), ok.")
@click.option("--kills", type=click.IntRange(min=1), help="Number of processes that vulkan kills; 200 by default.")
@click.option("--quick", is_flag=True, hidden=True)
@guarded
def bench(subjects: tuple[str, ...], as_json: bool, kills: int | None, quick: bool) -> None:
    """Measure opening, the broker, the cost of the rules, imports, starting, and a GPU.

    SUBJECT is one of open, broker, checks, imports, start, vulkan and cuda. Without a subject all are measured; vulkan
    and cuda only if there is such a device. The benchmarks start a broker and processes of their own.

    A figure with a bound is a ratio against an alternative that runs in turns with it in the same run, or a count that
    must be 0. Bounds are upper bounds, except for "times as fast" and "opens per second".

    Exit codes: 0 all bounds hold; 1 one is missed, or measuring failed; 2 wrong arguments; 130 interrupted.
    """
    figures = [
        figure
        for subject in map(Subject, subjects or _available())
        for figure in _measure(subject, quick=quick, kills=kills)
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
