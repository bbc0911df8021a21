"""Rounds in which other users attempt what `attempts` lists; each attempt that gets something is an escalation.

How this works. A round has a broker that serves all users, an owner with two named payloads, and another user. The
other user makes all attempts in an order drawn from the seed. Then the owner evaluates those that an owner may make.
Then the broker is killed while the owner is stopped, and the other user announces what belongs to the owner to the next
broker. Last come the attempts of a process of another user that has inherited a connection to the owner's own broker.
At each end the owner's payloads must exist, with the owner's bytes.
"""

from __future__ import annotations

import ast
import os
import random
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from extmem.testing.children import Child, Peer, RemoteError
from extmem.testing.runtime import Runtime
from tests.process.broker.steps import BECOME, OTHER, PEER, SYSTEM, heir, next_broker, system_broker
from tests.users.attempts import ATTEMPTS, IN_THE_WINDOW, OTHERS, REFUSALS, Attempt

__all__ = ["Findings", "alive", "run", "see"]

_HIDDEN, _SHOWN = b"mine!", b"ours!"
_OWNER = (
    f"a = share(hidden, {_HIDDEN!r})\nb = share(shown, {_SHOWN!r}, sddl='D:(A;;GR;;;WD)(A;;GA;;;OW)', inherit=True)\n"
    "h = m.get_handle(a.number)\n"
)
_KNOWN = (
    "dict(hidden=hidden, shown=shown, memory=a.number, handle=h, ticket=m.offer(reference=a.number), pid=os.getpid(),\n"
    "     secret=m.client._secret, record=m.client.state.references[b.number][5])"
)


@dataclass
class Findings:
    """What the rounds found."""

    attempts: int = 0
    escalations: list[str] = field(default_factory=list)
    """Attempts that got something, and payloads that are not as their owner made them."""
    wrong: list[str] = field(default_factory=list)
    """Errors that are not refusals, and attempts that also failed for the owner."""
    ended: list[str] = field(default_factory=list)
    """Brokers that ended."""

    def __iadd__(self, other: Findings) -> Self:
        self.attempts += other.attempts
        self.escalations += other.escalations
        self.wrong += other.wrong
        self.ended += other.ended
        return self

    def count(self, who: str, attempt: Attempt, got: str | None, error: str | None, message: str | None) -> None:
        """Count an attempt of another user."""
        self.attempts += 1
        if error is None:
            if got != attempt.nothing:
                self.escalations.append(f"{who} got {got} by {attempt.source}")
        elif error not in REFUSALS:
            self.wrong.append(f"{who} got {error} for {attempt.source}: {message}")


def run(seed: str, attempts: Sequence[Attempt] = ATTEMPTS) -> Findings:
    """Run one round, which requires root. attempts: the attempts of another user."""
    draw, found = random.Random(seed), Findings()
    order = draw.sample(attempts, len(attempts))
    names = {"hidden": f"hidden {seed}", "shown": f"shown {seed}"}
    with Runtime() as runtime:
        _through_the_systems_broker(found, runtime, order, names)
    with Runtime() as runtime:
        _through_an_inherited_connection(found, runtime, order, names)
    return found


def _through_the_systems_broker(
    found: Findings, runtime: Runtime, order: Sequence[Attempt], names: dict[str, str]
) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(system_broker(runtime))
        owner, other = (stack.enter_context(Peer(env=runtime.environment)) for _ in range(2))
        for peer, uid in ((owner, OTHER), (other, OTHER + 1)):
            peer(PEER + BECOME + OTHERS + f"become({uid})\n" + SYSTEM)
        known = owner(_OWNER + _KNOWN, **names)
        for attempt in order:
            found.count("another user", attempt, *other("attempted(source, known)", source=attempt.source, known=known))
        see(found, owner)
        if not alive(found, broker):
            return
        for attempt in order:
            if attempt.owner:
                got, error, message = owner("attempted(source, known)", source=attempt.source, known=known)
                if error is not None or got == attempt.nothing:
                    found.wrong.append(f"its owner got {got or message} by {attempt.source}")
        other("shared, own = m.import_by_name(shown), payload(b'evil!')", **names)
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            broker.kill()
            successor = stack.enter_context(next_broker(runtime, system=True))
            for attempt in IN_THE_WINDOW:
                answer = other("attempted(source, known)", source=attempt.source, known=known)
                found.count("another user, after a killed broker,", attempt, *answer)
        finally:
            os.kill(owner.pid, signal.SIGCONT)
        see(found, owner)
        for attempt in order:
            if attempt.source.startswith(("reads", "m.open", "m.import_by_name", "writable", "reopened")):
                answer = other("attempted(source, known)", source=attempt.source, known=known)
                found.count("another user, of what came back,", attempt, *answer)
        alive(found, successor)


def _through_an_inherited_connection(
    found: Findings, runtime: Runtime, order: Sequence[Attempt], names: dict[str, str]
) -> None:
    with Peer(env=runtime.environment) as owner:
        owner(PEER)
        known = owner(_OWNER + _KNOWN, **names)
        pid = runtime.broker_pid()
        source = (
            OTHERS + f"for source in {[attempt.source for attempt in order]!r}:\n"
            f"    print(attempted(source, {known!r}), flush=True)"
        )
        answers = [line for line in heir(owner, source).splitlines() if line]
        for attempt, line in zip(order, answers, strict=False):
            found.count("an heir of another user", attempt, *_answer(line))
        if len(answers) != len(order):
            found.wrong.append(f"an heir of another user ended early: {answers[-1:]}")
        if runtime.broker_pid() != pid:
            found.ended.append("the owner's own broker")
        see(found, owner)


def _answer(line: str) -> tuple[str | None, str | None, str | None]:
    try:
        got, error, message = ast.literal_eval(line)
    except (ValueError, SyntaxError):
        return None, "output that is not an answer", line
    return got, error, message


def see(found: Findings, owner: Peer) -> None:
    """Check that the owner's payloads exist, with the owner's bytes."""
    held: Any
    try:
        held = owner("reads(hidden), reads(shown)")
    except RemoteError as error:
        held = error.message
    if held != (_HIDDEN, _SHOWN):
        found.escalations.append(f"the owner finds {held} afterwards")


def alive(found: Findings, broker: Child) -> bool:
    """Check that the broker has not ended."""
    if not broker.alive:
        found.ended.append(f"the broker of all users ended with {broker.process.returncode}: {broker.output}")
    return broker.alive
