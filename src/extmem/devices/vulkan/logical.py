"""`LogicalDevice`: a VkDevice, from vkCreateDevice to vkDestroyDevice. The parts of a backend are built on one."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.vulkan.owners import VkDeviceOwner, VkObject
from extmem.devices.vulkan.results import fail
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Lock, living
from extmem.vk import modifiers
from extmem.vk.abi import ffi
from extmem.vk.handle_types import MemoryHandleType
from extmem.vk.value_text import types_text

if TYPE_CHECKING:
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = ["FEATURES", "MOVING", "SHARING", "LogicalDevice"]

SHARING = frozenset(
    {
        "VK_KHR_external_memory_fd",
        "VK_EXT_external_memory_dma_buf",
        "VK_EXT_external_memory_host",
        "VK_EXT_queue_family_foreign",
        "VK_KHR_external_memory_win32",
        "VK_KHR_external_semaphore_fd",
        "VK_KHR_external_fence_fd",
        "VK_KHR_external_semaphore_win32",
        "VK_KHR_external_fence_win32",
        "VK_KHR_timeline_semaphore",
        "VK_KHR_synchronization2",
        modifiers.EXTENSION,
        modifiers.NEEDED,
    }
)
"""Extensions that sharing needs. A device is created with those of them that it has."""

FEATURES = {
    "timelineSemaphore": ("VK_KHR_timeline_semaphore", 2, "VkPhysicalDeviceTimelineSemaphoreFeatures"),
    "synchronization2": ("VK_KHR_synchronization2", 3, "VkPhysicalDeviceSynchronization2Features"),
}
"""Features that are used, with the extension, the minor version of Vulkan, and the struct of each.

A device with the extension, or of that version, has the feature.
"""
LEFT_OUT = frozenset({"synchronization2"})
"""Features that are not enabled for devices made here, only used on adopted devices that have them. This one changes
what barriers mean: a stage mask may be empty, and a transition between equal layouts is none.
"""

_S = vk.StructureType
_STRUCTS = {
    "timelineSemaphore": int(_S.PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES),
    "synchronization2": int(_S.PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES),
}
_HOST_VISIBLE = vk.MemoryPropertyFlagBits.HOST_VISIBLE
MOVING = int(vk.QueueFlagBits.GRAPHICS | vk.QueueFlagBits.COMPUTE | vk.QueueFlagBits.TRANSFER)
"""Queues with one of these flags copy."""


class LogicalDevice:
    """A VkDevice. Ownership: made here and destroyed at the end, or adopted (`device`) and left as it was."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """device: a VkDevice that another binding made, with this queue family's queue number `queue`."""
        self.physical = physical
        self.name = physical.identity.device_name
        self.queue_family = _choose_queue_family(physical) if queue_family is None else queue_family
        self.queue_index = queue
        self.owned = device is None
        self.enabled = _extensions_to_enable(physical) if self.owned else physical.extensions
        """Names of the device's extensions."""
        minor = physical.version >> 12 & 0x3FF
        self.features = frozenset(
            name
            for name, (needed, since, _) in FEATURES.items()
            if name not in LEFT_OUT and (needed in self.enabled or minor >= since)
        )
        """Names of the features that are enabled; those of an adopted device are set by its adoption."""
        self.owner = VkDeviceOwner(physical.instance.owner)
        if device is None:
            self._create()
        else:
            self.owner.handle = ffi.cast("VkDevice", device)
        self.handle: Any = self.owner.handle
        self.commands = physical.instance.loader.device_commands(physical.commands, self.handle, self.name)
        self.pid = current_process.pid
        self.memory_types = tuple(physical.memory_properties.memory_types)
        """The physical device's memory types."""
        self.host_visible = tuple(bool(one.property_flags & _HOST_VISIBLE) for one in self.memory_types)
        """For each memory type, whether the host can map it."""
        self.queue_lock = Lock()
        """Held while something is submitted to the queue, and by nothing else."""
        self.making = Lock()
        """Held while a thing is made that is made once: a mapping, an exported handle, a transfer buffer."""

    @property
    def living(self) -> int:
        """How many memories, buffers and images of this device there are. Takes time; for tests and benchmarks."""
        return sum(isinstance(made, VkObject) and made.is_of(self.owner) for made in living())

    @property
    def queue(self) -> int:
        """VkQueue as a number."""
        queue = ffi.new("VkQueue *")
        self.commands.vkGetDeviceQueue(self.handle, self.queue_family, self.queue_index, queue)
        return int(ffi.cast("uintptr_t", queue[0]))

    @cached_property
    def timeline_commands(self) -> tuple[Any, Any, Any]:
        """vkGetSemaphoreCounterValue, vkWaitSemaphores and vkSignalSemaphore."""
        names = ("vkGetSemaphoreCounterValue", "vkWaitSemaphores", "vkSignalSemaphore")
        counter, wait, signal = map(self.commands.promoted, names)
        return counter, wait, signal

    @cached_property
    def submit_2(self) -> Any:
        """vkQueueSubmit2; None without the feature synchronization2."""
        return self.commands.promoted("vkQueueSubmit2") if "synchronization2" in self.features else None

    @property
    def raw(self) -> int:
        """VkDevice as a number."""
        return int(ffi.cast("uintptr_t", self.handle))

    def _create(self) -> None:
        names = [ffi.new("char[]", name.encode()) for name in sorted(self.enabled)]
        listed = ffi.new("char *[]", names or [ffi.NULL])
        priority = ffi.new("float *", 1.0)
        queue_info = (int(_S.DEVICE_QUEUE_CREATE_INFO), ffi.NULL, 0, self.queue_family, 1, priority)
        queue = ffi.new("VkDeviceQueueCreateInfo *", queue_info)
        extensions = {"enabledExtensionCount": len(names), "ppEnabledExtensionNames": listed}
        queues = {"queueCreateInfoCount": 1, "pQueueCreateInfos": queue}
        chain, keep = ffi.NULL, []
        for name in sorted(self.features):
            chain = ffi.new(f"{FEATURES[name][2]} *", (_STRUCTS[name], chain, 1))
            keep.append(chain)  # a pointer in a struct keeps nothing
        links = {"sType": int(_S.DEVICE_CREATE_INFO), "pNext": chain}
        info = ffi.new("VkDeviceCreateInfo *", {**links, **queues, **extensions})
        result = self.owner.make(self.physical.commands, self.physical.handle, info)
        if result:
            fail(result, "vkCreateDevice", self.name)

    def check(self, result: int, command: str, tried: str = "") -> None:
        """Raise the error that a VkResult other than VK_SUCCESS means. tried: words for the error."""
        if result:
            fail(result, command, self.name, tried)

    def check_open(self) -> None:
        """Raise HandleStateError once closed, and in a forked child: the driver's threads stayed with the parent."""
        if self.pid != current_process.pid:
            raise HandleStateError(
                f"the device {self.name} was opened by process {self.pid}, and this is its forked child "
                f"{current_process.pid}; open it again with extmem.open_device(), or start children with spawn"
            )
        if self.owner.closing:
            raise HandleStateError(f"the device {self.name} is closed; open it again with extmem.open_device()")

    def unsupported_type(self, handle_type: MemoryHandleType) -> UnsupportedError:
        """What to raise for a handle type that the device does not import."""
        return UnsupportedError(
            f"{self.name} does not import {types_text(handle_type)} here; `extmem devices` lists what it does",
            requires_one_of=["a handle type that the device imports"],
        )

    def close(self) -> None:
        """vkDestroyDevice, when everything of it is destroyed. Safe to call twice. An adopted one is not destroyed."""
        self.owner.close()


def _extensions_to_enable(physical: PhysicalDevice) -> frozenset[str]:
    """The extensions to create a device with. DRM format modifiers need another one, which every driver has."""
    names = physical.extensions & SHARING - {FEATURES[feature][0] for feature in LEFT_OUT}
    return names if modifiers.NEEDED in names else names - {modifiers.EXTENSION}


def _choose_queue_family(physical: PhysicalDevice) -> int:
    """The number of the first queue family with the most of these capabilities."""
    able = [family for family in physical.queue_families if family.flags & MOVING and family.queue_count]
    if not able:
        raise UnsupportedError(
            f"{physical.identity.device_name} has no queue that can copy; choose another device",
            requires_one_of=["a queue family with TRANSFER"],
        )
    return max(able, key=lambda family: bin(family.flags & MOVING).count("1")).number
