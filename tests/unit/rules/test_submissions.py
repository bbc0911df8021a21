"""Submissions that break rules in ways that the cases of single rules do not show."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import BatchFacts, MemoryFacts, SubmitFacts, Unsubmitted, Violation
from extmem.vk.handle_types import OPAQUE_WIN32_KMT
from tests.rules.submit_world import (
    OTHER_QUEUE,
    QUEUE,
    SEMAPHORE,
    SYNC,
    at,
    batch2,
    binary,
    fence,
    semaphore,
    signals,
    signals2,
    submit,
    submit2,
    timeline,
    waits,
    waits2,
)


def ids(violations: list[Violation]) -> list[str]:
    return [violation.vuid.rpartition("-")[2] for violation in violations]


@pytest.mark.parametrize(("waited", "broken"), [(11, ["03242"]), (10, [])])
def test_a_batch_that_waits_for_its_own_signal_is_reported(waited: int, broken: list[str]) -> None:
    """The wait for a value ends before the signal executes, which then sets no greater one; or neither happens."""
    known = timeline(value=5, pending_waits=((QUEUE, waited),))
    assert ids(signals(known, chain=(at(11, signal=True),))) == broken


def test_a_batch_of_another_queue_may_wait_for_the_value() -> None:
    known = timeline(pending_waits=((OTHER_QUEUE, 11),))
    assert signals(known, chain=(at(11, signal=True),)) == []


def test_two_queues_cannot_signal_the_same_value() -> None:
    assert ids(signals2(timeline(pending_signals=((OTHER_QUEUE, 12),)), 12)) == ["03882"]


def test_one_timeline_in_both_lists_is_known_by_its_object_or_by_its_facts() -> None:
    line = timeline()
    for handle, found in ((SEMAPHORE, ["03881"]), (0x99, ["03881"])):
        violations = batch2(
            BatchFacts((line,), (line,)),
            wait_semaphore_infos=[semaphore(12)],
            signal_semaphore_infos=[semaphore(12, semaphore=handle)],
        )
        assert ids(violations) == found
    other = replace(line, identity=99)
    violations = batch2(
        BatchFacts((line,), (other,)),
        wait_semaphore_infos=[semaphore(12)],
        signal_semaphore_infos=[semaphore(12, semaphore=0x99)],
    )
    assert violations == []


def test_the_report_names_the_signal_that_is_missing() -> None:
    value, plain = Unsubmitted("the timeline 'input'", 7), Unsubmitted("the semaphore 'start'", 0)
    (first,) = waits(binary(signaled=True, unsubmitted=(value,)))
    (second,) = waits(binary(signaled=True, unsubmitted=(plain,)))
    assert "waits for the timeline 'input' to reach 7" in first.problem
    assert "waits for a signal of the semaphore 'start'" in second.problem


def test_a_timeline_needs_no_submitted_signal() -> None:
    assert waits(timeline(), chain=(at(1 << 20),)) == []


def test_no_limit_of_differences_is_known() -> None:
    unlimited = replace(SYNC, max_timeline_difference=None)
    assert waits2(timeline(), 1 << 60, device=unlimited) == []


def test_values_of_semaphores_without_facts_are_not_compared() -> None:
    assert waits(None, chain=(at(1 << 63),)) == []
    assert signals2(None, 0) == []


def test_a_submission_needs_no_facts_of_its_batches() -> None:
    info = vk.SubmitInfo(signal_semaphores=[SEMAPHORE])
    assert rules.check_queue_submit([info, info], None, SubmitFacts(SYNC)) == []


@pytest.mark.parametrize("call", [submit, submit2])
def test_a_fence_of_unfinished_work_is_reported_once(call: type) -> None:
    assert len(call(known=fence(pending=True, signaled=True))) == 1


def test_arguments_of_other_types_are_reported() -> None:
    nothing = SubmitFacts(SYNC)
    assert ids(rules.check_queue_submit(7, None, nothing)) == ["parameter"]  # type: ignore[arg-type]  # on purpose
    assert ids(rules.check_queue_submit2([], "fence", nothing)) == ["parameter"]
    assert ids(submit2(vk.SubmitInfo2(wait_semaphore_infos=[7]))) == ["parameter"]  # type: ignore[list-item]
    assert ids(rules.check_reset_fences("fences", SYNC, ())) == ["parameter"]


def test_only_a_direct3d_fence_in_a_second_submission_gets_its_own_sentence() -> None:
    (first,) = batch2(chain=(vk.D3D12FenceSubmitInfoKHR(),))
    (second,) = batch2(chain=(at(),))
    assert "timelines alone" in first.problem and "timeline semaphore" in first.remedy
    assert "TimelineSemaphoreSubmitInfo does not extend SubmitInfo2" in second.problem


@pytest.mark.parametrize("second", [False, True])
def test_S43_keyed_mutexes_of_a_batch_are_checked(second: bool) -> None:
    """Rule 00081 names Direct3D 11 types alone; programs also use OPAQUE_WIN32_KMT, which is reported."""
    mutex = vk.Win32KeyedMutexAcquireReleaseInfoKHR([1], [0], [1000], [1], [1])
    memory = MemoryFacts(4096, 0, import_handle_type=OPAQUE_WIN32_KMT)
    facts = SubmitFacts(SYNC, QUEUE, mutexes={1: (memory, memory)})
    if second:
        found = rules.check_queue_submit2([vk.SubmitInfo2(), vk.SubmitInfo2(p_next=mutex)], None, facts)
    else:
        found = rules.check_queue_submit([vk.SubmitInfo(), vk.SubmitInfo(p_next=mutex)], None, facts)
    assert ids(found) == ["00081"]
