"""Interrupts for a long time: `python -m tests.interrupts`. Words on stderr, figures on stdout as one JSON object.

Goes through the verbs again and again until there were so many interrupts: at first through the points of each in
order, from the beginning on, then at points drawn at random (see `points`). Exit code 0 where nothing was lost, closed
twice or wrong.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import random
import sys

import extmem
from tests import verbs, verbs_world
from tests.interrupts import points
from tests.threads.__main__ import broker_pid

_PORTION = 50
"""Points of one verb before the next one's turn."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.interrupts", description="Interrupt every public verb.")
    parser.add_argument("--kind", choices=("host", "vulkan", "cuda"), default="host")
    parser.add_argument("--interrupts", type=int, default=10_000, help="how many; 0 for each point of each verb once")
    parser.add_argument("--few", type=int, default=0, help="so many points of each verb, drawn, instead of all")
    parser.add_argument("--object", choices=verbs.KINDS_OF_OBJECTS, help="the verbs of this class alone")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faulthandler.enable()
    draw, found = random.Random(options.seed), points.Findings()
    with extmem.open_device(kind=options.kind) as device, device.allocate(1, name="kept"):
        broker, world = broker_pid(), verbs_world.World(device)
        kinds = verbs.KINDS_OF_OBJECTS if options.object is None else (options.object,)
        cases = [case for kind in kinds if (case := verbs.case(world, kind)) is not None]
        every = [(case, name) for case in cases for name in verbs.verbs_of(case)]

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
    told = {
        "interrupts": found.interrupts,
        "lost": len(found.lost),
        "closed twice": len(found.closed_twice),
        "wrong bytes": len(found.wrong),
        "errors that escaped": len(found.escaped),
        "broker ended": int(ended),
    }
    for thing in found.all[:40]:
        sys.stderr.write(f"{thing}\n")
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if not found.all and not ended else 1


if __name__ == "__main__":
    sys.exit(main())
