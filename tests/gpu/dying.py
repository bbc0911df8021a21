"""Processes that are killed with SIGKILL while they import, look at and export GPU payloads: what they do, in steps.

The real GPU's tests and those on the fake driver let the same processes die: `device` is an expression for the device.
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
"""Of payloads "… v", "… c" and "… h", which a Vulkan device, a CUDA device and the host made."""

EXPORTER = (
    "device = eval(expression)",
    "made = device.allocate(size, name=name)",
    "made.fill(7)",
    "made.export_handle()",
    "more = device.allocate(size)",
    "while True: device.allocate(size, name=name + ' more').close()",
)


def drawn(rounds: int, steps: Sequence[str], *, seed: int, first: int = 0) -> list[int]:
    """In which step each of so many processes dies: each of them at least once if there are enough, in drawn order."""
    draw = random.Random(seed)
    all_of_them = list(range(first, len(steps)))
    found = all_of_them[:rounds] + [draw.choice(all_of_them) for _ in range(rounds - len(all_of_them))]
    draw.shuffle(found)
    return found


def killed_at(peer: Peer, steps: Sequence[str], step: int, **variables: object) -> None:
    """Let the peer do the steps before that one, and die while it is at it and those that follow."""
    peer("import gc", **variables)
    for done in steps[:step]:
        peer(done + "\nNone")
    peer.start("\n".join(steps[step:]))
    peer.kill()
