"""The fence and the device of a submission."""

from __future__ import annotations

from extmem.rules._conditions import is_zero
from extmem.rules._engine import Demand, demand
from extmem.rules._submission import SUBMISSION, SUBMISSION2, Submission

__all__: list[str] = []

_FENCE = "{call.fence.name}"


def _dead(call: Submission) -> bool:
    return call.fence is not None and not call.fence.alive


def _signaled(call: Submission) -> bool:
    return call.fence is not None and call.fence.signaled is True and not call.fence.pending


def _pending(call: Submission) -> bool:
    return call.fence is not None and call.fence.pending


def _of_other_device(call: Submission) -> bool:
    fence = call.fence
    if fence is None or not fence.device_identity or not call.device.identity:
        return False
    return fence.device_identity != call.device.identity


demand(
    (SUBMISSION, SUBMISSION2),
    Demand(
        ("vkQueueSubmit-queue-parameter", "vkQueueSubmit2-queue-parameter"),
        is_zero("device.alive"),
        "queue",
        "its device {call.device.name!r} is closed",
        "Submit before closing the device.",
    ),
    Demand(
        ("vkQueueSubmit-fence-parameter", "vkQueueSubmit2-fence-parameter"),
        _dead,
        "fence",
        f"{_FENCE} is destroyed",
        "Submit with it before destroying it.",
    ),
    Demand(
        ("vkQueueSubmit-commonparent", "vkQueueSubmit2-commonparent"),
        _of_other_device,
        "fence",
        f"{_FENCE} belongs to another device than the queue",
        "Create the fence on {call.device.name!r}.",
    ),
    Demand(
        ("vkQueueSubmit-fence-00063", "vkQueueSubmit2-fence-04894"),
        _signaled,
        "fence",
        f"{_FENCE} is signaled",
        "Reset it by vkResetFences first.",
    ),
    Demand(
        ("vkQueueSubmit-fence-00064", "vkQueueSubmit2-fence-04895"),
        _pending,
        "fence",
        f"{_FENCE} belongs to an earlier submission that is not finished",
        "Wait for it and reset it, or use another fence.",
    ),
)
