"""The object manager's model as a pure state machine: names, access, security, handle tables, KMT numbers, lifetimes.
No I/O.
"""

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
from extmem.objects.object_types import MEMORY, OBJECT_TYPES, RESOURCE_WRITE, ObjectType, known_kind
from extmem.objects.records import (
    HandleRecord,
    ObjectRecord,
    PayloadRecord,
    ReferenceRecord,
    RestoredPayload,
    TicketRecord,
)
from extmem.objects.results import Claimed, Exported, HandleInfo, Imported, Limits
from extmem.objects.sddl import format_sddl, parse_sddl
from extmem.objects.security import SecurityDescriptor, Token, default_descriptor
from extmem.objects.snapshot import HandleRow, HolderRow, ObjectRow, Part, PayloadRow, assemble
from extmem.objects.status import WINERROR, Refused, Status, error_for
from extmem.objects.table import FLAG_INHERIT, FLAG_PROTECT, no_entry
from extmem.sharing.kinds import ObjectKind, Share

__all__ = [
    "DELETE",
    "FLAG_INHERIT",
    "FLAG_PROTECT",
    "GENERIC_ALL",
    "GENERIC_EXECUTE",
    "GENERIC_READ",
    "GENERIC_WRITE",
    "KEEPS",
    "MAXIMUM_ALLOWED",
    "MAX_UNITS",
    "READ_CONTROL",
    "SLOTS",
    "RESOURCE_WRITE",
    "STEP",
    "SYNCHRONIZE",
    "WINERROR",
    "WRITE_DAC",
    "WRITE_OWNER",
    "Claimed",
    "Exported",
    "HandleInfo",
    "HandleRecord",
    "HandleRow",
    "Holder",
    "HolderRow",
    "Imported",
    "Keeps",
    "Limits",
    "Reference",
    "MEMORY",
    "OBJECT_TYPES",
    "ObjectType",
    "ObjectKind",
    "Identity",
    "ReferenceRecord",
    "NameKey",
    "ObjectManager",
    "ObjectRecord",
    "ObjectRow",
    "Part",
    "PayloadRecord",
    "PayloadRow",
    "Refused",
    "RestoredPayload",
    "SecurityDescriptor",
    "Share",
    "Status",
    "TicketRecord",
    "Token",
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
