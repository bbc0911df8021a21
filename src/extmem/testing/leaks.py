"""Leak counting: what this process and the object manager hold, before and after.

How this works. A `Census` lists fds (on Windows handles) by what they lead to, mapped payloads, the bytes of shared
memory that this process keeps alive, and what this process, or every process, holds according to the object manager.
`no_leaks()` takes one before and one after, also where the block fails (cleaning up is hardest then), and LeakError
names each thing that is held only afterwards. Some references end a moment later (those of a killed process, or of a
finalizer), so the second census is repeated until a deadline.
"""

from __future__ import annotations

import contextlib
import gc
import os
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from extmem.manager import manager
from extmem.testing._system import descriptors, mappings, memory_file_bytes, memory_files
from extmem.testing.waiting import DeadlineError, wait_until

__all__ = [
    "PATIENCE",
    "Census",
    "LeakError",
    "descriptors",
    "mappings",
    "memory_file_bytes",
    "no_leaks",
    "object_manager",
]

PATIENCE = 10.0
"""Seconds for which `no_leaks` repeats the second census before it reports a leak."""

NOT_OURS: set[str] = set()
"""Paths of files that are opened in this process by something else, such as the log of a Vulkan layer: not counted."""


class LeakError(AssertionError):
    """Something is held that was not held before; `leaked` has a text of each."""

    def __init__(self, leaked: list[str]) -> None:
        self.leaked = leaked
        super().__init__("left behind:\n  " + "\n  ".join(leaked))


def object_manager(pid: int | None = None) -> Counter[str]:
    """Return what the object manager lists as held: payloads, their names, and each process's handles and memories.

    pid: count only what this process holds; None counts every process.
    """
    found: Counter[str] = Counter()
    for row in manager().snapshot():
        held = False
        for holder in row.holders:
            if pid is not None and holder.pid != pid:
                continue
            held = True
            for what, count in (
                ("NT handles", len(holder.handles)),
                ("memory objects", holder.references),
                ("tickets", holder.tickets),
            ):
                found[f"process {holder.pid}: {what} of payload {row.payload:#x}"] += count
        if held or pid is None:
            found[f"payload {row.payload:#x}, names {list(row.names)}, KMT number {row.kmt or 0:#x}"] += 1
    return found


@dataclass(frozen=True, slots=True)
class Census:
    """Everything held at one moment."""

    descriptors: Counter[str] = field(default_factory=Counter)
    mappings: Counter[str] = field(default_factory=Counter)
    memory_bytes: int = 0
    memory_files: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each memory file, by inode; empty on Windows, which does not identify sections."""
    objects: Counter[str] = field(default_factory=Counter)

    @classmethod
    def take(cls, *, objects: bool = True, everybody: bool = False) -> Census:
        """Count what is held now.

        objects: query the object manager too, which connects to it if this process is not connected.
        everybody: count what other processes hold, not only this one.
        """
        # The query comes first, because connecting opens fds.
        held = object_manager(None if everybody else os.getpid()) if objects else Counter[str]()
        if objects:
            manager().watch_names()
        opened = Counter(f"fd: {target}" for target in descriptors().values() if target not in NOT_OURS)
        return cls(opened, mappings(), memory_file_bytes(), memory_files(), held)

    def leaked_since(self, before: Census) -> list[str]:
        """Return a text of each thing that this census has and `before` does not."""
        found: list[str] = []
        for now, then in (
            (self.descriptors, before.descriptors),
            (self.mappings, before.mappings),
            (self.objects, before.objects),
        ):
            found += [f"{what} (×{count})" if count > 1 else what for what, count in sorted((now - then).items())]
        # Payloads of the library have a fixed size. A file that grows is one that a driver allocates from.
        both = self.memory_files.keys() & before.memory_files.keys()
        grown = sum(max(0, self.memory_files[file] - before.memory_files[file]) for file in both)
        more = self.memory_bytes - before.memory_bytes - grown
        if more > 0:
            found.append(f"{more} more bytes of memory files")
        return found


@contextlib.contextmanager
def no_leaks(*, objects: bool = True, everybody: bool = False, deadline: float | None = None) -> Iterator[None]:
    """Raise LeakError if something that the block began to hold is held after it, whether it succeeds or fails.

    objects: query the object manager too.
    everybody: count what other processes hold, not only this one.
    deadline: seconds for which the count is repeated; None is PATIENCE.
    Errors: LeakError, whose cause is the exception of the block if it raised one.
    """
    gc.collect()
    before = Census.take(objects=objects, everybody=everybody)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:  # noqa: BLE001  # raised again below, when the leaks are known
        failure = error
        # The frames of the exception's traceback keep their local variables alive.
        traceback.clear_frames(error.__traceback__)
    leaked: list[str] = []

    def clean() -> bool:
        nonlocal leaked
        gc.collect()
        leaked = Census.take(objects=objects, everybody=everybody).leaked_since(before)
        return not leaked

    try:
        wait_until(clean, "everything to be given back", deadline=PATIENCE if deadline is None else deadline)
    except DeadlineError:
        raise LeakError(leaked) from failure
    if failure is not None:
        raise failure
