"""`SyncDescriptor`: the self-description of a shared semaphore or fence.

Nothing in a handle tells a binary semaphore from a timeline, or either from a fence, and some drivers accept the wrong
one without an error. So the descriptor says which it is, and importers believe the descriptor.

How this works. As for memory (`descriptor`): the bytes are an array of version, header and body; the body of these
kinds is `_Body`. Types and lengths are checked while decoding, the values together by the constructor. Programs that
share memory alone do not load this module.
"""

from __future__ import annotations

from typing import Final

import msgspec

from extmem.errors import DescriptorError
from extmem.sharing.descriptor import wire
from extmem.sharing.descriptor.header import Header
from extmem.sharing.kinds import ObjectKind

__all__ = ["SyncDescriptor"]

_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_NOUNS: Final = {ObjectKind.SEMAPHORE: "a semaphore", ObjectKind.FENCE: "a fence"}


class _Body(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The body: the fields that `SyncDescriptor` adds to `Header`, its kind aside."""

    handle_types: int
    timeline: bool
    flags: int
    initial_value: int
    host: bool


_form: Final = wire.Form(_Body, _NOUNS)


class SyncDescriptor(Header, frozen=True):
    """The description of a shared semaphore or fence. Immutable; made by the exporter, or stated by the caller.

    Errors of the constructor and of `parse`: DescriptorError with the values that cannot be true together.
    """

    object_kind: int
    """`ObjectKind.SEMAPHORE` or `ObjectKind.FENCE`."""
    handle_types: int
    """VkExternalSemaphoreHandleTypeFlags or VkExternalFenceHandleTypeFlags that it was exported for."""
    timeline: bool = False
    """Whether it is a timeline semaphore; else a binary one, or a fence."""
    flags: int = 0
    """VkSemaphoreCreateFlags, or VkFenceCreateFlags without the bit SIGNALED."""
    initial_value: int = 0
    """VkSemaphoreTypeCreateInfo::initialValue of a timeline; 0 for others."""
    host: bool = False
    """Whether the payload is extmem's own (a page or an event of the host), and not a driver's."""

    def __post_init__(self) -> None:
        self._check()
        self.check_header()

    def _check(self) -> None:
        if self.object_kind not in _NOUNS:
            raise DescriptorError(
                f"object_kind is {self.object_kind}, which is neither a semaphore ({int(ObjectKind.SEMAPHORE)}) nor a "
                f"fence ({int(ObjectKind.FENCE)})"
            )
        for name, most in (("handle_types", _U32), ("flags", _U32), ("initial_value", _U64)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise DescriptorError(f"{name} is {value}, outside 0 to {most}")
        if self.timeline and self.object_kind != ObjectKind.SEMAPHORE:
            raise DescriptorError("timeline is True for a fence; only semaphores are timelines")
        if self.initial_value and not self.timeline:
            raise DescriptorError(
                f"initial_value is {self.initial_value} for {self.noun}; only timelines have a value other than 0"
            )

    @property
    def noun(self) -> str:
        """What it is, in words for messages."""
        if self.object_kind == ObjectKind.FENCE:
            return "a fence"
        return "a timeline semaphore" if self.timeline else "a binary semaphore"

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> SyncDescriptor:
        """Return the descriptor in these bytes, whoever wrote them. DescriptorError names what is wrong with them."""
        return cls(**_form.decode(data))

    def encode(self) -> bytes:
        """Return the bytes that travel. DescriptorError if a field has a value of the wrong type."""
        fields = dict(zip(self.__struct_fields__, msgspec.structs.astuple(self), strict=True))
        return _form.encode(fields)
