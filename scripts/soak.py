"""The long test: `make soak`, or `python -m scripts.soak`. Words on stderr, a JSON list of figures on stdout.

How this works. The fuzzers run as processes of their own, one after the other. Then come the rounds of kill -9: in
each, an exporter and an importer go through the steps below with one payload under a name and another under a number,
and at a step drawn from the seed the exporter, the importer or the broker is killed, before a step or in the middle.
A ledger says who holds what by then. After that and after every later step a witness, which lives through all rounds,
sees that what a living process holds is there with its bytes, under its name and number, and that what nobody holds
is gone. At the end of the round nothing of it may be left.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extmem.testing.children import ChildFailedError, Peer, RemoteError, kill_all, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DeadlineError, wait_until

ROOT = Path(__file__).parents[1]
FUZZERS = ("fuzz_wire", "fuzz_descriptor", "fuzz_sddl")
PATIENCE = 30.0
"""Seconds for which something may take to end after its last holder."""
_FUZZ_LIMIT = 3600.0
"""Seconds that one fuzzer may take."""

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
    """One step of a round: who does what, what it takes hold of ("object" or "number"), and what it lets go of."""

    who: str
    source: str
    takes: dict[str, str] = field(default_factory=dict)
    uses: tuple[str, ...] = ()
    """Variables of an earlier step: without them the step is left out."""
    drops: tuple[str, ...] = ()
    needs: str = ""
    """What must be alive, in whosever hands: where it is not, the step must be refused."""


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
    """An invariant does not hold."""


class Round:
    """One round; `run` raises Broken with what does not hold."""

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
        """(who, variable) → "object" or "number": what living processes hold, for sure."""
        self.dead: str | None = None
        self.back: float | None = None
        """Seconds from the broker's death until the name was found again."""

    def __str__(self) -> str:
        moment = "in the middle of" if self.in_the_middle else "before"
        return f"{self.name}: {self.victim} killed {moment} step {self.at} ({STEPS[self.at].source!r})"

    def run(self) -> None:
        """Go through the steps. Broken, or an error of a peer, says what does not hold."""
        with ExitStack() as stack:
            peers = {}
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
        self.held.clear()
        self.look()

    def kill(self, peers: dict[str, Peer]) -> None:
        """Kill the victim; what it held is nobody's."""
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
        """Whether anybody holds it."""
        return kind in self.held.values()

    def do(self, peers: dict[str, Peer], step: Step, *, kill: bool) -> None:
        """Carry out a step, and kill the victim while it is under way if asked."""
        peer = peers[step.who]
        if any((step.who, variable) not in self.held for variable in (*step.uses, *step.drops)):
            return
        if step.needs == "number" and not self.number:
            return
        possible = not step.needs or self.alive(step.needs)
        # What is dropped may be gone the moment the step begins.
        for variable in step.drops:
            del self.held[step.who, variable]
        peer.start(f"{step.source}\nNone", name=self.name, data=self.data, number=self.number)
        if kill:
            self.kill(peers)
            if self.victim == step.who:
                return
        # The victim may have held what the step needed; then either outcome is right.
        certain = not step.needs or self.alive(step.needs)
        try:
            peer.finish()
        except RemoteError as error:
            if certain or not any(error.is_a(kind) for kind in ("NameNotFoundError", "InvalidHandleError")):
                raise Broken(f"{step.who} could not {step.source!r}: {error}") from error
            return
        if not possible:
            raise Broken(f"{step.who} could {step.source!r}, although nobody holds the {step.needs}")
        for variable, kind in step.takes.items():
            self.held[step.who, variable] = kind
        if "numbered = export" in step.source:
            self.number = peer("int(numbered.export_handle())")

    def look(self) -> None:
        """The witness sees what is held, and does not see what is not."""
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
                raise Broken(f"{what} should be gone, and the witness is told {error}") from error
            return False

        try:
            wait_until(refused, f"{what} to go with its last holder", deadline=PATIENCE)
        except DeadlineError as error:
            raise Broken(str(error)) from error


@dataclass
class Kills:
    """How the rounds of killing went."""

    rounds: int = 0
    broken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    seconds: float = 0.0
    back: list[float] = field(default_factory=list)
    """Seconds until a name was found again, of each round in which the broker died between two steps."""


def kill_rounds(rounds: int, seed: int, say: Callable[[str], None]) -> Kills:
    """Run the rounds and look what they leave behind."""
    outcome = Kills()
    started = time.monotonic()
    with Runtime() as runtime, Peer(env=runtime.environment) as witness:
        witness(PRELUDE)
        witness(
            "own = export(NT, 'witness')\nput(own, b'I was here all on')\nkept = own.export_handle()\nvalue = int(kept)"
        )
        witness("descriptors = len(os.listdir('/proc/self/fd'))")
        for index in range(rounds):
            one = Round(runtime, witness, f"{seed}/{index}")
            try:
                one.run()
                mine = witness(
                    "get(imported(NT, kept)), int(kept) == value, [row.payload for row in manager().snapshot()]"
                )
                if mine[:2] != (b"I was here all on"[:16], True):
                    raise Broken(f"the witness's own payload reads {mine[0]!r}")
                if len(mine[2]) != 1:
                    wait_until(
                        lambda: len(witness("manager().snapshot()")) == 1,
                        lambda: f"everything of the round to end: {witness('manager().snapshot()')}",
                    )
            except (Broken, RemoteError, ChildFailedError, DeadlineError) as error:
                outcome.broken.append(f"{one}: {error}")
                say(f"BROKEN {outcome.broken[-1]}")
            outcome.rounds += 1
            if one.back is not None:
                outcome.back.append(one.back)
            if outcome.rounds % 50 == 0 or outcome.rounds == rounds:
                say(f"{outcome.rounds} of {rounds} rounds of killing, {len(outcome.broken)} broken")
        more = witness("import gc\ngc.collect()\nlen(os.listdir('/proc/self/fd')) - descriptors")
        if more > 0:
            outcome.left.append(f"{more} descriptors in the witness")
        witness("own.close()\nkept.close()")
        if witness("manager().snapshot()"):
            outcome.left.append(f"payloads at the broker: {witness('manager().snapshot()')}")
        status = witness("(lambda s: (s.fds, s.clients))(manager().status())")
        if status != (0, 1):
            outcome.left.append(f"the broker keeps {status[0]} descriptors for {status[1]} clients")
        witness.leave()
    outcome.left += kill_all()
    outcome.seconds = time.monotonic() - started
    return outcome


def fuzz(module: str, iterations: int, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run one fuzzer; its exit code is its verdict."""
    say(f"{module}: {iterations} iterations, seed {seed}")
    command = [sys.executable, "-m", f"fuzz.{module}", "--iterations", str(iterations), "--seed", str(seed)]
    with Runtime() as runtime:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=python_environment(runtime.environment),
            capture_output=True,
            text=True,
            timeout=_FUZZ_LIMIT,
            check=False,
        )
    say((done.stdout.strip() or "(no word)") + (f"\n{done.stderr.strip()}" if done.returncode else ""))
    carried_out = iterations if done.returncode == 0 else 0
    return figure(
        f"{module}: iterations without a broken invariant",
        carried_out,
        "iterations",
        iterations,
        carried_out >= iterations,
    )


def figure(name: str, value: float, unit: str, bound: float, ok: bool) -> dict[str, Any]:
    """One entry of the JSON list."""
    return {"name": name, "value": value, "unit": unit, "bound": bound, "ok": ok}


def main(arguments: list[str] | None = None) -> int:
    """The command line. 0 where every invariant held."""
    parser = argparse.ArgumentParser(description="Fuzz and kill for a long time; prints a JSON list of figures.")
    parser.add_argument("--rounds", type=int, default=500, help="rounds of killing exporter, importer or broker")
    parser.add_argument("--iterations", type=int, default=100_000, help="inputs for each fuzzer")
    parser.add_argument("--seed", type=int, default=1, help="every choice follows from it")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    figures = []
    if options.iterations > 0:
        figures += [fuzz(module, options.iterations, options.seed, say) for module in FUZZERS]
    if options.rounds > 0:
        kills = kill_rounds(options.rounds, options.seed, say)
        say(f"{kills.rounds} rounds of killing took {kills.seconds:.0f} s")
        for thing in kills.left:
            say(f"LEFT BEHIND {thing}")
        if kills.back:
            back = statistics.median(kills.back)
            figures.append(
                figure("kill: median until a killed broker's name is back", round(back, 3), "s", 2, back <= 2)
            )
        figures += [
            figure("kill: rounds", kills.rounds, "rounds", options.rounds, kills.rounds >= options.rounds),
            figure(
                "kill: rounds in which a payload or name was lost or lived too long",
                len(kills.broken),
                "rounds",
                0,
                not kills.broken,
            ),
            figure("kill: things left behind", len(kills.left), "things", 0, not kills.left),
        ]
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0 if all(entry["ok"] for entry in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
