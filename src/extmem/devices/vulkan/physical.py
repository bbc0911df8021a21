"""`PhysicalDevice`: a GPU's identity, its memory types, and what it can share. No VkDevice is needed for it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from extmem import vk
from extmem.devices.types import DeviceIdentity
from extmem.devices.vulkan.results import fail
from extmem.vk.abi import ffi, from_c, to_c

if TYPE_CHECKING:
    from extmem.devices.vulkan.owners import VkInstanceOwner
    from extmem.vk.loader import Commands, Loader

__all__ = ["API_VERSION", "PhysicalDevice", "QueueFamily", "enumerated"]

_RANKS = {
    vk.PhysicalDeviceType.DISCRETE_GPU: 10,
    vk.PhysicalDeviceType.INTEGRATED_GPU: 20,
    vk.PhysicalDeviceType.VIRTUAL_GPU: 30,
}
_LAST = 90
_INCOMPLETE = 5
_DRIVER_PROPERTIES = 1000196000
API_VERSION = 1 << 22 | 1 << 12
"""Vulkan 1.1, which has external memory and its queries in the core. No later version is needed."""


def enumerated(commands: Commands, name: str, arguments: tuple[Any, ...], array: str) -> tuple[int, int, Any]:
    """Call an enumerating command until its answer is complete. Return its VkResult, a count, and so many structs.

    arguments: before the count. array: the C type of the array.
    """
    command, count, found = getattr(commands, name), ffi.new("uint32_t *"), None
    result = _INCOMPLETE
    while result == _INCOMPLETE:  # something was added between the two calls
        result = command(*arguments, count, ffi.NULL)
        if not result:
            found = ffi.new(array, max(1, count[0]))
            result = command(*arguments, count, found)
    return result, count[0], found


class QueueFamily(msgspec.Struct, frozen=True):
    """VkQueueFamilyProperties, as far as transfers need it."""

    number: int
    """queueFamilyIndex."""
    flags: int
    queue_count: int


class OwningInstance(Protocol):
    """What a physical device needs of its VkInstance (`instance.Instance`)."""

    loader: Loader
    commands: Commands
    """Those of the instance."""
    owner: VkInstanceOwner
    api_version: int
    """VkApplicationInfo::apiVersion."""

    @property
    def raw(self) -> int:
        """VkInstance as a number."""


class PhysicalDevice:
    """A VkPhysicalDevice of an instance, which it keeps alive."""

    def __init__(self, instance: OwningInstance, handle: Any, extensions: frozenset[str] | None = None) -> None:
        """extensions: those enabled on a VkDevice that another binding created; None for all that there are."""
        self.instance = instance
        self.handle = handle
        self.commands = instance.commands
        self._given = extensions

    @property
    def raw(self) -> int:
        """VkPhysicalDevice as a number."""
        return int(ffi.cast("uintptr_t", self.handle))

    @property
    def usable(self) -> bool:
        """Whether it implements Vulkan 1.1, which has the queries below in the core."""
        plain = ffi.new("VkPhysicalDeviceProperties *")
        self.commands.vkGetPhysicalDeviceProperties(self.handle, plain)
        return int(plain.apiVersion) >= API_VERSION

    @cached_property
    def _properties(self) -> vk.PhysicalDeviceProperties2:
        ids = vk.PhysicalDeviceIDProperties()
        query = vk.PhysicalDeviceProperties2(p_next=ids)
        if "VK_EXT_external_memory_host" in self.extensions:
            ids.p_next = vk.PhysicalDeviceExternalMemoryHostPropertiesEXT()
        memory = to_c(query)
        driver = ffi.new("VkPhysicalDeviceDriverProperties *", (_DRIVER_PROPERTIES, memory.cdata.pNext))
        memory.cdata.pNext = driver
        self.commands.vkGetPhysicalDeviceProperties2(self.handle, memory.cdata)
        # Drivers older than the struct leave it as it was.
        self._driver_name = bytes(ffi.string(driver.driverName)).decode("utf-8", "replace")
        self._driver_info = bytes(ffi.string(driver.driverInfo)).decode("utf-8", "replace")
        return from_c(vk.PhysicalDeviceProperties2, memory)

    @property
    def properties(self) -> vk.PhysicalDeviceProperties:
        """VkPhysicalDeviceProperties."""
        return self._properties.properties

    @property
    def version(self) -> int:
        """The version that a VkDevice of it has: that of the instance, unless the physical device's is lower."""
        return min(self.instance.api_version, int(self.properties.api_version))

    @property
    def device_type(self) -> vk.PhysicalDeviceType:
        """VkPhysicalDeviceType: a GPU, or a processor that poses as one."""
        return vk.PhysicalDeviceType(int(self.properties.device_type))

    @property
    def rank(self) -> int:
        """See `Offer`."""
        return _RANKS.get(self.device_type, _LAST)

    @cached_property
    def identity(self) -> DeviceIdentity:
        """UUIDs, LUID and names."""
        ids = vk.find(self._properties, vk.PhysicalDeviceIDProperties) or vk.PhysicalDeviceIDProperties()
        return DeviceIdentity(
            device_uuid=bytes(ids.device_uuid),
            driver_uuid=bytes(ids.driver_uuid),
            luid=bytes(ids.device_luid) if ids.device_luid_valid else None,
            node_mask=int(ids.device_node_mask) if ids.device_luid_valid else 0,
            device_name=self.properties.device_name,
            driver_name=self._driver_name or f"vendor {self.properties.vendor_id:#06x}",
            driver_version=self._driver_info or f"{int(self.properties.driver_version):#x}",
        )

    @cached_property
    def min_imported_host_pointer_alignment(self) -> int:
        """Bytes; 4096 if host pointers cannot be imported."""
        found = vk.find(self._properties, vk.PhysicalDeviceExternalMemoryHostPropertiesEXT)
        return int(found.min_imported_host_pointer_alignment) if found is not None else 4096

    @cached_property
    def extensions(self) -> frozenset[str]:
        """Names of the device extensions that exist, or that the adopted device was created with."""
        if self._given is not None:
            return self._given
        name, arguments = "vkEnumerateDeviceExtensionProperties", (self.handle, ffi.NULL)
        result, count, found = enumerated(self.commands, name, arguments, "VkExtensionProperties[]")
        if result:
            fail(result, name, self.properties.device_name)
        return frozenset(bytes(ffi.string(found[i].extensionName)).decode() for i in range(count))

    @cached_property
    def memory_properties(self) -> vk.PhysicalDeviceMemoryProperties:
        """Memory types and heaps."""
        memory = to_c(vk.PhysicalDeviceMemoryProperties2())
        self.commands.vkGetPhysicalDeviceMemoryProperties2(self.handle, memory.cdata)
        return from_c(vk.PhysicalDeviceMemoryProperties2, memory).memory_properties

    @cached_property
    def queue_families(self) -> tuple[QueueFamily, ...]:
        """All queue families."""
        count = ffi.new("uint32_t *")
        get = self.commands.vkGetPhysicalDeviceQueueFamilyProperties
        get(self.handle, count, ffi.NULL)
        found = ffi.new("VkQueueFamilyProperties[]", max(1, count[0]))
        get(self.handle, count, found)
        return tuple(QueueFamily(i, int(found[i].queueFlags), int(found[i].queueCount)) for i in range(count[0]))
