"""Keyed mutexes of Direct3D 11 resources, which a queue submission acquires and releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from extmem import vk
from extmem.rules._engine import Check, Finding, Suite, rule
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import D3D11_TYPES, types_text
from extmem.rules.facts import MemoryFacts
from extmem.rules.violation import Violation

__all__ = ["check_keyed_mutex"]


@dataclass(slots=True)
class Mutex:
    """One VkWin32KeyedMutexAcquireReleaseInfoKHR with facts of its memories, the acquired ones first."""

    info: vk.Win32KeyedMutexAcquireReleaseInfoKHR
    memories: Sequence[MemoryFacts | None]

    def place(self, index: int) -> str:
        """Return the path of the memory at this index."""
        acquired = len(self.info.acquire_syncs)
        if index < acquired:
            return f"{_MUTEX}.acquire_syncs[{index}]"
        return f"{_MUTEX}.release_syncs[{index - acquired}]"


_MUTEX = "Win32KeyedMutexAcquireReleaseInfoKHR"
MUTEX: Suite[Mutex] = Suite("vkQueueSubmit")


def _alive(attribute: str) -> Check[Mutex]:
    def check(call: Mutex) -> Finding | None:
        dead = [
            place
            for i, memory in enumerate(call.memories)
            if memory is not None and not memory.alive and attribute in (place := call.place(i))
        ]
        if not dead:
            return None
        return dead[0], f"freed memory: {', '.join(dead)}", "Submit while the memory is alive."

    return check


rule(f"Vk{_MUTEX}-pAcquireSyncs-parameter", on=MUTEX)(_alive("acquire_syncs"))
rule(f"Vk{_MUTEX}-pReleaseSyncs-parameter", on=MUTEX)(_alive("release_syncs"))


def _as_many(attribute: str, syncs: str) -> Check[Mutex]:
    def check(call: Mutex) -> Finding | None:
        given, wanted = len(getattr(call.info, attribute)), len(getattr(call.info, syncs))
        if given == wanted:
            return None
        return (
            f"{_MUTEX}.{attribute}",
            f"it has {given} elements for {wanted} {syncs}",
            f"Give one element for each of {syncs}.",
        )

    return check


rule(f"Vk{_MUTEX}-pAcquireKeys-parameter", on=MUTEX)(_as_many("acquire_keys", "acquire_syncs"))
rule(f"Vk{_MUTEX}-pAcquireTimeouts-parameter", on=MUTEX)(_as_many("acquire_timeouts", "acquire_syncs"))
rule(f"Vk{_MUTEX}-pReleaseKeys-parameter", on=MUTEX)(_as_many("release_keys", "release_syncs"))


@rule(f"Vk{_MUTEX}-commonparent", on=MUTEX)
def of_one_device(call: Mutex) -> Finding | None:
    """All memories belong to one device."""
    uuids = {m.device_uuid for m in call.memories if m is not None and m.device_uuid}
    devices = {m.device_identity for m in call.memories if m is not None and m.device_identity}
    count = max(len(uuids), len(devices))
    if count < 2:
        return None
    return _MUTEX, f"its memories belong to {count} devices", "Submit each device's memories to that device."


@rule(f"Vk{_MUTEX}-pAcquireSyncs-00081", on=MUTEX)
def of_direct3d_11(call: Mutex) -> Finding | None:
    """All memories were imported from Direct3D 11."""
    wrong = [
        (call.place(i), int(m.import_handle_type))
        for i, m in enumerate(call.memories)
        if m is not None and not int(m.import_handle_type) & D3D11_TYPES
    ]
    if not wrong:
        return None
    actual = ", ".join(f"{place} was {f'imported as {types_text(t)}' if t else 'not imported'}" for place, t in wrong)
    return (
        wrong[0][0],
        f"a keyed mutex needs D3D11_TEXTURE or D3D11_TEXTURE_KMT imports, but {actual}",
        "Remove the other memory; use external semaphores or fences for it.",
    )


def check_keyed_mutex(
    info: vk.Win32KeyedMutexAcquireReleaseInfoKHR, memories: Sequence[MemoryFacts | None]
) -> list[Violation]:
    """Return all rules that submitting with these keyed mutexes would break.

    `memories`: facts of each of `acquire_syncs`, then of each of `release_syncs`; None if there are none.
    """
    return (
        wrong_struct(info, vk.Win32KeyedMutexAcquireReleaseInfoKHR, _MUTEX)
        or malformed([(_MUTEX, info)])
        or MUTEX.run(Mutex(info, memories), 0)
    )
