"""The tracked state follows what public calls do, so that no rule is reported without a reason."""

from __future__ import annotations

import pytest

import extmem
from extmem import vk
from tests.rules.recipes_submit import Gpu
from tests.rules.recipes_world import World


def test_a_value_that_the_host_signaled_is_no_missing_signal() -> None:
    with World() as world:
        gpu = Gpu(world)
        gpu.submit([(gpu.gate, 5)], [gpu.binary])
        with pytest.raises(extmem.RuleViolation, match="waits for the timeline to reach 5"):
            gpu.submit([gpu.binary])
        gpu.gate.signal(5)
        gpu.submit([gpu.binary])


def test_others_may_signal_a_timeline_with_a_name() -> None:
    with World() as world:
        gpu = Gpu(world)
        named = world.keep(gpu.device.timeline(name="frames of test_submit_state"))
        gpu.submit([(named, 5)], [gpu.binary])
        gpu.submit([gpu.binary])
        named.signal(5)


@pytest.mark.parametrize("field", ["wait_semaphore_infos", "signal_semaphore_infos", "command_buffer_infos"])
def test_other_objects_in_the_arrays_of_a_submission_are_refused(field: str) -> None:
    with World() as world:
        device = world.gpu()
        for wrong in ([0x5E], 0x5E, "semaphores"):
            with pytest.raises(extmem.RuleViolation, match=field):
                device.queue_submit2([vk.SubmitInfo2(**{field: wrong})])
