"""The descriptor's bytes: version, header and body, as msgpack arrays. Pure: bytes in, field values out, and back.

`encode` and `decode` are for memory; a `Form` has them for kinds with another body.

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
from operator import itemgetter
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from extmem.errors import DescriptorError
from extmem.sharing.descriptor.contents import ArrayInfo, ImageInfo, PlaneInfo
from extmem.sharing.kinds import ObjectKind
from extmem.sharing.limits import DESCRIPTOR_LIMIT, PAGES_LIMIT, PARTS_LIMIT

__all__ = ["VERSION", "Form", "WireBuffer", "WireImage", "decode", "encode", "owner_pid_of"]

VERSION = 5

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
    pages: Annotated[tuple[int, ...], Meta(max_length=PAGES_LIMIT)]
    parts: Annotated[tuple[tuple[int, int], ...], Meta(max_length=PARTS_LIMIT)]


class _AnyKind(msgspec.Struct, array_like=True):
    """The version and the header, of any kind."""

    version: int
    header: _Header


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


_encoder = msgspec.msgpack.Encoder()
_head = msgspec.msgpack.Decoder(_Head)
_kind = msgspec.msgpack.Decoder(_Kind)
_any_kind = msgspec.msgpack.Decoder(_AnyKind)
_OPENED_BY = {
    ObjectKind.MEMORY: ("memory", "extmem.open or Device.allocate_memory"),
    ObjectKind.SEMAPHORE: ("a semaphore", "extmem.open_timeline (a timeline) or Device.import_semaphore_fd"),
    ObjectKind.FENCE: ("a fence", "Device.import_fence_fd"),
    ObjectKind.CHANNEL: ("a channel", "extmem.open_channel"),
}
"""The nouns of the kinds, and the calls that open or import one."""
_header_of = itemgetter(*_Header.__struct_fields__[1:])


def owner_pid_of(data: bytes) -> int:
    """Return the pid of the process that shared an object of any kind, as its descriptor states it; 0 if it does not.

    data: the bytes, whoever wrote them.
    """
    try:
        found = _any_kind.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return found.header.owner_pid if found.version == VERSION else 0


class Form:
    """The form of the descriptors of some kinds of objects, which have one body: encodes and decodes them."""

    def __init__(self, body: type[msgspec.Struct], kinds: Mapping[ObjectKind, str]) -> None:
        """kinds: the kinds that have this body, each with its noun for messages."""
        self._body: Any = body
        self._kinds = kinds
        self._one_kind = min(kinds) if len(kinds) == 1 else None
        self._whole: Any = msgspec.defstruct(
            "Whole",
            [("version", int), ("header", _Header), ("body", body)],
            array_like=True,
            frozen=True,
            forbid_unknown_fields=True,
        )
        self._decoder: Any = msgspec.msgpack.Decoder(self._whole)
        self._parts = {1: _Header.__struct_fields__, 2: body.__struct_fields__}
        self._fields = itemgetter(*body.__struct_fields__)

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """Return the bytes of a descriptor with these fields, `object_kind` among them where there are several kinds.

        DescriptorError if they cannot be encoded, or take more than DESCRIPTOR_LIMIT bytes.
        """
        try:
            kind = self._one_kind or values["object_kind"]
            header, body = _Header(int(kind), *_header_of(values)), self._body(*self._fields(values))
            data = _encoder.encode(self._whole(VERSION, header, body))
            # The constructor of a descriptor accepts any type; reading the bytes back finds wrong types now.
            self._decoder.decode(data)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            raise DescriptorError(f"this cannot be written as a descriptor: {self._named(str(error))}") from error
        if len(data) > DESCRIPTOR_LIMIT:
            raise DescriptorError(
                f"this descriptor takes {len(data)} bytes, and a payload keeps up to {DESCRIPTOR_LIMIT}; describe a "
                "structure with fewer or shorter fields, or an array with fewer axes"
            )
        return data

    def decode(self, data: bytes | bytearray | memoryview) -> dict[str, Any]:
        """Return the fields of a descriptor, each of its type, with `object_kind` where there are several kinds.

        DescriptorError names the field that is wrong.
        """
        if not 0 < len(data) <= DESCRIPTOR_LIMIT:
            raise DescriptorError(
                f"a descriptor of {len(data)} bytes: it takes 1 to {DESCRIPTOR_LIMIT}"
                if data
                else "there is no descriptor (0 bytes); a payload of a foreign producer needs one that the caller "
                "states"
            )
        try:
            found = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DescriptorError(self._refusal(data, error)) from error
        if found.version != VERSION:
            raise DescriptorError(_version_text(found.version))
        if found.header.object_kind not in self._kinds:
            raise DescriptorError(self._kind_text(found.header.object_kind))
        fields = msgspec.structs.asdict(found.header)
        if self._one_kind:
            del fields["object_kind"]
        fields.update(msgspec.structs.asdict(found.body))
        return fields

    def _refusal(self, data: bytes | bytearray | memoryview, error: Exception) -> str:
        try:
            version = _head.decode(data).version
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return f"{len(data)} bytes are not a descriptor: {error}"
        if version != VERSION:
            return _version_text(version)
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            object_kind = _kind.decode(data).header.object_kind
            if object_kind not in self._kinds:
                return self._kind_text(object_kind)
        return f"the descriptor is malformed: {self._named(str(error))}"

    def _kind_text(self, object_kind: int) -> str:
        needed = f"and {' or '.join(self._kinds.values())} is needed"
        if object_kind in _OPENED_BY:
            noun, calls = _OPENED_BY[ObjectKind(object_kind)]
            return f"the descriptor is of {noun} (kind {object_kind}), {needed}; open it as what it is, by {calls}"
        known = ", ".join(f"{int(kind)} {kind.name}" for kind in ObjectKind)
        return (
            f"the descriptor is of an object of kind {object_kind}, {needed}; this library knows the kinds {known}: "
            "use the release of extmem that exported it"
        )

    def _named(self, text: str) -> str:
        """Return msgspec's message with the field's name in place of its indices."""

        def name(found: re.Match[str]) -> str:
            part, index = self._parts.get(int(found[1]), ()), int(found[2])
            return part[index] if index < len(part) else found[0]

        return re.sub(r"\$\[(\d+)\]\[(\d+)\]", name, text)


_memory: Final = Form(_Memory, {ObjectKind.MEMORY: "memory"})


encode = _memory.encode
"""`Form.encode` of memory."""
decode = _memory.decode
"""`Form.decode` of memory."""


def _version_text(version: int) -> str:
    return (
        f"the descriptor has version {version} and this library reads version {VERSION}; "
        "use the same release of extmem on both sides"
    )
