"""The buffer over a whole payload, which `DeviceMemory.buffer` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.core import binding, creating
from extmem.core.resources import BufferObject, ImageObject
from extmem.errors import HandleStateError, UnsupportedError

if TYPE_CHECKING:
    from extmem.core.memory_object import MemoryObject
    from extmem.core.memory_record import MemoryRecord

__all__ = ["buffer_over"]

_COPYING = int(vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST)


def buffer_over(memory: MemoryObject) -> BufferObject:
    """`DeviceMemory.buffer`."""
    with memory.use() as record, record.device.making:
        return _buffer_over(memory, record)


def _buffer_over(memory: MemoryObject, record: MemoryRecord) -> BufferObject:
    made = record.resource
    if record.dedicated is None and (made is None or made.closed):
        types = record.export_handle_types or record.import_handle_type
        external = vk.ExternalMemoryBufferCreateInfo(types) if types else None
        usage, size = record.descriptor.usage or _COPYING, record.descriptor.payload_size
        made = creating.create_buffer(record.device, vk.BufferCreateInfo(size=size, usage=usage, p_next=external))
        record.resource = made
    if not isinstance(made, BufferObject):
        word = "an image" if isinstance(made, ImageObject) else "a resource of its own"
        raise UnsupportedError(
            f"this memory is dedicated to {word}; bind and use that (`DeviceMemory.resource` has what `open` made)",
            requires_one_of=["memory that is not dedicated to an image"],
        )
    if made.closed:
        raise HandleStateError("the buffer that this memory is dedicated to is destroyed; keep it while you use that")
    if made.memory is None:
        binding.bind_one(record.device, made, memory, record.descriptor.payload_offset)
    elif made.memory.closed:
        made.bind(memory, made.memory_offset)  # the device bound it through another memory object
    return made
