"""Cases: operations of the host on timelines and fences, and the ends of semaphores and fences."""

from __future__ import annotations

from typing import Any

from extmem import rules, vk
from extmem.rules import SemaphoreFacts, SyncDeviceFacts, Violation
from tests.rules.submit_world import CLOSED, ELSEWHERE, LIMIT, QUEUE, SEMAPHORE, SYNC, at, binary, fence, timeline
from tests.rules.world import case

WAIT, SIGNAL = "VkSemaphoreWaitInfo", "VkSemaphoreSignalInfo"
COUNTER = "vkGetSemaphoreCounterValue"


def wait(*known: SemaphoreFacts, device: SyncDeviceFacts = SYNC, **fields: Any) -> list[Violation]:
    """Wait on the host for these semaphores."""
    given: dict[str, Any] = {"semaphores": [SEMAPHORE] * len(known), "values": [11] * len(known)}
    return rules.check_wait_semaphores(vk.SemaphoreWaitInfo(**{**given, **fields}), device, known)


def signal(known: SemaphoreFacts, value: Any = 11, device: SyncDeviceFacts = SYNC, **fields: Any) -> list[Violation]:
    """Signal a semaphore on the host."""
    given: dict[str, Any] = {"semaphore": SEMAPHORE, "value": value}
    return rules.check_signal_semaphore(vk.SemaphoreSignalInfo(**{**given, **fields}), device, known)


def counter(known: SemaphoreFacts, device: SyncDeviceFacts = SYNC) -> list[Violation]:
    """Read the value of a semaphore."""
    return rules.check_get_semaphore_counter_value(device, known)


case(f"{WAIT}-pSemaphores-03256", lambda: wait(timeline(), binary()), lambda: wait(timeline(), timeline()))
case(f"{WAIT}-pSemaphores-parameter", lambda: wait(timeline(alive=False)), lambda: wait(timeline()))
case(f"{WAIT}-pValues-parameter", lambda: wait(timeline(), values=()), lambda: wait(timeline(), values=(0,)))
case(f"{WAIT}-semaphoreCount-arraylength", lambda: wait(), lambda: wait(timeline()))
case(f"{WAIT}-flags-parameter", lambda: wait(timeline(), flags=2), lambda: wait(timeline(), flags=1))
case(f"{WAIT}-pNext-pNext", lambda: wait(timeline(), p_next=at()), lambda: wait(timeline(), p_next=None))
case("vkWaitSemaphores-device-parameter", lambda: wait(timeline(), device=CLOSED), lambda: wait(timeline()))
case(
    "vkWaitSemaphores-pWaitInfo-parameter",
    lambda: rules.check_wait_semaphores(11, SYNC, ()),  # type: ignore[arg-type]  # wrong on purpose
    lambda: wait(timeline()),
)

case(f"{SIGNAL}-semaphore-03257", lambda: signal(binary()), lambda: signal(timeline()))
case(f"{SIGNAL}-value-03258", lambda: signal(timeline(value=11)), lambda: signal(timeline(value=None)))
case(
    f"{SIGNAL}-value-03259",
    lambda: signal(timeline(pending_signals=((QUEUE, 14), (QUEUE, 11)))),
    lambda: signal(timeline(pending_signals=((QUEUE, 14), (QUEUE, 12)))),
)
case(f"{SIGNAL}-value-03260", lambda: signal(timeline(), 11 + LIMIT), lambda: signal(timeline(), 10 + LIMIT))
case(f"{SIGNAL}-semaphore-parameter", lambda: signal(timeline(alive=False)), lambda: signal(timeline()))
case(f"{SIGNAL}-pNext-pNext", lambda: signal(timeline(), p_next=at()), lambda: signal(timeline(), p_next=None))
case("vkSignalSemaphore-device-parameter", lambda: signal(timeline(), device=CLOSED), lambda: signal(timeline()))
case(
    "vkSignalSemaphore-pSignalInfo-parameter",
    lambda: rules.check_signal_semaphore(at(1), SYNC, timeline()),  # type: ignore[arg-type]  # wrong on purpose
    lambda: signal(timeline()),
)

case(f"{COUNTER}-semaphore-03255", lambda: counter(binary()), lambda: counter(timeline()))
case(f"{COUNTER}-semaphore-parameter", lambda: counter(timeline(alive=False)), lambda: counter(timeline()))
case(f"{COUNTER}-device-parameter", lambda: counter(timeline(), CLOSED), lambda: counter(timeline()))
case(
    f"{COUNTER}-semaphore-parent",
    lambda: counter(timeline(device_identity=ELSEWHERE)),
    lambda: counter(timeline()),
)

FENCE = 0xFE
for command, call in (
    ("vkWaitForFences", rules.check_wait_for_fences),
    ("vkResetFences", rules.check_reset_fences),
):
    case(
        f"{command}-device-parameter",
        lambda call=call: call([FENCE], CLOSED, [fence()]),
        lambda call=call: call([FENCE], SYNC, [None]),
    )
    case(
        f"{command}-pFences-parameter",
        lambda call=call: call([FENCE], SYNC, [fence(alive=False)]),
        lambda call=call: call([FENCE], SYNC, [fence()]),
    )
    case(
        f"{command}-fenceCount-arraylength",
        lambda call=call: call([], SYNC, []),
        lambda call=call: call([FENCE], SYNC, [fence()]),
    )
    case(
        f"{command}-pFences-parent",
        lambda call=call: call([FENCE, FENCE], SYNC, [fence(), fence(device_identity=ELSEWHERE)]),
        lambda call=call: call([FENCE, FENCE], SYNC, [fence(), fence()]),
    )
case(
    "vkResetFences-pFences-01123",
    lambda: rules.check_reset_fences([FENCE], SYNC, [fence(pending=True)]),
    lambda: rules.check_reset_fences([FENCE], SYNC, [fence(signaled=True)]),
)
case(
    "vkGetFenceStatus-device-parameter",
    lambda: rules.check_get_fence_status(CLOSED, fence()),
    lambda: rules.check_get_fence_status(SYNC, fence()),
)
case(
    "vkGetFenceStatus-fence-parameter",
    lambda: rules.check_get_fence_status(SYNC, fence(alive=False)),
    lambda: rules.check_get_fence_status(SYNC, fence()),
)
case(
    "vkGetFenceStatus-fence-parent",
    lambda: rules.check_get_fence_status(SYNC, fence(device_identity=ELSEWHERE)),
    lambda: rules.check_get_fence_status(SYNC, fence()),
)
case(
    "vkDestroySemaphore-semaphore-05149",
    lambda: rules.check_destroy_semaphore(binary(in_use=True)),
    lambda: rules.check_destroy_semaphore(binary()),
)
case(
    "vkDestroyFence-fence-01120",
    lambda: rules.check_destroy_fence(fence(pending=True)),
    lambda: rules.check_destroy_fence(fence(signaled=True)),
)
