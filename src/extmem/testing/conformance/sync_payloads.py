"""Scenarios of payloads: what imports and exports do to the state of semaphores and fences."""

from __future__ import annotations

from extmem import vk
from extmem.errors import ExtmemError
from extmem.testing.conformance._case import Family, expect
from extmem.testing.conformance._sync_case import SyncCase

__all__ = [
    "create_named",
    "create_win32",
    "export_import_signal_wait",
    "export_signal_import_wait",
    "import_multiple_times",
    "import_signaled",
    "import_twice",
    "info",
    "refused_import_keeps_the_handle",
    "reimport",
    "reset",
    "restored_by_the_wait",
    "signal_export_import_wait",
    "signal_import",
    "signal_wait_import",
    "transference",
]


def info(case: SyncCase) -> None:
    """The capabilities name compatible types that include the type itself, and no timeline is shared as SYNC_FD."""
    expect(not (case.copies and case.timeline), "a device must not report SYNC_FD for timelines")
    if case.fence:
        fence = case.exporter.get_physical_device_external_fence_properties(
            vk.PhysicalDeviceExternalFenceInfo(vk.ExternalFenceHandleTypeFlagBits(case.handle_type))
        )
        compatible = int(fence.compatible_handle_types)
    else:
        type_info = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType(int(case.timeline)))
        semaphore = case.exporter.get_physical_device_external_semaphore_properties(
            vk.PhysicalDeviceExternalSemaphoreInfo(vk.ExternalSemaphoreHandleTypeFlagBits(case.handle_type), type_info)
        )
        compatible = int(semaphore.compatible_handle_types)
        sync_fd = int(vk.ExternalSemaphoreHandleTypeFlagBits.SYNC_FD)
        expect(not (case.timeline and compatible & sync_fd), "SYNC_FD is never compatible with a timeline")
    expect(
        compatible & case.handle_type, f"compatible types {compatible:#x} lack the type {case.handle_type:#x} itself"
    )


def create_win32(case: SyncCase) -> None:
    """Create with and without name and rights, and export."""
    case.handle(case.make(case.exporter))
    if case.variant.family is Family.WIN32:
        case.handle(case.make(case.exporter, name=case.name()))


def create_named(case: SyncCase) -> None:
    """Import by the name alone, and signal through the import."""
    name = case.name()
    made, other = case.make(case.exporter, name=name), case.target(case.importer)
    case.import_into(other, None, name=name)
    case.signal(made)
    case.wait(other)


def _exported_after_signal(case: SyncCase) -> None:
    made = case.make(case.exporter)
    case.signal(made)
    case.wait(case.imported(case.handle(made)))


def signal_export_import_wait(case: SyncCase) -> None:
    """Signal, export, import, wait."""
    _exported_after_signal(case)


def export_signal_import_wait(case: SyncCase) -> None:
    """Export, signal, import, wait (reference types)."""
    made = case.make(case.exporter)
    handle = case.handle(made)
    case.signal(made)
    case.wait(case.imported(handle))


def export_import_signal_wait(case: SyncCase) -> None:
    """Export, import, signal the exporter, wait for the importer (reference types)."""
    made = case.make(case.exporter)
    other = case.imported(case.handle(made))
    case.signal(made)
    case.wait(other)


def import_twice(case: SyncCase) -> None:
    """Import one payload into two objects; a signal reaches both, or, of a binary semaphore, one of them."""
    made = case.make(case.exporter)
    if case.copies:
        case.signal(made)
        case.wait(case.imported(case.handle(made)))
        case.signal(made)
        case.wait(case.imported(case.handle(made)))
        return
    first = case.imported(case.handle(made))
    second = case.imported(case.another_handle(made))
    case.signal(made)
    case.wait(first)
    if case.timeline or case.fence:
        case.wait(second)
    else:
        # The wait has ended a temporary import: only a permanent one still has the payload.
        case.signal(made if case.variant.temporary else first)
        case.wait(second)


def import_multiple_times(case: SyncCase) -> None:
    """Import one payload thousands of times; every import sees the same state."""
    made = case.make(case.exporter)
    for number in range(case.repeats):
        if case.copies:
            case.signal(made)
        thing = case.imported(case.handle(made) if number == 0 else case.another_handle(made))
        if number % 1024 == 0:
            if not case.copies:
                case.signal(made)
            case.wait(thing)
            if case.fence and not case.copies:
                case.reset(made)
        thing.close()


def reimport(case: SyncCase) -> None:
    """Import over an earlier import: the later payload is in force."""
    first, second = case.make(case.exporter), case.make(case.exporter)
    if case.copies:
        case.signal(first)
    target = case.imported(case.handle(first))
    case.signal(second)
    case.import_into(target, case.handle(second))
    case.wait(target)


def signal_import(case: SyncCase) -> None:
    """Import over an object that is signaled: its own state is gone."""
    made, target = case.make(case.exporter), case.target(case.importer)
    case.signal(target)
    if case.timeline or case.fence:
        case.wait(target)
    else:
        with case.importer.create_fence(vk.FenceCreateInfo()) as done:  # the signal must be over: nothing is in use
            case.importer.queue_submit([], done)
            case.importer.wait_for_fences([done], timeout_ns=20_000_000_000)
    case.signal(made)
    case.import_into(target, case.handle(made))
    case.wait(target)


def signal_wait_import(case: SyncCase) -> None:
    """Import over an object that was signaled and waited for."""
    made, target = case.make(case.exporter), case.target(case.importer)
    case.signal(target)
    case.wait(target)
    if case.copies:
        case.signal(made)
    case.import_into(target, case.handle(made))
    if not case.copies:
        case.signal(made)
    case.wait(target)


def transference(case: SyncCase) -> None:
    """All objects of a payload act as one: signal A, wait B, signal B, wait A. A copy is independent."""
    made = case.make(case.exporter)
    case.signal(made)
    other = case.imported(case.handle(made))
    if case.copies:
        # Nothing connects them: each can be reset, signaled and waited for, and the other does not change.
        if case.fence:
            case.reset(made)
            case.wait(other)
        case.signal(made)
        case.wait(other)
        if case.fence:
            case.reset(other)
            expect(case.signaled(made), "a reset of the copy must not reset the exporter")
        case.signal(other)
        case.wait(made)
        case.wait(other)
        return
    case.wait(other)
    if case.variant.temporary:
        if case.fence:
            expect(case.signaled(made), "the exporter must have the payload that was signaled")
            return
        # The wait has restored the importer's own payload: the exporter's was consumed.
        case.signal(made)
        case.wait(made)
        return
    if case.fence:
        case.reset(other)
        expect(not case.signaled(made), "a reset of the importer must reset the exporter")
    case.signal(other)
    case.wait(made)


def reset(case: SyncCase) -> None:
    """A reset of a temporarily imported fence restores and resets its own payload; the imported one stays (S10)."""
    made = case.make(case.exporter)
    case.signal(made)
    case.wait(made)
    other = case.imported(case.handle(made))
    expect(case.signaled(other), "the import must have the signaled payload")
    case.reset(other)
    expect(not case.signaled(other), "a fence is unsignaled after its reset")
    if not case.copies:
        expect(
            case.signaled(made) is case.variant.temporary,
            "a reset must restore the importer's own payload, and leave the temporary one as it was"
            if case.variant.temporary
            else "a reset must reach all fences of the payload",
        )
    case.signal(other)
    case.wait(other)


def restored_by_the_wait(case: SyncCase) -> None:
    """The wait ends a temporary import: afterwards the semaphore has its own payload again (S7)."""
    made, target = case.make(case.exporter), case.target(case.importer)
    case.signal(made)
    case.import_into(target, case.handle(made), temporary=True)
    case.wait(target)
    case.signal(made)
    case.signal(target)  # its own payload: both are signaled now
    case.wait(target)
    case.wait(made)


def import_signaled(case: SyncCase) -> None:
    """The fd -1 of SYNC_FD is a payload that is signaled already (S18)."""
    target = case.target(case.importer)
    case.import_into(target, -1)
    case.wait(target)


def refused_import_keeps_the_handle(case: SyncCase) -> None:
    """An import that the rules or the device refuse leaves the handle, and the object, as they were."""
    made = case.make(case.exporter)
    if case.copies:
        case.signal(made)
    handle, target = case.handle(made), case.target(case.importer)
    try:
        if case.copies:
            case.import_into(target, handle, temporary=False)  # a copy is never permanent
        else:
            with (
                case.importer.create_fence(vk.FenceCreateInfo()) as fence,
                case.importer.create_semaphore(vk.SemaphoreCreateInfo()) as semaphore,
            ):
                wrong = semaphore if case.fence else fence
                case.import_into(wrong, handle)
    except (ExtmemError, TypeError):
        pass
    else:
        expect(False, "the import of another kind of payload, or of a copy permanently, must be refused")
    expect(isinstance(handle, int) or not handle.closed, f"{handle!r} must stay the caller's after a failed import")
    case.import_into(target, handle)
    if not case.copies:
        case.signal(made)
    case.wait(target)
