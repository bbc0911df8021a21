"""Rounds of changes in place: a process updates an array again and again, and no read of another that was accepted is
torn.

How this works. In each round the writer sets all elements to the number of its update, in one block of `update`. The
reader copies the array in blocks of `stable`. A copy that the block accepted must have the same number in all elements,
and it must be the number of the generation that the block reports. Copies that the block did not accept are counted,
too: without any, reads and updates did not overlap, and nothing was tested.
"""

from __future__ import annotations

import time
from typing import Final

from extmem.testing.children import ChildFailedError, Peer, RemoteError, kill_all
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DeadlineError
from scripts.soak.figures import CRASHES, LEFT, TORN, Figure, Report, Totals, figure

__all__ = ["ELEMENTS", "change_rounds"]

ELEMENTS: Final = 20_000
"""Elements of the array: a copy of it takes about as long as an update."""
SLOWEST: Final = 0.02
"""Seconds that one round may take, on average."""
LEAST: Final = 60.0

WRITING: Final = """
import extmem
memory = extmem.open_device(kind="host").allocate(elements, "uint32", name="changes", access=extmem.Access.READ_WRITE)
array = memory.numpy()
None
"""
UPDATING: Final = """
for number in range(1, rounds + 1):
    with memory.update():
        array[:] = number
memory.generation
"""
READING: Final = """
import extmem
memory = extmem.open("changes", access=extmem.Access.READ)
array = memory.numpy()
None
"""
LOOKING: Final = """
accepted = refused = torn = 0
while memory.generation < 2 * rounds:
    with memory.stable() as look:
        copy = array.copy()
    if look.changed:
        refused += 1
        continue
    accepted += 1
    if (copy != copy[0]).any() or 2 * int(copy[0]) != look.generation:
        torn += 1
accepted, refused, torn
"""


def change_rounds(rounds: int, totals: Totals, report: Report) -> list[Figure]:
    """Run the rounds. Return the figures, and count torn reads that were accepted."""
    done = accepted = refused = 0
    started = time.monotonic()
    for name in (TORN, CRASHES, LEFT):
        totals.add(name)
    limit = LEAST + SLOWEST * rounds
    with Runtime() as runtime, Peer(env=runtime.environment) as writer, Peer(env=runtime.environment) as reader:
        try:
            writer(WRITING, elements=ELEMENTS)
            reader(READING)
            reader.start(LOOKING, rounds=rounds)
            done = writer(UPDATING, rounds=rounds, deadline=limit) // 2
            accepted, refused, torn = reader.finish(deadline=LEAST)
            totals.add(TORN, torn)
        except (RemoteError, ChildFailedError, DeadlineError) as error:
            report(f"BROKEN changes: {error}")
        for peer in (writer, reader):
            if not peer.alive:
                totals.add(CRASHES)
    left = kill_all()
    totals.add(LEFT, len(left))
    report(
        f"{done} of {rounds} rounds of changes took {time.monotonic() - started:.0f} s; "
        f"{accepted} reads were accepted, {refused} were not"
    )

    return [
        figure("changes: rounds", done, "rounds", rounds, done >= rounds),
        figure("changes: reads that were accepted", accepted, "reads", 1, accepted > 0),
        figure("changes: reads during an update", refused, "reads", 1, refused > 0),
    ]
