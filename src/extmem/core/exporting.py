"""Exporting: from memory to NT handles, KMT handles and file descriptors.

NT handles and KMT numbers come from the object manager, where the memory was announced when it was allocated (the name
is set then, not when a handle is asked for: B13). File descriptors are the device's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import rules, vk
from extmem.core import rule_facts
from extmem.core.validation_cache import Key
from extmem.devices.optional_protocols import ImportsHandles
from extmem.errors import UnsupportedError
from extmem.handles import Access, FdHandle, HandleEntry, KmtHandle, NtHandle
from extmem.handles.fd_payload import FdPayload
from extmem.manager import Reference, ShareTerms, manager
from extmem.objects import Share
from extmem.sharing.kinds import Backing
from extmem.vk.handle_types import FROM_D3D, OPAQUE_FD, OPAQUE_WIN32, OPAQUE_WIN32_KMT, MemoryHandleType, union
from extmem.vk.value_text import bits_of, types_text

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_object import MemoryObject
    from extmem.core.memory_record import MemoryRecord

__all__ = [
    "able",
    "export_handle",
    "fd_handle",
    "fd_of",
    "kmt_handle",
    "nt_handle",
    "publish",
    "refuse_direct3d_types",
    "share_for",
    "share_on_demand",
    "terms_of",
    "unable",
]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
_DIRECT3D = union(*FROM_D3D)
_ALL_RIGHTS = int(Access.ALL)
_SHARES = (Share(0), Share.NT, Share.KMT, Share.NT | Share.KMT)


def share_for(handle_types: MemoryHandleType) -> Share:
    """How memory with these export types is shared through the object manager; nothing for fds alone."""
    return _SHARES[bool(handle_types & OPAQUE_WIN32) + 2 * bool(handle_types & OPAQUE_WIN32_KMT)]


def terms_of(handle_types: MemoryHandleType, chained: vk.ExportMemoryWin32HandleInfoKHR | None) -> ShareTerms | None:
    """How memory with these export types and this struct is shared; None where it is not, but by fd.

    Errors: UnsupportedError, SecurityDescriptorError for a security descriptor that the object manager does not take.
    """
    share = share_for(handle_types)
    if not share:
        return None
    if chained is None or not share & Share.NT:
        # A KMT export has no name, rights or attributes: the struct is tolerated and ignored for it (B28).
        return _PLAIN[share]
    attributes = chained.attributes
    security, inherit = None, False
    if isinstance(attributes, vk.SecurityAttributes):
        security, inherit = attributes.security_descriptor, bool(attributes.inherit_handle)
    text = manager().security_text(security) if security is not None else None
    return ShareTerms(share, chained.name, text, int(chained.access), inherit, stated=True)


_PLAIN = {share: ShareTerms(share, None, None) for share in _SHARES[1:]}


def publish(record: MemoryRecord, terms: ShareTerms) -> None:
    """Announce the memory to the object manager: shared object, name and KMT number are made here.

    Where the terms state no rights, its handles have all of them.

    Errors: NameTakenError, NameInvalidError, AccessDeniedError …; the memory is unshared then.
    """
    owner = record.manager or manager()
    reference = Reference(owner)
    record.references += (reference,)
    exported = owner.export(
        (_file_of(record),),
        record.descriptor.encode(),
        share=terms.share,
        name=terms.name,
        access=terms.access if terms.stated else _ALL_RIGHTS,
        sddl=terms.sddl,
        inherit=terms.inherit,
        strict_kmt=record.device.strict_kmt,
        backing=record.device.backend.payload_backing,
        identity=record.allocation.stated_identity,
        reference=reference,
    )
    record.manager = owner
    record.share_reference = exported.number
    record.kmt = exported.kmt
    if terms.share & Share.NT:
        record.object_id = exported.object
        record.name = terms.name if terms.name is not None else record.name
    record.lazy_share = False


def refuse_direct3d_types(device: DeviceState, handle_types: MemoryHandleType) -> None:
    """UnsupportedError for types of Direct3D's objects: extmem gives out no such handles, whatever a driver exports."""
    if handle_types & _DIRECT3D:
        types = [types_text(kind) for kind in FROM_D3D if handle_types & kind]
        raise UnsupportedError(
            f"{device.name} exports no {', '.join(types)} through extmem: such handles lead to objects that Direct3D "
            "makes. Export the memory as OPAQUE_WIN32, or make the object with Direct3D and import it here",
            requires_one_of=["OPAQUE_WIN32", "an object that Direct3D made"],
        )


def unable(device: DeviceState, handle_types: MemoryHandleType, *, missing: bool = False) -> str:
    """Why a device cannot export these types, in words; empty where it can export them all, each for itself.

    missing: only where an extension is missing, for which no rule speaks.
    """
    for bit in bits_of(MemoryHandleType(handle_types & ~able(device, handle_types))):
        backend = device.backend
        lacking = backend.missing_for(bit) if isinstance(backend, ImportsHandles) else ""
        if missing and not lacking:
            continue
        why = f"it has no {lacking}" if lacking else "the device says that it does not"
        return f"{device.name} exports no {types_text(bit)}: {why}"
    return ""


def able(device: DeviceState, handle_types: MemoryHandleType) -> MemoryHandleType:
    """Those of these types that the device exports."""
    return rule_facts.sharing(device, handle_types).exportable


def _file_of(record: MemoryRecord) -> int:
    fd = record.allocation.fd
    if fd is None:
        lacking = unable(record.device, OPAQUE_WIN32)
        if lacking:
            raise UnsupportedError(
                f"this memory cannot be shared: {lacking}; allocate it on the host device, or on one that can",
                requires_one_of=["a device that exports OPAQUE_WIN32", "the host device"],
            )
        raise UnsupportedError(
            "this memory has no file behind it (it was imported from a host pointer), so no process can be given it; "
            "allocate it through extmem instead",
            requires_one_of=["memory allocated by a device"],
        )
    return fd


def share_on_demand(record: MemoryRecord) -> None:
    """Make the unnamed NT share of memory of the high-level API, which costs nothing until somebody asks for it."""
    if record.share_reference == 0 and record.lazy_share:
        publish(record, _PLAIN[Share.NT])


def nt_handle(record: MemoryRecord) -> NtHandle:
    """A handle of the exported shared object, with the access and inheritance of the export."""
    share_on_demand(record)
    owner = record.manager or manager()
    entry = HandleEntry(owner)
    owner.get_handle(record.share_reference, entry)
    return NtHandle(entry, owner)


def kmt_handle(record: MemoryRecord) -> KmtHandle:
    """The payload's KMT number, the same each time (B56)."""
    return KmtHandle(record.kmt)


def fd_handle(record: MemoryRecord, handle_type: MemoryHandleType = OPAQUE_FD) -> FdHandle:
    """A new fd of the payload, read-only where the memory is or was published so."""
    writable = record.writable and not record.descriptor.read_only
    backend = record.device.backend
    payload, backing = None, backend.payload_backing
    if backing is not Backing.HOST_FILE:
        # A driver's file has no room for its description: it travels with the handle.
        payload = FdPayload(record.descriptor.encode(), int(backing), record.allocation.stated_identity, writable)
    return FdHandle(backend.export_fd(record.allocation, read_only=not writable, handle_type=handle_type), payload)


def fd_of(device: DeviceState, record: MemoryRecord, info: vk.MemoryGetFdInfoKHR) -> FdHandle:
    """`Device.get_memory_fd` of memory that is in use. Errors: RuleViolation; as the backend's `export_fd`."""
    key = _fd_key(info, record) if record.device is device else None
    if key not in device.validated:
        device.report_or_note(key, rules.check_get_memory_fd(info, device.facts, record.facts()), "vkGetMemoryFdKHR")
    return fd_handle(record, MemoryHandleType(int(info.handle_type)))


def _fd_key(info: vk.MemoryGetFdInfoKHR, record: MemoryRecord) -> Key | None:
    """The cache key of vkGetMemoryFdKHR of memory that is not dedicated."""
    if info.p_next is not None or record.dedicated is not None or not isinstance(info.handle_type, int):
        return None
    return "fd", info.handle_type, record.export_handle_types, record.import_handle_type


def export_handle(
    memory: MemoryObject, record: MemoryRecord, handle_type: HandleType | None
) -> NtHandle | KmtHandle | FdHandle:
    """`DeviceMemory.export_handle`: the rules of the get calls, except that repeats are duplicates made by us (B82).

    record: the memory's, in use.
    """
    types = record.export_handle_types
    if handle_type is None:
        order = (HandleType.OPAQUE_WIN32, HandleType.OPAQUE_WIN32_KMT, HandleType.OPAQUE_FD)
        handle_type = next((kind for kind in order if types & kind), HandleType.OPAQUE_FD)
    device = record.device
    lacking = unable(device, MemoryHandleType(int(handle_type)), missing=True) if not types & handle_type else ""
    if lacking:  # the memory could not have been allocated for it
        raise UnsupportedError(
            f"{lacking}; open a device that has it, or pass the extension to raw.adopt_device where the VkDevice was "
            "created with it",
            requires_one_of=["a device that exports the handle type"],
        )
    if handle_type in (HandleType.OPAQUE_FD, HandleType.DMA_BUF):
        return fd_of(device, record, vk.MemoryGetFdInfoKHR(memory, handle_type))
    facts = record.facts()
    info = vk.MemoryGetWin32HandleInfoKHR(memory, handle_type)
    found = rules.check_get_memory_win32_handle(info, device.facts, facts)
    # The driver is asked once; what the caller gets from then on are duplicates, which the rule does not forbid.
    device.report(
        [v for v in found if v.vuid != "VUID-VkMemoryGetWin32HandleInfoKHR-handleType-00663"],
        "vkGetMemoryWin32HandleKHR",
    )
    return win32_handle(record, handle_type)


def win32_handle(record: MemoryRecord, handle_type: HandleType) -> NtHandle | KmtHandle:
    """The handle of one Win32 type, once the rules have agreed."""
    if handle_type == HandleType.OPAQUE_WIN32 and (record.share_reference or record.lazy_share):
        record.exported_nt_types = MemoryHandleType(record.exported_nt_types | OPAQUE_WIN32)
        return nt_handle(record)
    if handle_type == HandleType.OPAQUE_WIN32_KMT and record.kmt:
        return kmt_handle(record)
    raise UnsupportedError(
        f"this memory was not exported as {types_text(handle_type)} (its types: "
        f"{types_text(record.export_handle_types)}); "
        "name the type in VkExportMemoryAllocateInfo::handleTypes",
        requires_one_of=[f"VkExportMemoryAllocateInfo::handleTypes with {types_text(handle_type)}"],
    )


def everyday_access(access: int, name: str | None) -> tuple[int, vk.SecurityAttributes | None]:
    """dwAccess and security of an high-level share.

    Rights at creation do not cap later opens by name, the security descriptor does (B21): a payload offered for reading
    alone grants its own user reading alone.
    """
    if name is not None and not access & (Access.WRITE | Access.ALL):
        return access, vk.SecurityAttributes(manager().reading_alone(), False)
    return access, None
