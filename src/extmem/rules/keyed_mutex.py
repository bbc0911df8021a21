"""Keyed mutexes of Direct3D 11 resources, which a queue submission acquires and releases."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from extmem import vk
from extmem.rules._engine import Demand, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._text import D3D11_TYPES, types_text
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.facts import MemoryFacts
from extmem.rules.violation import Violation

__all__ = ["check_keyed_mutex"]


class Mutex(msgspec.Struct):
    """One VkWin32KeyedMutexAcquireReleaseInfoKHR with facts of its memories, the acquired ones first."""

    info: vk.Win32KeyedMutexAcquireReleaseInfoKHR
    memories: Sequence[MemoryFacts | None]
    device: DeviceFacts | None = None
    """The device of the queue; None if unknown."""

    def place(self, index: int) -> str:
        """Return the path of the memory at this index."""
        acquired = len(self.info.acquire_syncs)
        if index < acquired:
            return f"{_MUTEX}.acquire_syncs[{index}]"
        return f"{_MUTEX}.release_syncs[{index - acquired}]"


_MUTEX = "Win32KeyedMutexAcquireReleaseInfoKHR"
MUTEX: Suite[Mutex] = Suite("vkQueueSubmit")


def _alive(vuid: str, field: str) -> Demand:
    def broken(call: Mutex) -> tuple[str, str] | None:
        memories = enumerate(call.memories)
        freed = [call.place(i) for i, memory in memories if memory is not None and not memory.alive]
        dead = [place for place in freed if field in place]
        return (dead[0], ", ".join(dead)) if dead else None

    return Demand(vuid, broken, "{found[0]}", "freed memory: {found[1]}", "Submit while the memory is alive.")


def _as_many(vuid: str, field: str, syncs: str) -> Demand:
    """Return the row that two sequences have the same length."""

    def broken(call: Mutex) -> tuple[int, int] | None:
        given, wanted = len(getattr(call.info, field)), len(getattr(call.info, syncs))
        return (given, wanted) if given != wanted else None

    problem = f"it has {{found[0]}} elements for {{found[1]}} {syncs}"
    return Demand(vuid, broken, f"{_MUTEX}.{field}", problem, f"Give one element for each of {syncs}.")


def _devices(call: Mutex) -> int:
    """Return the number of devices that the memories and the queue belong to, if it is not one."""
    owners: list[tuple[bytes, int]] = [(m.device_uuid, m.device_identity) for m in call.memories if m is not None]
    if call.device is not None and owners:
        owners.append((call.device.device_uuid, call.device.identity))
    count = max((len(set(filter(None, each))) for each in zip(*owners, strict=True)), default=0)
    return count if count > 1 else 0


def _not_of_direct3d_11(call: Mutex) -> tuple[str, str] | None:
    wrong = [
        (call.place(i), int(m.import_handle_type))
        for i, m in enumerate(call.memories)
        if m is not None and not int(m.import_handle_type) & D3D11_TYPES
    ]
    if not wrong:
        return None
    actual = (f"{place} was {f'imported as {types_text(t)}' if t else 'not imported'}" for place, t in wrong)
    return wrong[0][0], ", ".join(actual)


demand(
    MUTEX,
    _alive(f"Vk{_MUTEX}-pAcquireSyncs-parameter", "acquire_syncs"),
    _alive(f"Vk{_MUTEX}-pReleaseSyncs-parameter", "release_syncs"),
    _as_many(f"Vk{_MUTEX}-pAcquireKeys-parameter", "acquire_keys", "acquire_syncs"),
    _as_many(f"Vk{_MUTEX}-pAcquireTimeouts-parameter", "acquire_timeouts", "acquire_syncs"),
    _as_many(f"Vk{_MUTEX}-pReleaseKeys-parameter", "release_keys", "release_syncs"),
    Demand(
        f"Vk{_MUTEX}-commonparent",
        _devices,
        _MUTEX,
        "its memories and the queue belong to {found} devices",
        "Submit each device's memories to a queue of that device.",
    ),
    Demand(
        f"Vk{_MUTEX}-pAcquireSyncs-00081",
        _not_of_direct3d_11,
        "{found[0]}",
        "a keyed mutex needs D3D11_TEXTURE or D3D11_TEXTURE_KMT imports, but {found[1]}",
        "Remove the other memory; use external semaphores or fences for it.",
    ),
)


def check_keyed_mutex(
    info: vk.Win32KeyedMutexAcquireReleaseInfoKHR,
    memories: Sequence[MemoryFacts | None],
    device: DeviceFacts | None = None,
) -> list[Violation]:
    """Return all rules that submitting with these keyed mutexes would break.

    `memories`: facts of each of `acquire_syncs`, then of each of `release_syncs`; None if there are none.
    `device`: the device of the queue; None if unknown.
    """
    return (
        wrong_struct(info, vk.Win32KeyedMutexAcquireReleaseInfoKHR, _MUTEX)
        or malformed([(_MUTEX, info)])
        or MUTEX.run(Mutex(info, memories, device), 0)
    )
