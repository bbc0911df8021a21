"""Interrupts for a long time: `python -m tests.interrupts`. Text on stderr, figures on stdout as one JSON object.

It goes through the operations again and again until the number of interrupts is reached: first through the points of
each in order, then at points drawn at random (see `points`). The exit code is 0 where nothing was lost, closed twice or
wrong.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import sys

import extmem
from tests import operations, tagged_payloads
from tests.interrupts import points
from tests.threads.__main__ import broker_pid

_PORTION = 50
"""Number of points of one operation before the next operation."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.interrupts", description="Interrupt every public operation.")
    parser.add_argument("--kind", choices=("host", "vulkan", "cuda"), default="host")
    parser.add_argument(
        "--interrupts", type=int, default=10_000, help="how many; 0 for each point of each operation once"
    )
    parser.add_argument("--few", type=int, default=0, help="so many points of each operation, drawn, instead of all")
    parser.add_argument("--object", choices=operations.CLASSES, help="the operations of this class alone")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faulthandler.enable()
    draw, found = random.Random(options.seed), points.Findings()
    with extmem.open_device(kind=options.kind) as device, device.allocate(1, name="kept"):
        broker, world = broker_pid(), tagged_payloads.World(device)
        kinds = operations.CLASSES if options.object is None else (options.object,)
        cases = [case for kind in kinds if (case := operations.case(world, kind)) is not None]
        every = [(case, name) for case in cases for name in operations.operations_of(case)]

        def portion(listed: list[int]) -> list[int]:
            if options.few:
                return sorted(draw.sample(listed, min(options.few, len(listed))))
            first = turn * _PORTION
            if first < len(listed) or not options.interrupts:
                return listed[first : first + _PORTION] if options.interrupts else listed
            return draw.sample(listed, min(_PORTION, len(listed)))

        turn = 0
        while turn == 0 or (found.interrupts < options.interrupts and not options.few):
            for case, name in every:
                found += points.interrupt(world, case, name, portion)
                if not options.few and 0 < options.interrupts <= found.interrupts:
                    break
            turn += 1
        ended = broker_pid() != broker
    figures = {
        "interrupts": found.interrupts,
        "lost": len(found.lost),
        "closed twice": len(found.closed_twice),
        "wrong bytes": len(found.wrong),
        "errors that escaped": len(found.escaped),
        "broker ended": int(ended),
    }
    for thing in found.all[:40]:
        sys.stderr.write(f"{thing}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if not found.all and not ended else 1


if __name__ == "__main__":
    sys.exit(main())
