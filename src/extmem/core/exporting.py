"""Exporting: from memory to NT handles, KMT handles and file descriptors.

NT handles and KMT numbers come from the object manager, to which the memory was published when it was allocated (the
name is set then, not when a handle is requested: B13). File descriptors come from the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from extmem import rules, vk
from extmem.core import rule_facts
from extmem.core.device_state import DeviceState
from extmem.core.memory_object import MemoryObject
from extmem.core.memory_record import MemoryRecord
from extmem.core.validation_cache import Key
from extmem.devices.optional_protocols import ImportsHandles
from extmem.errors import UnsupportedError
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.handles.fd_payload import FdPayload
from extmem.manager import Reference, ShareTerms, held_number, manager
from extmem.objects import Share
from extmem.sharing.kinds import Backing
from extmem.vk.handle_types import FROM_D3D, OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType, union
from extmem.vk.value_text import bits_of, types_text

if TYPE_CHECKING:
    from extmem.devices.optional_protocols import AllocationOfParts
    from extmem.owning import OwnedFd

__all__ = [
    "PayloadHandles",
    "export_handle",
    "export_obstacle",
    "get_memory_fd",
    "high_level_access",
    "payload_fd",
    "publish",
    "refuse_direct3d_types",
    "sent_reference",
    "share_for",
    "share_on_demand",
    "terms_of",
    "win32_handle",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_DIRECT3D = union(*FROM_D3D)
_ALL_RIGHTS = int(Access.ALL)
_SHARES = (Share(0), Share.NT, Share.KMT, Share.NT | Share.KMT)


def share_for(handle_types: MemoryHandleType) -> Share:
    """Return how memory with these export types is shared through the object manager; `Share(0)` if only as fds."""
    return _SHARES[bool(handle_types & OPAQUE_WIN32) + 2 * bool(handle_types & OPAQUE_WIN32_KMT)]


def terms_of(handle_types: MemoryHandleType, chained: vk.ExportMemoryWin32HandleInfoKHR | None) -> ShareTerms | None:
    """Return the terms on which memory with these export types and this struct is shared; None if only as fds.

    Errors: UnsupportedError, SecurityDescriptorError for a security descriptor that the object manager does not accept.
    """
    share = share_for(handle_types)
    if not share:
        return None
    if chained is None or not share & Share.NT:
        # A KMT export has no name, rights or attributes: the struct is tolerated and ignored for it (B28).
        return _PLAIN[share]
    sddl, inherit = None, False
    if isinstance(chained.attributes, vk.SecurityAttributes):
        security, inherit = chained.attributes.security_descriptor, bool(chained.attributes.inherit_handle)
        sddl = manager().security_text(security) if security is not None else None
    return ShareTerms(share, chained.name, sddl, int(chained.access), inherit, stated=True)


_PLAIN = {share: ShareTerms(share, None, None) for share in _SHARES[1:]}


def publish(record: MemoryRecord, terms: ShareTerms) -> None:
    """Export the memory to the object manager, which creates the shared object, the name and the KMT number.

    If the terms state no rights, its handles have all of them.

    Errors: NameTakenError, NameInvalidError, AccessDeniedError …; the memory is not shared then.
    """
    owner = record.manager or manager()
    reference = Reference(owner)
    record.references += (reference,)
    handles = PayloadHandles(record) if record.descriptor.parts else None
    try:
        exported = owner.export(
            handles.numbers if handles is not None else (payload_fd(record),),
            record.descriptor.encode(),
            share=terms.share,
            name=terms.name,
            access=terms.access if terms.stated else _ALL_RIGHTS,
            sddl=terms.sddl,
            inherit=terms.inherit,
            strict_kmt=record.device.strict_kmt,
            backing=record.device.backend.payload_backing,
            identity=record.allocation.stated_identity,
            pages=record.pages.exported() if record.pages is not None else (),
            reference=reference,
            replace=terms.replace,
            keep=terms.keep,
        )
    finally:
        if handles is not None:
            handles.close()
    record.manager = owner
    record.share_reference = exported.number
    record.kmt = exported.kmt
    if terms.share & Share.NT:
        record.object_id = exported.object
        record.name = terms.name if terms.name is not None else record.name
    record.lazy_share = False


def refuse_direct3d_types(device: DeviceState, handle_types: MemoryHandleType) -> None:
    """Raise UnsupportedError for types of Direct3D: extmem does not export such handles, whatever a driver supports."""
    if handle_types & _DIRECT3D:
        types = [types_text(each) for each in FROM_D3D if handle_types & each]
        raise UnsupportedError(
            f"{device.name} exports no {', '.join(types)} through extmem: such handles refer to objects that Direct3D "
            "creates. Export the memory as OPAQUE_WIN32, or create the object with Direct3D and import it with extmem",
            requires_one_of=["OPAQUE_WIN32", "an object that Direct3D made"],
        )


def export_obstacle(device: DeviceState, handle_types: MemoryHandleType, *, missing: bool = False) -> str:
    """Return the reason why a device cannot export one of these types; empty if it can export each of them.

    missing: return only a missing extension, which no rule reports.
    """
    backend = device.backend
    for bit in bits_of(MemoryHandleType(handle_types & ~rule_facts.sharing(device, handle_types).exportable)):
        extension = backend.missing_for(bit) if isinstance(backend, ImportsHandles) else ""
        if extension or not missing:
            why = f"it has no {extension}" if extension else "the device reports that it does not"
            return f"{device.name} exports no {types_text(bit)}: {why}"
    return ""


def payload_fd(record: MemoryRecord) -> int:
    """Return the fd or HANDLE of the memory, borrowed. Errors: UnsupportedError for memory without one."""
    fd = record.allocation.fd
    if fd is None:
        obstacle = export_obstacle(record.device, OPAQUE_WIN32)
        if obstacle:
            raise UnsupportedError(
                f"this memory cannot be shared: {obstacle}; allocate it on the host device, or on one that can",
                requires_one_of=["a device that exports OPAQUE_WIN32", "the host device"],
            )
        raise UnsupportedError(
            "this memory was imported from a host pointer, so it has no file that another process could map; allocate "
            "it through extmem instead",
            requires_one_of=["memory allocated by a device"],
        )
    return fd


class PayloadHandles:
    """The fds or HANDLEs of the memory, one for each allocation that it consists of: `numbers`, valid until `close`.

    Errors of the constructor: as `payload_fd`; OutOfMemoryError if there are not enough file descriptors.
    """

    def __init__(self, record: MemoryRecord) -> None:
        """record: held by the caller until `close`."""
        self._owners: list[OwnedFd] = []
        if not record.descriptor.parts:
            self.numbers: tuple[int, ...] = (payload_fd(record),)
            return
        found = cast("AllocationOfParts", record.allocation).part_fds()
        self._owners.extend(one for one in found if not isinstance(one, int))
        self.numbers = tuple(one if isinstance(one, int) else one.fd for one in found)

    def close(self) -> None:
        """Close those that were exported for this. Safe to call twice."""
        while self._owners:
            self._owners.pop().settle()


def share_on_demand(record: MemoryRecord) -> None:
    """Create the unnamed NT share of memory of the high-level API, when a handle is first requested."""
    if record.share_reference == 0 and record.lazy_share:
        with record.device.creation_lock:
            if record.share_reference == 0:
                publish(record, _PLAIN[Share.NT])


def sent_reference(record: MemoryRecord) -> int:
    """Return the number of a reference to the payload, which a ticket can be made for. The memory is in use.

    Errors: as `publish`, for memory that is not shared yet.
    """
    share_on_demand(record)
    number = held_number(record.references)
    if not number:
        # The memory was shared by fd only. The ticket alone refers to the unnamed object that is published here.
        with record.device.creation_lock:
            number = held_number(record.references)
            if not number:
                publish(record, _PLAIN[Share.NT])
                number = held_number(record.references)
    return number


def get_memory_fd(device: DeviceState, record: MemoryRecord, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
    """Return a new fd of memory that is in use: `Device.get_memory_fd`.

    It is read-only if the memory is, or was published so. Errors: RuleViolation; as the backend's `export_fd`.
    """
    key = _fd_key(info, record) if record.device is device else None
    if key not in device.validated:
        device.report_or_note(key, rules.check_get_memory_fd(info, device.facts, record.facts()), "vkGetMemoryFdKHR")
    backend, handle_type = record.device.backend, MemoryHandleType(int(info.handle_type))
    writable = record.writable and not record.descriptor.read_only
    payload = None
    if backend.payload_backing is not Backing.HOST_FILE:
        # The file of a driver cannot contain a descriptor, so the descriptor is a part of the handle.
        identity = record.allocation.stated_identity
        payload = FdPayload(record.descriptor.encode(), int(backend.payload_backing), identity, writable)
    return FdHandle(backend.export_fd(record.allocation, read_only=not writable, handle_type=handle_type), payload)


def _fd_key(info: vk.MemoryGetFdInfoKHR, record: MemoryRecord) -> Key | None:
    """Return the cache key of vkGetMemoryFdKHR; None for dedicated memory."""
    if info.p_next is not None or record.dedicated is not None or not isinstance(info.handle_type, int):
        return None
    return "fd", info.handle_type, record.export_handle_types, record.import_handle_type


def export_handle(
    memory: MemoryObject, record: MemoryRecord, handle_type: HandleType | None
) -> NtHandle | KmtHandle | FdHandle:
    """Return a handle of the memory: `DeviceMemory.export_handle`.

    The rules are those of the vkGetMemory calls, except that a type may be requested again, since extmem itself makes
    the duplicates (B82). record: the memory's, in use.
    """
    types = record.export_handle_types
    if handle_type is None:
        order = (HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT, HandleType.OPAQUE_FD)
        handle_type = next((each for each in order if types & each), HandleType.OPAQUE_FD)
    device = record.device
    obstacle = ""
    if not types & handle_type:
        obstacle = export_obstacle(device, MemoryHandleType(int(handle_type)), missing=True)
    if obstacle:  # the memory could not have been allocated for it
        raise UnsupportedError(
            f"{obstacle}; open a device that has it, or pass the extension to raw.adopt_device if the VkDevice was "
            "created with it",
            requires_one_of=["a device that exports the handle type"],
        )
    if handle_type in (HandleType.OPAQUE_FD, HandleType.DMA_BUF):
        return get_memory_fd(device, record, vk.MemoryGetFdInfoKHR(memory, handle_type))
    info = vk.MemoryGetWin32HandleInfoKHR(memory, handle_type)
    found = rules.check_get_memory_win32_handle(info, device.facts, record.facts())
    # The driver is called once. Later handles are duplicates, which the rule does not forbid.
    device.report(
        [v for v in found if v.vuid != "VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663"],
        "vkGetMemoryWin32HandleKHR",
    )
    return win32_handle(record, handle_type)


def win32_handle(record: MemoryRecord, handle_type: HandleType) -> NtHandle | KmtHandle:
    """Return the handle of one Win32 type, after the rules were checked.

    An NT handle refers to the exported object, with the access and inheritance of the export. The KMT number of a
    payload is always the same (B56).
    """
    if handle_type == HandleType.OPAQUE_WIN32 and (record.share_reference or record.lazy_share):
        record.exported_nt_types = MemoryHandleType(record.exported_nt_types | OPAQUE_WIN32)
        share_on_demand(record)
        owner = record.manager or manager()
        entry = HandleEntry(owner)
        owner.get_handle(record.share_reference, entry)
        return NtHandle(entry, owner)
    if handle_type == HandleType.OPAQUE_WIN32_KMT and record.kmt:
        return KmtHandle(record.kmt)
    raise UnsupportedError(
        f"this memory was not exported as {types_text(handle_type)} (its types: "
        f"{types_text(record.export_handle_types)}); name the type in VkExportMemoryAllocateInfo::handleTypes",
        requires_one_of=[f"VkExportMemoryAllocateInfo::handleTypes with {types_text(handle_type)}"],
    )


def high_level_access(access: int, name: str | None) -> tuple[int, vk.SecurityAttributes | None]:
    """Return dwAccess and the security attributes of a share of the high-level API.

    The rights of the export do not limit later opens by name; the security descriptor does (B21). So the security
    descriptor of a named read-only payload grants only reading, also to the user of this process.
    """
    if name is not None and not access & (Access.WRITE | Access.ALL):
        return access, vk.SecurityAttributes(manager().reading_alone(), False)
    return access, None
