"""vkGetSemaphoreFdKHR, vkGetSemaphoreWin32HandleKHR, vkGetFenceFdKHR and vkGetFenceWin32HandleKHR.

The current payload decides: the imported one while an import is in force. Its handle types are those that its creator
was created with, which is the exporter of an imported payload and not the semaphore or fence that is passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extmem import vk
from extmem.rules import _sync_field_types  # noqa: F401  # it registers
from extmem.rules._conditions import is_given
from extmem.rules._engine import Demand, Finding, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._sync_types import FENCE, SEMAPHORE, SyncKind, one_sync_type, sync_type_in
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import ExternalSyncFacts, FenceFacts, GetSyncFacts
from extmem.rules.violation import Violation

__all__ = [
    "check_get_fence_fd",
    "check_get_fence_win32_handle",
    "check_get_semaphore_fd",
    "check_get_semaphore_win32_handle",
]


class GetSync(msgspec.Struct):
    """One call of the four commands."""

    info: Any
    kind: SyncKind
    facts: GetSyncFacts
    where: str
    """Name of the struct."""

    @property
    def device(self) -> DeviceFacts:
        """The device."""
        return self.facts.device.device

    @property
    def source(self) -> Any:
        """Facts of the semaphore or fence."""
        return self.facts.source

    @property
    def handle_type(self) -> int:
        """The handle type."""
        return int(self.info.handle_type)

    @property
    def copies(self) -> bool:
        """Whether the type has copy transference (SYNC_FD)."""
        return self.handle_type == self.kind.copied

    @property
    def answers(self) -> Mapping[int, ExternalSyncFacts]:
        """What the device reports for such objects, by handle type."""
        facts = self.facts.device
        return facts.fence_types if isinstance(self.source, FenceFacts) else facts.semaphore_types(self.source.timeline)


GET_SEMAPHORE_FD: Suite[GetSync] = Suite("vkGetSemaphoreFdKHR")
GET_SEMAPHORE_WIN32: Suite[GetSync] = Suite("vkGetSemaphoreWin32HandleKHR")
GET_FENCE_FD: Suite[GetSync] = Suite("vkGetFenceFdKHR")
GET_FENCE_WIN32: Suite[GetSync] = Suite("vkGetFenceWin32HandleKHR")


def _not_created_for(call: GetSync) -> Finding | None:
    """The creator of the current payload was created for export as this type."""
    types, kind = call.source.export_types, call.kind
    if types is None or call.handle_type & int(types) or call.handle_type not in kind.defined:
        return None
    asked, struct = kind.text(call.handle_type), f"Export{kind.word.capitalize()}CreateInfo"
    created = f"created for export as {kind.text(types)}, not as {asked}" if types else "not created for export"
    if call.source.import_type:
        return (
            f"{call.where}.handle_type",
            f"{call.source.name} has an imported payload, whose exporter was {created}",
            f"Create the exporting {kind.word} with {struct}(handle_types={asked}); that of the importing one is "
            "not used while an import is in force.",
        )
    return (
        f"{call.where}.handle_type",
        f"{call.source.name} was {created}",
        f"Chain {struct} with {asked} when you create it.",
    )


def _imported_otherwise(call: GetSync) -> str:
    """An imported payload is exported only as a type that the device exports from payloads of its import type."""
    imported = int(call.source.import_type)
    answer = call.answers.get(call.handle_type)
    if not imported or answer is None or int(answer.export_from_imported) & imported:
        return ""
    return call.kind.text(imported)


def _exported_before(call: GetSync) -> str:
    again = call.handle_type & call.kind.nt_types & int(call.source.exported_nt_types)
    return call.kind.text(call.handle_type) if again else ""


def _waited_for(call: GetSync) -> bool:
    return call.copies and not call.source.timeline and call.source.waiting_queue is not None


def _semaphore_unsignaled(call: GetSync) -> bool:
    return call.copies and not call.source.timeline and call.source.signaled is False


def _fence_unsignaled(call: GetSync) -> bool:
    return call.copies and call.source.signaled is False and not call.source.pending


def _copied_timeline(call: GetSync) -> bool:
    return call.copies and call.source.timeline


def _depends_on_unsubmitted(call: GetSync) -> str:
    """The signal, and all that it depends on, was submitted. Empty for payloads that other processes can signal."""
    source = call.source
    if not call.copies or source.timeline or source.signaled is None:
        return ""
    if source.signaled is False:
        return f"no signal of {source.name} was submitted"
    missing = [f"{one.name}{f' to {one.value}' if one.value else ''}" for one in source.unsubmitted]
    return f"its signal depends on signals that were not submitted: {', '.join(missing)}" if missing else ""


def _rows(
    suite: Suite[GetSync],
    kind: SyncKind,
    form: str,
    *,
    created: str,
    imported: str,
    in_form: str,
    once: str = "",
    copy: tuple[Demand, ...] = (),
) -> None:
    """Register the rows of one command. The arguments are the last parts of their ids."""
    word = kind.word.capitalize()
    command, struct = f"vkGet{word}{form}KHR", f"Vk{word}Get{form}InfoKHR"
    types, other = (kind.fd_types, "Win32Handle") if form == "Fd" else (kind.win32_types, "Fd")
    what = "a type of file descriptors" if form == "Fd" else "an NT handle or a global share handle"
    where = "{call.where}.handle_type"

    def closed(call: GetSync) -> bool:
        return not call.device.alive

    def destroyed(call: GetSync) -> bool:
        return not call.source.alive

    demand(
        suite,
        Demand(
            f"{command}-device-parameter",
            closed,
            f"{{call.where}}.{kind.word}",
            "its device {call.device.name!r} is closed",
            "Export before closing the device.",
        ),
        Demand(
            f"{struct}-{kind.word}-parameter",
            destroyed,
            f"{{call.where}}.{kind.word}",
            "{call.source.name} is destroyed",
            f"Export handles before destroying the {kind.word}.",
        ),
        Demand(
            f"{struct}-pNext-pNext",
            is_given("info.p_next"),
            "{call.where}.pNext",
            "{call.info.p_next.__class__.__name__} is chained",
            "Pass p_next=None.",
        ),
        one_sync_type(kind, f"{struct}-handleType-parameter"),
        sync_type_in(kind, f"{struct}-{in_form}", types, what, f"Use {word}Get{other}InfoKHR for that type."),
        Demand(f"{struct}-{created}", _not_created_for),
        Demand(
            f"{struct}-{imported}",
            _imported_otherwise,
            where,
            "the current payload of {call.source.name} was imported as {found}, which {call.device.name!r} does not "
            "export as this type",
            "Export it as a type for which exportFromImportedHandleTypes contains {found}, or pass on the handle or "
            "name that it was imported by.",
        ),
    )
    if once:
        demand(
            suite,
            Demand(
                f"{struct}-{once}",
                _exported_before,
                where,
                f"an {{found}} handle of this {kind.word} was already exported by the device",
                "Duplicate the existing handle: NtHandle.duplicate().",
            ),
        )
    demand(suite, *copy)


_FD, _FENCE_FD = "VkSemaphoreGetFdInfoKHR", "VkFenceGetFdInfoKHR"
_COPIED = "{call.where}.handle_type"

_rows(
    GET_SEMAPHORE_FD,
    SEMAPHORE,
    "Fd",
    created="handleType-01132",
    imported="semaphore-01133",
    in_form="handleType-01136",
    copy=(
        Demand(
            f"{_FD}-handleType-03253",
            _copied_timeline,
            _COPIED,
            "{call.source.name} is a timeline semaphore, and a SYNC_FD has no value",
            "Export a binary semaphore, or signal one after a wait for the timeline's value.",
        ),
        Demand(
            f"{_FD}-handleType-01134",
            _waited_for,
            _COPIED,
            "a queue waits for {call.source.name}, so its state cannot be copied",
            "Export the SYNC_FD in place of that wait: the export consumes the signal as a wait does.",
        ),
        Demand(
            f"{_FD}-handleType-01135",
            _semaphore_unsignaled,
            _COPIED,
            "{call.source.name} is not signaled, and no signal of it is pending",
            "Submit a batch that signals it, then export.",
        ),
        Demand(
            f"{_FD}-handleType-03254",
            _depends_on_unsubmitted,
            _COPIED,
            "{found}",
            "Submit the signal, and all signals that it depends on, before the export.",
        ),
    ),
)
_rows(
    GET_SEMAPHORE_WIN32,
    SEMAPHORE,
    "Win32Handle",
    created="handleType-01126",
    imported="semaphore-01128",
    in_form="handleType-01131",
    once="handleType-01127",
)
_rows(
    GET_FENCE_FD,
    FENCE,
    "Fd",
    created="handleType-01453",
    imported="fence-01455",
    in_form="handleType-01456",
    copy=(
        Demand(
            f"{_FENCE_FD}-handleType-01454",
            _fence_unsignaled,
            _COPIED,
            "{call.source.name} is not signaled, and no submission is to signal it",
            "Pass the fence to a submission, then export.",
        ),
    ),
)
_rows(
    GET_FENCE_WIN32,
    FENCE,
    "Win32Handle",
    created="handleType-01448",
    imported="fence-01450",
    in_form="handleType-01452",
    once="handleType-01449",
)


def _check(suite: Suite[GetSync], kind: SyncKind, info: Any, struct: type, facts: GetSyncFacts) -> list[Violation]:
    return (
        wrong_struct(info, struct, f"{suite.command}.info")
        or malformed([(struct.__name__, info)])
        or suite.run(GetSync(info, kind, facts, struct.__name__), 0)
    )


def check_get_semaphore_fd(info: vk.SemaphoreGetFdInfoKHR, facts: GetSyncFacts) -> list[Violation]:
    """Return all rules that this vkGetSemaphoreFdKHR would break."""
    return _check(GET_SEMAPHORE_FD, SEMAPHORE, info, vk.SemaphoreGetFdInfoKHR, facts)


def check_get_semaphore_win32_handle(info: vk.SemaphoreGetWin32HandleInfoKHR, facts: GetSyncFacts) -> list[Violation]:
    """Return all rules that this vkGetSemaphoreWin32HandleKHR would break."""
    return _check(GET_SEMAPHORE_WIN32, SEMAPHORE, info, vk.SemaphoreGetWin32HandleInfoKHR, facts)


def check_get_fence_fd(info: vk.FenceGetFdInfoKHR, facts: GetSyncFacts) -> list[Violation]:
    """Return all rules that this vkGetFenceFdKHR would break."""
    return _check(GET_FENCE_FD, FENCE, info, vk.FenceGetFdInfoKHR, facts)


def check_get_fence_win32_handle(info: vk.FenceGetWin32HandleInfoKHR, facts: GetSyncFacts) -> list[Violation]:
    """Return all rules that this vkGetFenceWin32HandleKHR would break."""
    return _check(GET_FENCE_WIN32, FENCE, info, vk.FenceGetWin32HandleInfoKHR, facts)
