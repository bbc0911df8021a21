"""Processes that are killed with SIGKILL while they import, use and export GPU payloads: the steps of their work.

The tests on the real GPU and those on the fake driver kill the same processes: `device` is an expression for the
device.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from extmem.testing.children import Peer

__all__ = ["EXPORTER", "IMPORTER", "drawn", "killed_at"]

IMPORTER = (
    "device = eval(expression)",
    "v = device.open(name + ' v')",
    "one = v.device_array()",
    "c = device.open(name + ' c')",
    "h = device.open(name + ' h')",
    "two = c.device_array()",
    "own = device.allocate(size, name=f'{name} own {os.getpid()}')",
    "own.fill(1)",
    "again = extmem.open(name + ' c', device=device)",
    "handle = extmem.open_handle(name + ' c')",
    "del two\nc.close()",
    "c = device.open(name + ' c')",
    "many = [device.open(name + ' ' + which) for which in 'vch' * 4]",
    "while True:\n    other = device.open(name + ' v')\n    other.close()\n    device.allocate(size).close()",
)
"""Payloads "… v", "… c" and "… h", which a Vulkan device, a CUDA device and the host made."""

EXPORTER = (
    "device = eval(expression)",
    "made = device.allocate(size, name=name)",
    "made.fill(7)",
    "made.export_handle()",
    "more = device.allocate(size)",
    "while True: device.allocate(size, name=name + ' more').close()",
)


def drawn(rounds: int, steps: Sequence[str], *, seed: int, first: int = 0) -> list[int]:
    """Return the step in which each of so many processes is killed: each step at least once if possible, shuffled."""
    draw = random.Random(seed)
    all_of_them = list(range(first, len(steps)))
    found = all_of_them[:rounds] + [draw.choice(all_of_them) for _ in range(rounds - len(all_of_them))]
    draw.shuffle(found)
    return found


def killed_at(peer: Peer, steps: Sequence[str], step: int, **variables: object) -> None:
    """Let the peer run the steps before that one, and kill it while it runs that one and those that follow."""
    peer("import gc", **variables)
    for done in steps[:step]:
        peer(done + "\nNone")
    peer.start("\n".join(steps[step:]))
    peer.kill()
