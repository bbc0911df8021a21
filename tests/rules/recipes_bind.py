"""Hand-written calls that raise a rule: binding, and barriers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import extmem
from extmem import vk
from extmem.testing import fake_vulkan
from tests.rules.raising import broken_by
from tests.rules.recipes_world import SHARED, SIZE, Kind, Recipe, T, World, recipe

__all__ = ["bind"]

IGNORED, EXTERNAL, FOREIGN = vk.QUEUE_FAMILY_IGNORED, vk.QUEUE_FAMILY_EXTERNAL, vk.QUEUE_FAMILY_FOREIGN_EXT


def bind(kind: Kind, form: int, resource: Any, memory: Any, offset: int = 0, *, on: Any = None) -> set[str]:
    """Bind on the device of the memory, or on another one."""
    device = on or memory.record.device
    if form == 1:
        one = device.bind_buffer_memory if kind == "buffer" else device.bind_image_memory
        return broken_by(lambda: one(resource, memory, offset))
    if kind == "buffer":
        info = vk.BindBufferMemoryInfo(resource, memory, offset)
        return broken_by(lambda: device.bind_buffer_memory2([info]))
    image = vk.BindImageMemoryInfo(resource, memory, offset)
    return broken_by(lambda: device.bind_image_memory2([image]))


def _bound(world: World, kind: Kind, form: int) -> set[str]:
    made, memory = world.resource(world.host, kind), world.memory(world.host)
    assert not bind(kind, form, made, memory)
    return bind(kind, form, made, memory)


def _beyond(world: World, kind: Kind, form: int) -> set[str]:
    return bind(kind, form, world.resource(world.host, kind), world.memory(world.host), SIZE)


def _crooked(world: World, kind: Kind, form: int) -> set[str]:
    return bind(kind, form, world.resource(world.host, kind), world.memory(world.host), 1)


def _small(world: World, kind: Kind, form: int) -> set[str]:
    return bind(kind, form, world.resource(world.host, kind), world.memory(world.host, size=64))


def _other_type(world: World, kind: Kind, form: int) -> set[str]:
    device = world.gpu(memory_types=fake_vulkan.DISCRETE.memory_types, heaps=(1 << 20, 1 << 20), resource_types=2)
    return bind(kind, form, world.resource(device, kind), world.memory(device))


def _exported(world: World, kind: Kind, form: int) -> set[str]:
    memory = world.memory(world.host, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32))
    return bind(kind, form, world.resource(world.host, kind), memory)


def _imported(world: World, kind: Kind, form: int) -> set[str]:
    return bind(kind, form, world.resource(world.host, kind), world.imported(world.host))


def _required(world: World, kind: Kind, form: int) -> set[str]:
    device = world.gpu(external=fake_vulkan.shared(buffer="required", image="required"))
    return bind(kind, form, world.resource(device, kind, SHARED), world.memory(device))


def _not_mine(world: World, kind: Kind, form: int) -> set[str]:
    owner, other = world.resource(world.host, kind), world.resource(world.host, kind)
    return bind(kind, form, other, world.dedicated(world.host, owner))


def _not_its_kind(world: World, kind: Kind, form: int) -> set[str]:
    owner = world.resource(world.host, "image" if kind == "buffer" else "buffer")
    return bind(kind, form, world.resource(world.host, kind), world.dedicated(world.host, owner))


def _sparse(world: World, kind: Kind, form: int) -> set[str]:
    """Create a sparse resource with check="off", and bind it when checks are on again."""
    device = world.gpu(fake_vulkan.Manners(takes_sparse=True))
    device.check = "off"
    made = world.resource(device, kind, flags=vk.BufferCreateFlagBits.SPARSE_BINDING)
    device.check = "raise"
    return bind(kind, form, made, world.memory(device))


_BINDINGS: tuple[tuple[Callable[[World, Kind, int], set[str]], str, str, str, str], ...] = (
    (_bound, "buffer-07459", "buffer-07459", "image-07460", "image-07460"),
    (_beyond, "memoryOffset-01031", "memoryOffset-01031", "memoryOffset-01046", "memoryOffset-01046"),
    (_crooked, "None-10739", "None-10739", "None-10735", "pNext-01616"),
    (_small, "None-10741", "None-10741", "None-10737", "pNext-01617"),
    (_other_type, "memory-01035", "memory-01035", "memory-01047", "pNext-01615"),
    (_exported, "memory-02726", "memory-02726", "memory-02728", "memory-02728"),
    (_imported, "memory-02985", "memory-02985", "memory-02989", "memory-02989"),
    (_required, "buffer-01444", "buffer-01444", "image-01445", "image-01445"),
    (_not_mine, "memory-01508", "memory-01508", "memory-02628", "memory-02628"),
    (_not_its_kind, "memory-10925", "memory-10925", "memory-10926", "memory-10926"),
    (_sparse, "buffer-01030", "buffer-01030", "image-01045", "image-01045"),
)


def _chained(kind: Kind) -> Recipe:
    def put(world: World) -> set[str]:
        made, memory = world.resource(world.host, kind), world.memory(world.host)
        extra = vk.ExportMemoryAllocateInfo()
        if kind == "buffer":
            one = vk.BindBufferMemoryInfo(made, memory, 0, extra)
            return broken_by(lambda: world.host.bind_buffer_memory2([one]))
        return broken_by(lambda: world.host.bind_image_memory2([vk.BindImageMemoryInfo(made, memory, 0, extra)]))

    return put


recipe("VkBindBufferMemoryInfo-pNext-pNext")(_chained("buffer"))
recipe("VkBindImageMemoryInfo-pNext-pNext")(_chained("image"))


def _binding(made: Callable[[World, Kind, int], set[str]], kind: Kind, form: int) -> Recipe:
    return lambda world: made(world, kind, form)


for _made, _b1, _b2, _i1, _i2 in _BINDINGS:
    recipe(f"vkBindBufferMemory-{_b1}")(_binding(_made, "buffer", 1))
    recipe(f"VkBindBufferMemoryInfo-{_b2}")(_binding(_made, "buffer", 2))
    recipe(f"vkBindImageMemory-{_i1}")(_binding(_made, "image", 1))
    recipe(f"VkBindImageMemoryInfo-{_i2}")(_binding(_made, "image", 2))


def _parents(kind: Kind, form: int, *, of: str) -> Recipe:
    """A resource, or memory, of another logical device than the one that binds."""

    def run(world: World) -> set[str]:
        other = world.keep(extmem.open_device(kind="host"))
        made = world.resource(other if of == "resource" else world.host, kind)
        memory = world.memory(other if of == "memory" else world.host)
        return bind(kind, form, made, memory, on=world.host)

    return run


for _one in ("buffer", "image"):
    _word: Any = _one
    recipe(f"vkBind{_one.capitalize()}Memory-{_one}-parent")(_parents(_word, 1, of="resource"))
    recipe(f"vkBind{_one.capitalize()}Memory-memory-parent")(_parents(_word, 1, of="memory"))
    recipe(f"VkBind{_one.capitalize()}MemoryInfo-commonparent")(_parents(_word, 2, of="memory"))

# Barriers.


def barrier(kind: Kind, source: int, target: int, *, concurrent: bool = False, **gpu: Any) -> Recipe:
    def run(world: World) -> set[str]:
        device = world.gpu(families=(fake_vulkan.Family(), fake_vulkan.Family()), **gpu)
        fields: dict[str, Any] = {}
        if concurrent:
            fields = {"sharing_mode": vk.SharingMode.CONCURRENT, "queue_family_indices": (0, 1)}
        made = world.resource(device, kind, **fields)
        memory = world.memory(device)
        assert not bind(kind, 1, made, memory)
        buffers, images = [], []
        if kind == "buffer":
            buffers = [vk.BufferMemoryBarrier(0, 0, source, target, made, 0, int(vk.WHOLE_SIZE))]
        else:
            whole = vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1)
            images = [vk.ImageMemoryBarrier(0, 0, 0, 1, source, target, made, whole)]
        stage = vk.PipelineStageFlagBits.TRANSFER

        def record() -> None:
            with device.commands() as commands:
                commands.pipeline_barrier(stage, stage, buffer_memory_barriers=buffers, image_memory_barriers=images)

        return broken_by(record)

    return run


_PLAIN = (fake_vulkan.SHARING_EXTENSION, "VK_EXT_external_memory_host")
for _kind, _struct, _own, _to, _old in (
    ("buffer", "VkBufferMemoryBarrier", "buffer-09095", "buffer-09096", ("09049", "09050", "09051")),
    ("image", "VkImageMemoryBarrier", "image-09117", "image-09118", ("09052", "09053", "09054")),
):
    _k: Any = _kind
    recipe(f"{_struct}-{_own}")(barrier(_k, 7, 0))
    recipe(f"{_struct}-{_to}")(barrier(_k, 0, 7))
    recipe(f"{_struct}-srcQueueFamilyIndex-09099")(barrier(_k, FOREIGN, 0, extensions=_PLAIN))
    recipe(f"{_struct}-dstQueueFamilyIndex-09100")(barrier(_k, 0, FOREIGN, extensions=_PLAIN))
    recipe(f"{_struct}-None-{_old[0]}")(barrier(_k, EXTERNAL, 0, concurrent=True))
    recipe(f"{_struct}-None-{_old[1]}")(barrier(_k, 0, IGNORED, concurrent=True))
    recipe(f"{_struct}-None-{_old[2]}")(barrier(_k, IGNORED, 0, concurrent=True))
recipe("vkCmdPipelineBarrier-srcQueueFamilyIndex-10388")(barrier("buffer", EXTERNAL, 1))
