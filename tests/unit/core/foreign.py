"""A VkInstance, VkPhysicalDevice and VkDevice made by the PyPI package `vulkan`, as another program makes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vulkan as other  # type: ignore[import-untyped]  # the package has no py.typed

__all__ = ["Foreign", "foreign", "other"]

EXTENSION = f"VK_KHR_external_memory_{'win32' if sys.platform == 'win32' else 'fd'}"


class Foreign:
    """The three handles, as the other binding has them and as numbers."""

    def __init__(self) -> None:
        self.instance = other.vkCreateInstance(
            other.VkInstanceCreateInfo(
                pApplicationInfo=other.VkApplicationInfo(
                    pApplicationName="foreign", applicationVersion=1, apiVersion=other.VK_MAKE_VERSION(1, 1, 0)
                )
            ),
            None,
        )
        self.physical = other.vkEnumeratePhysicalDevices(self.instance)[0]
        known = other.vkEnumerateDeviceExtensionProperties(self.physical, None)
        # Under Wine no extension shares Win32 handles; what shares nothing is tested there, too.
        self.extensions = [EXTENSION] if EXTENSION in [one.extensionName for one in known] else []
        queue = other.VkDeviceQueueCreateInfo(queueFamilyIndex=0, queueCount=1, pQueuePriorities=[1.0])
        self.device = other.vkCreateDevice(
            self.physical,
            other.VkDeviceCreateInfo(pQueueCreateInfos=[queue], ppEnabledExtensionNames=self.extensions),
            None,
        )

    @property
    def numbers(self) -> tuple[int, int, int]:
        return number(self.instance), number(self.physical), number(self.device)

    def close(self) -> None:
        other.vkDestroyDevice(self.device, None)
        other.vkDestroyInstance(self.instance, None)


def number(handle: Any) -> int:
    """Return a handle of the other binding as a number."""
    return int(other.ffi.cast("uintptr_t", handle))


@contextmanager
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    try:
        yield made
    finally:
        made.close()
