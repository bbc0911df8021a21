"""Invariant: any bytes of a timeline page, also while they change, give numbers, or errors that are told. Linux.

Waits end by their deadline, and report only what was read: a wait for any of several returns the index of one that is
reached, and an error names a value below the one that is waited for.

Run `python -m fuzz.fuzz_timeline --iterations 100000 --seed 1`. It prints one line of counts. If the invariant is
broken, it ends with the seed, the round and the bytes.

How this works. In each round some fields of the pages of three timelines get other bytes, and one operation follows. In
one of four rounds a thread goes on changing them meanwhile; the results are then checked for what is always true.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import mmap
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import extmem
from extmem.errors import DriverError, PeerGoneError, RuleViolation, WaitTimeoutError
from extmem.sharing import timeline_page as layout
from extmem.testing.leaks import descriptors

_EDGES: Final = (0, 1, 2, 3, 127, 255, 256, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63)
_MOST: Final = (1 << 64) - 1
_TIMEOUT: Final = 0.001
_LATEST: Final = 20.0
"""Seconds after which a wait of `_TIMEOUT` has hung."""
_FIELDS: Final = (
    (layout.VALUE, 8), (layout.SEQUENCE, 4), (layout.STATE, 4), (layout.WHO, 8), (layout.SINCE, 8),
    (layout.REACHED, 8), (layout.FLAGS, 4), (layout.MARKS, 4), (layout.ENTRIES, 4),
)  # fmt: skip


class Pages:
    """Three timelines of the host, and writable mappings of their pages, as a hostile signaler has them."""

    def __init__(self) -> None:
        self.device = extmem.open_device(kind="host")
        self.timelines = [self.device.timeline() for _ in range(3)]
        self.pages = [mmap.mmap(one.record.native.fd, layout.PAGE_SIZE) for one in self.timelines]
        self.waits: list[tuple[extmem.Timeline, int]] = []

    def close(self) -> None:
        """Close them."""
        for page in self.pages:
            page.close()
        for timeline in self.timelines:
            timeline.close()
        self.device.close()

    def spoil(self, rng: random.Random) -> None:
        """Change fields of one page: known ones, entries of the table, announced values, or anything."""
        page = rng.choice(self.pages)
        for _ in range(rng.choice((1, 1, 2, 8))):
            match rng.randrange(8):
                case 0:
                    page[:] = rng.randbytes(layout.PAGE_SIZE)
                case 1:
                    page[:] = bytes(layout.PAGE_SIZE)
                case 2:
                    at = layout.TABLE + 16 * rng.randrange(layout.SIGNALERS)
                    pid = rng.choice((os.getpid(), 1, rng.getrandbits(32)))
                    entry = (pid.to_bytes(4, "little"), rng.randbytes(4), rng.randbytes(8))
                    page[at : at + 16] = b"".join(entry)
                case 3:
                    at = layout.RAISED + 8 * rng.randrange(layout.SIGNALERS + 1)
                    page[at : at + 8] = _number(rng, 8)
                case _:
                    at, size = rng.choice(_FIELDS)
                    page[at : at + size] = _number(rng, size)

    @property
    def contents(self) -> str:
        """The first bytes of the pages, for a report."""
        return ", ".join(page[: layout.TABLE + 64].hex() for page in self.pages)


def _number(rng: random.Random, size: int) -> bytes:
    """Return a number of `size` bytes: an edge, an edge from above, or any."""
    most = (1 << 8 * size) - 1
    edge = min(rng.choice(_EDGES), most)
    return rng.choice((edge, most - edge, rng.getrandbits(8 * size))).to_bytes(size, "little")


def _told(error: BaseException, value: int) -> str:
    """Check the error of a wait. Return its outcome."""
    assert str(value) in str(error) or isinstance(error, WaitTimeoutError), error
    if isinstance(error, WaitTimeoutError):
        assert error.reached < error.value, f"{error} reports a value that is reached"
        return "timed out"
    return "gone"


Operation = Callable[[Pages, int, bool], str]


def _value(pages: Pages, value: int, still: bool) -> str:
    """Read the values."""
    for one, page in zip(pages.timelines, pages.pages, strict=True):
        found = one.value
        assert 0 <= found <= _MOST
        assert not still or found == int.from_bytes(page[:8], "little")
    return "read"


def _wait(pages: Pages, value: int, still: bool) -> str:
    timeline = pages.timelines[0]
    try:
        timeline.wait(value, timeout=_TIMEOUT)
    except (WaitTimeoutError, PeerGoneError) as error:
        assert not still or timeline.value < value
        return _told(error, value)
    assert not still or timeline.value >= value
    return "reached"


def _wait_async(pages: Pages, value: int, still: bool) -> str:
    timeline = pages.timelines[0]
    try:
        asyncio.run(timeline.wait_async(value, timeout=_TIMEOUT))
    except (WaitTimeoutError, PeerGoneError) as error:
        return _told(error, value)
    assert not still or timeline.value >= value
    return "reached"


def _wait_any(pages: Pages, value: int, still: bool) -> str:
    try:
        index = extmem.wait_any([(one, value) for one in pages.timelines], timeout=_TIMEOUT)
    except (WaitTimeoutError, PeerGoneError) as error:
        assert not still or all(one.value < value for one in pages.timelines)
        return _told(error, value)
    assert not still or pages.timelines[index].value >= value, f"{index} is not reached"
    assert not still or all(one.value < value for one in pages.timelines[:index]), f"{index} is not the lowest"
    return "reached"


def _wait_all(pages: Pages, value: int, still: bool) -> str:
    try:
        extmem.wait_all([(one, value) for one in pages.timelines], timeout=_TIMEOUT)
    except (WaitTimeoutError, PeerGoneError) as error:
        assert not still or any(one.value < value for one in pages.timelines)
        return _told(error, value)
    assert not still or all(one.value >= value for one in pages.timelines)
    return "reached"


def _signal(pages: Pages, value: int, still: bool) -> str:
    timeline = pages.timelines[0]
    before = timeline.value
    try:
        timeline.signal(value)
    except (RuleViolation, DriverError) as error:
        assert str(value) in str(error), error
        return "signal refused"
    assert not still or (before < value <= timeline.value)
    return "signaled"


def _gone(pages: Pages, value: int, still: bool) -> str:
    for one in pages.timelines:
        gone = one.peer_gone
        assert gone is None or (gone.seconds >= 0 and 0 <= gone.reached <= _MOST)
        assert isinstance(one.repaired, bool) and repr(one)
    return "asked"


def _marked(pages: Pages, value: int, still: bool) -> str:
    """What the object manager does with the page."""
    page = memoryview(bytearray(pages.pages[0][:]))
    for one in layout.signalers(page):
        assert 0 <= one.place < layout.SIGNALERS and 0 < one.pid < 1 << 32
    entered = layout.enter(page, 4711, 7, creator=value % 2 == 0)
    left = layout.leave(page, 4711, 7, dead=value % 3 == 0)
    assert left.found == entered and 0 <= left.signalers + left.creators <= layout.SIGNALERS
    layout.mark_gone(page, 4711, time.monotonic_ns())
    assert layout.read(page).abandoned
    layout.mark_repaired(page)
    assert not layout.read(page).abandoned
    return "marked"


OPERATIONS: Final[Sequence[Operation]] = (
    *(_value, _wait, _wait_async, _wait_any, _wait_any, _wait_all, _signal, _gone, _marked),
)


def run(iterations: int, seed: int) -> Counter[str]:
    """Run `iterations` rounds. Return the count of each outcome.

    Errors: those of a broken invariant, with a note that contains seed, round and bytes.
    """
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    pages = Pages()
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        for number in range(iterations):
            pages.spoil(rng)
            value = rng.choice((*_EDGES[:6], _MOST, rng.getrandbits(63), pages.timelines[0].value))
            still = rng.random() < 0.75
            operation = rng.choice(OPERATIONS)
            try:
                began = time.monotonic()
                outcome = operation(pages, value, still) if still else _while_spoiled(pages, rng, operation, value)
                assert time.monotonic() - began < _LATEST, "it did not end by its timeout"
                outcomes[outcome] += 1
            except BaseException as error:
                error.add_note(f"seed {seed}, round {number}, {operation.__name__}, {value}, bytes {pages.contents}")
                raise
    finally:
        sys.setswitchinterval(interval)
        pages.close()
    return outcomes


def _while_spoiled(pages: Pages, rng: random.Random, operation: Operation, value: int) -> str:
    """Carry out an operation while a thread changes the pages."""
    over = threading.Event()
    other = random.Random(rng.random())

    def spoil() -> None:
        while not over.is_set():
            pages.spoil(other)

    thread = threading.Thread(target=spoil, daemon=True)
    thread.start()
    try:
        return operation(pages, value, False)
    finally:
        over.set()
        thread.join()


def _descriptors() -> int:
    gc.collect()  # closed event loops are in cycles
    return len(descriptors())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked: Any = parser.parse_args(arguments)
    run(1, asked.seed)  # connects to the object manager
    before = _descriptors()
    outcomes = run(asked.iterations, asked.seed)
    leaked = _descriptors() - before
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{asked.iterations} rounds with seed {asked.seed}: {counts}, {leaked} fds leaked")
    return 1 if leaked else 0


if __name__ == "__main__":
    sys.exit(main())
