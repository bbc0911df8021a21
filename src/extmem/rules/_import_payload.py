"""Rows that the import structs have in common: they compare the call with the payload that it would import."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from extmem import vk
from extmem.rules._allocation import BASE, Allocation
from extmem.rules._conditions import all_of
from extmem.rules._engine import Condition, Demand, Finding
from extmem.rules._text import (
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
    "capabilities_apply",
    "exported_otherwise",
    "importable",
    "same_device",
    "same_size_and_type",
    "same_uuids",
]

_IMPORTABLE = int(vk.ExternalMemoryFeatureFlagBits.IMPORTABLE)


def capabilities_apply(call: Allocation, handle_type: MemoryHandleType) -> bool:
    """Return whether facts.capabilities are about the resource that the memory is for.

    Texture types are for images. Without a dedicated resource the capabilities are those of a transfer buffer, which do
    not apply to texture types; these are checked when a resource is bound.
    """
    return call.target is not None or not handle_type & SIZE_IGNORED_TYPES


def importable(vuid: str, where: str, needs: int) -> Demand:
    """Return the row that the device imports the type, for the dedicated resource or else for a transfer buffer."""
    problem = "the device {call.device.name!r} cannot import {found[0]} for {found[1]}"
    return Demand(vuid, _unimportable, where, problem, "{found[2]}", needs)


def _unimportable(call: Allocation) -> tuple[str, str, str] | None:
    handle_type = call.import_type
    answer = call.facts.capabilities.get(handle_type)
    if answer is None or int(answer.features) & _IMPORTABLE or not capabilities_apply(call, handle_type):
        return None
    return types_text(handle_type), _resource(call), _alternatives(call.facts.capabilities)


def _resource(call: Allocation) -> str:
    return f"this {call.target.kind}" if call.target is not None else "a transfer buffer"


def _alternatives(answers: Mapping[MemoryHandleType, ExternalMemoryFacts]) -> str:
    types = sum(int(handle_type) for handle_type, answer in answers.items() if int(answer.features) & _IMPORTABLE)
    return f"Use a type that it can import: {types_text(types)}." if types else "Use a device that can import it."


def exported_otherwise(call: Allocation, handle_type: MemoryHandleType, where: str, what: str) -> Finding | None:
    """Return a finding if a payload made by Vulkan was not exported as the handle type."""
    payload = call.payload
    if payload is None or not payload.made_by_vulkan or not payload.handle_types:
        return None
    if int(payload.handle_types) & handle_type:
        return None
    exported = types_text(int(payload.handle_types))
    return where, f"{what} was exported as {exported}, not {types_text(handle_type)}", f"Import it as {exported}."


def same_device(vuid: str, where: str, needs: int, *only: Condition) -> Demand:
    """Return the row that the payload is on the importing physical device."""
    return Demand(
        vuid,
        all_of(*only, _other_device),
        where,
        "the payload is on device {found[0]}, {call.device.name!r} is device {found[1]}",
        "Import on the device that the payload was created on: find it by its UUID.",
        needs,
    )


def _other_device(call: Allocation) -> tuple[str, str] | None:
    payload, device = call.payload, call.device
    if payload is None or payload.device_uuid is None:
        return None
    if payload.device_uuid in (device.device_uuid, *device.device_group):
        return None
    name = f"{payload.device_name!r}, " if payload.device_name else ""
    return name + uuid_text(payload.device_uuid), uuid_text(device.device_uuid)


def same_uuids(vuids: str | tuple[str, ...], where: str, needs: int, *only: Condition) -> Demand:
    """Return the row that device and driver UUID are the exporter's."""
    remedy = "Import with the same device and the same version of its driver."
    return Demand(vuids, all_of(*only, _other_uuids), where, "{found}", remedy, needs)


def _other_uuids(call: Allocation) -> str:
    payload, device = call.payload, call.device
    if payload is None:
        return ""
    return "; ".join(
        f"the exporter's {subject} UUID is {uuid_text(theirs)}, that of {device.name!r} is {uuid_text(ours)}"
        for subject, theirs, ours in (
            ("device", payload.device_uuid, device.device_uuid),
            ("driver", payload.driver_uuid, device.driver_uuid),
        )
        if theirs is not None and theirs != ours
    )


def same_size_and_type(call: Allocation) -> Finding | None:
    """Return a finding if allocation size or memory type index differs from the exporter's."""
    payload, info = call.payload, call.info
    if payload is None:
        return None
    size, index = payload.allocation_size, payload.memory_type_index
    wrong = {}
    if size is not None and size != info.allocation_size:
        wrong["allocation_size"] = size_text(info.allocation_size), size_text(size), size
    if index is not None and index != info.memory_type_index:
        wrong["memory_type_index"] = str(int(info.memory_type_index)), str(index), index
    if not wrong:
        return None
    return (
        f"{BASE}.{next(iter(wrong))}" if len(wrong) == 1 else BASE,
        "; ".join(f"{field} is {given}, the payload has {theirs}" for field, (given, theirs, _) in wrong.items()),
        f"Pass {' and '.join(f'{field}={number}' for field, (_, _, number) in wrong.items())}, as the exporter did.",
    )


def allowed_type(vuid: str, bits: str, query: str, needs: int) -> Demand:
    """Return the row that the memory type is one of the memoryTypeBits in `bits`, which this query reported.

    An unknown set (None) allows all.
    """
    memory_type_bits = attrgetter(bits)

    def broken(call: Allocation) -> tuple[int, int, str] | None:
        mask, index = memory_type_bits(call), int(call.info.memory_type_index)
        if mask is None or (index < 32 and mask >> index & 1):
            return None
        types = " or ".join(str(bit.bit_length() - 1) for bit in bits_of(mask))
        return index, mask, f"Use memory type {types}." if types else "Use another device; this one cannot import it."

    problem = f"{query} does not report memory type {{found[0]}} for it (memoryTypeBits {{found[1]:#x}})"
    return Demand(vuid, broken, f"{BASE}.memory_type_index", problem, "{found[2]}", needs)
