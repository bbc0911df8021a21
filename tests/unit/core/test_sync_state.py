"""The state of semaphores and fences follows the specification: payloads, permanence, pending operations."""

from __future__ import annotations

from typing import Any

import pytest

from extmem.core import sync_records, sync_state
from extmem.core.sync_state import SyncStates
from extmem.core.sync_submissions import Operations, Submission
from extmem.rules.sync_facts import FenceFacts, SemaphoreFacts, Unsubmitted

OPAQUE_FD, OPAQUE_WIN32, SYNC_FD = 0x1, 0x2, 0x10
QUEUE, OTHER = 1, 2


class World:
    """States, and short names for what is done with them."""

    def __init__(self) -> None:
        self.states = SyncStates()

    def binary(self, **given: Any) -> int:
        return self.states.add("the semaphore", **given)

    def timeline(self, name: str = "the timeline", value: int = 0) -> int:
        return self.states.add(name, timeline=True, initial_value=value)

    def fence(self, **given: Any) -> int:
        return self.states.add("the fence", **given)

    def submit(self, waits: Any = (), signals: Any = (), queue: int = QUEUE, fence: int = 0) -> Submission:
        """Submit one batch; a semaphore alone stands for a binary one."""
        pairs = [[one if isinstance(one, tuple) else (one, 0) for one in each] for each in (waits, signals)]
        submission = Submission(self.states, queue, [Operations(*pairs)], fence)
        submission.submitted()
        return submission

    def semaphore(self, number: int, value: int | None = None) -> SemaphoreFacts:
        facts = self.states.semaphore(number, value)
        assert facts is not None
        return facts

    def fence_facts(self, number: int, signaled: bool | None = None) -> FenceFacts:
        facts = self.states.fence(number, signaled)
        assert facts is not None
        return facts


@pytest.fixture
def world() -> World:
    return World()


def test_S1_a_signal_sets_a_binary_semaphore_and_a_wait_resets_it(world: World) -> None:
    one = world.binary()
    assert world.semaphore(one).signaled is False
    world.submit(signals=[one])
    assert world.semaphore(one).signaled is True
    world.submit(waits=[one])
    assert world.semaphore(one).signaled is False


def test_S3_an_exported_binary_semaphore_is_in_an_unknown_state(world: World) -> None:
    one = world.binary(export_types=OPAQUE_FD)
    world.states.exported(one, OPAQUE_FD)
    facts = world.semaphore(one)
    assert facts.external and facts.signaled is None
    other = world.submit(signals=[one])
    assert world.semaphore(one).signaled is None
    assert world.semaphore(one).in_use
    other.finished()
    assert not world.semaphore(one).in_use


def test_S3_objects_with_one_payload_share_its_pending_operations(world: World) -> None:
    source, target = world.timeline(), world.timeline()
    world.states.exported(source, OPAQUE_FD, key="page 1")
    world.states.imported(target, OPAQUE_FD, timeline=True, export_types=OPAQUE_FD, key="page 1")
    world.submit(signals=[(source, 5)])
    assert world.semaphore(target).pending_signals == ((QUEUE, 5),)
    world.states.remove(source)
    assert world.semaphore(target).pending_signals == ((QUEUE, 5),)


def test_S4_a_copied_payload_is_the_importers_alone(world: World) -> None:
    one = world.binary()
    world.states.imported(one, SYNC_FD, temporary=True, copied=True, signaled=True)
    facts = world.semaphore(one)
    assert facts.temporary and not facts.external and facts.signaled is True
    assert facts.import_type == SYNC_FD


def test_S5_export_to_a_copying_type_acts_as_a_wait(world: World) -> None:
    one = world.binary(export_types=SYNC_FD)
    world.submit(signals=[one])
    world.states.exported(one, SYNC_FD, copied=True)
    facts = world.semaphore(one)
    assert facts.signaled is False and not facts.external
    world.submit(signals=[one])
    assert world.semaphore(one).signaled is True


def test_S5_export_of_a_temporary_payload_to_a_copying_type_restores_the_permanent_one(world: World) -> None:
    one = world.binary(export_types=SYNC_FD)
    world.submit(signals=[one])
    world.states.imported(one, SYNC_FD, temporary=True, copied=True, signaled=True, export_types=SYNC_FD)
    world.states.exported(one, SYNC_FD, copied=True)
    facts = world.semaphore(one)
    assert not facts.temporary and facts.signaled is True


def test_S5_export_of_a_fence_to_a_copying_type_acts_as_a_reset(world: World) -> None:
    one = world.fence(signaled=True, export_types=0x8)
    world.states.exported(one, 0x8, copied=True)
    assert world.fence_facts(one).signaled is False


def test_S6_a_permanent_import_replaces_the_payload(world: World) -> None:
    one = world.binary(export_types=OPAQUE_FD)
    world.submit(signals=[one]).finished()
    world.states.imported(one, OPAQUE_WIN32, export_types=OPAQUE_WIN32)
    facts = world.semaphore(one)
    assert (facts.export_types, facts.import_type, facts.temporary) == (OPAQUE_WIN32, OPAQUE_WIN32, False)
    assert facts.signaled is None


def test_S7_a_temporary_payload_lasts_until_the_next_wait_is_submitted(world: World) -> None:
    one = world.binary(export_types=OPAQUE_FD)
    world.states.imported(one, OPAQUE_WIN32, temporary=True, export_types=OPAQUE_WIN32)
    world.submit(signals=[one])
    assert world.semaphore(one).temporary
    submission = world.submit(waits=[one])
    facts = world.semaphore(one)
    assert not facts.temporary and facts.signaled is False
    assert (facts.export_types, facts.import_type) == (OPAQUE_FD, 0)
    assert facts.waiting_queue is None, "the queue waits for the payload that was imported"
    assert facts.in_use
    submission.finished()


def test_S7_the_second_wait_finds_the_permanent_payload(world: World) -> None:
    one = world.binary()
    world.states.imported(one, OPAQUE_FD, temporary=True)
    submission = Submission(world.states, QUEUE, [Operations([(one, 0)]), Operations([(one, 0)])])
    first, second = (batch.waits[0] for batch in submission.batches)
    assert first is not None and second is not None
    assert first.temporary and first.signaled is None
    assert not second.temporary and second.signaled is False


def test_S8_a_second_temporary_import_replaces_the_first(world: World) -> None:
    one = world.binary()
    world.submit(signals=[one])
    for _ in range(2):
        world.states.imported(one, SYNC_FD, temporary=True, copied=True, signaled=True)
    world.submit(waits=[one])
    facts = world.semaphore(one)
    assert not facts.temporary and facts.signaled is True


def test_S9_S10_a_reset_restores_the_permanent_payload_of_a_fence_and_resets_that(world: World) -> None:
    one = world.fence(signaled=True)
    world.states.imported(one, 0x8, temporary=True, copied=True, signaled=True)
    world.states.signaled(one)
    assert world.fence_facts(one).temporary
    world.states.reset([one])
    facts = world.fence_facts(one)
    assert not facts.temporary and facts.signaled is False


def test_S14_nt_exports_are_counted_for_each_payload(world: World) -> None:
    one = world.binary(export_types=OPAQUE_WIN32)
    world.states.exported(one, OPAQUE_WIN32, nt=True)
    assert world.semaphore(one).exported_nt_types == OPAQUE_WIN32
    world.states.imported(one, OPAQUE_WIN32, temporary=True)
    assert world.semaphore(one).exported_nt_types == 0
    world.states.exported(one, 0x8, nt=True)
    assert world.semaphore(one).exported_nt_types == 0x8
    world.submit(waits=[one])
    assert world.semaphore(one).exported_nt_types == OPAQUE_WIN32


def test_S15_the_queue_that_waits_stays_known_for_an_external_payload(world: World) -> None:
    one = world.binary()
    world.states.shared(one)
    submission = world.submit(waits=[one], queue=OTHER)
    assert world.semaphore(one).waiting_queue == OTHER
    submission.finished()
    assert world.semaphore(one).waiting_queue is None


def test_a_fence_is_pending_until_it_is_seen_to_be_signaled(world: World) -> None:
    one, done = world.fence(), world.binary()
    world.submit(signals=[done], fence=one)
    assert world.fence_facts(one, signaled=False).pending
    facts = world.fence_facts(one, signaled=True)
    assert not facts.pending and facts.signaled is True
    assert not world.semaphore(done).in_use


def test_a_fence_of_an_empty_submission_ends_what_was_submitted_before(world: World) -> None:
    one, done = world.fence(), world.binary()
    world.submit(signals=[done])
    submission = Submission(world.states, QUEUE, [], one)
    assert submission.batches == ()
    submission.submitted()
    world.states.signaled(one)
    assert not world.semaphore(done).in_use


def test_a_value_that_is_reached_ends_the_batch_that_signals_it(world: World) -> None:
    one, other = world.timeline(), world.binary()
    world.submit(signals=[(one, 3), other])
    world.submit(signals=[(one, 5)])
    assert world.semaphore(one, 2).pending_signals == ((QUEUE, 3), (QUEUE, 5))
    assert world.semaphore(one, 3).pending_signals == ((QUEUE, 5),)
    assert not world.semaphore(other).in_use
    world.states.reached(one, 5)
    assert not world.semaphore(one).in_use
    assert world.semaphore(one).value == 5


def test_an_idle_queue_has_no_pending_operations(world: World) -> None:
    one, other = world.timeline(), world.timeline()
    world.submit(waits=[(other, 4)], signals=[(one, 3)])
    world.submit(signals=[(one, 6)], queue=OTHER)
    world.states.idle(QUEUE)
    assert world.semaphore(one).pending_signals == ((OTHER, 6),)
    assert world.semaphore(other).pending_waits == ()


def test_a_submission_sees_what_happened_before_the_device_accepted_it(world: World) -> None:
    """Its result is worked out when it is checked, and again if the records have changed since."""
    one, line = world.binary(), world.timeline()
    first = Submission(world.states, QUEUE, [Operations((), [(one, 0), (line, 1)])])
    second = Submission(world.states, OTHER, [Operations([(one, 0)], [(line, 2)])])
    first.submitted()
    second.submitted()
    assert world.semaphore(line).pending_signals == ((QUEUE, 1), (OTHER, 2))
    assert world.semaphore(one).signaled is False
    third = Submission(world.states, QUEUE, [Operations((), [(line, 3)])])
    first.finished()
    third.submitted()
    assert world.semaphore(line).pending_signals == ((OTHER, 2), (QUEUE, 3))


def test_the_device_is_asked_before_a_submission(world: World) -> None:
    """A fence and a value that have been reached end what was submitted before, although nobody was told."""
    one, line = world.fence(), world.timeline()
    world.submit(signals=[(line, 2)], fence=one)
    operations = [Operations((), [(line, 3)])]
    asked = Submission(world.states, QUEUE, operations, one, counters={line: 2}, fence_signaled=True)
    assert asked.fence is not None and asked.fence.signaled and not asked.fence.pending
    known = asked.batches[0].signals[0]
    assert known is not None and known.value == 2 and known.pending_signals == ()


def test_a_named_timeline_is_external_from_the_start(world: World) -> None:
    line, one = world.states.add("the timeline", timeline=True, external=True), world.binary()
    assert world.semaphore(line).external
    world.submit(waits=[(line, 4)], signals=[one])
    assert world.semaphore(one).unsubmitted == ()


def test_a_batch_may_be_finished_before_it_is_recorded(world: World) -> None:
    one = world.timeline()
    submission = Submission(world.states, QUEUE, [Operations((), [(one, 1)])])
    submission.finished()
    submission.submitted()
    assert not world.semaphore(one).in_use and world.semaphore(one).value == 1


def test_what_an_abandoned_batch_was_to_signal_is_not_signaled(world: World) -> None:
    waited, one, fence, timeline = world.binary(), world.binary(), world.fence(), world.timeline()
    world.submit(signals=[waited])
    submission = world.submit(waits=[waited], signals=[one, (timeline, 3)], fence=fence)
    assert world.semaphore(one).signaled and world.fence_facts(fence).pending
    submission.finished(abandoned=[0])
    assert world.semaphore(one).signaled is False
    assert not world.fence_facts(fence).pending and not world.fence_facts(fence).signaled
    assert world.semaphore(waited).signaled is None  # its wait was not done
    assert not world.semaphore(timeline).pending_signals


def test_an_executed_batch_beside_an_abandoned_one_has_signaled(world: World) -> None:
    one, other = world.binary(), world.binary()
    both = Submission(world.states, QUEUE, [Operations(signals=[(one, 0)]), Operations(signals=[(other, 0)])])
    both.finished(abandoned=[1])
    both.submitted()
    assert (world.semaphore(one).signaled, world.semaphore(other).signaled) == (True, False)


def test_facts_of_a_submission_are_taken_at_the_turn_of_each_operation(world: World) -> None:
    one, line = world.binary(), world.timeline()
    submission = Submission(
        world.states,
        QUEUE,
        [Operations((), [(one, 0), (line, 2)]), Operations([(one, 0)], [(line, 3)]), Operations([(one, 0)])],
    )
    first, second, third = submission.batches
    known = (first.signals[0], second.waits[0], third.waits[0])
    assert [facts.signaled for facts in known if facts is not None] == [False, True, False]
    last = second.signals[0]
    assert last is not None and last.pending_signals == ((QUEUE, 2),)
    assert world.semaphore(one).signaled is False, "nothing was submitted"


def test_an_interrupted_submission_leaves_the_state_unknown(world: World) -> None:
    one = world.binary()
    submission = Submission(world.states, QUEUE, [Operations((), [(one, 0)])])
    submission.unknown()
    assert world.semaphore(one).signaled is None


def test_unknown_numbers_are_ignored(world: World) -> None:
    world.states.remove(99)
    world.states.imported(99, OPAQUE_FD)
    world.states.exported(99, OPAQUE_FD)
    world.states.reached(99, 1)
    world.states.reset([99])
    world.states.finished([99])
    assert world.states.semaphore(99) is None and world.states.fence(99) is None
    submission = world.submit(waits=[(99, 1)], signals=[(0, 1)], fence=99)
    assert submission.batches[0].waits == (None,) and submission.fence is None


def test_closed_objects_leave_nothing_behind(world: World) -> None:
    one, other = world.timeline(), world.binary()
    world.states.exported(one, OPAQUE_FD, key=7)
    world.states.imported(other, OPAQUE_FD, temporary=True, key=8)
    submission = world.submit(waits=[(one, 1), other], signals=[other])
    world.states.remove(one)
    world.states.remove(other)
    submission.finished()
    world.states.idle(QUEUE)
    assert world.states._table == {}


# The graph of submissions.


def unsubmitted(world: World, number: int) -> tuple[Unsubmitted, ...]:
    return world.semaphore(number).unsubmitted


def test_a_signal_depends_on_the_waits_of_its_batch_and_of_those_before(world: World) -> None:
    one, line = world.binary(), world.timeline("the timeline 'input'")
    world.submit(waits=[(line, 4)])
    world.submit(signals=[one])
    assert unsubmitted(world, one) == (Unsubmitted("the timeline 'input'", 4),)
    world.submit(signals=[(line, 3)], queue=OTHER)
    assert unsubmitted(world, one) != ()
    world.submit(signals=[(line, 4)], queue=OTHER)
    assert unsubmitted(world, one) == ()


def test_a_value_of_the_host_or_of_others_is_no_dependency(world: World) -> None:
    one, line, shared = world.binary(), world.timeline(), world.timeline()
    world.states.shared(shared)
    world.submit(waits=[(line, 4), (shared, 4)], signals=[one])
    assert len(unsubmitted(world, one)) == 1
    world.states.reached(line, 4)
    assert unsubmitted(world, one) == ()


def test_one_of_several_signals_is_enough(world: World) -> None:
    one, line, missing = world.binary(), world.timeline(), world.timeline("the other timeline")
    world.submit(waits=[(line, 4)], signals=[one])
    world.submit(waits=[(missing, 1)], signals=[(line, 4)], queue=OTHER)
    assert unsubmitted(world, one) == (Unsubmitted("the other timeline", 1),)
    world.submit(signals=[(line, 5)], queue=3)
    assert unsubmitted(world, one) == ()


def test_a_signal_depends_on_the_binary_signals_that_its_batch_consumes(world: World) -> None:
    first, second, line = world.binary(), world.binary(), world.timeline()
    world.submit(waits=[(line, 1)], signals=[first])
    world.submit(waits=[first], signals=[second], queue=OTHER)
    assert len(unsubmitted(world, second)) == 1
    world.states.reached(line, 1)
    assert unsubmitted(world, second) == ()


def test_queues_that_wait_for_each_other_have_submitted_everything(world: World) -> None:
    one, left, right = world.binary(), world.timeline(), world.timeline()
    world.submit(waits=[(left, 1)], signals=[(right, 1), one])
    world.submit(waits=[(right, 1)], signals=[(left, 1)], queue=OTHER)
    assert unsubmitted(world, one) == ()


def test_a_long_chain_of_batches_is_followed(world: World) -> None:
    one, line = world.binary(), world.timeline()
    world.submit(waits=[(line, 1)])
    for _ in range(2000):
        world.submit()
    world.submit(signals=[one])
    assert len(unsubmitted(world, one)) == 1


def test_a_forked_child_has_its_own_states(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = sync_state.sync_states()
    assert sync_state.sync_states() is ours
    monkeypatch.setattr(sync_state, "_current", sync_state._current)
    monkeypatch.setattr(sync_state.current_process, "pid", -1)
    theirs = sync_state.sync_states()
    assert theirs is not ours and sync_state.sync_states() is theirs


def test_an_interrupted_operation_changes_all_or_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = world.binary()
    world.states.imported(one, OPAQUE_FD, temporary=True)
    before = dict(world.states._table)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sync_records.Changes, "apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            world.states.imported(one, OPAQUE_FD)
    assert world.states._table == before
    world.states.remove(one)
    assert world.states._table == {}


def test_a_circle_behind_a_missing_signal_is_followed_once(world: World) -> None:
    one, left, missing = world.binary(), world.timeline(), world.timeline("the third timeline")
    world.submit(waits=[(missing, 1), (left, 1)])
    world.submit(waits=[(missing, 1)], signals=[(left, 1)], queue=OTHER)
    world.submit(signals=[one])
    assert unsubmitted(world, one) == (Unsubmitted("the third timeline", 1),)
