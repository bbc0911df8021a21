"""The object manager's model as a pure state machine: names, access, security, handle tables, KMT numbers, lifetimes.
No I/O.
"""

from extmem.objects.access import (
    ALL_ACCESS,
    DELETE,
    GENERIC_ALL,
    GENERIC_EXECUTE,
    GENERIC_READ,
    GENERIC_WRITE,
    MAXIMUM_ALLOWED,
    READ_CONTROL,
    RESOURCE_WRITE,
    SYNCHRONIZE,
    VALID_BITS,
    WRITE_DAC,
    WRITE_OWNER,
    describe,
    map_generic,
)
from extmem.objects.core import STEP
from extmem.objects.entities import Memory
from extmem.objects.lifetimes import KEEPS, Holder, Keeps
from extmem.objects.model import ObjectManager
from extmem.objects.names import MAX_UNITS, NameKey, resolve_name
from extmem.objects.records import (
    HandleRecord,
    Held,
    MemoryRecord,
    ObjectRecord,
    PayloadRecord,
    Restored,
    RestoredPayload,
    TicketRecord,
)
from extmem.objects.results import TYPE_NAME, Claimed, Exported, HandleInfo, Imported, Limits
from extmem.objects.sddl import format_sddl, parse_sddl
from extmem.objects.security import SecurityDescriptor, Token, default_descriptor, granted
from extmem.objects.snapshot import HandleRow, HolderRow, ObjectRow, Part, PayloadRow, assemble
from extmem.objects.status import WINERROR, Refused, Status, error_for
from extmem.objects.table import FLAG_INHERIT, FLAG_PROTECT
from extmem.sharing.kinds import Share

__all__ = [
    "ALL_ACCESS",
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
    "RESOURCE_WRITE",
    "STEP",
    "SYNCHRONIZE",
    "TYPE_NAME",
    "VALID_BITS",
    "WINERROR",
    "WRITE_DAC",
    "WRITE_OWNER",
    "Claimed",
    "Exported",
    "HandleInfo",
    "HandleRecord",
    "HandleRow",
    "Held",
    "Holder",
    "HolderRow",
    "Imported",
    "Keeps",
    "Limits",
    "Memory",
    "MemoryRecord",
    "NameKey",
    "ObjectManager",
    "ObjectRecord",
    "ObjectRow",
    "Part",
    "PayloadRecord",
    "PayloadRow",
    "Refused",
    "Restored",
    "RestoredPayload",
    "SecurityDescriptor",
    "Share",
    "Status",
    "TicketRecord",
    "Token",
    "assemble",
    "default_descriptor",
    "describe",
    "error_for",
    "format_sddl",
    "granted",
    "map_generic",
    "parse_sddl",
    "resolve_name",
]
