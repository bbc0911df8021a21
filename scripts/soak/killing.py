"""Rounds of kill -9.

How this works. In each round an exporter and an importer run the steps below with one payload that has a name and
another that has a number. At a step that is drawn from the seed, the exporter, the importer or the broker is killed,
before the step or during it. A ledger records which process holds what at that time. After that and after every later
step, a witness process, which runs through all rounds, checks that the payloads that a living process holds can be
opened by name and number and have the right bytes, and that the others have ended. At the end of the round nothing of
it may be left, the processes that were not killed must have ended with exit code 0, and the broker must be the same
unless it was killed.
"""

from __future__ import annotations

import random
import signal
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from extmem.broker.fd_quota import CLIENT
from extmem.testing.children import ChildFailedError, Peer, RemoteError, kill_all
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DeadlineError, wait_until
from scripts.soak.figures import CRASHES, ENDED, Figure, Report, Totals, figure

PATIENCE = 30.0
"""Seconds within which an object must end after its last holder."""

PRELUDE = """
from extmem import raw
from extmem.manager import manager
NT = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
KMT = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32_KMT
device = extmem.open_device()
def export(kind, name=None):
    info = vk.ExportMemoryWin32HandleInfoKHR(None, 0x80000001, name) if kind is NT else None
    return device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ExportMemoryAllocateInfo(kind, info)))
def imported(kind, handle=None, name=None):
    return device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ImportMemoryWin32HandleInfoKHR(kind, handle, name)))
def put(memory, data):
    with memory.map() as view: view[:len(data)] = data
def get(memory):
    with memory:
        with memory.map() as view: return bytes(view[:16])
None
"""


@dataclass(frozen=True)
class Step:
    """One step of a round: the process, its code, the variables that it takes ("object" or "number") and closes."""

    who: str
    source: str
    takes: dict[str, str] = field(default_factory=dict)
    uses: tuple[str, ...] = ()
    """Variables of an earlier step: without them the step is omitted."""
    drops: tuple[str, ...] = ()
    needs: str = ""
    """What some process must hold; if no process holds it, the step must be refused."""


STEPS = (
    Step("exporter", "memory = export(NT, name)\nput(memory, data)", {"memory": "object"}),
    Step("exporter", "handle = memory.export_handle()", {"handle": "object"}, uses=("memory",)),
    Step("importer", "memory = imported(NT, name=name)", {"memory": "object"}, needs="object"),
    Step("importer", "handle = extmem.open_handle(name)", {"handle": "object"}, needs="object"),
    Step("exporter", "numbered = export(KMT)\nput(numbered, data)", {"numbered": "number"}),
    Step("importer", "numbered = imported(KMT, raw.kmt_handle(number))", {"numbered": "number"}, needs="number"),
    Step("exporter", "more = [handle.duplicate(inherit=True) for _ in range(3)]", {"more": "object"}, uses=("handle",)),
    Step("exporter", "memory.close()", drops=("memory",)),
    Step("importer", "other = imported(NT, handle)", {"other": "object"}, uses=("handle",)),
    Step("exporter", "handle.close()", drops=("handle",)),
    Step("exporter", "numbered.close()", drops=("numbered",)),
    Step("importer", "memory.close()", drops=("memory",)),
    Step("importer", "other.close()", drops=("other",)),
    Step("exporter", "[one.close() for one in more]", drops=("more",)),
    Step("importer", "handle.close()", drops=("handle",)),
    Step("importer", "numbered.close()", drops=("numbered",)),
)
VICTIMS = ("exporter", "importer", "broker")


class Broken(AssertionError):
    """An invariant is broken."""


class Round:
    """One round. `run` raises Broken with the invariant that is broken."""

    def __init__(self, runtime: Runtime, witness: Peer, seed: str) -> None:
        rng = random.Random(seed)
        self.runtime = runtime
        self.witness = witness
        self.name = f"soak {seed}"
        self.data = rng.randbytes(16)
        self.victim = rng.choice(VICTIMS)
        self.at = rng.randrange(len(STEPS))
        self.in_the_middle = rng.random() < 0.5
        self.number = 0
        self.held: dict[tuple[str, str], str] = {}
        """(process, variable) → "object" or "number": what living processes certainly hold."""
        self.dead: str | None = None
        self.back: float | None = None
        """Seconds from the broker's death until the name was found again."""
        self.crashed: list[str] = []
        """Peers that were ended by a signal other than this round's."""
        self.broker_ended = False
        """Whether the broker ended although it was not the victim."""

    def __str__(self) -> str:
        moment = "in the middle of" if self.in_the_middle else "before"
        return f"{self.name}: {self.victim} killed {moment} step {self.at} ({STEPS[self.at].source!r})"

    def run(self) -> None:
        """Run the steps. Errors: Broken, or an error of a peer, with the invariant that is broken."""
        before = self.runtime.broker_pid()
        with ExitStack() as stack:
            peers: dict[str, Peer] = {}
            stack.callback(self._count_ends, peers, before)  # called when the peers have ended
            for who in ("exporter", "importer"):
                peers[who] = stack.enter_context(Peer(env=self.runtime.environment))
                peers[who].start(PRELUDE)
            for peer in peers.values():
                peer.finish()
            for index, step in enumerate(STEPS):
                if index == self.at and not self.in_the_middle:
                    self.kill(peers)
                    self.look()
                if step.who == self.dead:
                    continue
                self.do(peers, step, kill=index == self.at and self.in_the_middle)
                if index >= self.at:
                    self.look()
            for who, peer in peers.items():
                if who != self.dead:
                    peer.leave()
        self.held.clear()
        self.look()
        if self.broker_ended:
            raise Broken("the broker ended, and was not the victim")

    def _count_ends(self, peers: dict[str, Peer], broker: int | None) -> None:
        self.broker_ended = self.victim != "broker" and self.runtime.broker_pid() != broker
        for who, peer in peers.items():
            code = peer.process.returncode or 0
            if code < 0 and code != -signal.SIGKILL:
                self.crashed.append(f"{who} was ended by {signal.Signals(-code).name}")

    def kill(self, peers: dict[str, Peer]) -> None:
        """Kill the victim, and remove what it held from the ledger."""
        if self.victim == "broker":
            self.runtime.kill_broker(required=False)
            began = time.monotonic()
            if not self.in_the_middle and self.alive("object"):
                self._found("get(imported(NT, name=name))")
                self.back = time.monotonic() - began
            return
        peers[self.victim].kill()
        self.dead = self.victim
        self.held = {holding: kind for holding, kind in self.held.items() if holding[0] != self.victim}

    def alive(self, kind: str) -> bool:
        """Whether a living process holds it."""
        return kind in self.held.values()

    def do(self, peers: dict[str, Peer], step: Step, *, kill: bool) -> None:
        """Run a step. kill: kill the victim during the step."""
        peer = peers[step.who]
        if any((step.who, variable) not in self.held for variable in (*step.uses, *step.drops)):
            return
        if step.needs == "number" and not self.number:
            return
        possible = not step.needs or self.alive(step.needs)
        # A variable that the step closes may be closed as soon as the step begins.
        for variable in step.drops:
            del self.held[step.who, variable]
        peer.start(f"{step.source}\nNone", name=self.name, data=self.data, number=self.number)
        if kill:
            self.kill(peers)
            if self.victim == step.who:
                return
        # If the victim held what the step needs, both outcomes are right.
        certain = not step.needs or self.alive(step.needs)
        try:
            peer.finish()
        except RemoteError as error:
            if certain or not any(error.is_a(kind) for kind in ("NameNotFoundError", "InvalidHandleError")):
                raise Broken(f"{step.who} could not {step.source!r}: {error}") from error
            return
        if not possible:
            raise Broken(f"{step.who} could {step.source!r}, although no process holds the {step.needs}")
        for variable, kind in step.takes.items():
            self.held[step.who, variable] = kind
        if "numbered = export" in step.source:
            self.number = peer("int(numbered.export_handle())")

    def look(self) -> None:
        """Check that the witness can open what is held, and nothing else."""
        if self.alive("object"):
            found = self._found("get(imported(NT, name=name))")
            if found != self.data:
                raise Broken(f"{self.name!r} is held by {self.held} and reads {found!r}")
        else:
            self._gone("get(imported(NT, name=name))", f"the name {self.name!r}")
        if self.number:
            if self.alive("number"):
                found = self._found("get(imported(KMT, raw.kmt_handle(number)))")
                if found != self.data:
                    raise Broken(f"number {self.number:#x} is held by {self.held} and reads {found!r}")
            else:
                self._gone("get(imported(KMT, raw.kmt_handle(number)))", f"number {self.number:#x}")

    def _found(self, source: str) -> Any:
        try:
            return self.witness(source, name=self.name, number=self.number)
        except RemoteError as error:
            raise Broken(f"lost, although held by {self.held}: {error}") from error

    def _gone(self, source: str, what: str) -> None:
        def refused() -> bool:
            try:
                self.witness(source, name=self.name, number=self.number)
            except RemoteError as error:
                if error.is_a("NameNotFoundError") or error.is_a("InvalidHandleError"):
                    return True
                raise Broken(f"{what} should have ended, but the witness gets {error}") from error
            return False

        try:
            wait_until(refused, f"{what} to end with its last holder", deadline=PATIENCE)
        except DeadlineError as error:
            raise Broken(str(error)) from error


@dataclass
class Kills:
    """The results of the rounds of killing."""

    rounds: int = 0
    broken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0
    back: list[float] = field(default_factory=list)
    """Seconds until a name was found again, for each round in which the broker was killed between two steps."""

    def figures(self, asked: int) -> list[Figure]:
        """Return the figures. asked: the number of rounds that should have run."""
        found = []
        if self.back:
            back = statistics.median(self.back)
            found.append(figure("kill: median until a killed broker's name is back", round(back, 3), "s", 2, back <= 2))
        broken = "kill: rounds in which a payload or name was lost or lived too long"
        return [
            *found,
            figure("kill: rounds", self.rounds, "rounds", asked, self.rounds >= asked),
            figure(broken, len(self.broken), "rounds", 0, not self.broken),
            figure("kill: things left behind", len(self.left), "things", 0, not self.left),
        ]


def kill_rounds(rounds: int, seed: int, totals: Totals, report: Report) -> Kills:
    """Run the rounds and count what they leave behind."""
    outcome = Kills()
    started = time.monotonic()
    with Runtime() as runtime, Peer(env=runtime.environment) as witness:
        try:
            _all_rounds(outcome, runtime, witness, rounds, seed, totals, report)
            _look_behind(outcome, witness)
        except (RemoteError, ChildFailedError, DeadlineError) as error:
            outcome.broken.append(f"the witness: {error}")
            report(f"BROKEN {outcome.broken[-1]}")
        code = witness.process.returncode
        totals.add(CRASHES, int(code is not None and code < 0))
    outcome.left += kill_all()
    outcome.seconds = time.monotonic() - started
    report(f"{outcome.rounds} rounds of killing took {outcome.seconds:.0f} s")
    for thing in outcome.left:
        report(f"LEFT BEHIND {thing}")
    return outcome


def _all_rounds(
    outcome: Kills, runtime: Runtime, witness: Peer, rounds: int, seed: int, totals: Totals, report: Report
) -> None:
    witness(PRELUDE)
    witness(
        "own = export(NT, 'witness')\nput(own, b'I was here all on')\nkept = own.export_handle()\nvalue = int(kept)"
    )
    witness("descriptors = len(os.listdir('/proc/self/fd'))")
    for index in range(rounds):
        one = Round(runtime, witness, f"{seed}/{index}")
        try:
            one.run()
            mine = witness("get(imported(NT, kept)), int(kept) == value, [row.payload for row in manager().snapshot()]")
            if mine[:2] != (b"I was here all on"[:16], True):
                raise Broken(f"the witness's own payload reads {mine[0]!r}")
            if len(mine[2]) != 1:
                wait_until(
                    lambda: len(witness("manager().snapshot()")) == 1,
                    lambda: f"everything of the round to end: {witness('manager().snapshot()')}",
                )
        except (Broken, RemoteError, ChildFailedError, DeadlineError) as error:
            outcome.broken.append(f"{one}: {error}")
            report(f"BROKEN {outcome.broken[-1]}")
        for crash in one.crashed:
            report(f"CRASHED {one}: {crash}")
        totals.add(CRASHES, len(one.crashed))
        totals.add(ENDED, int(one.broker_ended))
        outcome.rounds += 1
        if one.back is not None:
            outcome.back.append(one.back)
        if outcome.rounds % 50 == 0 or outcome.rounds == rounds:
            report(f"{outcome.rounds} of {rounds} rounds of killing, {len(outcome.broken)} broken")
        if not witness.alive:
            raise ChildFailedError(f"it ended with {witness.process.returncode}")


def _look_behind(outcome: Kills, witness: Peer) -> None:
    more = witness("import gc\ngc.collect()\nlen(os.listdir('/proc/self/fd')) - descriptors")
    if more > 0:
        outcome.left.append(f"{more} fds in the witness")
    witness("own.close()\nkept.close()")
    if witness("manager().snapshot()"):
        outcome.left.append(f"payloads in the broker: {witness('manager().snapshot()')}")
    status = witness("(lambda s: (s.fds, s.clients, s.used))(manager().status())")
    if status != (0, 1, CLIENT):
        outcome.left.append(f"the broker has {status[0]} fds for {status[1]} clients, and counts {status[2]} as used")
    witness.leave()
