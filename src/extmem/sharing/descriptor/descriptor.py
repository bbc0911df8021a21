"""`Descriptor`: the self-description that travels with a payload. A handle alone says none of this.

How this works. `parse` reads bytes that anyone may have written: the wire module checks types and lengths, and the
constructor checks that the values can be true together (`_check…`), for callers who state a descriptor as for bytes
from outside. What holds afterwards: the payload lies inside the allocation, the array inside the payload, and every
number in the range of its Vulkan type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from extmem import vk
from extmem.errors import DescriptorError
from extmem.owning import LateModule
from extmem.rules import PayloadFacts
from extmem.sharing.bounded import Bounded
from extmem.sharing.descriptor import wire as wire
from extmem.sharing.descriptor.contents import ArrayInfo, ImageInfo, PlaneInfo, check_array, check_image
from extmem.sharing.descriptor.header import Header
from extmem.sharing.kinds import PageRole
from extmem.sharing.limits import HANDLES_LIMIT, PARTS_LIMIT
from extmem.vk.handle_types import MemoryHandleType

if TYPE_CHECKING:
    from extmem.sharing.descriptor import create_infos
else:
    create_infos = LateModule(globals(), "extmem.sharing.descriptor.create_infos")

__all__ = ["ArrayInfo", "Descriptor", "ImageInfo", "PlaneInfo"]

_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_MAX = (1 << 63) - 1
"""The largest size or stride in bytes: what a signed 64-bit offset reaches."""
_ROLES = frozenset(map(int, PageRole))
_MEMORY_TYPES = 32  # VK_MAX_MEMORY_TYPES


class Descriptor(Header, frozen=True):
    """What a payload says of itself. Immutable; made by the exporter, or stated by the caller for a foreign handle.

    Sizes and offsets are bytes. Errors of the constructor and of `parse`: DescriptorError with the values that cannot
    be true together; of the constructor also UnsupportedError for a pNext chain that a descriptor cannot carry.
    """

    handle_types: int
    """VkExternalMemoryHandleTypeFlags that it was exported for."""
    allocation_size: int
    """VkMemoryAllocateInfo::allocationSize."""
    memory_type_index: int = 0
    """VkMemoryAllocateInfo::memoryTypeIndex."""
    payload_size: int = 0
    """Bytes that mean something, at most the rest of the allocation; 0 in the constructor stands for all of it."""
    payload_offset: int = 0
    """Where in the allocation they begin."""
    memory_property_flags: int = 0
    """VkMemoryPropertyFlags of the memory type."""
    dedicated: vk.BufferCreateInfo | vk.ImageCreateInfo | None = None
    """Create info of the buffer or image that the memory is dedicated to, p_next included; a new copy each time."""
    usage: int = 0
    """VkBufferUsageFlags that the payload is for."""
    array: ArrayInfo | None = None
    """The array it holds."""
    image: ImageInfo | None = None
    """The image it holds."""
    memory_type_bits: int | None = None
    """What vkGetMemory…PropertiesKHR answers for a foreign payload."""
    pages: tuple[int, ...] = ()
    """The roles of its companion pages (`PageRole`), in their order."""
    parts: tuple[tuple[int, int], ...] = ()
    """The allocations that it consists of, side by side, each with a handle of its own: runs of allocations of one size
    (how many, and bytes of each). Empty for memory that is one allocation."""

    def __post_init__(self) -> None:
        if self.payload_size == 0:
            msgspec.structs.force_setattr(self, "payload_size", self.allocation_size - self.payload_offset)
        # One comparison chain for the plain payload, which is most of them; `_complain` finds out which part failed.
        if not (
            0 < self.payload_size
            and 0 <= self.payload_offset
            and self.payload_offset + self.payload_size <= self.allocation_size <= _MAX
            and 0 <= self.memory_type_index < _MEMORY_TYPES
            and 0 <= self.handle_types <= _U32
            and 0 <= self.memory_property_flags <= _U32
            and 0 <= self.usage <= _U64
        ):
            self._complain()
        self.check_header()
        if self.array is not None:
            check_array(self.array, self.payload_size)
        if self.image is not None:
            check_image(self.image, self.payload_size)
            if self.image.planes and self.array is not None:  # both at their largest would not fit what travels
                raise DescriptorError(
                    "the payload is said to hold both; it holds an array, or an image with memory planes"
                )
        if self.memory_type_bits is not None and not 0 <= self.memory_type_bits <= _U32:
            raise DescriptorError(f"memory_type_bits is {self.memory_type_bits:#x}, more than 32 bits")
        if self.pages and not (len(set(self.pages)) == len(self.pages) and _ROLES.issuperset(self.pages)):
            raise DescriptorError(
                f"the roles of the companion pages are {self.pages}; each of {', '.join(map(str, sorted(_ROLES)))} may "
                "occur once"
            )
        if self.parts:
            self._check_parts()
        stated = _dedicated.__get__(self)
        if stated is not None:
            # Kept as plain values, which nobody can change: each create info that is read from here is a copy.
            plain = stated if isinstance(stated, (wire.WireBuffer, wire.WireImage)) else create_infos.to_wire(stated)
            create_infos.check(plain, self.allocation_size if self.made_by_vulkan else None)
            _dedicated.__set__(self, plain)

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Descriptor:
        """The descriptor in these bytes, whoever wrote them. DescriptorError says what is wrong with them."""
        return cls(**wire.decode(data))

    def encode(self) -> bytes:
        """The bytes that travel, at most 4080. DescriptorError where a field has a value of the wrong type."""
        known = _encoded.get(id(self))
        if known is not None and known[0] is self:
            return known[1]
        # The fields as they are kept: reading `dedicated` would make a copy of its create info.
        data = wire.encode(dict(zip(self.__struct_fields__, msgspec.structs.astuple(self), strict=True)))
        return _encoded.keep(id(self), (self, data))[1]

    @property
    def part_sizes(self) -> tuple[int, ...]:
        """The bytes of each allocation that it consists of, in their order; empty for memory that is one allocation."""
        return tuple(size for count, size in self.parts for _ in range(count))

    @property
    def dedicated_kind(self) -> Literal["none", "buffer", "image"]:
        """What kind of resource the memory is dedicated to."""
        stated = _dedicated.__get__(self)
        if stated is None:
            return "none"
        return "buffer" if isinstance(stated, wire.WireBuffer) else "image"

    def payload_facts(self) -> PayloadFacts:
        """What the rules need of it. A foreign payload has no exporter's memory type to hold an import against."""
        return PayloadFacts(
            handle_types=MemoryHandleType(self.handle_types),
            allocation_size=self.allocation_size,
            memory_type_index=self.memory_type_index if self.made_by_vulkan else None,
            device_uuid=self.device_uuid,
            driver_uuid=self.driver_uuid,
            dedicated=self.dedicated_kind if self.made_by_vulkan else None,
            dedicated_info=self.dedicated,
            device_mask=self.device_mask,
            device_group=self.device_group,
            made_by_vulkan=self.made_by_vulkan,
            memory_type_bits=self.memory_type_bits,
            device_name=self.device_name,
        )

    def __repr__(self) -> str:
        return f"Descriptor({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__struct_fields__)})"

    def _check_parts(self) -> None:
        """Check the sizes of the allocations. Errors: DescriptorError."""
        parts = self.parts
        if not self.producer or len(parts) > PARTS_LIMIT or any(count < 1 or size < 1 for count, size in parts):
            raise DescriptorError(
                f"the memory is said to consist of the allocations {parts[:4]} (number, bytes) of {self.producer!r}; "
                f"memory of CUDA does, in 1 to {PARTS_LIMIT} runs of 1 or more bytes"
            )
        count, whole = sum(n for n, _ in parts), sum(n * size for n, size in parts)
        if not 1 < count <= HANDLES_LIMIT or whole != self.allocation_size:
            raise DescriptorError(
                f"the memory is said to consist of {count} allocations of {whole} bytes together, and to have "
                f"{self.allocation_size}; 2 to {HANDLES_LIMIT} allocations have all bytes"
            )

    def _complain(self) -> None:
        """Name the field that the constructor's comparison refused."""
        size, offset, whole = self.payload_size, self.payload_offset, self.allocation_size
        if not 0 < whole <= _MAX:
            raise DescriptorError(f"allocation_size is {whole}, outside 1 to {_MAX}")
        if size < 1 or offset < 0 or offset + size > whole:
            raise DescriptorError(
                f"the payload of {size} bytes from offset {offset} does not lie inside the allocation of {whole} bytes"
            )
        for name, most in (
            ("handle_types", _U32),
            ("memory_type_index", _MEMORY_TYPES - 1),
            ("memory_property_flags", _U32),
            ("usage", _U64),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise DescriptorError(f"{name} is {value}, outside 0 to {most}")


_dedicated: Any = Descriptor.dedicated
"""Where the plain values of the create info are kept."""


def _create_info(descriptor: Descriptor) -> vk.BufferCreateInfo | vk.ImageCreateInfo | None:
    """Create info of the buffer or image that the memory is dedicated to, p_next included; a new copy each time."""
    plain = _dedicated.__get__(descriptor)
    return None if plain is None else create_infos.from_wire(plain)


Descriptor.dedicated = property(_create_info)  # type: ignore[assignment]  # to programs it stays a field

_encoded: Bounded[int, tuple[Descriptor, bytes]] = Bounded(512)
"""Bytes of descriptors that were encoded, by identity: those of payloads that are alike are one object, and equality
does not tell 1 from True.
"""
