"""Publishing semaphores and fences: from a created object to names, handles and KMT numbers of the object manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.core.describing import start_time_of
from extmem.core.sync_record import FenceRecord, SharedPayload, SyncRecord
from extmem.core.sync_state import sync_states
from extmem.errors import UnsupportedError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import Reference, ShareTerms, manager
from extmem.objects import Share
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import Backing, ObjectKind

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.vk.handle_types import SyncHandleType

__all__ = [
    "ALL_RIGHTS",
    "backing_of",
    "describe",
    "everyday_access",
    "plain_terms",
    "publish",
    "share_for",
    "share_on_demand",
    "terms_of",
]

ALL_RIGHTS = int(Access.ALL)
"""GENERIC_ALL, which is 0x1F0003 for a semaphore or fence: to wait (0x1) and to signal (0x2)."""
_OPAQUE_WIN32 = 0x2
_D3D12_FENCE = 0x8
"""Of semaphores. Of fences, this bit is SYNC_FD."""
_KMT = 0x4
_READ_WRITE = int(Access.READ_WRITE)
_WAIT_AND_SIGNAL = 0xC000_0000
"""GENERIC_READ and GENERIC_WRITE, which are the rights to wait and to signal."""
_SHARES = (Share(0), Share.NT, Share.KMT, Share.NT | Share.KMT)
_PLAIN = {share: ShareTerms(share, None, None) for share in _SHARES[1:]}


def share_for(kind: ObjectKind, handle_types: SyncHandleType) -> Share:
    """Return how an object with these export types is shared through the object manager; 0 if only as fds."""
    nt_types = _OPAQUE_WIN32 if kind is ObjectKind.FENCE else _OPAQUE_WIN32 | _D3D12_FENCE
    return _SHARES[bool(handle_types & nt_types) + 2 * bool(handle_types & _KMT)]


def everyday_access(access: int | None) -> int | None:
    """Return rights of the high-level API as an access mask. `Access.READ_WRITE` is to wait and to signal.

    As an access mask, its value (0x80000001, made for memory) would be the right to wait alone.
    """
    return _WAIT_AND_SIGNAL if access == _READ_WRITE else access


def plain_terms(share: Share) -> ShareTerms | None:
    """Return the terms of an object without a name that is shared in this way, with all rights; None if it is not."""
    return _PLAIN[share] if share else None


def terms_of(
    kind: ObjectKind,
    handle_types: SyncHandleType,
    chained: vk.ExportSemaphoreWin32HandleInfoKHR | vk.ExportFenceWin32HandleInfoKHR | None,
) -> ShareTerms | None:
    """Return the terms on which an object with these export types and this struct is shared; None if only as fds.

    Without the struct, handles have all rights (0x1F0003), for fences too: the rights that the specification names
    there are those of memory, and would not include signaling.
    Errors: UnsupportedError, SecurityDescriptorError for a security descriptor that the object manager does not accept.
    """
    share = share_for(kind, handle_types)
    if chained is None or not share & Share.NT:
        return plain_terms(share)
    sddl, inherit = None, False
    if isinstance(chained.attributes, vk.SecurityAttributes):
        security, inherit = chained.attributes.security_descriptor, bool(chained.attributes.inherit_handle)
        sddl = manager().security_text(security) if security is not None else None
    return ShareTerms(share, chained.name, sddl, int(chained.access), inherit, stated=True)


def describe(
    device: DeviceState,
    kind: ObjectKind,
    handle_types: SyncHandleType,
    *,
    timeline: bool = False,
    flags: int = 0,
    initial_value: int = 0,
    host: bool = False,
    read_only: bool = False,
) -> SyncDescriptor:
    """Return the descriptor of a payload that this device creates."""
    identity = device.identity
    return SyncDescriptor(
        object_kind=kind,
        handle_types=handle_types,
        timeline=timeline,
        flags=flags,
        initial_value=initial_value,
        host=host,
        device_uuid=identity.device_uuid,
        driver_uuid=identity.driver_uuid,
        luid=identity.luid,
        device_name=identity.device_name,
        driver_name=identity.driver_name,
        share=int(share_for(kind, handle_types)),
        read_only=read_only,
        owner_pid=current_process.pid,
        owner_start_time=start_time_of(current_process.pid),
    )


def backing_of(descriptor: SyncDescriptor) -> Backing:
    """Return what the handles of the payload are."""
    if not descriptor.host:
        return Backing.DRIVER_FD
    return Backing.HOST_FILE if descriptor.timeline else Backing.HOST_EVENT


def publish(record: SyncRecord, payload: SharedPayload, terms: ShareTerms) -> None:
    """Export the payload in force to the object manager, which creates the shared object, name and KMT number.

    If the terms state no rights, its handles have all of them.
    Errors: NameTakenError, NameInvalidError, AccessDeniedError …; it is not shared then.
    """
    owner = payload.manager or manager()
    reference = Reference(owner)
    payload.references += (reference,)
    native = record.native
    exported = owner.export(
        (_native_fd(record),),
        payload.descriptor.encode(),
        share=terms.share,
        name=terms.name,
        access=terms.access if terms.stated else ALL_RIGHTS,
        sddl=terms.sddl,
        inherit=terms.inherit,
        strict_kmt=record.device.strict_kmt,
        object_kind=ObjectKind.FENCE if isinstance(record, FenceRecord) else ObjectKind.SEMAPHORE,
        backing=backing_of(payload.descriptor),
        identity=payload.identity or native.stated_identity,
        pages=tuple(native.pages),
        reference=reference,
    )
    payload.manager = owner
    payload.share_reference = exported.number
    payload.kmt = exported.kmt
    if terms.share & Share.NT:
        payload.object_id = exported.object
        payload.name = terms.name if terms.name is not None else payload.name
    payload.lazy_share = False
    if terms.name is not None or exported.kmt:
        sync_states().shared(record.state)  # anybody can open it


def _native_fd(record: SyncRecord) -> int:
    fd: int | None = record.native.fd
    if fd is None:
        raise UnsupportedError(
            f"this {record.word} cannot be shared: {record.device.name} exports no such object; create it on the host "
            "device, or on a device that reports an exportable type (VkExternalSemaphoreProperties)",
            requires_one_of=["the host device", "a device that exports the handle type"],
        )
    return fd


def share_on_demand(record: SyncRecord) -> SharedPayload:
    """Create the unnamed NT share of an object of the high-level API, when a handle is first requested."""
    payload = record.payload
    if payload.share_reference == 0 and payload.lazy_share:
        with record.device.creation_lock:
            if payload.share_reference == 0:
                publish(record, payload, _PLAIN[Share.NT])
    return payload
