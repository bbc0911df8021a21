"""From semaphores and fences to NT handles, KMT handles and file descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extmem import rules, vk
from extmem.arguments import whole_number
from extmem.core import sync_facts, sync_publishing, sync_source
from extmem.core.sync_arguments import check_struct, record_of
from extmem.core.sync_record import FenceRecord, SemaphoreRecord
from extmem.errors import UnsupportedError
from extmem.handles import FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.handles.fd_payload import FdPayload
from extmem.manager import manager
from extmem.sharing.kinds import ObjectKind
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.sync_object import SyncObject
    from extmem.core.sync_record import SharedPayload, SyncRecord

__all__ = ["export_handle", "get_fence_fd", "get_fence_win32", "get_semaphore_fd", "get_semaphore_win32"]

_OPAQUE_FD = 0x1
_OPAQUE_WIN32 = 0x2
_KMT = 0x4
_D3D12_FENCE = 0x8
_ONCE = frozenset(
    ("VUID-VkSemaphoreGetWin32HandleInfoKHR-handleType-01127", "VUID-VkFenceGetWin32HandleInfoKHR-handleType-01449")
)
"""The driver gives an NT handle once; the duplicates that extmem makes are not forbidden."""


def get_semaphore_fd(device: DeviceState, given: vk.SemaphoreGetFdInfoKHR) -> FdHandle | int:
    """`Device.get_semaphore_fd`."""
    info = copy_struct(given)
    command, check = "vkGetSemaphoreFdKHR", rules.check_get_semaphore_fd
    check_struct(device, info, vk.SemaphoreGetFdInfoKHR, command, check, None)
    with device.use(), record_of(device, info.semaphore, SemaphoreRecord).use() as record:
        facts = rules.GetSyncFacts(sync_facts.sync_facts(device), record.facts())
        device.report(check(info, facts), command)
        return _fd_of(record, int(info.handle_type))


def get_fence_fd(device: DeviceState, given: vk.FenceGetFdInfoKHR) -> FdHandle | int:
    """`Device.get_fence_fd`."""
    info = copy_struct(given)
    command, check = "vkGetFenceFdKHR", rules.check_get_fence_fd
    check_struct(device, info, vk.FenceGetFdInfoKHR, command, check, None)
    with device.use(), record_of(device, info.fence, FenceRecord).use() as record:
        facts = rules.GetSyncFacts(sync_facts.sync_facts(device), record.facts())
        device.report(check(info, facts), command)
        return _fd_of(record, int(info.handle_type))


def get_semaphore_win32(device: DeviceState, given: vk.SemaphoreGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
    """`Device.get_semaphore_win32_handle`."""
    info = copy_struct(given)
    command, check = "vkGetSemaphoreWin32HandleKHR", rules.check_get_semaphore_win32_handle
    check_struct(device, info, vk.SemaphoreGetWin32HandleInfoKHR, command, check, None)
    with device.use(), record_of(device, info.semaphore, SemaphoreRecord).use() as record:
        facts = rules.GetSyncFacts(sync_facts.sync_facts(device), record.facts())
        device.report(check(info, facts), command)
        return _win32_handle(record, int(info.handle_type))


def get_fence_win32(device: DeviceState, given: vk.FenceGetWin32HandleInfoKHR) -> NtHandle | KmtHandle:
    """`Device.get_fence_win32_handle`."""
    info = copy_struct(given)
    command, check = "vkGetFenceWin32HandleKHR", rules.check_get_fence_win32_handle
    check_struct(device, info, vk.FenceGetWin32HandleInfoKHR, command, check, None)
    with device.use(), record_of(device, info.fence, FenceRecord).use() as record:
        facts = rules.GetSyncFacts(sync_facts.sync_facts(device), record.facts())
        device.report(check(info, facts), command)
        return _win32_handle(record, int(info.handle_type))


def export_handle(thing: SyncObject[Any], record: SyncRecord, handle_type: int | None) -> Any:
    """Return a handle of a semaphore, timeline or fence that is in use: its `export_handle`.

    The rules are those of the vkGet calls, except that a type may be requested again, since extmem itself makes the
    duplicates.
    """
    device, types = record.device, record.descriptor.handle_types
    if handle_type is None:
        offered = [each for each in (_OPAQUE_WIN32, _KMT, _OPAQUE_FD) if types & each] or [_OPAQUE_FD]
        handle_type = next((each for each in offered if _has_handle(record.payload, each)), offered[0])
    bit = whole_number(handle_type, "handle_type", "give one bit of the flags of its handle types")
    fence = isinstance(record, FenceRecord)
    kind = ObjectKind.FENCE if fence else ObjectKind.SEMAPHORE
    info: Any
    facts = rules.GetSyncFacts(sync_facts.sync_facts(device), record.facts())
    if bit in (_OPAQUE_FD, sync_source.sync_fd_type(kind)):
        if fence:
            info = vk.FenceGetFdInfoKHR(thing, vk.ExternalFenceHandleTypeFlagBits(bit))
            found, command = rules.check_get_fence_fd(info, facts), "vkGetFenceFdKHR"
        else:
            info = vk.SemaphoreGetFdInfoKHR(thing, vk.ExternalSemaphoreHandleTypeFlagBits(bit))
            found, command = rules.check_get_semaphore_fd(info, facts), "vkGetSemaphoreFdKHR"
        device.report(found, command)
        return _fd_of(record, bit)
    if fence:
        info = vk.FenceGetWin32HandleInfoKHR(thing, vk.ExternalFenceHandleTypeFlagBits(bit))
        found, command = rules.check_get_fence_win32_handle(info, facts), "vkGetFenceWin32HandleKHR"
    else:
        info = vk.SemaphoreGetWin32HandleInfoKHR(thing, vk.ExternalSemaphoreHandleTypeFlagBits(bit))
        found, command = rules.check_get_semaphore_win32_handle(info, facts), "vkGetSemaphoreWin32HandleKHR"
    device.report([one for one in found if one.vuid not in _ONCE], command)
    return _win32_handle(record, bit)


def _fd_of(record: SyncRecord, number: int) -> FdHandle | int:
    """Return a new fd of the payload in force; -1 for SYNC_FD of one that is signaled already."""
    kind = ObjectKind.FENCE if isinstance(record, FenceRecord) else ObjectKind.SEMAPHORE
    handle_type = sync_source.sync_type(kind, number)
    copied = number == sync_source.sync_fd_type(kind)
    payload = record.payload
    owned = record.native.export_fd(handle_type)
    record.note_export(handle_type, copied=copied)
    if owned is None:
        return -1
    if copied:
        return FdHandle(owned)
    identity = payload.identity or record.native.stated_identity
    backing = int(sync_publishing.backing_of(payload.descriptor))
    return FdHandle(owned, FdPayload(payload.descriptor.encode(), backing, identity, payload.writable))


def _has_handle(payload: SharedPayload, handle_type: int) -> bool:
    """Whether this process can give a handle of the type: NT handles of what it exports, numbers, and fds."""
    if handle_type == _KMT:
        return bool(payload.kmt)
    return handle_type == _OPAQUE_FD or bool(payload.share_reference or payload.lazy_share)


def _win32_handle(record: SyncRecord, number: int) -> NtHandle | KmtHandle:
    """Return the handle of one Win32 type, after the rules were checked."""
    payload = record.payload
    kind = ObjectKind.FENCE if isinstance(record, FenceRecord) else ObjectKind.SEMAPHORE
    handle_type = sync_source.sync_type(kind, number)
    has_handle = _has_handle(payload, handle_type)
    if handle_type in (_OPAQUE_WIN32, _D3D12_FENCE) and has_handle:
        payload = sync_publishing.share_on_demand(record)
        owner = payload.manager or manager()
        entry = HandleEntry(owner)
        owner.get_handle(payload.share_reference, entry)
        record.note_export(handle_type, copied=False)
        return NtHandle(entry, owner)
    if handle_type == _KMT and has_handle:
        record.note_export(handle_type, copied=False)
        return KmtHandle(payload.kmt)
    if payload.descriptor.handle_types & handle_type:
        raise UnsupportedError(
            f"this {record.word} ({record.what()}) was imported, and only the process that exported it gets handles of "
            f"type {handle_type:#x}; pass on the name or handle that it was imported by, or send the {record.word} "
            "itself by pickling it",
            requires_one_of=["the name or handle that it was imported by", "pickling"],
        )
    raise UnsupportedError(
        f"this {record.word} ({record.what()}) was not exported as handle type {handle_type:#x} (its types: "
        f"{payload.descriptor.handle_types:#x}); name the type in the export struct of its creation",
        requires_one_of=[f"handleTypes with {handle_type:#x} in the export struct"],
    )
