"""Threads for a long time: `python -m tests.threads`. Text on stderr, figures on stdout as one JSON object.

It has three programs, each on one kind of device:

- `races`: combinations of public operations on one object, drawn at random, until the time is over (see `rounds`).
- `names`: several threads open one name, read its bytes and close it, again and again. While one of them has it open,
  the others share its memory object; otherwise it is imported again.
- `closing`: in each round one thread closes memory while another reads, exports, sends or maps it.

The exit code is 0 where no byte was wrong, no error escaped and the broker did not end. A crash ends the process with
its signal.
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
from tests import operations, tagged_payloads
from tests.threads import rounds

_TAG = 5
_BESIDE = ("read_bytes", "export_handle", "pickle", "map", "write", "device_array")


def races(device: Device, seconds: float, seed: int) -> rounds.Findings:
    """See the module."""
    world, draw, found = tagged_payloads.World(device), random.Random(seed), rounds.Findings()
    cases = [case for kind in operations.CLASSES if (case := operations.case(world, kind)) is not None]
    choices = [(case, names) for case in cases for names in rounds.combinations(case, seed)]
    end = time.monotonic() + seconds
    with rounds.churn(world), rounds.Crew(2) as two, rounds.Crew(3) as three:
        while time.monotonic() < end:
            case, names = draw.choice(choices)
            found += rounds.race(world, case, names, two if len(names) == 2 else three)
    return found


def closing(device: Device, count: int, seconds: float) -> rounds.Findings:
    """See the module. count: the number of rounds; 0 for as many as begin in so many seconds."""
    world, found = tagged_payloads.World(device), rounds.Findings()
    case = operations.case(world, "DeviceMemory")
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
    with device.allocate(tagged_payloads.SIZE, name="the same") as memory:
        memory.fill(_TAG)

        def look() -> None:
            done = 0
            while time.monotonic() < end:
                with device.open("the same") as other:
                    octets = bytes(other.map()) if other.host_visible else bytes(other.read_bytes())
                    tagged_payloads.World.check_bytes(octets, _TAG, "memory that was opened")
                    if len(octets) != tagged_payloads.SIZE:
                        raise tagged_payloads.WrongByteError(
                            f"{len(octets)} bytes of {tagged_payloads.SIZE} were opened"
                        )
                done += 1
            counts.append(done)

        counts: list[int] = []
        with rounds.Crew(threads) as crew:
            for error in crew.together([look] * threads):
                kept = found.wrong if isinstance(error, tagged_payloads.WrongByteError) else found.escaped
                kept.append(f"{type(error).__name__}: {error}")
        found.rounds = sum(counts)
    return found


def broker_pid() -> int:
    """Return the process id of the broker, 0 where there is none. The caller keeps it alive by holding a name."""
    try:
        return manager().status().pid
    except UnsupportedError:
        return 0


def main() -> int:
    """Run the command line."""
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
    figures = {
        "rounds": found.rounds,
        "wrong bytes": len(found.wrong),
        "errors that escaped": len(found.escaped),
        "broker ended": int(ended),
    }
    for thing in (found.wrong + found.escaped)[:20]:
        sys.stderr.write(f"{thing}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if not found.wrong and not found.escaped and not ended else 1


if __name__ == "__main__":
    sys.exit(main())
