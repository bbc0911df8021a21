"""A VkInstance, VkPhysicalDevice and VkDevice made by the PyPI package `vulkan`, as other people make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vulkan as other  # type: ignore[import-untyped]  # the package has no py.typed

__all__ = ["Foreign", "foreign", "other"]

EXTENSIONS = ["VK_KHR_external_memory_fd"]


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
        queue = other.VkDeviceQueueCreateInfo(queueFamilyIndex=0, queueCount=1, pQueuePriorities=[1.0])
        self.device = other.vkCreateDevice(
            self.physical,
            other.VkDeviceCreateInfo(pQueueCreateInfos=[queue], ppEnabledExtensionNames=EXTENSIONS),
            None,
        )

    @property
    def numbers(self) -> tuple[int, int, int]:
        return number(self.instance), number(self.physical), number(self.device)

    def close(self) -> None:
        other.vkDestroyDevice(self.device, None)
        other.vkDestroyInstance(self.instance, None)


def number(handle: Any) -> int:
    """A handle of the other binding as a number."""
    return int(other.ffi.cast("uintptr_t", handle))


@contextmanager
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    try:
        yield made
    finally:
        made.close()
