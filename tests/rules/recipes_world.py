"""The fixtures of hand-written calls that raise a rule: devices, memory, resources, and the table of these calls.

A recipe takes a `World` and returns the rules that its last call broke. The world closes what it opens.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import extmem
from extmem import vk
from extmem.rules.violation import OWN
from extmem.testing import fake_vulkan

__all__ = ["HAS_FDS", "RECIPES", "SHARED", "SIZE", "Kind", "Recipe", "T", "World", "dedicate", "recipe"]

T = vk.ExternalMemoryHandleTypeFlagBits
HAS_FDS = sys.platform == "linux"
SHARED = T.OPAQUE_FD if HAS_FDS else T.OPAQUE_WIN32
"""How a scripted GPU of this system shares."""
SIZE = 65536
Kind = Literal["buffer", "image"]


class World:
    """The host device, and scripted GPUs; a context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        self.host = self.keep(extmem.open_device(kind="host"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def keep(self, thing: Any) -> Any:
        """Close it at the end, and return it."""
        return self._stack.enter_context(thing)

    def gpu(self, manners: fake_vulkan.Manners | None = None, **fields: Any) -> extmem.Device:
        """A scripted GPU whose memory is host-visible, without synchronization2, which allows more in barriers."""
        without = tuple(name for name in fake_vulkan.INTEGRATED.extensions if name != "VK_KHR_synchronization2")
        gpu = replace(fake_vulkan.INTEGRATED, **{"extensions": without, **fields})
        self.keep(fake_vulkan.installed(fake_vulkan.FakeVulkan([gpu], manners=manners or fake_vulkan.Manners())))
        device: extmem.Device = self.keep(extmem.open_device(kind="vulkan"))
        return device

    def resource(self, device: extmem.Device, kind: Kind, types: int = 0, **fields: Any) -> Any:
        """A buffer of 4 KiB, or an image of 64 x 64 texels."""
        info: Any
        if kind == "buffer":
            chain: Any = vk.ExternalMemoryBufferCreateInfo(types) if types else None
            info = vk.BufferCreateInfo(**{"size": 4096, "usage": 3, "p_next": chain, **fields})
            return self.keep(device.create_buffer(info))
        chain = vk.ExternalMemoryImageCreateInfo(types) if types else None
        known: dict[str, Any] = {
            "image_type": vk.ImageType.TYPE_2D,
            "format": vk.Format.R8G8B8A8_UNORM,
            "extent": vk.Extent3D(64, 64, 1),
            "usage": 3,
            "p_next": chain,
        }
        return self.keep(device.create_image(vk.ImageCreateInfo(**{**known, **fields})))

    def memory(self, device: extmem.Device, chain: Any = None, size: int = SIZE, index: int = 0) -> Any:
        """Memory with this chain."""
        return self.keep(device.allocate_memory(vk.MemoryAllocateInfo(size, index, chain)))

    def dedicated(self, device: extmem.Device, resource: Any, export: int = 0) -> Any:
        """Memory dedicated to this resource."""
        chain = vk.ExportMemoryAllocateInfo(export) if export else None
        return self.memory(device, dedicate(resource, chain), resource.requirements.size)

    def imported(self, device: extmem.Device) -> Any:
        """Memory that was imported by an NT handle."""
        made = self.memory(device, vk.ExportMemoryAllocateInfo(T.OPAQUE_WIN32))
        handle = self.keep(made.export_handle(T.OPAQUE_WIN32))
        return self.memory(device, vk.ImportMemoryWin32HandleInfoKHR(T.OPAQUE_WIN32, handle))


def dedicate(resource: Any, chain: Any = None) -> vk.MemoryDedicatedAllocateInfo:
    buffer = isinstance(resource, extmem.Buffer)
    return vk.MemoryDedicatedAllocateInfo(None if buffer else resource, resource if buffer else None, chain)


Recipe = Callable[[World], set[str]]
RECIPES: dict[str, Recipe] = {}


def recipe(*vuids: str) -> Callable[[Recipe], Recipe]:
    def enter(made: Recipe) -> Recipe:
        for vuid in vuids:
            RECIPES[vuid if vuid.startswith(OWN) else f"VUID-{vuid}"] = made
        return made

    return enter
