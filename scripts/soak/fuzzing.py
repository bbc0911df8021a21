"""The fuzzers of messages, descriptors and timeline pages. The exit code of a fuzzer is its result."""

from __future__ import annotations

from scripts.soak import workers
from scripts.soak.figures import Figure, Report, Totals, figure

FUZZERS = ("fuzz_wire", "fuzz_descriptor", "fuzz_sddl", "fuzz_timeline")
_LIMIT = 3600.0
"""Seconds that one fuzzer may take."""


def fuzz(module: str, iterations: int, seed: int, totals: Totals, report: Report) -> Figure:
    """Run one fuzzer."""
    report(f"{module}: {iterations} iterations, seed {seed}")
    program = [f"fuzz.{module}", "--iterations", str(iterations), "--seed", str(seed)]
    done = workers.run(program, _LIMIT, totals, report)
    carried_out = iterations if done.code == 0 else 0
    if done.code == 0:
        report(done.output.strip() or "(no output)")
    name = f"{module}: iterations without a broken invariant"
    return figure(name, carried_out, "iterations", iterations, carried_out >= iterations)
