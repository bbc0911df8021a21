"""`Instance`: a VkInstance and its physical devices."""

from __future__ import annotations

from typing import Any

from extmem.devices.vulkan.owners import VkInstanceOwner
from extmem.devices.vulkan.physical import API_VERSION, PhysicalDevice, enumerated
from extmem.devices.vulkan.results import fail
from extmem.errors import HandleStateError, UnsupportedError
from extmem.vk.abi import ffi
from extmem.vk.loader import Commands, Loader

__all__ = ["Instance"]


class Instance:
    """A VkInstance. Ownership: created here, and destroyed after `close` and its devices; or adopted, and left.

    Errors: UnsupportedError without a loader, or for a loader of Vulkan 1.0; DriverError without any driver.
    """

    def __init__(self, loader: Loader | None = None, *, adopt: int = 0, api_version: int = API_VERSION) -> None:
        """adopt: a VkInstance that another binding created for this version. `close` does not destroy it."""
        self.loader = loader or Loader()
        self.api_version = api_version
        self.owner = VkInstanceOwner(self.loader)
        if adopt:
            self.owner.handle = ffi.cast("VkInstance", adopt)
        else:
            self._create()
        self.handle: Any = self.owner.handle
        self.commands: Commands = self.loader.instance_commands(self.handle)
        self._devices: list[PhysicalDevice] | None = None

    def _create(self) -> None:
        if not self.loader.commands.has("vkEnumerateInstanceVersion"):
            raise UnsupportedError(
                "the Vulkan loader here is for Vulkan 1.0; external memory needs 1.1: update it",
                requires_one_of=["Vulkan 1.1"],
            )
        name = ffi.new("char[]", b"extmem")
        application = ffi.new("VkApplicationInfo *", {"pEngineName": name, "apiVersion": API_VERSION})
        info = ffi.new("VkInstanceCreateInfo *", {"sType": 1, "pApplicationInfo": application})
        result = self.owner.make(self.loader, info)
        if result:
            fail(result, "vkCreateInstance", "")

    @property
    def raw(self) -> int:
        """VkInstance as a number."""
        return int(ffi.cast("uintptr_t", self.handle))

    def physical_devices(self) -> list[PhysicalDevice]:
        """Return every physical device of version 1.1 or later, in the loader's order. Enumerated once."""
        if self.owner.closing:
            raise HandleStateError("this Vulkan instance is closed; make another one")
        if self._devices is None:
            self._devices = [device for raw in self._enumerate() if (device := PhysicalDevice(self, raw)).usable]
        return self._devices

    def _enumerate(self) -> list[Any]:
        name = "vkEnumeratePhysicalDevices"
        result, count, found = enumerated(self.commands, name, (self.handle,), "VkPhysicalDevice[]")
        if result:
            fail(result, name, "")
        return list(found[0:count])

    def close(self) -> None:
        """vkDestroyInstance, when no device of it is left. Safe to call twice.

        Nothing happens to an adopted one, or in a forked child.
        """
        self.owner.close()
