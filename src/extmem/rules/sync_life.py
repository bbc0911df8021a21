"""Fences that are waited for, asked, reset and destroyed, and semaphores that are destroyed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from extmem.rules._conditions import is_zero
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules._field_types import is_handles, misfit
from extmem.rules._submit_field_types import misfit_rules
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import FenceFacts, SemaphoreFacts, SyncDeviceFacts
from extmem.rules.violation import Violation

__all__ = [
    "check_destroy_fence",
    "check_destroy_semaphore",
    "check_get_fence_status",
    "check_reset_fences",
    "check_wait_for_fences",
]


class Fences(msgspec.Struct):
    """One vkWaitForFences, vkResetFences or vkGetFenceStatus with the facts of its fences."""

    command: str
    device: DeviceFacts
    count: int
    fences: Sequence[FenceFacts | None]


class Destroyed(msgspec.Struct):
    """One vkDestroySemaphore or vkDestroyFence."""

    facts: SemaphoreFacts | FenceFacts


WAIT_FENCES: Suite[Fences] = Suite("vkWaitForFences")
RESET_FENCES: Suite[Fences] = Suite("vkResetFences")
FENCE_STATUS: Suite[Fences] = Suite("vkGetFenceStatus")
DESTROY_SEMAPHORE: Suite[Destroyed] = Suite("vkDestroySemaphore")
DESTROY_FENCE: Suite[Destroyed] = Suite("vkDestroyFence")
_ALL = (WAIT_FENCES, RESET_FENCES, FENCE_STATUS)


def _one(test: Callable[[Fences, FenceFacts], object]) -> Condition:
    """One of the fences has a true value in the test. The value is its index and its facts."""

    def broken(call: Fences) -> tuple[int, FenceFacts] | None:
        for i, known in enumerate(call.fences):
            if known is not None and test(call, known):
                return i, known
        return None

    return broken


def _foreign(call: Fences, known: FenceFacts) -> bool:
    ours, theirs = call.device.identity, known.device_identity
    return bool(ours and theirs) and ours != theirs


demand(
    _ALL,
    Demand(
        (
            "vkWaitForFences-device-parameter",
            "vkResetFences-device-parameter",
            "vkGetFenceStatus-device-parameter",
        ),
        is_zero("device.alive"),
        "{call.command}.device",
        "the device {call.device.name!r} is closed",
        "Make the call before closing the device.",
    ),
    Demand(
        ("vkWaitForFences-pFences-parameter", "vkResetFences-pFences-parameter", "vkGetFenceStatus-fence-parameter"),
        _one(lambda _, known: not known.alive),
        "{call.command}.fences[{found[0]}]",
        "{found[1].name} is destroyed",
        "Make the call before destroying it.",
    ),
    Demand(
        ("vkWaitForFences-pFences-parent", "vkResetFences-pFences-parent", "vkGetFenceStatus-fence-parent"),
        _one(_foreign),
        "{call.command}.fences[{found[0]}]",
        "{found[1].name} belongs to another device than {call.device.name!r}",
        "Call the command of its device.",
    ),
)
demand(
    (WAIT_FENCES, RESET_FENCES),
    Demand(
        ("vkWaitForFences-fenceCount-arraylength", "vkResetFences-fenceCount-arraylength"),
        is_zero("count"),
        "{call.command}.fences",
        "it is empty",
        "Give at least one fence.",
    ),
)
demand(
    RESET_FENCES,
    Demand(
        "vkResetFences-pFences-01123",
        _one(lambda _, known: known.pending),
        "{call.command}.fences[{found[0]}]",
        "{found[1].name} belongs to a submission that is not finished",
        "Wait for the fence first.",
    ),
)
demand(
    DESTROY_SEMAPHORE,
    Demand(
        "vkDestroySemaphore-semaphore-05149",
        lambda call: call.facts.in_use,
        "vkDestroySemaphore.semaphore",
        "a submission that is not finished refers to {call.facts.name}",
        "Wait for the submission first.",
    ),
)
demand(
    DESTROY_FENCE,
    Demand(
        "vkDestroyFence-fence-01120",
        lambda call: call.facts.pending,
        "vkDestroyFence.fence",
        "a submission that is not finished refers to {call.facts.name}",
        "Wait for the fence first.",
    ),
)
misfit_rules("VUID-vkWaitForFences-pFences-parameter", "VUID-vkResetFences-pFences-parameter")


def _check(
    suite: Suite[Fences], given: object, device: SyncDeviceFacts, facts: Sequence[FenceFacts | None]
) -> list[Violation]:
    if not is_handles(given):
        vuid = f"VUID-{suite.command}-pFences-parameter"
        return [misfit(vuid, f"{suite.command}.fences", given, "a sequence of fences")]
    count: int = len(given)  # type: ignore[arg-type]  # is_handles was true
    return suite.run(Fences(suite.command, device.device, count, facts), 0)


def check_wait_for_fences(
    fences: Sequence[object], device: SyncDeviceFacts, facts: Sequence[FenceFacts | None]
) -> list[Violation]:
    """Return all rules that this vkWaitForFences would break. facts: of each fence; None for one of other code."""
    return _check(WAIT_FENCES, fences, device, facts)


def check_reset_fences(
    fences: Sequence[object], device: SyncDeviceFacts, facts: Sequence[FenceFacts | None]
) -> list[Violation]:
    """Return all rules that this vkResetFences would break. facts: of each fence; None for one of other code."""
    return _check(RESET_FENCES, fences, device, facts)


def check_get_fence_status(device: SyncDeviceFacts, fence: FenceFacts) -> list[Violation]:
    """Return all rules that this vkGetFenceStatus would break."""
    return FENCE_STATUS.run(Fences(FENCE_STATUS.command, device.device, 1, (fence,)), 0)


def check_destroy_semaphore(semaphore: SemaphoreFacts) -> list[Violation]:
    """Return all rules that vkDestroySemaphore would break now."""
    return DESTROY_SEMAPHORE.run(Destroyed(semaphore), 0)


def check_destroy_fence(fence: FenceFacts) -> list[Violation]:
    """Return all rules that vkDestroyFence would break now."""
    return DESTROY_FENCE.run(Destroyed(fence), 0)
