"""A device's identity, memory and queues, queried without opening it."""

from __future__ import annotations

import pytest

from extmem import vk
from extmem.devices import vulkan
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.instance import Instance
from extmem.devices.vulkan.logical import _choose_queue_family
from extmem.devices.vulkan.physical import PhysicalDevice, QueueFamily
from extmem.errors import UnsupportedError
from extmem.testing.children import Peer


def test_it_reports_its_identity(backend: VulkanBackend) -> None:
    who = backend.identity
    assert len(who.device_uuid) == len(who.driver_uuid) == 16 and any(who.device_uuid)
    assert who.luid is None or len(who.luid) == 8
    assert (who.node_mask == 0) == (who.luid is None)
    assert who.device_name and who.driver_name and who.driver_version
    assert backend.kind == "vulkan" and backend.device.physical.raw and backend.raw


def test_it_is_the_same_in_another_instance_and_another_process(backend: VulkanBackend) -> None:
    instance = Instance()
    try:
        assert backend.identity in [device.identity for device in instance.physical_devices()]
    finally:
        instance.close()
    with Peer() as peer:
        there = peer("[(who.device_uuid, who.driver_uuid) for who in extmem.enumerate_devices()]")
    assert (backend.identity.device_uuid, backend.identity.driver_uuid) in there


def test_it_is_offered_behind_the_host_device_if_it_only_poses_as_a_gpu(backend: VulkanBackend) -> None:
    (offer,) = [offer for offer in vulkan.offers() if offer.identity == backend.identity]
    device_type = backend.device.physical.device_type
    assert (offer.rank > 50) == (device_type in (vk.PhysicalDeviceType.CPU, vk.PhysicalDeviceType.OTHER))
    opened = offer.open()
    assert opened.identity == backend.identity and opened is not backend
    opened.close()


def test_its_memory_types_lead_to_its_heaps(backend: VulkanBackend) -> None:
    memory = backend.memory_properties()
    assert memory.memory_types and memory.memory_heaps
    for kind in memory.memory_types:
        assert 0 <= kind.heap_index < len(memory.memory_heaps)
    assert all(heap.size for heap in memory.memory_heaps)
    seen = [bool(kind.property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE) for kind in memory.memory_types]
    assert any(seen), "every device has memory that the host sees"
    assert list(backend.device.host_visible) == seen


def test_its_limits_are_usable(backend: VulkanBackend) -> None:
    alignment = backend.min_imported_host_pointer_alignment
    assert alignment and alignment & (alignment - 1) == 0
    assert backend.max_memory_allocation_count >= 4096, "the least that the specification allows"


def test_the_queue_family_that_can_do_most_is_taken(backend: VulkanBackend) -> None:
    families = backend.device.physical.queue_families
    assert [family.number for family in families] == list(range(len(families)))
    assert backend.device.queue_family == _choose_queue_family(backend.device.physical)


class Queues:
    """A physical device, with the attributes that the choice of a queue family reads."""

    def __init__(self, *families: QueueFamily, name: str = "some device") -> None:
        self.queue_families = families
        self.identity = type("Identity", (), {"device_name": name})


GRAPHICS, COMPUTE, TRANSFER = (
    int(vk.QueueFlagBits.GRAPHICS),
    int(vk.QueueFlagBits.COMPUTE),
    int(vk.QueueFlagBits.TRANSFER),
)
ALL = GRAPHICS | COMPUTE | TRANSFER


@pytest.mark.parametrize(
    ("families", "taken"),
    [
        ([(TRANSFER, 2), (ALL, 1)], 1),
        ([(ALL, 1), (ALL, 16), (TRANSFER, 2)], 0),
        ([(0x20, 1), (COMPUTE, 1)], 1),
        ([(ALL, 0), (TRANSFER, 1)], 1),
    ],
)
def test_choosing_a_queue_family(families: list[tuple[int, int]], taken: int) -> None:
    device = Queues(*(QueueFamily(i, flags, count) for i, (flags, count) in enumerate(families)))
    assert _choose_queue_family(device) == taken  # type: ignore[arg-type]  # the attributes that it reads


def test_a_device_that_cannot_copy_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="decoder has no queue that can copy"):
        _choose_queue_family(Queues(QueueFamily(0, 0x20, 1), name="decoder"))  # type: ignore[arg-type]  # as above


def test_extensions_can_be_those_of_a_foreign_vkdevice(backend: VulkanBackend) -> None:
    assert backend.device.physical.extensions
    poor = PhysicalDevice(backend.device.physical.instance, backend.device.physical.handle, frozenset())
    assert poor.extensions == frozenset() and poor.identity == backend.identity
    assert poor.usable
