"""Adoption of a VkDevice that another binding created: its handles are checked before they are used.

Whether a VkInstance or VkDevice is at an address that is mapped cannot be found out: the loader reads from it.
Everything else that the caller states is compared with the physical device.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import SupportsIndex

from extmem import rules
from extmem.arguments import a_type
from extmem.devices import host
from extmem.devices.vulkan import new_loader
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.instance import Instance
from extmem.devices.vulkan.logical import FEATURES, MOVING, SHARING
from extmem.devices.vulkan.physical import API_VERSION, PhysicalDevice
from extmem.errors import HandleStateError, RuleViolation, UnsupportedError

__all__ = ["adopt"]

_ALIGNMENT = 8
"""Bytes. A dispatchable handle begins with a pointer of the loader."""


def adopt(
    instance: int,
    physical_device: int,
    device: int,
    *,
    extensions: Iterable[str],
    features: Iterable[str],
    queue_family: SupportsIndex,
    queue: SupportsIndex,
    api_version: int,
) -> VulkanBackend:
    """See `extmem.raw.adopt_device`."""
    names = _names(extensions, "extensions", "VK_KHR_external_memory_fd")
    enabled = _names(features, "features", "geometryShader")
    family, number = operator.index(queue_family), operator.index(queue)
    for what, handle in (("VkInstance", instance), ("VkPhysicalDevice", physical_device), ("VkDevice", device)):
        if not isinstance(handle, int):
            raise TypeError(f"the {what} is {handle!r}, {a_type(handle)}; pass its address as an int")
        if not handle:
            raise HandleStateError(f"the {what} is null; pass its address as a number")
    if api_version < API_VERSION:
        raise UnsupportedError(
            f"the instance was made for version {api_version:#x}; external memory needs Vulkan 1.1 ({API_VERSION:#x})",
            requires_one_of=["VkApplicationInfo::apiVersion of 1.1 or later"],
        )
    loader = new_loader()
    if loader.handles_are_addresses:
        _check_mapped("VkInstance", instance)
        _check_mapped("VkDevice", device)
    adopted_instance = Instance(loader, adopt=instance, api_version=api_version)
    real = _find_physical_device(adopted_instance, physical_device)
    if device in (instance, *(one.raw for one in adopted_instance.physical_devices())):
        raise HandleStateError(
            f"{device:#x} is a VkInstance or VkPhysicalDevice; pass the VkDevice that vkCreateDevice made"
        )
    lacking = sorted(SHARING & names - real.extensions)
    if lacking:
        raise UnsupportedError(
            f"{real.identity.device_name} has no {', '.join(lacking)}, so that no VkDevice of it was made with that; "
            "pass the names in VkDeviceCreateInfo::ppEnabledExtensionNames, and no others",
            requires_one_of=lacking,
        )
    families = real.queue_families
    violations = rules.check_get_device_queue(family, number, [one.queue_count for one in families])
    if violations:
        raise RuleViolation(violations, command="vkGetDeviceQueue")
    if not families[family].flags & MOVING:
        able = [str(one.number) for one in families if one.flags & MOVING]
        raise UnsupportedError(
            f"queue family {family} of {real.identity.device_name} cannot copy; pass a queue of another family that "
            f"the VkDevice was created with ({', '.join(able) or 'none of this physical device can'})",
            requires_one_of=["a queue family with GRAPHICS, COMPUTE or TRANSFER"],
        )
    adopted = PhysicalDevice(adopted_instance, real.handle, names)
    backend = VulkanBackend(adopted, device=device, queue_family=family, queue=number)
    backend.enabled_features = enabled
    backend.device.features = enabled & FEATURES.keys()
    return backend


def _check_mapped(what: str, handle: int) -> None:
    """Raise HandleStateError for an address that the loader cannot read, such as another loader's handle."""
    if handle % _ALIGNMENT or not host.range_is_mapped(handle, _ALIGNMENT):
        raise HandleStateError(
            f"{handle:#x} is not the address of a {what}: nothing is mapped there in this process; pass the handle's "
            "value as a number"
        )


def _names(given: object, what: str, example: str) -> frozenset[str]:
    """Return the names, each a str. what: the argument. Errors: TypeError."""
    if isinstance(given, (str, bytes, bytearray)) or not isinstance(given, Iterable):
        raise TypeError(f"{what} is {given!r}; pass a sequence of names, each a str")
    names = list(given)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} contains {name!r}; each name is a str, such as {example!r}")
    return frozenset(names)


def _find_physical_device(instance: Instance, physical_device: int) -> PhysicalDevice:
    """Return the physical device of the instance with this handle. Errors: HandleStateError."""
    devices = instance.physical_devices()
    for one in devices:
        if one.raw == physical_device:
            return one
    raise HandleStateError(
        f"{physical_device:#x} is not a VkPhysicalDevice of this instance ({len(devices)} of Vulkan 1.1 or later); "
        "pass one that vkEnumeratePhysicalDevices gave for it"
    )
