"""The descriptor's bytes: version, header and body, as msgpack arrays. Pure: bytes in, field values out, and back.

How this works. A descriptor is an array of three elements: the version, the header, which all kinds of objects have,
and the body, which depends on the kind. Every struct here is an array on the wire, not a map: half the bytes, and twice
as fast to read. The version is the first element in all versions, and the kind of object the first element of the
header, so that a reader can name what it does not read. Fields are added only with a new version: an array that is too
long or too short is refused. Types and lengths are checked while decoding; `descriptor` checks the values together.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from extmem.errors import DescriptorError
from extmem.sharing.descriptor.contents import ArrayInfo, ImageInfo, PlaneInfo
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.limits import DESCRIPTOR_LIMIT

__all__ = ["VERSION", "WireBuffer", "WireImage", "decode", "encode"]

VERSION = 4

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


class _Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The fields of `Header`, behind the kind of object."""

    object_kind: int
    device_uuid: Uuid | None
    driver_uuid: Uuid | None
    luid: Luid | None
    device_name: Text
    driver_name: Text
    device_mask: int
    device_group: Annotated[tuple[Uuid, ...], Meta(max_length=32)]
    made_by_vulkan: bool
    producer: Text
    share: int
    read_only: bool
    owner_pid: int
    owner_start_time: int


class _Memory(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The body of memory: the fields that `Descriptor` adds to `Header`."""

    handle_types: int
    allocation_size: int
    memory_type_index: int
    payload_size: int
    payload_offset: int
    memory_property_flags: int
    dedicated: WireBuffer | WireImage | None
    usage: int
    array: ArrayInfo | None
    image: ImageInfo | None
    memory_type_bits: int | None


class _Wire(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The whole descriptor of memory."""

    version: int
    header: _Header
    body: _Memory


class _KindAlone(msgspec.Struct, array_like=True):
    """The first element of a header."""

    object_kind: int


class _Kind(msgspec.Struct, array_like=True):
    """The version and the kind of object, of any kind."""

    version: int
    header: _KindAlone


class _Head(msgspec.Struct, array_like=True):
    """The first element of any version."""

    version: int


_MEMORY: Final = int(ObjectKind.MEMORY)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)
_head = msgspec.msgpack.Decoder(_Head)
_kind = msgspec.msgpack.Decoder(_Kind)
_PARTS: Final = {1: _Header.__struct_fields__, 2: _Memory.__struct_fields__}
_HEADER, _BODY = _Header.__struct_fields__[1:], _Memory.__struct_fields__


def encode(values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a descriptor of memory with these fields. DescriptorError if they cannot be encoded.

    The bounds of the fields keep them within DESCRIPTOR_LIMIT.
    """
    try:
        header = _Header(_MEMORY, *(values[name] for name in _HEADER))
        data = _encoder.encode(_Wire(VERSION, header, _Memory(*(values[name] for name in _BODY))))
        # The constructor of a descriptor accepts any type; reading the bytes back finds wrong types now.
        _decoder.decode(data)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        raise DescriptorError(f"this cannot be written as a descriptor: {_named(str(error))}") from error
    return data


def decode(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the fields of a descriptor of memory, each of its type. DescriptorError names the field that is not."""
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
    if wire.header.object_kind != _MEMORY:
        raise DescriptorError(_kind_text(wire.header.object_kind))
    fields = msgspec.structs.asdict(wire.header)
    del fields["object_kind"]
    fields.update(msgspec.structs.asdict(wire.body))
    return fields


def _refusal(data: bytes | bytearray | memoryview, error: Exception) -> str:
    try:
        version = _head.decode(data).version
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return f"{len(data)} bytes are not a descriptor: {error}"
    if version != VERSION:
        return _version_text(version)
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        object_kind = _kind.decode(data).header.object_kind
        if object_kind != _MEMORY:
            return _kind_text(object_kind)
    return f"the descriptor is malformed: {_named(str(error))}"


def _version_text(version: int) -> str:
    return (
        f"the descriptor has version {version} and this library reads version {VERSION}; "
        "use the same release of extmem on both sides"
    )


def _kind_text(object_kind: int) -> str:
    known = ", ".join(f"{int(kind)} {kind.name}" for kind in ObjectKind)
    return (
        f"the descriptor is of an object of kind {object_kind}, and memory is needed; this library knows the kinds "
        f"{known}"
    )


def _named(text: str) -> str:
    """msgspec's message with the field's name in place of its indices."""

    def name(found: re.Match[str]) -> str:
        part, index = _PARTS.get(int(found[1]), ()), int(found[2])
        return part[index] if index < len(part) else found[0]

    return re.sub(r"\$\[(\d+)\]\[(\d+)\]", name, text)
