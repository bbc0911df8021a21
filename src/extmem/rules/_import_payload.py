"""What several import checks have in common: comparing the call with the payload it would import."""

from __future__ import annotations

from collections.abc import Mapping

from extmem import vk
from extmem.rules._allocation import BASE, Allocation
from extmem.rules._engine import Finding
from extmem.rules._text import (
    DEFINED_TYPES,
    KNOWN_TYPE_BITS,
    SIZE_IGNORED_TYPES,
    bits_of,
    size_text,
    types_text,
    uuid_text,
)
from extmem.rules.facts import ExternalMemoryFacts

__all__ = [
    "allowed_type",
    "defined_types",
    "importable",
    "memory_type_allowed",
    "same_device",
    "same_size_and_type",
    "same_uuids",
    "single_type",
    "speaks_of_this_resource",
]

_IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)


def single_type(kind: int, where: str, *, zero: bool = True) -> Finding | None:
    """The value is one defined handle type (or zero, where that is allowed)."""
    if kind in DEFINED_TYPES or (zero and not kind):
        return None
    if not kind:
        return where, "it is 0", "Give one handle type."
    if not kind & ~KNOWN_TYPE_BITS:
        return where, f"{types_text(kind)} are several handle types at once", "Give one handle type."
    return where, f"{kind:#x} is not a handle type", "Give one of ExternalMemoryHandleTypeFlagBits."


def defined_types(mask: int, where: str) -> Finding | None:
    """A mask of handle types without unknown bits."""
    unknown = mask & ~KNOWN_TYPE_BITS
    if not unknown:
        return None
    return where, f"the bits {unknown:#x} are no handle types", "Give bits of ExternalMemoryHandleTypeFlagBits only."


def speaks_of_this_resource(call: Allocation, kind: int) -> bool:
    """Whether facts.capabilities decide for this handle type now.

    Texture types are for images: without a dedicated resource the device's answer for a transfer buffer says nothing
    about them, and the question is put again when a resource is bound.
    """
    return call.target is not None or not kind & SIZE_IGNORED_TYPES


def importable(call: Allocation, where: str) -> Finding | None:
    """The device can import the type, for all that is known of the resource."""
    kind = call.import_type
    answer = call.facts.capabilities.get(kind)
    if answer is None or int(answer.features) & _IMPORTABLE or not speaks_of_this_resource(call, kind):
        return None
    return (
        where,
        f"the device {call.device.name!r} cannot import {types_text(kind)} for {_resource(call)}",
        _alternatives(call.facts.capabilities),
    )


def _resource(call: Allocation) -> str:
    return f"this {call.target.kind}" if call.target is not None else "a transfer buffer"


def _alternatives(answers: Mapping[int, ExternalMemoryFacts]) -> str:
    able = 0
    for kind, answer in answers.items():
        if int(answer.features) & _IMPORTABLE:
            able |= int(kind)
    return f"Use a type that it can import: {types_text(able)}." if able else "Use a device that can import it."


def same_device(call: Allocation, where: str) -> Finding | None:
    """The payload lies on the importing physical device."""
    payload = call.payload
    if payload is None or payload.device_uuid is None:
        return None
    device = call.device
    if payload.device_uuid == device.device_uuid or payload.device_uuid in device.device_group:
        return None
    return (
        where,
        f"the payload lies on device {f'{payload.device_name!r}, ' * bool(payload.device_name)}"
        f"{uuid_text(payload.device_uuid)}, {device.name!r} is device {uuid_text(device.device_uuid)}",
        "Import on the device that the payload was made on: find it by its UUID.",
    )


def same_uuids(call: Allocation, where: str) -> Finding | None:
    """Device and driver UUIDs are the exporter's."""
    payload = call.payload
    if payload is None:
        return None
    device = call.device
    wrong = []
    if payload.device_uuid is not None and payload.device_uuid != device.device_uuid:
        wrong.append(("device", payload.device_uuid, device.device_uuid))
    if payload.driver_uuid is not None and payload.driver_uuid != device.driver_uuid:
        wrong.append(("driver", payload.driver_uuid, device.driver_uuid))
    if not wrong:
        return None
    return (
        where,
        "; ".join(
            f"the exporter's {whose} UUID is {uuid_text(a)}, that of {device.name!r} is {uuid_text(b)}"
            for whose, a, b in wrong
        ),
        "Import with the same device and the same version of its driver.",
    )


def same_size_and_type(call: Allocation) -> Finding | None:
    """Allocation size and memory type index are the exporter's."""
    payload = call.payload
    if payload is None:
        return None
    info = call.info
    size, index = payload.allocation_size, payload.memory_type_index
    if (size is None or size == info.allocation_size) and (index is None or index == info.memory_type_index):
        return None
    wrong, fix, where = [], [], BASE
    if size is not None and size != info.allocation_size:
        wrong.append(f"allocation_size is {size_text(info.allocation_size)}, the payload has {size_text(size)}")
        fix.append(f"allocation_size={size}")
        where = f"{BASE}.allocation_size"
    if index is not None and index != info.memory_type_index:
        wrong.append(f"memory_type_index is {int(info.memory_type_index)}, the payload has {index}")
        fix.append(f"memory_type_index={index}")
        where = f"{BASE}.memory_type_index" if len(fix) == 1 else BASE
    return where, "; ".join(wrong), f"Pass {' and '.join(fix)}, as the exporter did."


def allowed_type(call: Allocation, query: str) -> Finding | None:
    """The memory type is one that the device named for a payload made outside Vulkan."""
    bits = call.payload.memory_type_bits if call.payload is not None else None
    return memory_type_allowed(call, bits, query)


def memory_type_allowed(call: Allocation, bits: int | None, query: str) -> Finding | None:
    """The memory type is in a set of memoryTypeBits; an unknown set allows all."""
    index = int(call.info.memory_type_index)
    if bits is None or (index < 32 and bits >> index & 1):
        return None
    indices = [str(bit.bit_length() - 1) for bit in bits_of(bits)]
    allowed = f"memory type {' or '.join(indices)}"
    return (
        f"{BASE}.memory_type_index",
        f"{query} does not name memory type {index} for it (memoryTypeBits {bits:#x})",
        f"Take {allowed}." if indices else "Use another device; this one cannot import it.",
    )
