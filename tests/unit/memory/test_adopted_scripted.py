"""`raw.adopt_device` on a scripted driver: whose handles they are, and which features the VkDevice was made with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.devices.vulkan.instance import Instance
from extmem.memory import Device
from extmem.testing import fake_vulkan

S = vk.PipelineStageFlagBits
TRANSFER = vk.BufferUsageFlagBits.TRANSFER_SRC


@contextlib.contextmanager
def scripted() -> Iterator[tuple[fake_vulkan.FakeVulkan, raw.VulkanHandles]]:
    """A scripted driver, and the handles of a device of it that somebody else made."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as theirs:
        yield fake, raw.vk_handles(theirs)
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]


def adopt(given: raw.VulkanHandles, **other: Any) -> Device:
    known = {"instance": given.instance, "physical_device": given.physical_device, "device": given.device, **other}
    return raw.adopt_device(**{"extensions": given.extensions, "queue_family_index": 0, **known})


def test_handles_are_looked_up_by_the_loader_that_made_them() -> None:
    """They are no addresses; the system's loader would read from them, and the process would end."""
    with scripted() as (fake, given):
        with adopt(given) as device, device.allocate(4096) as memory:
            memory.fill(3)
            assert set(memory.read_bytes()) == {3}
        assert fake.alive()["devices"] == 1  # theirs was left alone


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
    """Among them a scripted driver's handles, once that is gone."""
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
