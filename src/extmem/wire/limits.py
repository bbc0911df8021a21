"""Limits of the wire format, the types of fields that have them, and the base of all messages."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from extmem.sharing.limits import HANDLES_LIMIT, PAGES_LIMIT

PROTOCOL_VERSION: Final = 4
MAX_MESSAGE: Final = 16_384
"""Bytes of one packet."""
MAX_DESCRIPTOR: Final = 4_096
MAX_FDS: Final = 253
"""File descriptors beside one packet: the kernel's limit (SCM_MAX_FD)."""
MAX_HANDLES: Final = HANDLES_LIMIT
"""Handles of one payload. They are sent in as many packets as `MAX_FDS` requires."""
MAX_PAGES: Final = PAGES_LIMIT
"""Companion pages of one payload."""

READ_ONLY: Final = 1
READ_WRITE: Final = 2
"""How the attached file descriptors were opened (`mode` of a reply). 0: none is attached, as the client has them."""
NAMES_PAGE: Final = "extmem-names"
"""The name of the memory file of `WatchNames`, which lists of open files show."""
BY_RIGHTS: Final = 3
"""The mode of a companion page in a request: importers whose rights include the type's right to modify get it writable,
the others read-only."""


U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_HANDLES)]
I64 = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
Pid = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF)]
# Longer than any valid name or security descriptor, so that the object manager can report what is wrong with one.
Name = Annotated[str, msgspec.Meta(max_length=600)]
Sddl = Annotated[str, msgspec.Meta(max_length=4_200)]
Text = Annotated[str, msgspec.Meta(max_length=3_000)]
Pages = Annotated[tuple[U8, ...], msgspec.Meta(max_length=MAX_PAGES)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Payload = Annotated[bytes, msgspec.Meta(max_length=MAX_DESCRIPTOR)]
Record = Annotated[bytes, msgspec.Meta(max_length=7_200)]
Facts = Annotated[bytes, msgspec.Meta(max_length=15_000)]
Secret = Annotated[bytes, msgspec.Meta(max_length=16)]
KeyBytes = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
TicketBytes = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


def last_part(handles: int) -> int:
    """Return how many of a payload's handles are beside the request that shares it; `AttachFds` sent the others."""
    return (handles - 1) % MAX_FDS + 1
