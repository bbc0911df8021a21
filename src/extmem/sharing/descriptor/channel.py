"""`ChannelDescriptor`: the self-description of a channel's control page, which says that it is one.

How this works. As for memory (`descriptor`): the bytes are an array of version, header and body. The contents of the
page itself are `sharing.channel_page`. Programs that use no channels do not load this module.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from extmem.errors import DescriptorError
from extmem.sharing.descriptor import wire
from extmem.sharing.descriptor.header import Header
from extmem.sharing.kinds import ObjectKind

__all__ = ["ChannelDescriptor"]

_IDENTITY: Final = 16


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The body: the fields that `ChannelDescriptor` adds to `Header`, its kind aside."""

    identity: Annotated[bytes, Meta(min_length=_IDENTITY, max_length=_IDENTITY)]
    lock: bool


_form: Final = wire.Form(_Body, {ObjectKind.CHANNEL: "a channel"})


class ChannelDescriptor(Header, frozen=True):
    """The description of a channel. Immutable; made by its first writer.

    Errors of the constructor and of `parse`: DescriptorError with the values that cannot be true together.
    """

    identity: bytes
    """16 random bytes, of which the names of all parts of the channel are made."""
    lock: bool = False
    """Whether it is the file for the lock of the writer, and not the control page."""

    def __post_init__(self) -> None:
        if len(self.identity) != _IDENTITY:
            raise DescriptorError(f"identity has {len(self.identity)} bytes; that of a channel has {_IDENTITY}")
        self.check_header()

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> ChannelDescriptor:
        """Return the descriptor in these bytes, whoever wrote them. DescriptorError names what is wrong with them."""
        return cls(**_form.decode(data))

    def encode(self) -> bytes:
        """Return the bytes that travel. DescriptorError if a field has a value of the wrong type."""
        return _form.encode(dict(zip(self.__struct_fields__, msgspec.structs.astuple(self), strict=True)))
