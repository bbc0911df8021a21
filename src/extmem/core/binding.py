"""Binding buffers and images to memory (vkBindBufferMemory2, vkBindImageMemory2): checked, then done by the driver."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from extmem import rules, vk
from extmem.core import arguments, validation_cache
from extmem.core.memory_object import MemoryObject
from extmem.core.resources import BufferObject, ImageObject, ResourceObject
from extmem.owning import Uses
from extmem.vk.copies import copied

if TYPE_CHECKING:
    from extmem.core.device_state import DeviceState
    from extmem.core.memory_record import MemoryRecord

__all__ = ["bind", "bind_one"]


def bind_one(device: DeviceState, buffer: BufferObject, memory: MemoryObject, offset: int) -> None:
    """See `Device.bind_buffer_memory`."""
    if isinstance(buffer, BufferObject) and isinstance(memory, MemoryObject):
        with device.creation_lock, Uses() as uses:
            uses.add(device)
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
    """See `Device.bind_buffer_memory2` and `Device.bind_image_memory2`: all are checked before any is bound.

    form: 1 for `bind_buffer_memory` and `bind_image_memory`, whose rules have ids of their own.
    """
    found: list[rules.Violation] = []
    pairs: list[tuple[ResourceObject, MemoryObject, MemoryRecord, int]] = []
    named: set[int] = set()
    with device.creation_lock, Uses() as uses:
        uses.add(device)
        for given in infos:
            info, resource, memory = _parts(given, kind)
            record = uses.add(memory.record)
            if device.check != "off":
                found += _breaks(device, info, resource, record, form, again=id(resource) in named)
            named.add(id(resource))
            pairs.append((resource, memory, record, info.memory_offset))
        if found:
            device.report(found, f"vkBind{kind.capitalize()}Memory{'2' if form == 2 else ''}")
        for resource, memory, record, given_offset in pairs:
            offset = arguments.whole_number(given_offset, "memory_offset")
            uses.add(resource)
            device.backend.bind(record.allocation, offset, resource.native)
            resource.bind(memory, offset)


def _parts(
    given: object, kind: Literal["buffer", "image"]
) -> tuple[vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo, ResourceObject, MemoryObject]:
    """A copy of the struct, which is read once, and what it binds to what.

    TypeError for anything but a buffer, or an image, and memory.
    """
    struct, word = (
        (vk.BindBufferMemoryInfo, BufferObject) if kind == "buffer" else (vk.BindImageMemoryInfo, ImageObject)
    )
    if type(given) is not struct:
        raise TypeError(f"cannot bind {given!r}: pass a vk.{struct.__name__}")
    info: vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo = copied(given)
    resource, memory = getattr(info, kind), info.memory
    if not isinstance(resource, word) or not isinstance(memory, MemoryObject):
        raise TypeError(
            f"cannot bind {resource!r} to {memory!r}: pass the {kind} from create_{kind} and the memory from "
            "allocate_memory; objects of other bindings come in through extmem.raw"
        )
    return info, resource, memory


def _breaks(
    device: DeviceState,
    info: vk.BindBufferMemoryInfo | vk.BindImageMemoryInfo,
    resource: ResourceObject,
    record: MemoryRecord,
    form: Literal[1, 2],
    *,
    again: bool,
) -> list[rules.Violation]:
    """The rules that a binding breaks. again: the call names the resource twice, so that it is bound by then."""
    facts, identity = resource.facts, device.facts.identity
    if again:
        facts = dataclasses.replace(facts, bound=True)
    if isinstance(info, vk.BindImageMemoryInfo):
        return rules.check_bind_image_memory(info, facts, record.facts(), form=form, device=identity)
    key = None
    if isinstance(resource, BufferObject) and info.p_next is None and not again:
        key = _key(device, info.memory_offset, resource, record)
    if key in device.validated:
        return []
    found = rules.check_bind_buffer_memory(info, facts, record.facts(), form=form, device=identity)
    if not found:
        device.validated.note(key)
    return found


def _key(device: DeviceState, offset: int, buffer: BufferObject, record: MemoryRecord) -> validation_cache.Key | None:
    """The cache key of vkBindBufferMemory: of a buffer that was not bound, to memory that is not dedicated."""
    if buffer.verdict is None or not buffer.fresh or record.dedicated is not None or not isinstance(offset, int):
        return None
    if buffer.device is not device or record.device is not device:
        return None
    types, needs = (record.export_handle_types, record.import_handle_type), buffer.requirements.size
    return "bind", buffer.verdict, needs, offset, record.size, record.memory_type_index, types
