"""A call is checked against what was done: no later change of a struct, or of what a getter returns, has an effect.

A copy is deep: chains, structs in structs and sequences.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from extmem import raw, vk
from extmem.api import Buffer, Device
from extmem.devices.host import HAS_FDS
from extmem.errors import RuleViolation
from extmem.sharing.descriptor import Descriptor
from extmem.vk.struct_copies import copy_struct

TRANSFER = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
_Type = vk.ExternalMemoryHandleTypeFlagBits
FD = _Type.OPAQUE_FD if HAS_FDS else _Type.OPAQUE_WIN32
W32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32


def buffer_info() -> vk.BufferCreateInfo:
    return vk.BufferCreateInfo(
        size=64, usage=TRANSFER, queue_family_indices=[0], p_next=vk.ExternalMemoryBufferCreateInfo(FD)
    )


def image_info() -> vk.ImageCreateInfo:
    return vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(16, 16, 1),
        tiling=vk.ImageTiling.LINEAR,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
        queue_family_indices=[0],
        p_next=vk.ExternalMemoryImageCreateInfo(FD),
    )


def spoil(info: Any) -> None:
    """Change whatever can be changed of it."""
    if isinstance(info.queue_family_indices, list):
        info.queue_family_indices.append(9)
    info.p_next.handle_types = W32
    info.queue_family_indices = (5,)
    if isinstance(info, vk.BufferCreateInfo):
        info.size, info.usage = 1 << 30, 0
    else:
        info.extent.width, info.extent.height = 512, 512
        info.mip_levels, info.array_layers, info.tiling = 60, 1 << 31, vk.ImageTiling.OPTIMAL


@pytest.mark.parametrize("make", [buffer_info, image_info])
@pytest.mark.parametrize("whose", ["the caller's struct", "a getter's answer"])
def test_a_resource_stays_as_it_was_made(device: Device, make: Callable[[], Any], whose: str) -> None:
    info, before = make(), copy_struct(make())
    with device.create_buffer(info) if isinstance(info, vk.BufferCreateInfo) else device.create_image(info) as made:
        spoil(info if whose == "the caller's struct" else made.create_info)
        assert made.create_info == before == made.facts.create_info == made.native.create_info
        assert made.create_info is not made.create_info
        alone = vk.MemoryDedicatedAllocateInfo(*((None, made) if isinstance(made, Buffer) else (made, None)))
        alone.p_next = vk.ExportMemoryAllocateInfo(FD)
        with device.allocate_memory(vk.MemoryAllocateInfo(made.requirements.size, 0, alone)) as memory:
            assert memory.descriptor.dedicated == before
            with memory.export_handle(FD) as handle, device.open(handle) as again:
                assert again.resource is not None and isinstance(again.resource, type(made))
                assert again.resource.create_info == before


def test_commands_are_judged_by_the_buffer_that_was_made(device: Device) -> None:
    with device.create_buffer(vk.BufferCreateInfo(size=64, usage=TRANSFER)) as buffer:
        with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as memory:
            device.bind_buffer_memory(buffer, memory)
            buffer.create_info.size = 1 << 30
            with device.commands() as commands:
                commands.fill_buffer(buffer, 0x07070707)
                with pytest.raises(RuleViolation, match="VUID-vkCmdFillBuffer-size-00027"):
                    commands.fill_buffer(buffer, 7, size=128)
            assert memory.read_bytes(0, 128) == b"\7" * 64 + bytes(64)


def test_a_layout_is_that_of_the_image_that_was_made(device: Device) -> None:
    with device.create_image(image_info()) as image:
        before = image.subresource_layout(vk.ImageSubresource(1, 0, 0))
        spoil(image.create_info)
        assert image.subresource_layout(vk.ImageSubresource(1, 0, 0)) == before


@pytest.mark.parametrize("name", ["device", "memory", "memory_offset", "requirements", "native", "create_info"])
def test_what_a_resource_is_cannot_be_assigned(device: Device, name: str) -> None:
    with device.create_buffer(buffer_info()) as buffer, device.create_image(image_info()) as image:
        for thing in (buffer, image):
            with pytest.raises(AttributeError):
                setattr(thing, name, getattr(thing, name))
        with pytest.raises(AttributeError):
            buffer.requirements.size = 1  # type: ignore[misc]


@pytest.mark.parametrize("make", [buffer_info, image_info])
def test_a_descriptor_stays_as_it_was_stated(make: Callable[[], Any]) -> None:
    info, before = make(), copy_struct(make())
    stated = Descriptor(handle_types=1, allocation_size=4096, dedicated=info)
    octets = stated.encode()
    spoil(info)
    spoil(stated.dedicated)
    spoil(stated.payload_facts().dedicated_info)
    assert stated.dedicated == before == stated.payload_facts().dedicated_info
    others = (
        Descriptor.parse(octets),
        msgspec.structs.replace(stated),
        copy.copy(stated),
        pickle.loads(pickle.dumps(stated)),
        Descriptor(handle_types=1, allocation_size=4096, dedicated=before),
    )
    for other in others:
        assert other == stated and other.dedicated == before and other.encode() == octets
        assert "CreateInfo(" in repr(other)
    assert stated != Descriptor(handle_types=1, allocation_size=4096, dedicated=stated.dedicated, usage=1)
    with pytest.raises(AttributeError):
        stated.dedicated = info  # type: ignore[misc]


def test_what_is_allocated_and_bound_is_what_was_judged(device: Device) -> None:
    class Sly(int):
        """It compares equal to 4096, and converts to another number."""

        def __int__(self) -> int:
            return 1 << 40

        __index__ = __int__

    with device.allocate_memory(vk.MemoryAllocateInfo(Sly(4096), 0)) as memory:
        assert memory.allocation_size == 4096
        with device.create_buffer(vk.BufferCreateInfo(size=Sly(64), usage=TRANSFER)) as buffer:
            assert buffer.size == 64 and buffer.requirements.size == 64
            device.bind_buffer_memory2([vk.BindBufferMemoryInfo(buffer, memory, Sly(0))])
            assert buffer.memory_offset == 0 and type(buffer.memory_offset) is int


def test_memory_properties_are_a_copy(device: Device) -> None:
    before = device.memory_properties
    before.memory_types[0].heap_index = 99
    assert device.memory_properties != before


# The copy itself.


def test_a_copy_shares_nothing_that_can_change() -> None:
    info = image_info()
    made = copy_struct(info)
    assert made is not info and made.extent is not info.extent and made.p_next is not info.p_next
    assert made.queue_family_indices == (0,)
    assert made.extent == info.extent and made.p_next == info.p_next


def test_handles_in_a_copy_are_the_same_objects() -> None:
    thing = object()
    assert copy_struct(vk.ImportMemoryFdInfoKHR(FD, thing)).fd is thing  # type: ignore[arg-type]


def test_a_chain_that_ends_in_itself_does_so_in_the_copy() -> None:
    first, second = vk.ExportMemoryAllocateInfo(1), vk.MemoryDedicatedAllocateInfo()
    first.p_next, second.p_next = second, second
    made = copy_struct(first)
    assert made.p_next is not second and made.p_next is not None and made.p_next.p_next is made.p_next


def test_what_cannot_be_a_struct_is_left_to_the_rules() -> None:
    class Other(vk.Extent3D):
        pass

    ring: list[object] = []
    ring.append(ring)
    for odd in (None, 5, "x", Other(1, 1, 1), object()):
        assert copy_struct(odd) is odd
        assert copy_struct(vk.MemoryAllocateInfo(1, 0, odd)).p_next is odd  # type: ignore[arg-type]
    assert copy_struct(vk.BufferCreateInfo(queue_family_indices=ring)) is not None  # type: ignore[arg-type]
    deep: Any = vk.Extent3D(1, 1, 1)
    for _ in range(5000):
        deep = vk.Extent3D(deep, 1, 1)
    assert copy_struct(deep).width is not deep.width
    long = vk.ExportMemoryAllocateInfo(1)
    for _ in range(5000):
        long = vk.ExportMemoryAllocateInfo(1, long)
    with pytest.raises(ValueError, match="more than 4096"):
        copy_struct(long)


def test_a_resource_of_another_binding_is_judged_by_its_own_facts(vulkan_device: Device) -> None:
    backend = vulkan_device.backend
    info = vk.BufferCreateInfo(size=64, usage=TRANSFER)
    theirs = backend.create_buffer(info)
    with raw.adopt_buffer(vulkan_device, theirs.raw, info) as ours:
        info.size = 1 << 30
        ours.create_info.size = 1 << 30
        assert ours.size == ours.create_info.size == 64
    theirs.destroy()
    picture = image_info()
    picture.p_next, picture.queue_family_indices = None, ()
    other = backend.create_image(picture)
    with raw.adopt_image(vulkan_device, other.raw, picture) as ours_too:
        picture.extent.width = 512
        assert ours_too.create_info.extent == vk.Extent3D(16, 16, 1)
    other.destroy()
