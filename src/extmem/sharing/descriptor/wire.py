"""The descriptor's bytes: msgpack arrays with the version first. Pure: bytes in, field values out, and back.

How this works. Every struct here is an array on the wire, not a map: half the bytes, twice as fast to read, and the
version is always the first element, so that any version can be told from the bytes of any other. Fields are only
ever added with a new version: an array that is too long or too short is refused, never guessed at. Types and lengths
are checked while decoding; what the values mean together is `descriptor`'s business.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from extmem.errors import DescriptorError
from extmem.sharing.descriptor.contents import ArrayInfo, ImageInfo, PlaneInfo
from extmem.sharing.limits import DESCRIPTOR_LIMIT

__all__ = ["VERSION", "WireBuffer", "WireImage", "decode", "encode"]

VERSION = 3

Uuid = Annotated[bytes, Meta(min_length=16, max_length=16)]
Luid = Annotated[bytes, Meta(min_length=8, max_length=8)]
Text = Annotated[str, Meta(max_length=256)]
Indices = Annotated[tuple[int, ...], Meta(max_length=64)]


class WireBuffer(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=1):
    """VkBufferCreateInfo with VkExternalMemoryBufferCreateInfo and VkBufferUsageFlags2CreateInfo."""

    flags: int
    size: int
    usage: int
    sharing_mode: int
    queue_family_indices: Indices
    handle_types: int | None
    usage2: int | None


class WireImage(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag=2):
    """VkImageCreateInfo with VkExternalMemoryImageCreateInfo and VkImageDrmFormatModifierExplicitCreateInfoEXT."""

    flags: int
    image_type: int
    format: int
    width: int
    height: int
    depth: int
    mip_levels: int
    array_layers: int
    samples: int
    tiling: int
    usage: int
    sharing_mode: int
    queue_family_indices: Indices
    initial_layout: int
    handle_types: int | None
    modifier: int | None
    planes: Annotated[tuple[PlaneInfo, ...], Meta(max_length=4)]
    """The memory planes of an image with a modifier."""


class _Wire(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The whole descriptor, in `Descriptor`'s order behind the version."""

    version: int
    handle_types: int
    allocation_size: int
    memory_type_index: int
    payload_size: int
    payload_offset: int
    memory_property_flags: int
    device_uuid: Uuid | None
    driver_uuid: Uuid | None
    luid: Luid | None
    device_name: Text
    driver_name: Text
    dedicated: WireBuffer | WireImage | None
    usage: int
    array: ArrayInfo | None
    image: ImageInfo | None
    share: int
    read_only: bool
    owner_pid: int
    owner_start_time: int
    device_mask: int
    device_group: Annotated[tuple[Uuid, ...], Meta(max_length=32)]
    made_by_vulkan: bool
    memory_type_bits: int | None
    producer: Text


class _Head(msgspec.Struct, array_like=True):
    """The first element of any version."""

    version: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)
_head = msgspec.msgpack.Decoder(_Head)
_FIELDS = _Wire.__struct_fields__


def encode(values: tuple[Any, ...]) -> bytes:
    """The bytes of these field values, in `Descriptor`'s order. DescriptorError where they are no descriptor.

    The bounds of the fields keep them within DESCRIPTOR_LIMIT.
    """
    try:
        data = _encoder.encode(_Wire(VERSION, *values))
        # What leaves here can be read there: wrong types that came in through the constructor are found now.
        _decoder.decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise DescriptorError(f"this cannot be written as a descriptor: {_named(str(error))}") from error
    return data


def decode(data: bytes | bytearray | memoryview) -> tuple[Any, ...]:
    """Field values in `Descriptor`'s order, each of its type. DescriptorError says which field is not."""
    if not 0 < len(data) <= DESCRIPTOR_LIMIT:
        raise DescriptorError(
            f"a descriptor of {len(data)} bytes: it takes 1 to {DESCRIPTOR_LIMIT}"
            if data
            else "there is no descriptor (0 bytes); a payload of a foreign producer needs one that the caller states"
        )
    try:
        wire = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DescriptorError(_refusal(data, error)) from error
    if wire.version != VERSION:
        raise DescriptorError(_version_text(wire.version))
    return msgspec.structs.astuple(wire)[1:]


def _refusal(data: bytes | bytearray | memoryview, error: Exception) -> str:
    try:
        version = _head.decode(data).version
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"{len(data)} bytes are no descriptor: {error}"
    if version != VERSION:
        return _version_text(version)
    return f"the descriptor is malformed: {_named(str(error))}"


def _version_text(version: int) -> str:
    return (
        f"the descriptor has version {version} and this library reads version {VERSION}; "
        "use the same release of extmem on both sides"
    )


def _named(text: str) -> str:
    """msgspec's message with the field's name in place of its index."""

    def name(found: re.Match[str]) -> str:
        index = int(found[1])
        return _FIELDS[index] if index < len(_FIELDS) else found[0]

    return re.sub(r"\$\[(\d+)\]", name, text)
