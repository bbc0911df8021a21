"""Allocations dedicated to one buffer or image (VkMemoryDedicatedAllocateInfo)."""

from __future__ import annotations

from enum import IntFlag
from typing import Literal

from extmem import vk
from extmem.rules._allocation import ALLOCATE, BASE, Allocation, Traits, chained
from extmem.rules._compare_create_infos import difference
from extmem.rules._conditions import above, has_bits, is_zero
from extmem.rules._engine import Demand, demand
from extmem.rules._text import OPAQUE_FD, WIN32_TYPES, handle_text, is_null, uuid_text

__all__: list[str] = []

_PATH = chained(vk.MemoryDedicatedAllocateInfo)
_STRUCT = "VkMemoryDedicatedAllocateInfo"

ResourceKind = Literal["buffer", "image"]


def _image_and_buffer(call: Allocation) -> tuple[str, str] | None:
    dedicated = call.dedicated
    if dedicated is None or is_null(dedicated.image) or is_null(dedicated.buffer):
        return None
    return handle_text(dedicated.image), handle_text(dedicated.buffer)


def _of_another_device(call: Allocation) -> str:
    target, device = call.target, call.device
    if target is None:
        return ""
    if target.device_uuid and target.device_uuid != device.device_uuid:
        ours = f"{device.name!r} ({uuid_text(device.device_uuid)})"
        return f"on device {uuid_text(target.device_uuid)}, not on {ours}"
    if target.device_identity and device.identity and target.device_identity != device.identity:
        return f"on another logical device of {device.name!r}"
    return ""


def _to(resource_kind: ResourceKind) -> int:
    return Traits.TO_IMAGE if resource_kind == "image" else Traits.TO_BUFFER


def _alive(vuid: str, resource_kind: ResourceKind) -> Demand:
    return Demand(
        vuid,
        is_zero("target.alive"),
        f"{_PATH}.{resource_kind}",
        f"the {resource_kind} is destroyed",
        f"Dedicate the memory to a live {resource_kind}.",
        _to(resource_kind),
    )


def _large_enough(vuid: str, resource_kind: ResourceKind) -> Demand:
    """Where allocationSize is ignored, the size in the resource's memory requirements is ignored too."""
    return Demand(
        vuid,
        above("target.size", "info.allocation_size"),
        f"{BASE}.allocation_size",
        f"it is {{found[1]:d}} bytes, the {resource_kind} requires {{found[0]:d}} bytes",
        "Pass allocation_size={found[0]}, the size in its memory requirements.",
        _to(resource_kind),
        Traits.SIZE_IGNORED,
    )


def _not_created_with(vuid: str, resource_kind: ResourceKind, flag: IntFlag) -> Demand:
    return Demand(
        vuid,
        has_bits("target.create_info.flags", flag),
        f"{_PATH}.{resource_kind}",
        f"the {resource_kind} was created with {flag.name}",
        f"Create the {resource_kind} without {flag.name}, or do not dedicate memory to it.",
        _to(resource_kind),
    )


def _identical(vuid: str, resource_kind: ResourceKind, types: int) -> Demand:
    article = _article(resource_kind)

    def broken(call: Allocation) -> tuple[str, str] | None:
        target, payload = call.target, call.payload
        if target is None or payload is None or payload.dedicated is None or not call.import_type & types:
            return None
        if payload.dedicated == "none":
            return (
                f"the import is dedicated to {article}, the payload was not allocated for one resource alone",
                "Take MemoryDedicatedAllocateInfo out of the chain.",
            )
        if payload.dedicated != resource_kind:
            theirs = _article(payload.dedicated)
            return (
                f"the import is dedicated to {article}, the payload to {theirs}",
                f"Dedicate the import to {theirs} created as the exporter's was.",
            )
        differs = difference(target.create_info, payload.dedicated_info) if payload.dedicated_info is not None else ""
        if not differs:
            return None
        return (
            f"the {resource_kind} was not created as the exporter's was: {differs}",
            f"Create the {resource_kind} from the create info in the payload's descriptor.",
        )

    needs = _to(resource_kind) | Traits.OUR_PAYLOAD | Traits.IMPORTS
    return Demand(vuid, broken, f"{_PATH}.{resource_kind}", "{found[0]}", "{found[1]}", needs)


def _article(resource_kind: str) -> str:
    return "an image" if resource_kind == "image" else "a buffer"


def _import_is_dedicated(vuid: str, resource_kind: ResourceKind, types: int) -> Demand:
    """Return the row that the import of a dedicated payload is dedicated.

    The specification does not forbid the opposite explicitly, but the payload's memory is laid out for one resource.
    """
    article = _article(resource_kind)

    def broken(call: Allocation) -> bool:
        payload = call.payload
        return payload is not None and payload.dedicated == resource_kind and bool(call.import_type & types)

    return Demand(
        vuid,
        broken,
        f"{BASE}.pNext",
        f"the payload is dedicated to {article}, the import is not dedicated",
        f"Chain MemoryDedicatedAllocateInfo with {article} created from the create info in the payload's descriptor.",
        Traits.OUR_PAYLOAD | Traits.UNDEDICATED,
    )


demand(
    ALLOCATE,
    Demand(
        f"{_STRUCT}-image-01432",
        _image_and_buffer,
        _PATH,
        "both image {found[0]} and buffer {found[1]} are given",
        "Dedicate the memory to the image or to the buffer.",
        needs=Traits.DEDICATED,
    ),
    Demand(
        f"{_STRUCT}-commonparent",
        _of_another_device,
        f"{_PATH}.{{call.target.kind}}",
        "the {call.target.kind} was created {found}",
        "Create the {call.target.kind} on the device that allocates.",
        needs=Traits.TARGET,
    ),
    _alive(f"{_STRUCT}-image-parameter", "image"),
    _alive(f"{_STRUCT}-buffer-parameter", "buffer"),
    _large_enough(f"{_STRUCT}-image-02964", "image"),
    _large_enough(f"{_STRUCT}-buffer-02965", "buffer"),
    _not_created_with(f"{_STRUCT}-image-01434", "image", vk.ImageCreateFlagBits.SPARSE_BINDING),
    _not_created_with(f"{_STRUCT}-buffer-01436", "buffer", vk.BufferCreateFlagBits.SPARSE_BINDING),
    _not_created_with(f"{_STRUCT}-image-01797", "image", vk.ImageCreateFlagBits.DISJOINT),
    _identical(f"{_STRUCT}-image-01876", "image", WIN32_TYPES),
    _identical(f"{_STRUCT}-buffer-01877", "buffer", WIN32_TYPES),
    _identical(f"{_STRUCT}-image-01878", "image", OPAQUE_FD),
    _identical(f"{_STRUCT}-buffer-01879", "buffer", OPAQUE_FD),
    _import_is_dedicated(f"{_STRUCT}-image-01876", "image", WIN32_TYPES),
    _import_is_dedicated(f"{_STRUCT}-buffer-01877", "buffer", WIN32_TYPES),
    _import_is_dedicated(f"{_STRUCT}-image-01878", "image", OPAQUE_FD),
    _import_is_dedicated(f"{_STRUCT}-buffer-01879", "buffer", OPAQUE_FD),
)
