"""The command line of the soak. See the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from scripts.soak import arbitrary, changing, fuzzing, killing, using, waiting
from scripts.soak.figures import Figure, Totals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts. Return 0 if every figure is within its bound."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.soak",
        description="Fuzz, use in threads, interrupt, attack and kill for a long time. Prints a JSON list of figures. "
        "The value 0 omits a part.",
    )
    parser.add_argument("--iterations", type=int, default=100_000, help="number of inputs for each fuzzer")
    parser.add_argument(
        "--minutes", type=float, default=10, help="minutes in which threads use shared memory, over all programs"
    )
    parser.add_argument(
        "--interrupts", type=int, default=10_000, help="number of interrupted methods on each kind of device"
    )
    parser.add_argument("--attempts", type=int, default=1_000, help="number of attempts of other users to get access")
    parser.add_argument(
        "--rounds", type=int, default=500, help="number of rounds that kill an exporter, an importer or the broker"
    )
    parser.add_argument(
        "--waits", type=int, default=200, help="number of rounds of waits for a timeline whose processes are killed"
    )
    parser.add_argument(
        "--changes", type=int, default=100_000, help="number of updates of an array that another process reads"
    )
    parser.add_argument("--programs", type=int, default=100_000, help="number of arbitrary programs of the public API")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices")
    options = parser.parse_args(arguments)

    def report(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    figures: list[Figure] = []
    totals = Totals()
    if options.iterations > 0:
        figures += [
            fuzzing.fuzz(module, options.iterations, options.seed, totals, report) for module in fuzzing.FUZZERS
        ]
    if options.minutes > 0 or options.interrupts > 0 or options.programs > 0:
        devices = using.kinds()
        report(f"devices: {', '.join(devices)}")
    if options.minutes > 0:
        figures += using.use_in_threads(options.minutes, options.seed, devices, totals, report)
    if options.interrupts > 0:
        figures.append(using.interrupt(options.interrupts, options.seed, devices, totals, report))
    if options.attempts > 0:
        figures.append(using.try_as_others(options.attempts, options.seed, totals, report))
    if options.programs > 0:
        figures += arbitrary.run_programs(options.programs, options.seed, devices, totals, report)
    if options.rounds > 0:
        figures += killing.kill_rounds(options.rounds, options.seed, totals, report).figures(options.rounds)
    if options.waits > 0:
        figures += waiting.wait_rounds(options.waits, options.seed, totals, report).figures(options.waits)
    if options.changes > 0:
        figures += changing.change_rounds(options.changes, totals, report)
    figures += totals.figures()
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0 if all(entry["ok"] for entry in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
