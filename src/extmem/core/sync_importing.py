"""vkImportSemaphoreFdKHR and its three siblings: the payload of an existing semaphore or fence is replaced.

A failed import changes nothing: the caller keeps the fd, and the object keeps its payload. A successful one consumes an
fd, and never an NT handle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from extmem import rules, vk
from extmem.core import sync_facts, sync_publishing, sync_source
from extmem.core.import_source import takes_handles
from extmem.core.sync_arguments import check_struct, number_of, target_of
from extmem.core.sync_record import FenceRecord, SemaphoreRecord
from extmem.core.sync_source import SourceFound
from extmem.owning import Uses
from extmem.sharing.kinds import ObjectKind
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.sync_record import SyncRecord

__all__ = ["import_fence_fd", "import_fence_win32", "import_semaphore_fd", "import_semaphore_win32", "import_source"]

_TEMPORARY = int(vk.SemaphoreImportFlagBits.TEMPORARY)
_Check = Callable[[Any, rules.ImportSyncFacts], list[rules.Violation]]


def import_semaphore_fd(device: DeviceState, given: vk.ImportSemaphoreFdInfoKHR) -> None:
    """`Device.import_semaphore_fd`."""
    info = copy_struct(given)
    command = "vkImportSemaphoreFdKHR"
    check_struct(device, info, vk.ImportSemaphoreFdInfoKHR, command, rules.check_import_semaphore_fd, None)
    _import_fd(device, info, ObjectKind.SEMAPHORE, command, rules.check_import_semaphore_fd)


def import_fence_fd(device: DeviceState, given: vk.ImportFenceFdInfoKHR) -> None:
    """`Device.import_fence_fd`."""
    info = copy_struct(given)
    command = "vkImportFenceFdKHR"
    check_struct(device, info, vk.ImportFenceFdInfoKHR, command, rules.check_import_fence_fd, None)
    _import_fd(device, info, ObjectKind.FENCE, command, rules.check_import_fence_fd)


def import_semaphore_win32(device: DeviceState, given: vk.ImportSemaphoreWin32HandleInfoKHR) -> None:
    """`Device.import_semaphore_win32_handle`."""
    info = copy_struct(given)
    command, check = "vkImportSemaphoreWin32HandleKHR", rules.check_import_semaphore_win32_handle
    check_struct(device, info, vk.ImportSemaphoreWin32HandleInfoKHR, command, check, None)
    _import_win32(device, info, ObjectKind.SEMAPHORE, command, check)


def import_fence_win32(device: DeviceState, given: vk.ImportFenceWin32HandleInfoKHR) -> None:
    """`Device.import_fence_win32_handle`."""
    info = copy_struct(given)
    command, check = "vkImportFenceWin32HandleKHR", rules.check_import_fence_win32_handle
    check_struct(device, info, vk.ImportFenceWin32HandleInfoKHR, command, check, None)
    _import_win32(device, info, ObjectKind.FENCE, command, check)


def _target(device: DeviceState, info: Any, kind: ObjectKind, uses: Uses) -> Any:
    if kind is ObjectKind.FENCE:
        return target_of(device, info.fence, FenceRecord, uses)
    return target_of(device, info.semaphore, SemaphoreRecord, uses)


def _import_fd(device: DeviceState, info: Any, kind: ObjectKind, command: str, check: _Check) -> None:
    with Uses(device) as uses:
        record = _target(device, info, kind, uses)
        found = sync_source.resolve_fd(
            sync_facts.sync_backend(device),
            kind,
            number_of(info.handle_type),
            info.fd,
            uses,
            timeline=getattr(record, "timeline", False),
            command=command,
        )
        import_source(record, found, info, check, temporary=bool(number_of(info.flags) & _TEMPORARY))
        caller = found.caller_fd
    if caller is not None:
        if caller.handle is None:
            caller.arm()
        caller.consume()


def _import_win32(device: DeviceState, info: Any, kind: ObjectKind, command: str, check: _Check) -> None:
    with Uses(device) as uses:
        record = _target(device, info, kind, uses)
        found = sync_source.resolve_object(
            kind,
            number_of(info.handle_type),
            info.handle,
            info.name,
            command=command,
            native=takes_handles(device.backend),
        )
        import_source(record, found, info, check, temporary=bool(number_of(info.flags) & _TEMPORARY))


def import_source(record: SyncRecord, found: SourceFound, info: Any, check: _Check | None, *, temporary: bool) -> None:
    """Check the import and make it. What was found is given back after an error. check: None without a struct."""
    device = record.device
    try:
        if check is not None and device.check != "off":
            _report(device, found, check(info, _facts(record, found)))
        if found.error is not None:
            raise found.error
        with record.device.creation_lock:
            timeline = getattr(record, "timeline", False)
            record.native.import_payload(found.native_source(temporary=temporary, timeline=timeline))
            found.taken = True
            unknown = sync_publishing.describe(
                device, found.kind, sync_source.sync_type(found.kind, 0), timeline=timeline
            )
            payload = found.shared_payload(unknown)
            record.replace_payload(payload, temporary=temporary)
            said = found.descriptor
            known = sync_source.sync_type(found.kind, said.handle_types) if said is not None else None
            copied = found.handle_type == sync_source.sync_fd_type(found.kind)
            record.note_import(
                found.handle_type, known, temporary=temporary, copied=copied, signaled=found.signaled or None
            )
    except BaseException:
        found.abandon()
        raise


def _facts(record: SyncRecord, found: SourceFound) -> rules.ImportSyncFacts:
    payload = found.facts()
    if payload is not None and record.device.descriptor_importer is not None:
        # CUDA has no driverUUID, and imports the semaphores of the GPU's Vulkan driver.
        payload = msgspec.structs.replace(payload, driver_uuid=None)
    return rules.ImportSyncFacts(
        device=sync_facts.sync_facts(record.device),
        target=record.facts(),
        payload=payload,
        refusal=found.refusal,
        fd_is_valid=found.fd_is_valid,
    )


def _report(device: DeviceState, found: SourceFound, violations: list[rules.Violation]) -> None:
    error = found.error
    if violations and error is not None and found.refusal is not None:
        if all(violation.vuid in _REFUSED_RULES for violation in violations):
            # The error of the object manager has more details than the rule; it carries the violation.
            error.violations = tuple(violations)
            raise error
    device.report(violations, found.command)


_REFUSED_RULES = frozenset(
    (
        "VUID-VkImportSemaphoreWin32HandleInfoKHR-handleType-01467",
        "VUID-VkImportSemaphoreWin32HandleInfoKHR-handleType-01468",
        "VUID-VkImportFenceWin32HandleInfoKHR-handleType-01460",
        "VUID-VkImportFenceWin32HandleInfoKHR-handleType-01461",
    )
)
