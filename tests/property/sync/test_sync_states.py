"""The tracked state of semaphores and fences agrees with a small model, and the model finds planted faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from extmem.core import sync_submissions
from extmem.core.sync_state import SyncStates
from extmem.core.sync_submissions import Operations, Submission

KEPT = settings(max_examples=40, stateful_step_count=25, deadline=None)
HUNT = settings(
    max_examples=400,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # no shrinking
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
SYNC_FD, OPAQUE_FD = 0x10, 0x1


@dataclass(eq=False)
class State:
    """A payload of the model."""

    signaled: bool = False
    external: bool = False
    value: int = 0


@dataclass(eq=False)
class Thing:
    """A semaphore or fence of the model."""

    number: int
    kind: str
    permanent: State
    temporary: State | None = None

    @property
    def current(self) -> State:
        return self.temporary or self.permanent


@dataclass(eq=False)
class Work:
    """A batch of the model, unfinished."""

    submission: Submission
    queue: int
    waits: list[tuple[Thing, State, int]] = field(default_factory=list)
    signals: list[tuple[Thing, State, int]] = field(default_factory=list)
    fence: Thing | None = None
    fenced: State | None = None

    def names(self, thing: Thing) -> bool:
        return thing is self.fence or any(one is thing for one, _, _ in (*self.waits, *self.signals))


class Machine(RuleBasedStateMachine):
    """Calls of `SyncStates`, and what the specification says that they do."""

    def __init__(self) -> None:
        super().__init__()
        self.states = SyncStates()
        self.things: list[Thing] = []
        self.work: list[Work] = []
        for kind in ("binary", "timeline", "fence", "binary"):
            number = self.states.add(kind, timeline=kind == "timeline", export_types=OPAQUE_FD)
            self.things.append(Thing(number, kind, State()))

    def of(self, kind: str) -> list[Thing]:
        return [thing for thing in self.things if thing.kind == kind]

    @rule(
        waits=st.sets(st.integers(0, 2)),
        signals=st.sets(st.integers(0, 2)),
        queue=st.integers(1, 2),
        step=st.integers(1, 3),
        fenced=st.booleans(),
    )
    def submit(self, waits: set[int], signals: set[int], queue: int, step: int, fenced: bool) -> None:
        semaphores = [thing for thing in self.things if thing.kind != "fence"]
        fence = self.of("fence")[0] if fenced else None
        value = max((value for one in self.work for _, _, value in one.signals), default=0)
        value = max(value, *(thing.current.value for thing in semaphores)) + step
        given = [
            [(semaphores[i].number, value - (names is waits)) for i in sorted(names)] for names in (waits, signals)
        ]
        submission = Submission(self.states, queue, [Operations(*given)], fence.number if fence else 0)
        work = Work(submission, queue, fence=fence, fenced=fence.current if fence else None)
        for i in sorted(waits):
            thing = semaphores[i]
            state = thing.current
            work.waits.append((thing, state, value - 1))
            if thing.kind == "binary":
                state.signaled = False
            thing.temporary = None
        for i in sorted(signals):
            thing = semaphores[i]
            work.signals.append((thing, thing.current, value))
            if thing.kind == "binary":
                thing.current.signaled = True
        submission.submitted()
        self.work.append(work)

    @precondition(lambda self: self.work)
    @rule(queue=st.integers(1, 2))
    def finish(self, queue: int) -> None:
        work = next((one for one in self.work if one.queue == queue), None)
        if work is None:
            return
        self.work.remove(work)
        for _, state, value in work.signals:
            state.value = max(state.value, value)
        if work.fenced is not None:
            work.fenced.signaled = True
        work.submission.finished()

    @rule(which=st.integers(0, 3), signaled=st.booleans())
    def import_a_copy(self, which: int, signaled: bool) -> None:
        thing = self.things[which]
        if thing.kind != "timeline":
            self.states.imported(thing.number, SYNC_FD, temporary=True, copied=True, signaled=signaled)
            thing.temporary = State(signaled)

    @rule(which=st.integers(0, 3), temporary=st.booleans())
    def import_a_reference(self, which: int, temporary: bool) -> None:
        thing = self.things[which]
        self.states.imported(thing.number, OPAQUE_FD, temporary=temporary, timeline=thing.kind == "timeline")
        if temporary:
            thing.temporary = State(external=True)
        else:
            thing.permanent, thing.temporary = State(external=True), None

    @rule(which=st.integers(0, 3))
    def export_a_copy(self, which: int) -> None:
        thing = self.things[which]
        if thing.kind != "timeline":
            self.states.exported(thing.number, SYNC_FD, copied=True)
            thing.current.signaled = False
            thing.temporary = None

    @rule(which=st.integers(0, 3))
    def export_a_reference(self, which: int) -> None:
        self.states.exported(self.things[which].number, OPAQUE_FD)
        self.things[which].current.external = True

    @rule()
    def reset(self) -> None:
        fence = self.of("fence")[0]
        self.states.reset([fence.number])
        fence.temporary = None
        fence.permanent.signaled = False

    @rule(which=st.integers(0, 3))
    def make_again(self, which: int) -> None:
        old = self.things[which]
        self.states.remove(old.number)
        self.things[which] = Thing(self.states.add(old.kind, timeline=old.kind == "timeline"), old.kind, State())

    @invariant()
    def agrees(self) -> None:
        for thing in self.things:
            fence = thing.kind == "fence"
            facts: Any = self.states.fence(thing.number) if fence else self.states.semaphore(thing.number)
            state = thing.current
            assert facts.temporary == (thing.temporary is not None)
            assert facts.external == state.external
            assert (facts.pending if fence else facts.in_use) == any(one.names(thing) for one in self.work)
            if thing.kind != "timeline":
                assert facts.signaled == (None if state.external else state.signaled)
            else:
                signals = [(one.queue, value) for one in self.work for _, s, value in one.signals if s is state]
                assert list(facts.pending_signals) == signals
                assert facts.value == (None if state.external else state.value)
            if thing.kind == "binary":
                waiting = [one.queue for one in self.work for t, s, _ in one.waits if t is thing and s is state]
                assert facts.waiting_queue == (waiting[-1] if waiting else None)


def test_the_tracked_state_keeps_to_the_model() -> None:
    run_state_machine_as_test(Machine, settings=KEPT)


@pytest.mark.slow("runs the model until it finds each planted fault")
@pytest.mark.parametrize("fault", ["restores nothing", "resets the imported fence", "forgets the end"])
def test_planted_faults_are_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "restores nothing":
        original = sync_submissions._Effect.wait

        def wait(self: Any, number: int, value: int) -> None:
            before = self.changes.sync_object(number)
            if before.temporary is not None:
                self.changes.attach(before.temporary.payload)
            original(self, number, value)
            after = self.changes.sync_object(number)
            self.changes.put(number, msgspec.structs.replace(after, temporary=before.temporary))

        monkeypatch.setattr(sync_submissions._Effect, "wait", wait)
    elif fault == "resets the imported fence":
        monkeypatch.setattr(SyncStates, "reset", lambda self, numbers: None)
    else:
        monkeypatch.setattr(SyncStates, "finished", lambda self, batches, abandoned=False: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=HUNT)
