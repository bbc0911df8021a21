"""Limits of the wire format, the types of fields that have them, and the base of all messages."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

PROTOCOL_VERSION: Final = 2
MAX_MESSAGE: Final = 16_384
"""Bytes of one packet."""
MAX_DESCRIPTOR: Final = 4_096
MAX_FDS: Final = 1
"""File descriptors beside one packet."""

READ_ONLY: Final = 1
READ_WRITE: Final = 2
"""How an attached file descriptor was opened (`mode` of a reply); 0 means none is attached, you hold it already."""


U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
I64 = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF_FFFF_FFFF)]
Pid = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF_FFFF)]
# Longer than any legal name or security descriptor, so that the object manager can say what is wrong with it.
Name = Annotated[str, msgspec.Meta(max_length=600)]
Sddl = Annotated[str, msgspec.Meta(max_length=4_200)]
Text = Annotated[str, msgspec.Meta(max_length=3_000)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Payload = Annotated[bytes, msgspec.Meta(max_length=MAX_DESCRIPTOR)]
Record = Annotated[bytes, msgspec.Meta(max_length=7_200)]
Facts = Annotated[bytes, msgspec.Meta(max_length=15_000)]
Secret = Annotated[bytes, msgspec.Meta(max_length=16)]
KeyBytes = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
TicketBytes = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""
