"""The object manager's model as a pure state machine: names, access, security, handle tables, KMT numbers, lifetimes.
No I/O.

The modules are imported when their names are first used: a client of the object manager needs the names, the rights and
the records, and not the model itself.
"""

from __future__ import annotations

from extmem.owning import late_names as _late_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from extmem.objects.access import (
        DELETE,
        GENERIC_ALL,
        GENERIC_EXECUTE,
        GENERIC_READ,
        GENERIC_WRITE,
        MAXIMUM_ALLOWED,
        READ_CONTROL,
        SYNCHRONIZE,
        WRITE_DAC,
        WRITE_OWNER,
    )
    from extmem.objects.core import STEP
    from extmem.objects.entities import Identity, Reference, Who
    from extmem.objects.keeping import checked_keep
    from extmem.objects.kmt import SLOTS, bad_number, number_at
    from extmem.objects.lifetimes import KEEPS, Holder, Keeps
    from extmem.objects.model import ObjectManager
    from extmem.objects.names import MAX_UNITS, NameKey, parse_path, resolve_name, session_directory
    from extmem.objects.object_types import MEMORY, OBJECT_TYPES, OPENED_BY, RESOURCE_WRITE, ObjectType, known_kind
    from extmem.objects.records import (
        HandleRecord,
        ObjectRecord,
        PayloadRecord,
        ReferenceRecord,
        RestoredPayload,
        TicketRecord,
    )
    from extmem.objects.results import Claimed, Exported, HandleInfo, Imported, Limits
    from extmem.objects.rows import HandleRow, HolderRow, ObjectRow, Part, PayloadRow, assemble
    from extmem.objects.sddl import format_sddl, parse_sddl
    from extmem.objects.security import SecurityDescriptor, Token, default_descriptor
    from extmem.objects.status import WINERROR, Refused, Status, error_for
    from extmem.objects.table import FLAG_INHERIT, FLAG_PROTECT, no_entry
    from extmem.sharing.kinds import ObjectKind, Share

__all__ = [
    "Claimed",
    "DELETE",
    "Exported",
    "FLAG_INHERIT",
    "FLAG_PROTECT",
    "GENERIC_ALL",
    "GENERIC_EXECUTE",
    "GENERIC_READ",
    "GENERIC_WRITE",
    "HandleInfo",
    "HandleRecord",
    "HandleRow",
    "Holder",
    "HolderRow",
    "Identity",
    "Imported",
    "KEEPS",
    "Keeps",
    "Limits",
    "MAXIMUM_ALLOWED",
    "MAX_UNITS",
    "MEMORY",
    "NameKey",
    "OBJECT_TYPES",
    "OPENED_BY",
    "ObjectKind",
    "ObjectManager",
    "ObjectRecord",
    "ObjectRow",
    "ObjectType",
    "Part",
    "PayloadRecord",
    "PayloadRow",
    "READ_CONTROL",
    "RESOURCE_WRITE",
    "Reference",
    "ReferenceRecord",
    "Refused",
    "RestoredPayload",
    "SLOTS",
    "STEP",
    "SYNCHRONIZE",
    "SecurityDescriptor",
    "Share",
    "Status",
    "TicketRecord",
    "Token",
    "WINERROR",
    "WRITE_DAC",
    "WRITE_OWNER",
    "Who",
    "assemble",
    "bad_number",
    "checked_keep",
    "default_descriptor",
    "error_for",
    "format_sddl",
    "known_kind",
    "no_entry",
    "number_at",
    "parse_path",
    "parse_sddl",
    "resolve_name",
    "session_directory",
]

if not TYPE_CHECKING:  # a type checker would take this to mean that every name exists
    __getattr__ = _late_names(
        globals(),
        {
            "extmem.objects.access": (
                "DELETE",
                "GENERIC_ALL",
                "GENERIC_EXECUTE",
                "GENERIC_READ",
                "GENERIC_WRITE",
                "MAXIMUM_ALLOWED",
                "READ_CONTROL",
                "SYNCHRONIZE",
                "WRITE_DAC",
                "WRITE_OWNER",
            ),
            "extmem.objects.core": ("STEP",),
            "extmem.objects.entities": ("Identity", "Reference", "Who"),
            "extmem.objects.keeping": ("checked_keep",),
            "extmem.objects.kmt": ("SLOTS", "bad_number", "number_at"),
            "extmem.objects.lifetimes": ("Holder", "KEEPS", "Keeps"),
            "extmem.objects.model": ("ObjectManager",),
            "extmem.objects.names": ("MAX_UNITS", "NameKey", "parse_path", "resolve_name", "session_directory"),
            "extmem.objects.object_types": (
                "MEMORY",
                "OBJECT_TYPES",
                "OPENED_BY",
                "ObjectType",
                "RESOURCE_WRITE",
                "known_kind",
            ),
            "extmem.objects.records": (
                "HandleRecord",
                "ObjectRecord",
                "PayloadRecord",
                "ReferenceRecord",
                "RestoredPayload",
                "TicketRecord",
            ),
            "extmem.objects.results": ("Claimed", "Exported", "HandleInfo", "Imported", "Limits"),
            "extmem.objects.rows": ("HandleRow", "HolderRow", "ObjectRow", "Part", "PayloadRow", "assemble"),
            "extmem.objects.sddl": ("format_sddl", "parse_sddl"),
            "extmem.objects.security": ("SecurityDescriptor", "Token", "default_descriptor"),
            "extmem.objects.status": ("Refused", "Status", "WINERROR", "error_for"),
            "extmem.objects.table": ("FLAG_INHERIT", "FLAG_PROTECT", "no_entry"),
            "extmem.sharing.kinds": ("ObjectKind", "Share"),
        },
    )
