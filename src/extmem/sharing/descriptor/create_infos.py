"""Create infos of dedicated resources, between the specification's structs and the wire, nothing lost on the way."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import TypeVar

import msgspec

from extmem import vk
from extmem.errors import DescriptorError, UnsupportedError
from extmem.sharing.descriptor.contents import PlaneInfo
from extmem.sharing.descriptor.wire import WireBuffer, WireImage

__all__ = ["CreateInfo", "check", "from_wire", "to_wire"]

CreateInfo = vk.BufferCreateInfo | vk.ImageCreateInfo
_Enum = TypeVar("_Enum", bound=IntEnum)
_HandleTypes = vk.ExternalMemoryHandleTypeFlagBits
_DRM = int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)
_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF


def to_wire(info: CreateInfo) -> WireBuffer | WireImage:
    """The create info as plain values. UnsupportedError for a chained struct that the wire has no place for."""
    allowed = _CHAINED[type(info)]
    for link in vk.chain(info):
        if not isinstance(link, allowed):
            raise UnsupportedError(
                f"{type(info).__name__} has {type(link).__name__} in its pNext chain, which a descriptor cannot carry: "
                "an importer could not create the identical resource; leave it out of external dedicated resources",
                requires_one_of=[cls.__name__ for cls in allowed],
            )
    if isinstance(info, vk.BufferCreateInfo):
        external = vk.find(info, vk.ExternalMemoryBufferCreateInfo)
        usage2 = vk.find(info, vk.BufferUsageFlags2CreateInfo)
        return WireBuffer(
            flags=int(info.flags),
            size=int(info.size),
            usage=int(info.usage),
            sharing_mode=int(info.sharing_mode),
            queue_family_indices=tuple(map(int, info.queue_family_indices)),
            handle_types=int(external.handle_types) if external is not None else None,
            usage2=int(usage2.usage) if usage2 is not None else None,
        )
    chained = vk.find(info, vk.ExternalMemoryImageCreateInfo)
    explicit = vk.find(info, vk.ImageDrmFormatModifierExplicitCreateInfoEXT)
    return WireImage(
        flags=int(info.flags),
        image_type=int(info.image_type),
        format=int(info.format),
        width=int(info.extent.width),
        height=int(info.extent.height),
        depth=int(info.extent.depth),
        mip_levels=int(info.mip_levels),
        array_layers=int(info.array_layers),
        samples=int(info.samples),
        tiling=int(info.tiling),
        usage=int(info.usage),
        sharing_mode=int(info.sharing_mode),
        queue_family_indices=tuple(map(int, info.queue_family_indices)),
        initial_layout=int(info.initial_layout),
        handle_types=int(chained.handle_types) if chained is not None else None,
        modifier=int(explicit.drm_format_modifier) if explicit is not None else None,
        planes=tuple(map(_plane, explicit.plane_layouts)) if explicit is not None else (),
    )


def _plane(layout: vk.SubresourceLayout) -> PlaneInfo:
    numbers = layout.offset, layout.size, layout.row_pitch, layout.array_pitch, layout.depth_pitch
    return PlaneInfo(*map(int, numbers))


_CHAINED: dict[type[CreateInfo], tuple[type[vk.ChainStruct], ...]] = {
    vk.BufferCreateInfo: (vk.ExternalMemoryBufferCreateInfo, vk.BufferUsageFlags2CreateInfo),
    vk.ImageCreateInfo: (vk.ExternalMemoryImageCreateInfo, vk.ImageDrmFormatModifierExplicitCreateInfoEXT),
}


def from_wire(wire: WireBuffer | WireImage) -> CreateInfo:
    """The create info that an importer creates the identical resource from."""
    if isinstance(wire, WireBuffer):
        chain: vk.ChainStruct | None = None
        if wire.usage2 is not None:
            chain = vk.BufferUsageFlags2CreateInfo(vk.BufferUsageFlagBits2(wire.usage2))
        if wire.handle_types is not None:
            chain = vk.ExternalMemoryBufferCreateInfo(_HandleTypes(wire.handle_types), chain)
        return vk.BufferCreateInfo(
            flags=_flags(vk.BufferCreateFlagBits, wire.flags),
            size=wire.size,
            usage=_flags(vk.BufferUsageFlagBits, wire.usage),
            sharing_mode=_enum(vk.SharingMode, wire.sharing_mode),
            queue_family_indices=wire.queue_family_indices,
            p_next=chain,
        )
    following: vk.ChainStruct | None = None
    if wire.modifier is not None:
        layouts = [vk.SubresourceLayout(*msgspec.structs.astuple(plane)) for plane in wire.planes]
        following = vk.ImageDrmFormatModifierExplicitCreateInfoEXT(wire.modifier, layouts)
    if wire.handle_types is not None:
        following = vk.ExternalMemoryImageCreateInfo(_flags(_HandleTypes, wire.handle_types), following)
    return vk.ImageCreateInfo(
        flags=_flags(vk.ImageCreateFlagBits, wire.flags),
        image_type=_enum(vk.ImageType, wire.image_type),
        format=_enum(vk.Format, wire.format),
        extent=vk.Extent3D(wire.width, wire.height, wire.depth),
        mip_levels=wire.mip_levels,
        array_layers=wire.array_layers,
        samples=_flags(vk.SampleCountFlagBits, wire.samples),
        tiling=_enum(vk.ImageTiling, wire.tiling),
        usage=_flags(vk.ImageUsageFlagBits, wire.usage),
        sharing_mode=_enum(vk.SharingMode, wire.sharing_mode),
        queue_family_indices=wire.queue_family_indices,
        initial_layout=_enum(vk.ImageLayout, wire.initial_layout),
        p_next=following,
    )


def check(wire: WireBuffer | WireImage, allocation_size: int | None) -> None:
    """Refuse values that no create info can have. allocation_size: what a buffer must fit, None where unknown.

    Errors: DescriptorError.
    """
    for name in wire.__struct_fields__:
        value = getattr(wire, name)
        values = value if isinstance(value, tuple) else (0,) if value is None else (value,)
        if name == "planes":
            values = tuple(number for plane in value for number in msgspec.structs.astuple(plane))
        most = _U64 if name in ("size", "usage2", "modifier", "planes") else _U32
        # Enum values are C ints, but none of the specification's is negative.
        if not all(0 <= number <= most for number in values):
            raise DescriptorError(f"dedicated {name} is {value}, outside 0 to {most:#x}")
    if isinstance(wire, WireBuffer):
        if wire.size < 1 or (allocation_size is not None and wire.size > allocation_size):
            raise DescriptorError(
                f"the payload is dedicated to a buffer of {wire.size} bytes and its allocation has {allocation_size}"
            )
    elif not all((wire.width, wire.height, wire.depth, wire.mip_levels, wire.array_layers)):
        raise DescriptorError(
            f"the payload is dedicated to an image of {wire.width} × {wire.height} × {wire.depth} texels with "
            f"{wire.mip_levels} levels and {wire.array_layers} layers; each must be at least 1"
        )
    elif (wire.tiling == _DRM) != (wire.modifier is not None) or bool(wire.planes) != (wire.modifier is not None):
        raise DescriptorError(
            f"the payload is dedicated to an image of tiling {wire.tiling} with modifier {wire.modifier} and "
            f"{len(wire.planes)} memory planes; DRM_FORMAT_MODIFIER tiling has both, and no other has any"
        )


_FlagT = TypeVar("_FlagT", bound=IntFlag)


def _flags(cls: type[_FlagT], value: int) -> _FlagT:
    return cls(value)


def _enum(cls: type[_Enum], value: int) -> _Enum | int:
    """The enum's member, or the number itself where this registry has no name for it."""
    try:
        return cls(value)
    except ValueError:
        return value
