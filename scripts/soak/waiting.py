"""Rounds of waits for a timeline, in threads, event loops and processes, with kill -9 of one process or of the broker.

How this works. In each round a creator makes a timeline, a signaler raises it value by value to `VALUES`, and a waiter
waits for the values in four ways at once: in a thread for one after the other, in a thread for any of several, in an
event loop, and in an event loop that cancels each wait before it waits again. When the timeline has a value that is
drawn from the seed, the victim is killed: the creator, the signaler, the waiter, the broker, the broker and the
signaler, or nobody. A witness process, which runs through all rounds, sees the values.

Each wait must then end: it reaches its value, or it is told that the signaler is gone, if that was killed, and by its
process id. After that the witness signals the last value, as a survivor does, and all waits for it must return. Values
may not go back, and a wait that returns must have reached its value. At the end of the round nothing of it may be left:
no payload in the object manager, and no fd in the witness or the waiter; the processes that were not killed must end.
"""

from __future__ import annotations

import random
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from extmem.testing.children import ChildFailedError, Peer, RemoteError, kill_all
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DeadlineError, wait_until
from scripts.soak.figures import CRASHES, ENDED, LEFT, STUCK, WRONG_VALUES, Figure, Report, Totals, figure

__all__ = ["VALUES", "VICTIMS", "Round", "wait_rounds"]

VALUES: Final = 300
"""The last value of a round."""
PATIENCE: Final = 40.0
"""Seconds within which everything must end; the waits themselves have no limit."""
VICTIMS: Final = ("creator", "signaler", "waiter", "broker", "broker and signaler", "nobody")

PRELUDE: Final = """
import asyncio, gc, threading, time
from extmem.manager import manager
device = extmem.open_device(kind="host")
def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))
None
"""

SIGNALING: Final = """
with extmem.open_timeline(name) as timeline:
    for number in range(1, values + 1):
        timeline.signal(number)
None
"""

WAITING: Final = """
class Way:
    # One way of waiting: what it has found wrong, and how it ended.
    def __init__(self, timeline, values):
        self.timeline, self.values, self.wrong, self.end, self.last = timeline, values, [], None, 0

    def saw(self, number):
        value = self.timeline.value
        if value < number:
            self.wrong.append(f"{type(self).__name__} waited for {number}, and the value is {value}")
        if value < self.last:
            self.wrong.append(f"{type(self).__name__} saw {self.last} and then {value}")
        self.last = value

    def run(self):
        try:
            self.wait()
            self.end = ("reached", "")
        except extmem.PeerGoneError as error:
            self.end = ("gone", str(error))
        except BaseException as error:
            self.end = ("failed", repr(error))

class InTurn(Way):
    def wait(self):
        for number in range(1, self.values + 1):
            self.timeline.wait(number)
            self.saw(number)

class AnyOf(Way):
    def wait(self):
        number = 0
        while number < self.values:
            number += 1
            wanted = (self.values + 1, min(number + 1, self.values), number)
            pairs = [(self.timeline, value) for value in wanted]
            found = extmem.wait_any(pairs)
            if found == 0:
                self.wrong.append(f"wait_any returned the index of {self.values + 1}")
            self.saw(pairs[found][1])

class InLoop(Way):
    def wait(self):
        async def waits():
            for number in range(1, self.values + 1):
                await self.timeline.wait_async(number)
                self.saw(number)
        asyncio.run(waits())

class Cancelled(Way):
    def wait(self):
        async def waits():
            for number in range(1, self.values + 1, 3):
                for turns in range(3):
                    task = asyncio.create_task(self.timeline.wait_async(self.values + 5))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    ended = (await asyncio.gather(task, return_exceptions=True))[0]
                    if not isinstance(ended, (asyncio.CancelledError, extmem.PeerGoneError)):
                        self.wrong.append(f"a cancelled wait ended with {ended!r}")
                await self.timeline.wait_async(number)
                self.saw(number)
        asyncio.run(waits())

def begin(name, values):
    global ways, threads, waited
    waited = extmem.open_timeline(name)
    ways = [kind(waited, values) for kind in (InTurn, AnyOf, InLoop, Cancelled)]
    threads = [threading.Thread(target=way.run, name=type(way).__name__, daemon=True) for way in ways]
    for thread in threads:
        thread.start()

def end(patience):
    # The ways that are stuck, what is wrong, and how the others ended.
    limit = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0, limit - time.monotonic()))
    stuck = [type(way).__name__ for way, thread in zip(ways, threads) if thread.is_alive()]
    return stuck, [text for way in ways for text in way.wrong], [way.end for way in ways if way.end]

def leave():
    global ways, threads, waited
    waited.close()
    ways = threads = waited = None
None
"""


class Broken(AssertionError):
    """An invariant is broken that has no count of its own."""


class Round:
    """One round. `run` raises Broken, or an error of a peer; `stuck`, `wrong` and `left` have what is counted."""

    def __init__(self, runtime: Runtime, witness: Peer, seed: str) -> None:
        rng = random.Random(seed)
        self.runtime = runtime
        self.witness = witness
        self.name = f"waits {seed}"
        self.victim = rng.choice(VICTIMS)
        self.at = rng.randrange(1, VALUES)
        self.stuck: list[str] = []
        self.wrong: list[str] = []
        self.left: list[str] = []
        self.crashed: list[str] = []
        """Peers that were ended by a signal other than this round's."""
        self.broker_ended = False
        """Whether the broker ended although it was not the victim."""

    def __str__(self) -> str:
        return f"{self.name}: {self.victim} killed at value {self.at}"

    def run(self) -> None:
        """Run it."""
        before = self.runtime.broker_pid()
        peers: dict[str, Peer] = {}
        with ExitStack() as stack:
            stack.callback(self._count_ends, peers, before)  # called when the peers have ended
            for who in ("creator", "signaler", "waiter"):
                peers[who] = stack.enter_context(Peer(env=self.runtime.environment))
                peers[who].start(PRELUDE)
            for peer in peers.values():
                peer.finish()
            peers["waiter"](WAITING)
            peers["waiter"]("manager().snapshot()\nbefore = descriptors()")
            peers["creator"]("timeline = device.timeline(name=name)\nNone", name=self.name)
            peers["waiter"]("begin(name, values)", name=self.name, values=VALUES)
            self.witness("timeline = extmem.open_timeline(name)\nNone", name=self.name)
            peers["signaler"].start(SIGNALING, name=self.name, values=VALUES)
            self._see(self.at)
            self._kill(peers)
            self._end(peers)
            self._leave(peers)
        self._look_behind()
        if self.broker_ended:
            raise Broken("the broker ended, and was not the victim")

    def _see(self, value: int) -> None:
        try:
            self.witness("timeline.wait(value, timeout=patience)", value=value, patience=PATIENCE)
        except RemoteError as error:
            raise Broken(f"the witness did not see value {value}: {error}") from error

    def _kill(self, peers: dict[str, Peer]) -> None:
        """Kill the victim at once: the signaler runs."""
        for one in self.victim.split(" and "):
            if one == "broker":
                self.runtime.kill_broker(required=False)
            elif one in peers:
                peers[one].kill()

    def _end(self, peers: dict[str, Peer]) -> None:
        """Let the waits end: by the signaler, by its death, or by the witness, which signals what is owed."""
        signaler = peers["signaler"]
        killed = "signaler" in self.victim
        if not killed:
            signaler.finish(deadline=PATIENCE)
        if self.victim != "waiter":
            # The value may be reached although the signaler was killed: after its last signal.
            stuck, wrong, ends = peers["waiter"]("end(patience)", patience=PATIENCE, deadline=2 * PATIENCE)
            self.stuck += [f"{self}: {way}" for way in stuck]
            self.wrong += wrong
            for end, text in ends:
                if end == "failed" or (end == "gone" and (not killed or f"process {signaler.pid}" not in text)):
                    raise Broken(f"a wait ended with {end}: {text}")
        value = self.witness("timeline.value")
        if value < self.at or (value < VALUES and not killed):
            self.wrong.append(f"{self}: the value is {value} at the end")
        if value < VALUES:
            self.witness("timeline.signal(value)", value=VALUES)
            repaired = self.witness("timeline.peer_gone is not None and timeline.repaired")
            if not repaired:
                self.wrong.append(f"{self}: a survivor signaled, and the timeline is not marked so")
        if self.victim != "waiter":
            peers["waiter"]("waited.wait(value)", value=VALUES, deadline=PATIENCE)

    def _leave(self, peers: dict[str, Peer]) -> None:
        """Let those that live close what they have, and end."""
        self.witness("timeline.close()")
        if self.victim != "waiter" and not self.stuck:
            try:
                peers["waiter"](
                    "leave()\nlimit = time.monotonic() + 10\n"
                    "while descriptors() > before and time.monotonic() < limit: time.sleep(0.05)\n"
                    "more = descriptors() - before\n"
                    "names = [t.name for t in threading.enumerate() if t.name in ('extmem-timelines', 'extmem-wait')]"
                )
                more, names = peers["waiter"]("more, names")
            except RemoteError as error:
                raise Broken(f"the waiter could not leave: {error}") from error
            if more > 0 or names:
                self.left.append(f"{self}: {more} fds and threads {names} in the waiter")
        if self.victim != "creator":
            peers["creator"]("timeline.close()")
        for who, peer in peers.items():
            if who not in self.victim and not (who == "waiter" and self.stuck):
                peer.leave()

    def _count_ends(self, peers: dict[str, Peer], broker: int | None) -> None:
        self.broker_ended = "broker" not in self.victim and self.runtime.broker_pid() != broker
        for who, peer in peers.items():
            code = peer.process.returncode or 0
            if code < 0 and code != -signal.SIGKILL:
                self.crashed.append(f"{who} was ended by {signal.Signals(-code).name}")

    def _look_behind(self) -> None:
        try:
            wait_until(lambda: not self.witness("manager().snapshot()"), "the timeline to end", deadline=PATIENCE)
        except DeadlineError:
            self.left.append(f"{self}: {self.witness('[str(row) for row in manager().snapshot()]')}")


@dataclass
class Waits:
    """The results of the rounds of waits."""

    rounds: int = 0
    broken: list[str] = field(default_factory=list)

    def figures(self, asked: int) -> list[Figure]:
        """Return the figures. asked: the number of rounds that should have run."""
        return [
            figure("waits: rounds", self.rounds, "rounds", asked, self.rounds >= asked),
            figure("waits: rounds that broke", len(self.broken), "rounds", 0, not self.broken),
        ]


def wait_rounds(rounds: int, seed: int, totals: Totals, report: Report) -> Waits:
    """Run the rounds, and count what is stuck, wrong and left."""
    outcome = Waits()
    started = time.monotonic()
    for name in (STUCK, WRONG_VALUES, LEFT, CRASHES, ENDED):
        totals.add(name)
    with Runtime() as runtime, Peer(env=runtime.environment) as witness:
        try:
            witness(PRELUDE)
            witness("manager().snapshot()\nbefore = descriptors()")
            for index in range(rounds):
                _one(Round(runtime, witness, f"{seed}/{index}"), outcome, totals, report)
                if outcome.rounds % 50 == 0 or outcome.rounds == rounds:
                    report(f"{outcome.rounds} of {rounds} rounds of waits, {len(outcome.broken)} broken")
            more = witness("descriptors() - before")
            _add(totals, LEFT, [f"{more} fds in the witness"] if more > 0 else [], report)
        except (RemoteError, ChildFailedError, DeadlineError) as error:
            outcome.broken.append(f"the witness: {error}")
            report(f"BROKEN {outcome.broken[-1]}")
    _add(totals, LEFT, kill_all(), report)
    report(f"{outcome.rounds} rounds of waits took {time.monotonic() - started:.0f} s")
    return outcome


def _one(one: Round, outcome: Waits, totals: Totals, report: Report) -> None:
    try:
        one.run()
    except (Broken, RemoteError, ChildFailedError, DeadlineError) as error:
        outcome.broken.append(f"{one}: {error}")
        report(f"BROKEN {outcome.broken[-1]}")
    for name, found in ((STUCK, one.stuck), (WRONG_VALUES, one.wrong), (LEFT, one.left), (CRASHES, one.crashed)):
        _add(totals, name, found, report)
    totals.add(ENDED, int(one.broker_ended))
    outcome.rounds += 1
    if not one.witness.alive:
        raise ChildFailedError(f"it ended with {one.witness.process.returncode}")


def _add(totals: Totals, name: str, found: list[Any], report: Report) -> None:
    totals.add(name, len(found))
    for thing in found:
        report(f"{name.upper()}: {thing}")
