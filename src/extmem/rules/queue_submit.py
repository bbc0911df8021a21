"""vkQueueSubmit and vkQueueSubmit2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import extmem.rules._submit_field_types
import extmem.rules.submit_batches
import extmem.rules.submit_fences
import extmem.rules.submit_semaphores  # noqa: F401  # they register their rules
from extmem import vk
from extmem.rules._creation import chain_of
from extmem.rules._engine import Suite
from extmem.rules._field_types import is_handle, is_sequence, malformed, misfit, wrong_struct
from extmem.rules._submission import (
    BATCH,
    BATCH2,
    SIGNAL,
    SIGNAL2,
    SUBMISSION,
    SUBMISSION2,
    WAIT,
    WAIT2,
    BatchCall,
    Operation,
    Submission,
    facts_of_batch,
)
from extmem.rules.facts import MemoryFacts
from extmem.rules.keyed_mutex import check_keyed_mutex
from extmem.rules.sync_facts import SubmitFacts
from extmem.rules.violation import Violation

__all__ = ["check_queue_submit", "check_queue_submit2", "malformed_submits"]

_Suites: TypeAlias = tuple[Suite[Submission], Suite[BatchCall], Suite[Operation], Suite[Operation]]
_SUITES: dict[Any, _Suites] = {
    vk.SubmitInfo: (SUBMISSION, BATCH, WAIT, SIGNAL),
    vk.SubmitInfo2: (SUBMISSION2, BATCH2, WAIT2, SIGNAL2),
}
_ELEMENTS = (
    ("wait_semaphore_infos", vk.SemaphoreSubmitInfo, "VUID-VkSubmitInfo2-pWaitSemaphoreInfos-parameter"),
    ("command_buffer_infos", vk.CommandBufferSubmitInfo, "VUID-VkSubmitInfo2-pCommandBufferInfos-parameter"),
    ("signal_semaphore_infos", vk.SemaphoreSubmitInfo, "VUID-VkSubmitInfo2-pSignalSemaphoreInfos-parameter"),
)


def check_queue_submit(
    submits: Sequence[vk.SubmitInfo], fence: object, facts: SubmitFacts, *, well_formed: bool = False
) -> list[Violation]:
    """Return all rules that this vkQueueSubmit would break. fence: a fence, its number, or None.

    well_formed: whether the structs are known to be right in themselves, because the caller made them: the types of the
    fields, the chains, and the lengths of the arrays. Only the rules of semaphores and the fence are checked then.
    """
    return _check("vkQueueSubmit", vk.SubmitInfo, submits, fence, facts, well_formed=well_formed)


def check_queue_submit2(
    submits: Sequence[vk.SubmitInfo2], fence: object, facts: SubmitFacts, *, well_formed: bool = False
) -> list[Violation]:
    """Return all rules that this vkQueueSubmit2 would break. As `check_queue_submit`."""
    return _check("vkQueueSubmit2", vk.SubmitInfo2, submits, fence, facts, well_formed=well_formed)


def malformed_submits(submits: Sequence[object], struct: type) -> list[Violation]:
    """Return the violations of the structs of a submission with fields of wrong types: the first part of the checks.

    struct: vk.SubmitInfo or vk.SubmitInfo2.
    """
    return [one for i, info in enumerate(submits) for one in _malformed(info, struct, f"submits[{i}]")]


def _check(
    command: str,
    struct: Any,
    submits: Sequence[Any],
    fence: object,
    facts: SubmitFacts,
    *,
    well_formed: bool = False,
) -> list[Violation]:
    if not is_sequence(submits):
        return [misfit(f"VUID-{command}-pSubmits-parameter", f"{command}.submits", submits, "a sequence of structs")]
    if not is_handle(fence):
        return [misfit(f"VUID-{command}-fence-parameter", f"{command}.fence", fence, "a fence or None")]
    violations = [] if well_formed else malformed_submits(submits, struct)
    if violations:
        return violations
    submission, batch, wait, signal = _SUITES[struct]
    violations = submission.run(Submission(facts.device, facts.fence), 0)
    for i, info in enumerate(submits):
        call = BatchCall(info, f"submits[{i}]", facts.device, facts_of_batch(facts, i), facts.queue)
        if not well_formed:
            violations += batch.run(call, call.traits)
        for operation in call.operations():
            violations += (wait if operation.kind == "wait" else signal).run(operation, 0)
        if well_formed:
            continue
        mutex = next((n for n in call.chain if type(n) is vk.Win32KeyedMutexAcquireReleaseInfoKHR), None)
        if mutex is not None:
            memories = cast("tuple[MemoryFacts | None, ...]", facts.mutexes.get(i, ()))
            violations += check_keyed_mutex(mutex, memories, facts.device.device)
    return violations


def _malformed(info: Any, struct: Any, where: str) -> list[Violation]:
    """Return the violations of a batch with fields of wrong types; it is not checked further then."""
    wrong = wrong_struct(info, struct, where)
    if wrong:
        return wrong
    nodes = {where: info}
    for node in chain_of(info):  # of two of one type, which another rule refuses, the first is checked
        nodes.setdefault(f"{where}.pNext<{type(node).__name__}>", node)
    violations = malformed(nodes.items())
    if violations or struct is vk.SubmitInfo:
        return violations
    for field, element, vuid in _ELEMENTS:
        for i, one in enumerate(getattr(info, field)):
            path = f"{where}.{field}[{i}]"
            if type(one) is element:
                violations += malformed([(path, one)])
            else:
                violations.append(misfit(vuid, path, one, f"a vk.{element.__name__}"))
    return violations
