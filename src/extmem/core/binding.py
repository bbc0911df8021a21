"""Binding buffers and images to memory (vkBindBufferMemory2, vkBindImageMemory2): checked, then done by the driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from extmem import rules, vk
from extmem.core import arguments, validation_cache
from extmem.core.memory_object import MemoryObject
from extmem.core.resources import BufferObject, ImageObject, ResourceObject
from extmem.owning import Uses
from extmem.vk.struct_copies import copy_struct

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_record import MemoryRecord

__all__ = ["bind", "bind_one"]


def bind_one(device: DeviceState, buffer: BufferObject, memory: MemoryObject, offset: int) -> None:
    """See `Device.bind_buffer_memory`."""
    if isinstance(buffer, BufferObject) and isinstance(memory, MemoryObject):
        with device.creation_lock, Uses(device) as uses:
            record = uses.add(memory.record)
            if device.check == "off" or _key(device, offset, buffer, record) in device.validated:
                offset = arguments.whole_number(offset, "memory_offset")
                uses.add(buffer)
                device.backend.bind(record.allocation, offset, buffer.native)
                buffer.bind(memory, offset)
                return
    bind(device, [vk.BindBufferMemoryInfo(buffer, memory, offset)], "buffer", form=1)


def bind(
    device: DeviceState,
    infos: Sequence[vk.BindBufferMemoryInfo] | Sequence[vk.BindImageMemoryInfo],
    kind: Literal["buffer", "image"],
    *,
    form: Literal[1, 2] = 2,
) -> None:
    """See `Device.bind_buffer_memory2` and `Device.bind_image_memory2`. All bindings are checked before the first.

    form: 1 for `bind_buffer_memory` and `bind_image_memory`, whose rules have ids of their own.
    """
    violations: list[rules.Violation] = []
    bindings: list[tuple[ResourceObject, MemoryObject, MemoryRecord, int]] = []
    resources: set[int] = set()
    with device.creation_lock, Uses(device) as uses:
        for given in infos:
            info, resource, memory = _copied(given, kind)
            record = uses.add(memory.record)
            if device.check != "off":
                violations += _violations(device, info, resource, record, form, again=id(resource) in resources)
            resources.add(id(resource))
            bindings.append((resource, memory, record, info.memory_offset))
        device.report(violations, f"vkBind{kind.capitalize()}Memory{'2' if form == 2 else ''}")
        for resource, memory, record, given_offset in bindings:
            offset = arguments.whole_number(given_offset, "memory_offset")
            uses.add(resource)
            device.backend.bind(record.allocation, offset, resource.native)
            resource.bind(memory, offset)


def _copied(
    given: object, kind: Literal["buffer", "image"]
) -> tuple[vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo, ResourceObject, MemoryObject]:
    """Return a copy of the struct, which is read once, with its resource and its memory.

    Errors: TypeError for another struct, and for values that are not a resource of this kind and memory.
    """
    struct, cls = (vk.BindBufferMemoryInfo, BufferObject) if kind == "buffer" else (vk.BindImageMemoryInfo, ImageObject)
    if type(given) is not struct:
        raise TypeError(f"cannot bind {given!r}: pass a vk.{struct.__name__}")
    info: vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo = copy_struct(given)
    resource, memory = getattr(info, kind), info.memory
    if not isinstance(resource, cls) or not isinstance(memory, MemoryObject):
        raise TypeError(
            f"cannot bind {resource!r} to {memory!r}: pass the {kind} from create_{kind} and the memory from "
            "allocate_memory; adopt objects of other Python bindings with extmem.raw"
        )
    return info, resource, memory


def _violations(
    device: DeviceState,
    info: vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo,
    resource: ResourceObject,
    record: MemoryRecord,
    form: Literal[1, 2],
    *,
    again: bool,
) -> list[rules.Violation]:
    """Return the rules that a binding breaks. again: whether an earlier struct of the call binds the same resource."""
    facts, identity = resource.facts, device.facts.identity
    if again:
        facts = msgspec.structs.replace(facts, bound=True)
    if isinstance(info, vk.BindImageMemoryInfo):
        return rules.check_bind_image_memory(info, facts, record.facts(), form=form, device=identity)
    key = None
    if isinstance(resource, BufferObject) and info.p_next is None and not again:
        key = _key(device, info.memory_offset, resource, record)
    if key in device.validated:
        return []
    violations = rules.check_bind_buffer_memory(info, facts, record.facts(), form=form, device=identity)
    if not violations:
        device.validated.note(key)
    return violations


def _key(device: DeviceState, offset: int, buffer: BufferObject, record: MemoryRecord) -> validation_cache.Key | None:
    """Return the cache key of binding a buffer that was not bound, to memory that is not dedicated; None for others."""
    if (
        buffer.validation_key is None
        or not buffer.fresh
        or buffer.device is not device
        or record.device is not device
        or record.dedicated is not None
        or not isinstance(offset, int)
    ):
        return None
    types, size = (record.export_handle_types, record.import_handle_type), buffer.requirements.size
    return "bind", buffer.validation_key, size, offset, record.size, record.memory_type_index, types
