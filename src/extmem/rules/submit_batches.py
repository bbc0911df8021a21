"""Batches of a submission: chains, and arrays that have one element for each semaphore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem import vk
from extmem.rules._conditions import undefined_bits
from extmem.rules._creation import chain_demands
from extmem.rules._engine import Condition, Demand, Finding, demand
from extmem.rules._submission import BATCH, BATCH2, BatchCall, Traits, chained_path
from extmem.vk._generated.chains import CHAIN_ALLOWED

__all__: list[str] = []

_TIMELINE = chained_path(vk.TimelineSemaphoreSubmitInfo)
_D3D12 = chained_path(vk.D3D12FenceSubmitInfoKHR)
_GROUP = chained_path(vk.DeviceGroupSubmitInfo)
_NEEDS = {"timeline": Traits.TIMELINE, "d3d12": Traits.D3D12, "group": Traits.GROUP}


def _here(call: BatchCall, path: str) -> str:
    return f"{call.where}.{path}"


def _as_many(vuid: str, struct: str, path: str, field: str, semaphores: str, only: Condition | None = None) -> Demand:
    """Return the row that an array of a chained struct has one element for each of the batch's semaphores.

    struct: the attribute of the call with the chained struct. only: another condition for the row to apply.
    """

    def broken(call: BatchCall) -> Finding | None:
        if only is not None and not only(call):
            return None
        node = getattr(call, struct)
        given, wanted = len(getattr(node, field)), len(getattr(call.info, semaphores))
        if given == wanted:
            return None
        return (
            _here(call, f"{path}.{field}"),
            f"it has {given} elements for {wanted} {semaphores}",
            f"Give one element for each of {semaphores}; those of other semaphores are ignored.",
        )

    return Demand(vuid, broken, needs=_NEEDS[struct])


def _timelines(signal: bool) -> Condition:
    """A semaphore that the batch waits for (or signals) is a timeline."""

    def broken(call: BatchCall) -> bool:
        facts = call.facts.signals if signal else call.facts.waits
        return any(known is not None and known.timeline for known in facts)

    return broken


def _values_missing(call: BatchCall) -> Finding | None:
    """A timeline semaphore needs VkTimelineSemaphoreSubmitInfo, also where D3D12FenceSubmitInfoKHR has its value."""
    named = [known.name for known in (*call.facts.waits, *call.facts.signals) if known is not None and known.timeline]
    if not named:
        return None
    return (
        _here(call, "pNext"),
        f"{named[0]} needs a value, and the chain has no TimelineSemaphoreSubmitInfo",
        "Chain TimelineSemaphoreSubmitInfo with one value for each semaphore.",
    )


def _masks_of_waits(call: BatchCall) -> Finding | None:
    given, wanted = len(call.info.wait_dst_stage_mask), len(call.info.wait_semaphores)
    if given == wanted:
        return None
    return (
        _here(call, "wait_dst_stage_mask"),
        f"it has {given} elements for {wanted} wait_semaphores",
        "Give the stages that wait, for each of wait_semaphores.",
    )


def _device_indices(call: BatchCall) -> Finding | None:
    for field in ("wait_semaphore_device_indices", "signal_semaphore_device_indices"):
        for i, index in enumerate(getattr(call.group, field)):
            if index >= call.sync.group_size:
                return (
                    _here(call, f"{_GROUP}.{field}[{i}]"),
                    f"there is no device {index} in {call.device.name!r}, which has {call.sync.group_size} devices",
                    f"Give an index below {call.sync.group_size}.",
                )
    return None


demand(
    BATCH,
    *(row._replace(needs=Traits.CHAIN) for row in chain_demands("VkSubmitInfo")),
    Demand("VkSubmitInfo-pWaitDstStageMask-parameter", _masks_of_waits),
    Demand("VkSubmitInfo-pWaitSemaphores-03239", _values_missing, never=Traits.TIMELINE),
    _as_many(
        "VkSubmitInfo-pNext-03240", "timeline", _TIMELINE, "wait_semaphore_values", "wait_semaphores", _timelines(False)
    ),
    _as_many(
        "VkSubmitInfo-pNext-03241",
        "timeline",
        _TIMELINE,
        "signal_semaphore_values",
        "signal_semaphores",
        _timelines(True),
    ),
    _as_many(
        "VkD3D12FenceSubmitInfoKHR-waitSemaphoreValuesCount-00079",
        "d3d12",
        _D3D12,
        "wait_semaphore_values",
        "wait_semaphores",
    ),
    _as_many(
        "VkD3D12FenceSubmitInfoKHR-signalSemaphoreValuesCount-00080",
        "d3d12",
        _D3D12,
        "signal_semaphore_values",
        "signal_semaphores",
    ),
    _as_many(
        "VkDeviceGroupSubmitInfo-waitSemaphoreCount-00082",
        "group",
        _GROUP,
        "wait_semaphore_device_indices",
        "wait_semaphores",
    ),
    _as_many(
        "VkDeviceGroupSubmitInfo-signalSemaphoreCount-00084",
        "group",
        _GROUP,
        "signal_semaphore_device_indices",
        "signal_semaphores",
    ),
    Demand("VkDeviceGroupSubmitInfo-pWaitSemaphoreDeviceIndices-00085", _device_indices, needs=Traits.GROUP),
)


# vkQueueSubmit2.


def _foreign(call: BatchCall) -> Finding | None:
    allowed = CHAIN_ALLOWED["VkSubmitInfo2"]
    foreign = [node for node in call.chain if getattr(node, "C_NAME", "") not in allowed]
    if not foreign:
        return None
    where = _here(call, "pNext")
    if call.d3d12 is not None:
        return (
            where,
            "D3D12FenceSubmitInfoKHR does not extend SubmitInfo2, whose values apply to timelines alone",
            "Import the fence of Direct3D 12 into a timeline semaphore, or submit by vkQueueSubmit.",
        )
    names = ", ".join(dict.fromkeys(type(node).__name__ for node in foreign))
    return where, f"{names} does not extend SubmitInfo2", "Take it out of the chain."


def _infos(field: str, test: Callable[[BatchCall, Any], object]) -> Condition:
    """Return the condition that one of these structs has a true value in the test: its index, the struct, the value."""

    def broken(call: BatchCall) -> tuple[str, Any, object] | None:
        for i, info in enumerate(getattr(call.info, field)):
            found = test(call, info)
            if found:
                return f"{call.where}.{field}[{i}]", info, found
        return None

    return broken


def _wrong_index(call: BatchCall, info: Any) -> bool:
    return call.sync.group_size == 1 and int(info.device_index) != 0


def _no_device(call: BatchCall, info: Any) -> bool:
    return call.sync.group_size > 1 and int(info.device_index) >= call.sync.group_size


def _undefined_stages(_: BatchCall, info: Any) -> int:
    return int(info.stage_mask) & ~_STAGES


def _signal_not_above_wait(call: BatchCall) -> Finding | None:
    """One timeline in both lists: the signal's value is greater than the wait's, or neither can happen."""
    for i, signal in enumerate(call.info.signal_semaphore_infos):
        for wait, known in zip(call.info.wait_semaphore_infos, call.facts.waits, strict=False):
            if known is None or not known.timeline or int(signal.value) > int(wait.value):
                continue
            if signal.semaphore == wait.semaphore or _is_signaled(call, i, known.identity):
                return (
                    _here(call, f"signal_semaphore_infos[{i}].value"),
                    f"{known.name} would be set to {int(signal.value)} after a wait for {int(wait.value)}",
                    f"Signal a value greater than {int(wait.value)}.",
                )
    return None


def _is_signaled(call: BatchCall, index: int, identity: int) -> bool:
    """Return whether the signal at this index is of the semaphore of this identity."""
    known = call.facts.signals[index] if index < len(call.facts.signals) else None
    return known is not None and identity != 0 and known.identity == identity


_STAGES = sum(int(bit) for bit in vk.PipelineStageFlagBits2)
_FLAGS = sum(int(bit) for bit in vk.SubmitFlagBits)
demand(
    BATCH2,
    Demand("VkSubmitInfo2-pNext-pNext", _foreign, needs=Traits.CHAIN),
    chain_demands("VkSubmitInfo2")[1]._replace(needs=Traits.CHAIN),
    Demand(
        "VkSubmitInfo2-flags-parameter",
        undefined_bits("info.flags", _FLAGS),
        "{call.where}.flags",
        "the bits {found:#x} are not defined",
        "Give bits of SubmitFlagBits.",
    ),
    Demand("VkSubmitInfo2-semaphore-03881", _signal_not_above_wait),
)
for _list in ("wait_semaphore_infos", "signal_semaphore_infos"):
    demand(
        BATCH2,
        Demand(
            "VkSemaphoreSubmitInfo-pNext-pNext",
            _infos(_list, lambda _, info: info.p_next is not None),
            "{found[0]}.pNext",
            "{found[1].p_next.__class__.__name__} is chained",
            "Pass p_next=None.",
        ),
        Demand(
            "VkSemaphoreSubmitInfo-stageMask-parameter",
            _infos(_list, _undefined_stages),
            "{found[0]}.stage_mask",
            "the bits {found[2]:#x} are not stages",
            "Give bits of PipelineStageFlagBits2.",
        ),
        Demand(
            "VkSemaphoreSubmitInfo-device-03888",
            _infos(_list, _wrong_index),
            "{found[0]}.device_index",
            "it is {found[1].device_index}, and {call.device.name!r} is no group of devices",
            "Give 0.",
        ),
        Demand(
            "VkSemaphoreSubmitInfo-device-03889",
            _infos(_list, _no_device),
            "{found[0]}.device_index",
            "there is no device {found[1].device_index} in {call.device.name!r}, which has {call.sync.group_size} "
            "devices",
            "Give an index below {call.sync.group_size}.",
        ),
    )
