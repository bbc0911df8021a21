"""Checks that the import structs have in common: they compare the call with the payload that it would import."""

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
from extmem.vk.handle_types import MemoryHandleType

__all__ = [
    "allowed_type",
    "defined_types",
    "importable",
    "memory_type_allowed",
    "same_device",
    "same_size_and_type",
    "same_uuids",
    "single_type",
    "capabilities_apply",
]

_IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)


def single_type(handle_type: MemoryHandleType, where: str, *, zero: bool = True) -> Finding | None:
    """Return a finding unless the value is one defined handle type, or zero if `zero` allows it."""
    if handle_type in DEFINED_TYPES or (zero and not handle_type):
        return None
    if not handle_type:
        return where, "it is 0", "Give one handle type."
    if not handle_type & ~KNOWN_TYPE_BITS:
        return where, f"{types_text(handle_type)} are several handle types at once", "Give one handle type."
    return where, f"{handle_type:#x} is not a handle type", "Give one of ExternalMemoryHandleTypeFlagBits."


def defined_types(mask: MemoryHandleType, where: str) -> Finding | None:
    """Return a finding if a mask of handle types has unknown bits."""
    unknown = mask & ~KNOWN_TYPE_BITS
    if not unknown:
        return None
    return where, f"the bits {unknown:#x} are not handle types", "Give bits of ExternalMemoryHandleTypeFlagBits only."


def capabilities_apply(call: Allocation, handle_type: MemoryHandleType) -> bool:
    """Return whether facts.capabilities are about the resource that the memory is for.

    Texture types are for images. Without a dedicated resource the capabilities are those of a transfer buffer, which do
    not apply to texture types; these are checked when a resource is bound.
    """
    return call.target is not None or not handle_type & SIZE_IGNORED_TYPES


def importable(call: Allocation, where: str) -> Finding | None:
    """Return a finding if the device is known not to import the type for such a resource."""
    handle_type = call.import_type
    answer = call.facts.capabilities.get(handle_type)
    if answer is None or int(answer.features) & _IMPORTABLE or not capabilities_apply(call, handle_type):
        return None
    return (
        where,
        f"the device {call.device.name!r} cannot import {types_text(handle_type)} for {_resource(call)}",
        _alternatives(call.facts.capabilities),
    )


def _resource(call: Allocation) -> str:
    return f"this {call.target.kind}" if call.target is not None else "a transfer buffer"


def _alternatives(answers: Mapping[MemoryHandleType, ExternalMemoryFacts]) -> str:
    importable_types = 0
    for handle_type, answer in answers.items():
        if int(answer.features) & _IMPORTABLE:
            importable_types |= handle_type
    if not importable_types:
        return "Use a device that can import it."
    return f"Use a type that it can import: {types_text(importable_types)}."


def same_device(call: Allocation, where: str) -> Finding | None:
    """Return a finding if the payload is on another physical device than the importing one."""
    payload = call.payload
    if payload is None or payload.device_uuid is None:
        return None
    device = call.device
    if payload.device_uuid == device.device_uuid or payload.device_uuid in device.device_group:
        return None
    return (
        where,
        f"the payload is on device {f'{payload.device_name!r}, ' * bool(payload.device_name)}"
        f"{uuid_text(payload.device_uuid)}, {device.name!r} is device {uuid_text(device.device_uuid)}",
        "Import on the device that the payload was created on: find it by its UUID.",
    )


def same_uuids(call: Allocation, where: str) -> Finding | None:
    """Return a finding if device or driver UUID differs from the exporter's."""
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
            f"the exporter's {subject} UUID is {uuid_text(a)}, that of {device.name!r} is {uuid_text(b)}"
            for subject, a, b in wrong
        ),
        "Import with the same device and the same version of its driver.",
    )


def same_size_and_type(call: Allocation) -> Finding | None:
    """Return a finding if allocation size or memory type index differs from the exporter's."""
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
    """Return a finding if the device did not report the memory type for a payload created outside Vulkan."""
    bits = call.payload.memory_type_bits if call.payload is not None else None
    return memory_type_allowed(call, bits, query)


def memory_type_allowed(call: Allocation, bits: int | None, query: str) -> Finding | None:
    """Return a finding if the memory type is not in a set of memoryTypeBits; an unknown set (None) allows all."""
    index = int(call.info.memory_type_index)
    if bits is None or (index < 32 and bits >> index & 1):
        return None
    indices = [str(bit.bit_length() - 1) for bit in bits_of(bits)]
    allowed = f"memory type {' or '.join(indices)}"
    return (
        f"{BASE}.memory_type_index",
        f"{query} does not report memory type {index} for it (memoryTypeBits {bits:#x})",
        f"Use {allowed}." if indices else "Use another device; this one cannot import it.",
    )
