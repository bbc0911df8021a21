"""Arbitrary programs for a long time: `python -m tests.arbitrary`. Text on stderr, figures on stdout as a JSON object.

The exit code is 0 where no process died, the layer reported nothing, no error escaped, and enough calls of each kind
ran.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.arbitrary import checking, programs

LEAST = 0.3
"""The share of programs of each kind that must run on the driver: checks that refuse everything would prove nothing."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.arbitrary", description="Run arbitrary calls of the API.")
    parser.add_argument("--programs", type=int, default=2_000, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hole", help="a check to take away, as module:name")
    parser.add_argument("--as-found", action="store_true", help="show what is found without looking for the smallest")
    options = parser.parse_args()
    first = options.seed * 1_000_000
    with checking.Runner(options.hole) as runner:
        report = checking.run_all(runner, map(programs.make, range(first, first + options.programs)))
        for finding in report.findings.values():
            program = finding.program if options.as_found else checking.shrunk(runner, finding)
            again = runner.run([program])[0]
            words = again.words + "".join(error for _, end, error in again.outcomes if end == "escaped")
            words = words or "\n".join(str(message) for message in again.messages if message.id in finding.sign)
            sys.stderr.write(f"{finding.sign}, {finding.count} times\n{checking.listing(program)}\n{words}\n\n")
    shares = report.shares()
    for kind, share in shares.items():
        sys.stderr.write(f"{kind}: {report.done[kind]} of {report.contained[kind]} ran on the driver ({share:.0%})\n")
    figures = {
        "programs": report.programs,
        "deaths": report.count("death"),
        "layer messages": report.count("layer"),
        "errors that escaped": report.count("escaped"),
        "smallest share": round(min(shares.values()), 3),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if not report.findings and min(shares.values()) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
