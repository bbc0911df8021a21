"""Threads for a long time: `python -m tests.threads`. Words on stderr, figures on stdout as one JSON object.

Three programs, each on one kind of device:

- `races`: combinations of public verbs on one object, drawn at random, until the time is over (see `rounds`).
- `names`: so many threads open one name, look at its bytes and close it, again and again. Where one of them has it
  open, the others join it; else it is asked for anew.
- `closing`: in each round one thread closes memory while another reads, exports, sends or maps it.

Exit code 0 where no byte was wrong, no error escaped and the broker is the one that was there. A crash ends the process
with its signal.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import json
import random
import sys
import time
import warnings

import extmem
from extmem.api import Device
from extmem.errors import UnsupportedError
from extmem.manager import manager
from tests import verbs, verbs_world
from tests.threads import rounds

_TAG = 5
_BESIDE = ("read_bytes", "export_handle", "pickle", "map", "write", "device_array")


def races(device: Device, seconds: float, seed: int) -> rounds.Findings:
    """See the module."""
    world, draw, found = verbs_world.World(device), random.Random(seed), rounds.Findings()
    cases = [case for kind in verbs.KINDS_OF_OBJECTS if (case := verbs.case(world, kind)) is not None]
    choices = [(case, names) for case in cases for names in rounds.combinations(case, seed)]
    end = time.monotonic() + seconds
    with rounds.churn(world), rounds.Crew(2) as two, rounds.Crew(3) as three:
        while time.monotonic() < end:
            case, names = draw.choice(choices)
            found += rounds.race(world, case, names, two if len(names) == 2 else three)
    return found


def closing(device: Device, count: int, seconds: float) -> rounds.Findings:
    """See the module. count: how many rounds; 0 for as many as begin in so many seconds."""
    world, found = verbs_world.World(device), rounds.Findings()
    case = verbs.case(world, "DeviceMemory")
    assert case is not None
    end = time.monotonic() + seconds
    with rounds.churn(world), rounds.Crew(2) as crew:
        for number in itertools.count():
            if number >= count if count else time.monotonic() >= end:
                break
            found += rounds.race(world, case, ("close", _BESIDE[number % len(_BESIDE)]), crew)
    return found


def names(device: Device, seconds: float, threads: int) -> rounds.Findings:
    """See the module."""
    found, end = rounds.Findings(), time.monotonic() + seconds
    with device.allocate(verbs_world.SIZE, name="the same") as memory:
        memory.fill(_TAG)

        def look() -> None:
            done = 0
            while time.monotonic() < end:
                with device.open("the same") as other:
                    octets = bytes(other.map()) if other.host_visible else bytes(other.read_bytes())
                    verbs_world.World.check_bytes(octets, _TAG, "memory that was opened")
                    if len(octets) != verbs_world.SIZE:
                        raise verbs_world.WrongByteError(f"{len(octets)} bytes of {verbs_world.SIZE} were opened")
                done += 1
            counts.append(done)

        counts: list[int] = []
        with rounds.Crew(threads) as crew:
            for error in crew.together([look] * threads):
                kept = found.wrong if isinstance(error, verbs_world.WrongByteError) else found.escaped
                kept.append(f"{type(error).__name__}: {error}")
        found.rounds = sum(counts)
    return found


def broker_pid() -> int:
    """The process id of the broker, 0 where there is none. The caller keeps it by holding a name."""
    try:
        return manager().status().pid
    except UnsupportedError:
        return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.threads", description="Use shared memory in many threads.")
    parser.add_argument("program", choices=("races", "names", "closing"))
    parser.add_argument("--kind", choices=("host", "vulkan", "cuda"), default="host")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    parser.add_argument("--threads", type=int, default=4, help="how many (names)")
    parser.add_argument("--rounds", type=int, default=10_000, help="how many (closing); 0: by --seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore", ResourceWarning)
    with extmem.open_device(kind=options.kind) as device, device.allocate(1, name="kept"), rounds.switching_often():
        broker = broker_pid()
        if options.program == "races":
            found = races(device, options.seconds, options.seed)
        elif options.program == "names":
            found = names(device, options.seconds, options.threads)
        else:
            found = closing(device, options.rounds, options.seconds)
        ended = broker_pid() != broker
    told = {
        "rounds": found.rounds,
        "wrong bytes": len(found.wrong),
        "errors that escaped": len(found.escaped),
        "broker ended": int(ended),
    }
    for thing in (found.wrong + found.escaped)[:20]:
        sys.stderr.write(f"{thing}\n")
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if not found.wrong and not found.escaped and not ended else 1


if __name__ == "__main__":
    sys.exit(main())
