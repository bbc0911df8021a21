"""The device of a buffer, image or memory: an object of another device is refused, and so is one of another type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device

USAGE = vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST
SIZE = 65_536


@pytest.fixture(params=["host", "vulkan"])
def here(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device of each kind; the test is skipped where there is no driver."""
    if request.param == "vulkan":
        request.getfixturevalue("vulkan_device")
    with extmem.open_device(kind=request.param) as opened:
        yield opened


@pytest.fixture
def there(here: Device) -> Iterator[Device]:
    """Another logical device of the same physical one."""
    with extmem.open_device(kind=here.kind, uuid=here.uuid) as opened:
        yield opened


def buffer(device: Device) -> Any:
    return device.create_buffer(vk.BufferCreateInfo(size=SIZE, usage=USAGE))


def image(device: Device) -> Any:
    return device.create_image(
        vk.ImageCreateInfo(
            image_type=vk.ImageType.TYPE_2D,
            format=vk.Format.R8G8B8A8_UNORM,
            extent=vk.Extent3D(64, 64, 1),
            mip_levels=1,
            array_layers=1,
            samples=vk.SampleCountFlagBits(1),
            usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
        )
    )


def memory_for(device: Device, resource: Any, chain: Any = None) -> Any:
    bits = resource.requirements.memory_type_bits
    return device.allocate_memory(
        vk.MemoryAllocateInfo(resource.requirements.size, (bits & -bits).bit_length() - 1, chain)
    )


MAKERS = pytest.mark.parametrize(("make", "kind"), [(buffer, "Buffer"), (image, "Image")])


@MAKERS
def test_what_another_device_made_is_not_bound(
    make: Callable[[Device], Any], kind: str, here: Device, there: Device
) -> None:
    with make(here) as mine, make(there) as theirs, memory_for(here, mine) as memory:
        verb = getattr(here, f"bind_{kind.lower()}_memory2")
        elsewhere = getattr(there, f"bind_{kind.lower()}_memory2")
        struct = getattr(vk, f"Bind{kind}MemoryInfo")
        for bind, resource in ((verb, theirs), (elsewhere, theirs), (elsewhere, mine)):
            with pytest.raises(extmem.RuleViolation) as caught:
                bind([struct(resource, memory, 0)])
            assert caught.value.vuids == (f"VUID-VkBind{kind}MemoryInfo-commonparent",)
        verb([struct(mine, memory, 0)])
        assert mine.memory is memory and theirs.memory is None


@MAKERS
def test_memory_is_not_dedicated_to_what_another_device_made(
    make: Callable[[Device], Any], kind: str, here: Device, there: Device
) -> None:
    def alone(resource: Any) -> vk.MemoryDedicatedAllocateInfo:
        return vk.MemoryDedicatedAllocateInfo(**{kind.lower(): resource})

    with make(here) as mine, make(there) as theirs:
        with pytest.raises(extmem.RuleViolation) as caught:
            memory_for(here, theirs, alone(theirs))
        assert caught.value.vuids == ("VUID-VkMemoryDedicatedAllocateInfo-commonparent",)
        with memory_for(here, mine, alone(mine)) as memory:
            assert memory.descriptor.dedicated_kind == kind.lower()


@pytest.mark.parametrize("field", ["buffer", "image"])
def test_a_number_of_another_binding_is_not_dropped(field: str, here: Device) -> None:
    for given in (0x1234, 1, "buffer", object()):
        chain = vk.MemoryDedicatedAllocateInfo(**{field: given})
        with pytest.raises(TypeError, match=rf"extmem\.raw\.adopt_{field}"):
            here.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain))
    for nothing in (None, 0):  # VK_NULL_HANDLE
        chain = vk.MemoryDedicatedAllocateInfo(**{field: nothing})
        with here.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, chain)) as memory:
            assert memory.descriptor.dedicated_kind == "none"


def test_a_resource_in_the_other_kinds_field_is_refused(here: Device) -> None:
    with buffer(here) as one, image(here) as two, memory_for(here, one) as memory, memory_for(here, two) as other:
        for field, wrong in (("buffer", two), ("image", one)):
            with pytest.raises(TypeError, match=f"pass the {field.capitalize()} from create_{field}"):
                memory_for(here, wrong, vk.MemoryDedicatedAllocateInfo(**{field: wrong}))
        for call in (
            lambda: here.bind_buffer_memory(two, memory),
            lambda: here.bind_buffer_memory2([vk.BindBufferMemoryInfo(two, memory, 0)]),
        ):
            with pytest.raises(TypeError, match="pass the buffer from create_buffer"):
                call()
        for call in (
            lambda: here.bind_image_memory(one, memory),
            lambda: here.bind_image_memory2([vk.BindImageMemoryInfo(one, memory, 0)]),
        ):
            with pytest.raises(TypeError, match="pass the image from create_image"):
                call()
        here.bind_buffer_memory(one, memory)
        here.bind_image_memory(two, other)


@MAKERS
def test_a_resource_that_is_named_twice_in_a_call_is_not_bound(
    make: Callable[[Device], Any], kind: str, here: Device
) -> None:
    rule = f"VUID-VkBind{kind}MemoryInfo-{'buffer-07459' if kind == 'Buffer' else 'image-07460'}"
    struct, bind = getattr(vk, f"Bind{kind}MemoryInfo"), getattr(here, f"bind_{kind.lower()}_memory2")
    with make(here) as one, make(here) as two, memory_for(here, one) as memory, memory_for(here, two) as other:
        for twice in ([(one, memory), (one, memory)], [(one, memory), (two, other), (one, other)]):
            with pytest.raises(extmem.RuleViolation) as caught:
                bind([struct(resource, place, 0) for resource, place in twice])
            assert caught.value.vuids == (rule,)
            assert one.memory is None and two.memory is None
        bind([struct(one, memory, 0), struct(two, other, 0)])
        assert one.memory is memory and two.memory is other
