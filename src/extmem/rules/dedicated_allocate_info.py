"""Allocations dedicated to one buffer or image (VkMemoryDedicatedAllocateInfo)."""

from __future__ import annotations

from typing import Literal

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._compare_create_infos import difference
from extmem.rules._engine import Check, Finding, rule
from extmem.rules._text import OPAQUE_FD, WIN32_TYPES, handle_text, is_null, size_text, type_mask, uuid_text
from extmem.rules.facts import ResourceFacts

__all__: list[str] = []

_PATH = chained(vk.MemoryDedicatedAllocateInfo)
_STRUCT = "VkMemoryDedicatedAllocateInfo"
_KNOWN = Traits.DEDICATED | Traits.TARGET
_SPARSE_BUFFER = int(vk.BufferCreateFlagBits.SPARSE_BINDING)
_SPARSE_IMAGE = int(vk.ImageCreateFlagBits.SPARSE_BINDING)
_DISJOINT = int(vk.ImageCreateFlagBits.DISJOINT)

ResourceKind = Literal["buffer", "image"]


def _target(call: Allocation, resource_kind: ResourceKind) -> ResourceFacts | None:
    """Return the resource if it is of that kind and the struct names one of that kind, else None."""
    target, dedicated = call.target, call.dedicated
    if target is None or dedicated is None or target.kind != resource_kind:
        return None
    return None if is_null(dedicated.image if resource_kind == "image" else dedicated.buffer) else target


@rule(f"{_STRUCT}-image-01432", on=ALLOCATE, needs=Traits.DEDICATED)
def image_or_buffer(call: Allocation) -> Finding | None:
    """The struct names an image or a buffer, not both."""
    dedicated = call.dedicated
    if dedicated is None or is_null(dedicated.image) or is_null(dedicated.buffer):
        return None
    return (
        _PATH,
        f"both image {handle_text(dedicated.image)} and buffer {handle_text(dedicated.buffer)} are given",
        "Dedicate the memory to the image or to the buffer.",
    )


def _alive(resource_kind: ResourceKind) -> Check[Allocation]:
    def check(call: Allocation) -> Finding | None:
        target = _target(call, resource_kind)
        if target is None or target.alive:
            return None
        return (
            f"{_PATH}.{resource_kind}",
            f"the {resource_kind} is destroyed",
            f"Dedicate the memory to a live {resource_kind}.",
        )

    return check


@rule(f"{_STRUCT}-commonparent", on=ALLOCATE, needs=_KNOWN)
def resource_is_of_this_device(call: Allocation) -> Finding | None:
    """The resource was created on the device that allocates."""
    target, device = call.target, call.device
    if target is None:
        return None
    where = f"{_PATH}.{target.kind}"
    remedy = f"Create the {target.kind} on the device that allocates."
    if target.device_uuid and target.device_uuid != device.device_uuid:
        return (
            where,
            f"the {target.kind} was created on device {uuid_text(target.device_uuid)}, not on {device.name!r} "
            f"({uuid_text(device.device_uuid)})",
            remedy,
        )
    if target.device_identity and device.identity and target.device_identity != device.identity:
        return where, f"the {target.kind} was created on another logical device of {device.name!r}", remedy
    return None


def _large_enough(resource_kind: ResourceKind) -> Check[Allocation]:
    def check(call: Allocation) -> Finding | None:
        target = _target(call, resource_kind)
        if target is None or call.info.allocation_size >= target.size:
            return None
        return (
            f"{BASE}.allocation_size",
            f"it is {size_text(call.info.allocation_size)}, the {resource_kind} requires {size_text(target.size)}",
            f"Pass allocation_size={target.size}, the size in its memory requirements.",
        )

    return check


def _not_created_with(resource_kind: ResourceKind, flag: int, word: str) -> Check[Allocation]:
    def check(call: Allocation) -> Finding | None:
        target = _target(call, resource_kind)
        if target is None or not type_mask(target.create_info.flags) & flag:
            return None
        return (
            f"{_PATH}.{resource_kind}",
            f"the {resource_kind} was created with {word}",
            f"Create the {resource_kind} without {word}, or do not dedicate memory to it.",
        )

    return check


def _identical(resource_kind: ResourceKind, types: int) -> Check[Allocation]:
    def check(call: Allocation) -> Finding | None:
        target, payload = _target(call, resource_kind), call.payload
        if target is None or payload is None or payload.dedicated is None or not call.import_type & types:
            return None
        where = f"{_PATH}.{resource_kind}"
        if payload.dedicated == "none":
            return (
                where,
                f"the import is dedicated to {_article(resource_kind)}, the payload was not allocated for one resource "
                "alone",
                "Take MemoryDedicatedAllocateInfo out of the chain.",
            )
        if payload.dedicated != resource_kind:
            return (
                where,
                f"the import is dedicated to {_article(resource_kind)}, the payload to {_article(payload.dedicated)}",
                f"Dedicate the import to {_article(payload.dedicated)} created as the exporter's was.",
            )
        if payload.dedicated_info is None:
            return None
        differs = difference(target.create_info, payload.dedicated_info)
        if not differs:
            return None
        return (
            where,
            f"the {resource_kind} was not created as the exporter's was: {differs}",
            f"Create the {resource_kind} from the create info in the payload's descriptor.",
        )

    return check


def _article(resource_kind: str) -> str:
    return "an image" if resource_kind == "image" else "a buffer"


def _import_is_dedicated(resource_kind: ResourceKind, types: int) -> Check[Allocation]:
    """Make the check that the import of a dedicated payload is dedicated.

    The specification does not forbid the opposite explicitly, but the payload's memory is laid out for one resource.
    """

    def check(call: Allocation) -> Finding | None:
        payload = call.payload
        if payload is None or payload.dedicated != resource_kind or not call.import_type & types:
            return None
        return (
            f"{BASE}.pNext",
            f"the payload is dedicated to {_article(resource_kind)}, the import is not dedicated",
            f"Chain MemoryDedicatedAllocateInfo with {_article(resource_kind)} created from the create info in the "
            "payload's descriptor.",
        )

    return check


_RESOLVED = _KNOWN | Traits.OUR_PAYLOAD | Traits.IMPORTS

rule(f"{_STRUCT}-image-parameter", on=ALLOCATE, needs=_KNOWN)(_alive("image"))
rule(f"{_STRUCT}-buffer-parameter", on=ALLOCATE, needs=_KNOWN)(_alive("buffer"))
# Where allocationSize is ignored, the size in the resource's memory requirements is ignored too.
rule(f"{_STRUCT}-image-02964", on=ALLOCATE, needs=_KNOWN, never=Traits.SIZE_IGNORED)(_large_enough("image"))
rule(f"{_STRUCT}-buffer-02965", on=ALLOCATE, needs=_KNOWN, never=Traits.SIZE_IGNORED)(_large_enough("buffer"))
rule(f"{_STRUCT}-image-01434", on=ALLOCATE, needs=_KNOWN)(_not_created_with("image", _SPARSE_IMAGE, "SPARSE_BINDING"))
rule(f"{_STRUCT}-buffer-01436", on=ALLOCATE, needs=_KNOWN)(
    _not_created_with("buffer", _SPARSE_BUFFER, "SPARSE_BINDING")
)
rule(f"{_STRUCT}-image-01797", on=ALLOCATE, needs=_KNOWN)(_not_created_with("image", _DISJOINT, "DISJOINT"))
rule(f"{_STRUCT}-image-01876", on=ALLOCATE, needs=_RESOLVED)(_identical("image", WIN32_TYPES))
rule(f"{_STRUCT}-buffer-01877", on=ALLOCATE, needs=_RESOLVED)(_identical("buffer", WIN32_TYPES))
rule(f"{_STRUCT}-image-01878", on=ALLOCATE, needs=_RESOLVED)(_identical("image", OPAQUE_FD))
rule(f"{_STRUCT}-buffer-01879", on=ALLOCATE, needs=_RESOLVED)(_identical("buffer", OPAQUE_FD))

_REVERSE = Traits.OUR_PAYLOAD | Traits.UNDEDICATED
rule(f"{_STRUCT}-image-01876", on=ALLOCATE, needs=_REVERSE)(_import_is_dedicated("image", WIN32_TYPES))
rule(f"{_STRUCT}-buffer-01877", on=ALLOCATE, needs=_REVERSE)(_import_is_dedicated("buffer", WIN32_TYPES))
rule(f"{_STRUCT}-image-01878", on=ALLOCATE, needs=_REVERSE)(_import_is_dedicated("image", OPAQUE_FD))
rule(f"{_STRUCT}-buffer-01879", on=ALLOCATE, needs=_REVERSE)(_import_is_dedicated("buffer", OPAQUE_FD))
