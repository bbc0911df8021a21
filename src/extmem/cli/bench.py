"""`extmem bench`: what sharing costs, each figure a ratio against the alternative in the same run."""

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
    """What can be measured."""

    OPEN = "open"
    BROKER = "broker"
    CHECKS = "checks"
    IMPORTS = "imports"
    START = "start"
    VULKAN = "vulkan"
    CUDA = "cuda"


_MODULES = {
    Subject.OPEN: "opening",
    Subject.BROKER: "crowd",
    Subject.CHECKS: "checking",
    Subject.IMPORTS: "importing",
    Subject.START: "starting",
    Subject.VULKAN: "gpu",
    Subject.CUDA: "cuda",
}
_EVERYWHERE = (Subject.OPEN, Subject.CHECKS, Subject.START)
"""What is measured on Windows, too."""
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


def _all_here() -> list[Subject]:
    """Every subject that can be measured here: a machine need not have a Vulkan or a CUDA device."""
    if sys.platform != "linux":
        return list(_EVERYWHERE)
    from extmem.devices import cuda, vulkan

    looks = {Subject.VULKAN: vulkan.offers, Subject.CUDA: cuda.offers}
    return [subject for subject in Subject if subject not in looks or looks[subject]()]


def _measure(subject: Subject, *, quick: bool, kills: int | None) -> Iterator[Figure]:
    from extmem.cli._bench.house import House

    if sys.platform != "linux" and subject not in _EVERYWHERE:
        raise UnsupportedError(
            f"{subject.value} is measured with Linux's broker, descriptors and /proc, which are not here; "
            f"there are: {', '.join(_EVERYWHERE)}"
        )
    figures = import_module(f"extmem.cli._bench.{_MODULES[subject]}").figures
    more = {"kills": kills} if subject is Subject.VULKAN else {}
    with House() as house:
        rounds = _QUICK if quick else _ROUNDS[subject]
        yield from figures(house, rounds, _teller(subject), quick=quick, **more)


def _teller(subject: Subject) -> Callable[[str], None]:
    return lambda text: words(f"{subject.value}: {text} ...")


def figure_row(figure: Figure) -> tuple[str, str, str, str]:
    """A figure for people: name, value with its unit, bound, verdict."""
    value = f"{figure.value:,.0f}" if figure.value == int(figure.value) else f"{figure.value:,.4g}"
    verdict = "-" if figure.bound is None else "ok" if figure.ok else "MISSED"
    return (
        figure.name,
        f"{value} {figure.unit}",
        f"{figure.direction} {figure.bound or 0:g}" if figure.direction else "-",
        verdict,
    )


@click.command
@click.argument("subjects", metavar="[SUBJECT]...", type=click.Choice([subject.value for subject in Subject]), nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of name, value, unit, bound (null: none), ok.")
@click.option("--kills", type=click.IntRange(min=1), help="How many processes vulkan kills; 200 if not given.")
@click.option("--quick", is_flag=True, hidden=True)
@guarded
def bench(subjects: tuple[str, ...], as_json: bool, kills: int | None, quick: bool) -> None:
    """Measure opening, the broker, the rules' cost, imports, starting and a GPU, with processes of its own.

    SUBJECT is what to measure: open, broker, checks, imports, start, vulkan or cuda. All are measured if none is given,
    vulkan and cuda where there is such a device.

    Each figure with a bound is a ratio, or a count that must be 0, against an alternative that runs in turns with it in
    the same run. Bounds are upper ones; "times as fast" and "opens per second" have lower ones.

    Exit codes: 0 all bounds hold; 1 one is missed, or measuring failed; 2 wrong arguments; 130 interrupted.
    """
    found = [
        figure
        for subject in map(Subject, subjects or _all_here())
        for figure in _measure(subject, quick=quick, kills=kills)
    ]
    if as_json:
        emit_json([figure.to_dict() for figure in found])
    else:
        table(("figure", "value", "bound", "verdict"), [figure_row(figure) for figure in found])
    missed = [figure for figure in found if not figure.ok]
    for figure in missed:
        words(f"missed: {figure.name} is {figure.value:g}, and must be {figure.direction} {figure.bound:g}")
    if missed:
        raise click.exceptions.Exit(FAILED)
