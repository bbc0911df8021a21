"""The Vulkan loader, and its commands as C functions.

How this works. One function of the loader, vkGetInstanceProcAddr, returns the addresses of all others. `Commands` looks
up a command when it is first used, casts it to the signature that was generated from the registry, and keeps it. Device
commands come from vkGetDeviceProcAddr, whose functions do not go through the loader.

This module needs cffi, and is imported by the Vulkan device only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem.errors import UnsupportedError
from extmem.vk._generated._abi import ffi

__all__ = ["Commands", "Loader"]

_NAMES = ("libvulkan.so.1", "libvulkan.so", "vulkan-1.dll")
"""File names of the loader on Linux and on Windows; no system has both."""


class Commands:
    """C functions by their names: `commands.vkAllocateMemory(...)`. Errors: UnsupportedError for a missing one."""

    def __init__(self, lookup: Callable[[str], Any], owner: str) -> None:
        """lookup: returns the function pointer of a command, or NULL. owner: owner of the commands, for messages."""
        self._lookup = lookup
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        pointer = self._lookup(name)
        if pointer == ffi.NULL:
            raise UnsupportedError(
                f"{self._owner} has no command {name}; update the driver, or choose another device",
                requires_one_of=[name],
            )
        function = ffi.cast(f"PFN_{name}", pointer)
        self.__dict__[name] = function
        return function

    def promoted(self, name: str) -> Any:
        """Return a command that was an extension's before it became a part of Vulkan: name + KHR if there is that.

        A driver has both, and the one without KHR may be used if the instance was created for its version.
        Errors: UnsupportedError.
        """
        pointer = self._lookup(f"{name}KHR")
        return getattr(self, name) if pointer == ffi.NULL else ffi.cast(f"PFN_{name}", pointer)

    def has(self, name: str) -> bool:
        """Return whether the command exists."""
        try:
            getattr(self, name)
        except UnsupportedError:
            return False
        return True


class Loader:
    """libvulkan.so.1 or vulkan-1.dll. Errors: UnsupportedError if there is none."""

    handles_are_addresses = True
    """Whether VkInstance and VkDevice are addresses of memory that its functions read."""

    def __init__(self) -> None:
        problems = []
        for name in _NAMES:
            try:
                self._library = ffi.dlopen(name)
                self._find = self._library.vkGetInstanceProcAddr
                break
            except (OSError, ffi.error) as error:
                problems.append(str(error))
        else:
            raise UnsupportedError(
                f"this machine has no Vulkan loader ({'; '.join(problems)}); install it (Debian and Ubuntu: "
                "apt-get install libvulkan1), with a driver for the GPU",
                requires_one_of=list(_NAMES),
            )
        self.commands = Commands(lambda name: self._find(ffi.NULL, name.encode()), "the Vulkan loader")
        """Commands that need no instance."""

    def instance_commands(self, instance: Any) -> Commands:
        """Return the commands of a VkInstance and its physical devices."""
        return Commands(lambda name: self._find(instance, name.encode()), "this Vulkan instance")

    def device_commands(self, instance_commands: Commands, device: Any, owner: str) -> Commands:
        """Return the commands of a VkDevice."""
        find = instance_commands.vkGetDeviceProcAddr
        return Commands(lambda name: find(device, name.encode()), owner)
