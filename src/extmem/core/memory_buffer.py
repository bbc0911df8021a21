"""The buffer over a whole payload, which `DeviceMemory.buffer` returns."""

from __future__ import annotations

from extmem import vk
from extmem.core import binding, creating
from extmem.core.memory_object import MemoryObject
from extmem.core.resources import BufferObject, ImageObject
from extmem.core.rule_facts import TRANSFER
from extmem.errors import HandleStateError, UnsupportedError

__all__ = ["buffer_over"]


def buffer_over(memory: MemoryObject) -> BufferObject:
    """Return the buffer over the payload, created and bound if necessary: `DeviceMemory.buffer`."""
    with memory.use() as record, record.device.creation_lock:
        buffer = record.resource
        if record.dedicated is None and (buffer is None or buffer.closed):
            types = record.export_handle_types or record.import_handle_type
            external = vk.ExternalMemoryBufferCreateInfo(types) if types else None
            usage, size = record.descriptor.usage or TRANSFER, record.descriptor.payload_size
            buffer = creating.create_buffer(record.device, vk.BufferCreateInfo(size=size, usage=usage, p_next=external))
            record.resource = buffer
        if not isinstance(buffer, BufferObject):
            word = "an image" if isinstance(buffer, ImageObject) else "a resource of its own"
            raise UnsupportedError(
                f"this memory is dedicated to {word}; bind and use that (`DeviceMemory.resource` is the one that "
                "`open` created)",
                requires_one_of=["memory that is not dedicated to an image"],
            )
        if buffer.closed:
            raise HandleStateError(
                "the buffer that this memory is dedicated to is destroyed; keep it as long as you use the memory"
            )
        if buffer.memory is None:
            binding.bind_one(record.device, buffer, memory, record.descriptor.payload_offset)
        elif buffer.memory.closed:
            buffer.bind(memory, buffer.memory_offset)  # the device bound it through another memory object
        return buffer
