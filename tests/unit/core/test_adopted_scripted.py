"""`raw.adopt_device` on a scripted driver: whose handles they are, and the features of the VkDevice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.devices.vulkan.instance import Instance
from extmem.testing import fake_vulkan

S = vk.PipelineStageFlagBits
TRANSFER = vk.BufferUsageFlagBits.TRANSFER_SRC


@contextlib.contextmanager
def scripted() -> Iterator[tuple[fake_vulkan.FakeVulkan, raw.VulkanHandles]]:
    """A scripted driver, and the handles of a device of it that another program made."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as theirs:
        yield fake, raw.vk_handles(theirs)
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]


def adopt(given: raw.VulkanHandles, **other: Any) -> Device:
    known = {"instance": given.instance, "physical_device": given.physical_device, "device": given.device, **other}
    return raw.adopt_device(**{"extensions": given.extensions, "queue_family_index": 0, **known})


def test_handles_are_looked_up_by_the_loader_that_made_them() -> None:
    """They are not addresses; the system's loader would read from them, and the process would end."""
    with scripted() as (fake, given):
        with adopt(given) as device, device.allocate(4096) as memory:
            memory.fill(3)
            assert set(memory.read_bytes()) == {3}
        assert fake.alive()["devices"] == 1  # the other program's device was left alone


def test_another_instance_does_not_have_the_physical_device() -> None:
    with scripted() as (fake, given):
        other = Instance(fake.loader)
        try:
            with pytest.raises(extmem.HandleStateError, match="not a VkPhysicalDevice of this instance"):
                adopt(given, instance=other.raw)
            own = other.physical_devices()[0].raw
            with pytest.raises(extmem.HandleStateError, match="not a VkPhysicalDevice of this instance"):
                adopt(given, physical_device=own)
            adopt(given).close()
        finally:
            other.close()


@pytest.mark.parametrize("wrong", ["instance", "physical_device"])
def test_a_device_is_neither_instance_nor_physical_device(wrong: str) -> None:
    with scripted() as (_, given):
        with pytest.raises(extmem.HandleStateError, match="pass the VkDevice"):
            adopt(given, device=getattr(given, wrong))
        adopt(given).close()


@pytest.mark.parametrize("which", ["instance", "device"])
@pytest.mark.parametrize("strange", [0x7, 0xFA4E_0010, -8])
def test_numbers_that_are_no_addresses_do_not_reach_the_loader(vulkan_device: Device, which: str, strange: int) -> None:
    """Among them handles of a scripted driver that has ended."""
    given = raw.vk_handles(vulkan_device)
    with pytest.raises(extmem.HandleStateError, match="nothing is mapped there"):
        adopt(given, **{which: strange})
    adopt(given).close()


BARRIER = (S.GEOMETRY_SHADER, S.TRANSFER)


def test_features_that_are_not_stated_count_as_not_enabled() -> None:
    with scripted() as (_, given):
        sparse = vk.BufferCreateInfo(flags=vk.BufferCreateFlagBits.SPARSE_BINDING, size=4096, usage=TRANSFER)
        with adopt(given) as device:
            with pytest.raises(extmem.RuleViolation, match="sparseBinding") as caught:
                device.create_buffer(sparse)
            assert caught.value.vuids == ("VUID-VkBufferCreateInfo-flags-00915",)
            with device.commands() as commands, pytest.raises(extmem.RuleViolation, match="geometryShader"):
                commands.pipeline_barrier(*BARRIER)
        with adopt(given, features=["sparseBinding"]) as device:
            with pytest.raises(extmem.DriverError) as told:  # it reached the driver, which has no sparse memory
                device.create_buffer(sparse)
            assert told.value.result == vk.Result.ERROR_FEATURE_NOT_PRESENT
            with device.commands() as commands, pytest.raises(extmem.RuleViolation, match="geometryShader"):
                commands.pipeline_barrier(*BARRIER)
        with adopt(given, features=iter(["geometryShader"])) as device, device.commands() as commands:
            commands.pipeline_barrier(*BARRIER)


@pytest.mark.parametrize("features", ["sparseBinding", b"sparseBinding", [b"sparseBinding"], 7])
def test_features_are_a_sequence_of_str(features: Any) -> None:
    with scripted() as (_, given):
        with pytest.raises(TypeError, match="features .*each"):
            adopt(given, features=features)
        adopt(given, features=()).close()


COPIED = vk.BufferCreateInfo(size=256, usage=vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST)
DRAWN = vk.ImageCreateInfo(
    image_type=vk.ImageType.TYPE_2D,
    format=vk.Format.R8G8B8A8_UNORM,
    extent=vk.Extent3D(8, 8, 1),
    usage=vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.TRANSFER_DST,
)


def test_commands_use_what_another_binding_bound() -> None:
    """Buffer, image and their memory belong to another binding; they keep all of it until the commands are done."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as theirs:
        with (
            theirs.create_buffer(COPIED) as buffer,
            theirs.create_image(DRAWN) as image,
            theirs.allocate_memory(vk.MemoryAllocateInfo(65_536, 0)) as memory,
            adopt(raw.vk_handles(theirs)) as device,
        ):
            theirs.bind_buffer_memory(buffer, memory)
            theirs.bind_image_memory(image, memory, 32_768)
            with theirs.commands() as commands:
                commands.change_layout(image, vk.ImageLayout.UNDEFINED, vk.ImageLayout.TRANSFER_DST_OPTIMAL)
            with (
                raw.adopt_buffer(device, buffer.raw, COPIED, bound=True) as seen,
                raw.adopt_image(device, image.raw, DRAWN, bound=True) as drawn,
            ):
                with device.commands() as commands:
                    commands.fill_buffer(seen, 0x05050505)
                    commands.copy_buffer_to_image(seen, drawn, layout=vk.ImageLayout.TRANSFER_DST_OPTIMAL)
                assert memory.read_bytes(0, 256) == b"\5" * 256
                with pytest.raises(extmem.HandleStateError, match="another Python binding bound this buffer"):
                    seen.map()
                with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as other:
                    with pytest.raises(extmem.RuleViolation, match="07459"):
                        device.bind_buffer_memory(seen, other)
            with pytest.raises(extmem.HandleStateError, match="destroyed"), device.commands() as commands:
                commands.fill_buffer(seen, 0)
            unbound = raw.adopt_buffer(device, buffer.raw, COPIED)
            with pytest.raises(extmem.HandleStateError, match="not bound to memory"), device.commands() as commands:
                commands.fill_buffer(unbound, 0)
            unbound.close()
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]


def test_what_was_adopted_is_not_adopted_again() -> None:
    """Each of two objects for one buffer would regard it as unbound after the other was bound."""
    with scripted() as (_, given), adopt(given) as device:
        with device.create_buffer(COPIED) as own, device.create_image(DRAWN) as picture:
            with pytest.raises(
                extmem.HandleStateError, match="this VkBuffer is <Buffer 256 bytes .* already; use that"
            ):
                raw.adopt_buffer(device, own.raw, COPIED)
            with pytest.raises(extmem.HandleStateError, match="this VkImage is <Image .* already; use that"):
                raw.adopt_image(device, picture.raw, DRAWN)
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as other:
        with other.create_buffer(COPIED) as theirs, adopt(raw.vk_handles(other)) as device:
            with raw.adopt_buffer(device, theirs.raw, COPIED):
                with pytest.raises(extmem.HandleStateError, match="already; use that, or close it first"):
                    raw.adopt_buffer(device, theirs.raw, COPIED)
            raw.adopt_buffer(device, theirs.raw, COPIED).close()
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
