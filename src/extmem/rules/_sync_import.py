"""One import of a semaphore's or fence's payload with its facts, and the rows that imports have in common.

Whose type and flags. The rules compare the importing semaphore with the one that the payload was exported from, which
the descriptor describes. Without a descriptor nothing is known about that one, and the rules report nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from extmem import vk
from extmem.rules._conditions import is_given, undefined_bits
from extmem.rules._engine import Demand
from extmem.rules._sync_types import SyncKind
from extmem.rules._text import is_null, uuid_text
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import FenceFacts, ImportSyncFacts, SyncPayloadFacts

__all__ = ["ImportSync", "common_rows", "in_use", "permanence_rows", "same_device", "same_semaphore_rows"]

_TEMPORARY = int(vk.SemaphoreImportFlagBits.TEMPORARY)
"""VK_FENCE_IMPORT_TEMPORARY_BIT has the same value."""


class ImportSync(msgspec.Struct):
    """One call of the four commands."""

    info: Any
    kind: SyncKind
    facts: ImportSyncFacts
    where: str
    """Name of the struct."""

    @property
    def device(self) -> DeviceFacts:
        """The importing device."""
        return self.facts.device.device

    @property
    def target(self) -> Any:
        """Facts of the importing semaphore or fence."""
        return self.facts.target

    @property
    def payload(self) -> SyncPayloadFacts | None:
        """The payload; None if nothing is known about it."""
        return self.facts.payload

    @property
    def handle_type(self) -> int:
        """The handle type."""
        return int(self.info.handle_type)

    @property
    def opaque(self) -> bool:
        """Whether the payload is imported as one of the opaque types."""
        return bool(self.handle_type & self.kind.opaque_types)

    @property
    def temporary(self) -> bool:
        """Whether the import is temporary."""
        return bool(int(self.info.flags) & _TEMPORARY)

    @property
    def named(self) -> bool:
        """Whether a name is given."""
        return getattr(self.info, "name", None) is not None

    @property
    def handled(self) -> bool:
        """Whether a handle is given."""
        return not is_null(getattr(self.info, "handle", None))

    @property
    def in_use(self) -> bool:
        """Whether an unfinished submission of this process refers to the importing object."""
        return self.target.pending if isinstance(self.target, FenceFacts) else self.target.in_use


def common_rows(kind: SyncKind, command: str, struct: str) -> tuple[Demand, ...]:
    """Return the rows on the device, the importing object, the chain and the flags."""

    def closed(call: ImportSync) -> bool:
        return not call.device.alive

    def destroyed(call: ImportSync) -> bool:
        return not call.target.alive

    return (
        Demand(
            f"{command}-device-parameter",
            closed,
            f"{command}.device",
            "the device {call.device.name!r} is closed",
            "Import before the device is closed.",
        ),
        Demand(
            f"{struct}-pNext-pNext",
            is_given("info.p_next"),
            "{call.where}.pNext",
            "{call.info.p_next.__class__.__name__} is chained",
            "Pass p_next=None.",
        ),
        Demand(
            f"{struct}-{kind.word}-parameter",
            destroyed,
            f"{{call.where}}.{kind.word}",
            "{call.target.name} is destroyed",
            f"Import into a {kind.word} that exists.",
        ),
        Demand(
            f"{struct}-flags-parameter",
            undefined_bits("info.flags", _TEMPORARY),
            "{call.where}.flags",
            "the bits {found:#x} are not defined",
            f"Pass {kind.word.capitalize()}ImportFlagBits.TEMPORARY or 0.",
        ),
    )


def in_use(vuid: str, command: str, kind: SyncKind) -> Demand:
    """Return the row that no unfinished command of a queue uses the importing object."""

    def broken(call: ImportSync) -> bool:
        return call.in_use

    return Demand(
        vuid,
        broken,
        f"{command}.{kind.word}",
        "a queue uses {call.target.name}, and has not finished",
        f"Wait for the submission that uses it, or import into another {kind.word}.",
    )


def same_device(vuid: str, where: str, *, handled: bool = False, named: bool = False) -> Demand:
    """Return the row that device and driver are the exporter's.

    Direct3D knows neither UUID, only the LUID of the adapter. SYNC_FD has no requirements.
    """

    def broken(call: ImportSync) -> str:
        payload = call.payload
        if payload is None or call.handle_type == call.kind.copied or (handled and not call.handled):
            return ""
        if named and not call.named:
            return ""
        return _other_device(call, payload)

    remedy = "Import on the exporter's device, with the same version of its driver."
    return Demand(vuid, broken, where, "{found}", remedy)


def _other_device(call: ImportSync, payload: SyncPayloadFacts) -> str:
    device = call.device
    pairs = [("driver", payload.driver_uuid, device.driver_uuid)]
    if payload.device_uuid not in device.device_group:
        pairs.insert(0, ("device", payload.device_uuid, device.device_uuid))
    wrong = [
        f"the exporter's {subject} UUID is {uuid_text(theirs)}, that of {device.name!r} is {uuid_text(ours)}"
        for subject, theirs, ours in pairs
        if theirs is not None and theirs != ours
    ]
    luid = call.facts.device.luid
    if payload.device_uuid is None and payload.luid and luid and payload.luid != luid:
        wrong.append(f"the exporter's LUID is {payload.luid.hex()}, that of {device.name!r} is {luid.hex()}")
    return "; ".join(wrong)


def _type_text(timeline: bool) -> str:
    return "timeline" if timeline else "binary"


def same_semaphore_rows(flags: str, semaphore_type: str) -> tuple[Demand, Demand]:
    """Return the rows that flags and type are those of the semaphore that an opaque payload was exported from."""

    def other_flags(call: ImportSync) -> tuple[int, int] | None:
        payload, target = call.payload, call.target
        if not call.opaque or payload is None or payload.flags is None or payload.flags == target.flags:
            return None
        return int(target.flags), int(payload.flags)

    def other_type(call: ImportSync) -> tuple[str, str] | None:
        payload, target = call.payload, call.target
        if not call.opaque or payload is None or payload.timeline is None or payload.timeline == target.timeline:
            return None
        return _type_text(target.timeline), _type_text(payload.timeline)

    return (
        Demand(
            flags,
            other_flags,
            "{call.where}.semaphore",
            "{call.target.name} was created with flags {found[0]:#x}, the exporting semaphore with {found[1]:#x}",
            "Create the importing semaphore with flags={found[1]:#x}.",
        ),
        Demand(
            semaphore_type,
            other_type,
            "{call.where}.semaphore",
            "{call.target.name} is a {found[0]} semaphore, the payload was exported from a {found[1]} one",
            "Import it into a {found[1]} semaphore.",
        ),
    )


def permanence_rows(kind: SyncKind, *, copied: str = "", timeline: str = "") -> tuple[Demand, ...]:
    """Return the rows on temporary imports: SYNC_FD is imported so, and what a timeline exported is not."""

    def permanent_copy(call: ImportSync) -> bool:
        return call.handle_type == kind.copied and not call.temporary

    def temporary_timeline(call: ImportSync) -> bool:
        return call.temporary and call.payload is not None and call.payload.timeline is True

    flag = f"{kind.word.capitalize()}ImportFlagBits.TEMPORARY"
    rows = []
    if copied:
        problem = "it lacks TEMPORARY, and a SYNC_FD payload is a copy, which cannot be imported permanently"
        rows.append(Demand(copied, permanent_copy, "{call.where}.flags", problem, f"Pass flags={flag}."))
    if timeline:
        problem = "it has TEMPORARY, and a timeline semaphore exported the payload"
        remedy = "Pass flags=0: timelines are imported permanently."
        rows.append(Demand(timeline, temporary_timeline, "{call.where}.flags", problem, remedy))
    return tuple(rows)
