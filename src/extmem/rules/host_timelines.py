"""vkWaitSemaphores, vkSignalSemaphore and vkGetSemaphoreCounterValue: operations of the host on timelines.

The counter of a shared timeline can move between a check and the call; the rules compare with the value at the check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

import extmem.rules._submit_field_types  # noqa: F401  # it registers the types of fields
from extmem import vk
from extmem.rules._conditions import is_given, is_zero, undefined_bits
from extmem.rules._engine import Condition, Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._timeline_values import difference, not_above
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import SemaphoreFacts, SyncDeviceFacts
from extmem.rules.violation import Violation

__all__ = ["check_get_semaphore_counter_value", "check_signal_semaphore", "check_wait_semaphores"]


class HostWait(msgspec.Struct):
    """One vkWaitSemaphores with the facts of its semaphores."""

    info: vk.SemaphoreWaitInfo
    device: DeviceFacts
    semaphores: Sequence[SemaphoreFacts | None]


class HostSignal(msgspec.Struct):
    """One vkSignalSemaphore, or with value 0 and no info one vkGetSemaphoreCounterValue."""

    info: vk.SemaphoreSignalInfo | None
    sync: SyncDeviceFacts
    facts: SemaphoreFacts
    value: int = 0

    @property
    def device(self) -> DeviceFacts:
        """The device of the command."""
        return self.sync.device

    @property
    def command(self) -> str:
        """The name of the command."""
        return "vkGetSemaphoreCounterValue" if self.info is None else "vkSignalSemaphore"


HOST_WAIT: Suite[HostWait] = Suite("vkWaitSemaphores")
HOST_SIGNAL: Suite[HostSignal] = Suite("vkSignalSemaphore")
COUNTER: Suite[HostSignal] = Suite("vkGetSemaphoreCounterValue")
_WAIT, _SIGNAL = "VkSemaphoreWaitInfo", "VkSemaphoreSignalInfo"
_FLAGS = sum(int(bit) for bit in vk.SemaphoreWaitFlagBits)


def _one(test: Callable[[HostWait, SemaphoreFacts], object]) -> Condition:
    """One of the semaphores has a true value in the test. The value is its index and its facts."""

    def broken(call: HostWait) -> tuple[int, SemaphoreFacts] | None:
        for i, known in enumerate(call.semaphores):
            if known is not None and test(call, known):
                return i, known
        return None

    return broken


def _counts_differ(call: HostWait) -> tuple[int, int] | None:
    given, wanted = len(call.info.values), len(call.info.semaphores)
    return (given, wanted) if given != wanted else None


def _foreign(device: DeviceFacts, facts: SemaphoreFacts) -> bool:
    return bool(device.identity and facts.device_identity) and device.identity != facts.device_identity


def _closed(vuids: str | tuple[str, ...], command: str) -> Demand:
    return Demand(
        vuids,
        is_zero("device.alive"),
        f"{command}.device",
        "the device {call.device.name!r} is closed",
        "Make the call before closing the device.",
    )


_REMEDY = "Wait for a binary semaphore on a queue; for the host, use a timeline or a fence."
demand(
    HOST_WAIT,
    _closed("vkWaitSemaphores-device-parameter", "vkWaitSemaphores"),
    Demand(
        f"{_WAIT}-pNext-pNext",
        is_given("info.p_next"),
        f"{_WAIT[2:]}.pNext",
        "{call.info.p_next.__class__.__name__} is chained",
        "Pass p_next=None.",
    ),
    Demand(
        f"{_WAIT}-flags-parameter",
        undefined_bits("info.flags", _FLAGS),
        f"{_WAIT[2:]}.flags",
        "the bits {found:#x} are not defined",
        "Give SemaphoreWaitFlagBits.ANY or 0.",
    ),
    Demand(
        f"{_WAIT}-semaphoreCount-arraylength",
        is_zero("info.semaphores"),
        f"{_WAIT[2:]}.semaphores",
        "it is empty",
        "Give at least one semaphore.",
    ),
    Demand(
        f"{_WAIT}-pValues-parameter",
        _counts_differ,
        f"{_WAIT[2:]}.values",
        "it has {found[0]} elements for {found[1]} semaphores",
        "Give one value for each semaphore.",
    ),
    Demand(
        f"{_WAIT}-pSemaphores-parameter",
        _one(lambda call, known: not known.alive or _foreign(call.device, known)),
        f"{_WAIT[2:]}.semaphores[{{found[0]}}]",
        "{found[1].name} is destroyed, or belongs to another device",
        "Wait for semaphores of {call.device.name!r} that exist.",
    ),
    Demand(
        f"{_WAIT}-pSemaphores-03256",
        _one(lambda _, known: not known.timeline),
        f"{_WAIT[2:]}.semaphores[{{found[0]}}]",
        "{found[1].name} is binary",
        _REMEDY,
    ),
)


def _pending_below(call: HostSignal) -> tuple[int, int] | None:
    """Return the lowest value of a pending signal that is not greater than the new one, and the queue's number."""
    below = [(value, queue) for queue, value in call.facts.pending_signals if value <= call.value]
    return min(below) if below else None


demand(
    (HOST_SIGNAL, COUNTER),
    _closed(("vkSignalSemaphore-device-parameter", "vkGetSemaphoreCounterValue-device-parameter"), "{call.command}"),
    Demand(
        (f"{_SIGNAL}-semaphore-parameter", "vkGetSemaphoreCounterValue-semaphore-parameter"),
        is_zero("facts.alive"),
        "semaphore",
        "{call.facts.name} is destroyed",
        "Make the call before destroying it.",
    ),
    Demand(
        (f"{_SIGNAL}-semaphore-parameter", "vkGetSemaphoreCounterValue-semaphore-parent"),
        lambda call: _foreign(call.device, call.facts),
        "semaphore",
        "{call.facts.name} belongs to another device than {call.device.name!r}",
        "Call the command of its device.",
    ),
    Demand(
        (f"{_SIGNAL}-semaphore-03257", "vkGetSemaphoreCounterValue-semaphore-03255"),
        is_zero("facts.timeline"),
        "semaphore",
        "{call.facts.name} is binary",
        "Create it as a timeline; only a queue signals a binary semaphore.",
    ),
)


def _of_timeline(condition: Callable[[HostSignal], object]) -> Condition:
    return lambda call: call.facts.timeline and condition(call)


demand(
    HOST_SIGNAL,
    Demand(
        f"{_SIGNAL}-pNext-pNext",
        is_given("info.p_next"),
        f"{_SIGNAL[2:]}.pNext",
        "{call.info.p_next.__class__.__name__} is chained",
        "Pass p_next=None.",
    ),
    Demand(
        f"{_SIGNAL}-value-03258",
        _of_timeline(lambda call: not_above(call.facts, call.value)),
        f"{_SIGNAL[2:]}.value",
        "{call.value} is not greater than {found[0]}, {found[1]} of {call.facts.name}",
        "Signal a value greater than {found[0]}.",
    ),
    Demand(
        f"{_SIGNAL}-value-03259",
        _of_timeline(_pending_below),
        f"{_SIGNAL[2:]}.value",
        "{call.value} is not less than {found[0]}, which a queue is still to signal {call.facts.name} to",
        "Signal a value less than {found[0]}, or wait until the queue has signaled it.",
    ),
    Demand(
        f"{_SIGNAL}-value-03260",
        _of_timeline(lambda call: difference(call.facts, call.value, call.sync.max_timeline_difference)),
        f"{_SIGNAL[2:]}.value",
        "{call.value} differs from {found[1]}, {found[0]}, by {found[2]}; the device's limit is "
        "{call.sync.max_timeline_difference}",
        "Raise the value in steps within maxTimelineSemaphoreValueDifference.",
    ),
)


def check_wait_semaphores(
    info: vk.SemaphoreWaitInfo, device: SyncDeviceFacts, semaphores: Sequence[SemaphoreFacts | None]
) -> list[Violation]:
    """Return all rules that this vkWaitSemaphores would break.

    semaphores: the facts of each of `info.semaphores`; None for one of other code.
    """
    return (
        wrong_struct(info, vk.SemaphoreWaitInfo, "vkWaitSemaphores.info")
        or malformed([("SemaphoreWaitInfo", info)])
        or HOST_WAIT.run(HostWait(info, device.device, semaphores), 0)
    )


def check_signal_semaphore(
    info: vk.SemaphoreSignalInfo, device: SyncDeviceFacts, semaphore: SemaphoreFacts | None
) -> list[Violation]:
    """Return all rules that this vkSignalSemaphore would break. semaphore: None for one of other code."""
    wrong: list[Violation] = wrong_struct(info, vk.SemaphoreSignalInfo, "vkSignalSemaphore.info") or malformed(
        [("SemaphoreSignalInfo", info)]
    )
    if wrong or semaphore is None:
        return wrong
    return HOST_SIGNAL.run(HostSignal(info, device, semaphore, int(info.value)), 0)


def check_get_semaphore_counter_value(device: SyncDeviceFacts, semaphore: SemaphoreFacts) -> list[Violation]:
    """Return all rules that this vkGetSemaphoreCounterValue would break."""
    return COUNTER.run(HostSignal(None, device, semaphore), 0)
