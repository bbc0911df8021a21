"""The beginning of child processes of the tests of commands: a device, and short functions to make and copy things."""

from __future__ import annotations

__all__ = ["ENVIRONMENT", "SETTING"]

ENVIRONMENT = {"EXTMEM_DEVICE": "vulkan"}

SETTING = """
import gc
F, L, A, U, B = vk.Format, vk.ImageLayout, vk.ImageAspectFlagBits, vk.ImageUsageFlagBits, vk.BufferUsageFlagBits
S, X = vk.PipelineStageFlagBits, vk.AccessFlagBits
EXTERNAL, WHOLE = vk.QUEUE_FAMILY_EXTERNAL, vk.WHOLE_SIZE
d = extmem.open_device(kind=kind)


def some(size):
    "As many bytes, none of which is 0."
    return (bytes(range(1, 252)) * (size // 251 + 1))[:size]


def allocate(made):
    "Memory of the first type that suits."
    needs, bits = made.requirements, made.requirements.memory_type_bits
    return d.allocate_memory(vk.MemoryAllocateInfo(needs.size, (bits & -bits).bit_length() - 1))


def buffer(size, usage=B.TRANSFER_SRC | B.TRANSFER_DST):
    "A buffer in memory of its own, and that."
    made = d.create_buffer(vk.BufferCreateInfo(size=size, usage=usage))
    memory = allocate(made)
    d.bind_buffer_memory(made, memory)
    return made, memory


def image(
    format=F.R8G8B8A8_UNORM, width=8, height=8, mips=1, layers=1, usage=U.TRANSFER_SRC | U.TRANSFER_DST,
    kind=vk.ImageType.TYPE_2D,
):
    extent = vk.Extent3D(width, height, 1)
    info = vk.ImageCreateInfo(
        image_type=kind, format=format, extent=extent, mip_levels=mips, array_layers=layers, samples=1, usage=usage
    )
    made = d.create_image(info)
    memory = allocate(made)
    d.bind_image_memory(made, memory)
    with d.commands() as c:
        c.change_layout(made, L.UNDEFINED, L.GENERAL)
    return made, memory


def run(work):
    with d.commands() as c:
        work(c)


def there_and_back(of, size, spare=64, **how):
    "Copies bytes to the image and to another buffer, which has some more that stay as they were."
    first, one = buffer(size)
    second, other = buffer(size + spare)
    one.write(some(size))
    other.fill(255)
    run(lambda c: (c.copy_buffer_to_image(first, of, **how), c.copy_image_to_buffer(of, second, **how)))
    found = other.tobytes()[:size + spare]
    for thing in (first, second, one, other):
        thing.close()
    return found == some(size) + bytes([255]) * spare


def close(*things):
    for thing in things:
        thing.close()
"""
