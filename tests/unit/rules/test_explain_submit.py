"""The examples about submissions, host timelines and fences: the wrong one breaks its rule, the right one none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from extmem import rules, vk
from extmem.core.sync_state import SyncStates
from extmem.core.sync_submissions import Operations, Submission
from extmem.rules._examples_submit import SUBMIT
from tests.rules.submit_world import COMPUTE, SYNC


class Desk:
    """Takes the place of a device whose work never ends by itself: calls the rules, and keeps their violations."""

    def __init__(self) -> None:
        self.states = SyncStates()
        self.found: list[rules.Violation] = []
        self.values = {self.states.add("the timeline 'frames'", timeline=True, initial_value=10): 10}
        (self.frames,) = self.values
        self.done, self.ready = self.states.add("the semaphore 'done'"), self.states.add("the semaphore 'ready'")
        self.fence = self.states.add("the fence 'frame'")

    def queue_submit(self, submits: Sequence[vk.SubmitInfo], fence: int = 0) -> None:
        batches = []
        for info in submits:
            values = vk.find(info, vk.TimelineSemaphoreSubmitInfo) or vk.TimelineSemaphoreSubmitInfo()
            batches.append(
                Operations(
                    paired(info.wait_semaphores, values.wait_semaphore_values),
                    paired(info.signal_semaphores, values.signal_semaphore_values),
                )
            )
        submission = Submission(self.states, 1, batches, fence, counters=self.values)
        facts = rules.SubmitFacts(SYNC, 1, submission.batches, submission.fence)
        self.found += rules.check_queue_submit(submits, fence or None, facts)
        submission.submitted()

    def queue_submit2(self, submits: Sequence[vk.SubmitInfo2]) -> None:
        batches = [
            Operations(
                [(one.semaphore, one.value) for one in info.wait_semaphore_infos],  # type: ignore[misc]  # ints here
                [(one.semaphore, one.value) for one in info.signal_semaphore_infos],  # type: ignore[misc]  # ints here
            )
            for info in submits
        ]
        submission = Submission(self.states, 1, batches, counters=self.values)
        self.found += rules.check_queue_submit2(submits, None, rules.SubmitFacts(SYNC, 1, submission.batches))
        submission.submitted()

    def wait_semaphores(self, info: vk.SemaphoreWaitInfo, timeout: int) -> None:
        known = [self.states.semaphore(number) for number in info.semaphores]  # type: ignore[arg-type]  # ints here
        self.found += rules.check_wait_semaphores(info, SYNC, known)

    def signal_semaphore(self, info: vk.SemaphoreSignalInfo) -> None:
        known = self.states.semaphore(info.semaphore)  # type: ignore[arg-type]  # an int here
        self.found += rules.check_signal_semaphore(info, SYNC, known)

    def wait_for_fences(self, fences: Sequence[int], timeout: int) -> None:
        self.found += rules.check_wait_for_fences(fences, SYNC, [self.states.fence(one) for one in fences])
        for one in fences:
            self.states.signaled(one)

    def reset_fences(self, fences: Sequence[int]) -> None:
        self.found += rules.check_reset_fences(fences, SYNC, [self.states.fence(one) for one in fences])
        self.states.reset(fences)


def paired(semaphores: Sequence[Any], values: Sequence[int]) -> list[tuple[int, int]]:
    return [(one, values[i] if i < len(values) else 0) for i, one in enumerate(semaphores)]


def run(source: str) -> set[str]:
    """Return the rules that an example breaks."""
    desk = Desk()
    names = {"vk": vk, "device": desk, "done": desk.done, "ready": desk.ready, "frames": desk.frames}
    exec(compile(source, "example", "exec"), {**names, "frame_fence": desk.fence, "COMPUTE": COMPUTE})
    return {violation.vuid for violation in desk.found}


@pytest.mark.parametrize("vuid", SUBMIT)
def test_the_wrong_example_breaks_the_rule_and_the_right_one_none(vuid: str) -> None:
    wrong, right = SUBMIT[vuid]
    assert vuid in run(wrong)
    assert run(right) == set()
