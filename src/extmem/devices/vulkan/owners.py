"""Owners of what a Vulkan driver creates: VkInstance, VkDevice, and the objects of a device.

How this works. Each holds what it was made from until it is destroyed itself (`extmem.owning`): an object its
VkDevice, a VkDevice its VkInstance, and that the loader, without whose library no destroying function can be called.
So the order of destruction is right in whichever order they are closed or lost.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from extmem.owning import Making, Owner
from extmem.vk.abi import ffi
from extmem.vk.loader import Loader

__all__ = ["VkDeviceOwner", "VkInstanceOwner", "VkObject", "VkOwner"]


class VkOwner(Owner):
    """One thing that a driver has made; see the module."""

    __slots__ = ("_hold", "_parent")

    def __init__(self, parent: VkOwner | Loader) -> None:
        super().__init__()
        self._parent = parent
        self._hold = parent.hold() if isinstance(parent, VkOwner) else None

    def _make(
        self,
        command: Any,
        arguments: tuple[Any, ...],
        made: Any,
        destroy: Any,
        before: tuple[Any, ...] = (),
        consumes: Owner | None = None,
    ) -> Making:
        making = Making(command, arguments, made, destroy, before=before, after=(ffi.NULL,), consumes=consumes)
        # The second step keeps the parent until the first is done: lost together, in one circle of references, the
        # parent must not be destroyed first.
        self.owe(chain(making.steps, ((id, self._parent),)))
        if making.result or not made[0]:
            self.forget()
            self.give_back()
        elif consumes is not None:
            consumes.give_back()  # owes nothing any more
        return making

    def close(self) -> None:
        """Destroy it, as soon as nothing that was made from it is left. Safe to call twice."""
        self.end()

    def give_back(self) -> None:
        """See `Owner`."""
        super().give_back()
        if self._hold is not None and isinstance(self._parent, VkOwner):
            self._hold = None
            if self._parent.closing:
                self._parent.end()


class VkInstanceOwner(VkOwner):
    """A VkInstance."""

    __slots__ = ("handle",)

    def __init__(self, loader: Loader) -> None:
        super().__init__(loader)
        self.handle: Any = None

    def make(self, loader: Loader, info: Any) -> int:
        """vkCreateInstance; the VkResult."""

        def destroy(handle: Any, allocator: Any) -> None:
            loader.instance_commands(handle).vkDestroyInstance(handle, allocator)

        made = ffi.new("VkInstance *")
        making = self._make(loader.commands.vkCreateInstance, (info, ffi.NULL, made), made, destroy)
        if made[0]:
            self.handle = made[0]
            # The command is found by the handle alone. From here on it is called without Python code around it.
            self._owed[0] = (loader.instance_commands(self.handle).vkDestroyInstance, self.handle, ffi.NULL)
        return making.result


class VkDeviceOwner(VkOwner):
    """A VkDevice."""

    __slots__ = ("handle",)

    def __init__(self, instance: VkInstanceOwner) -> None:
        super().__init__(instance)
        self.handle: Any = None

    def make(self, commands: Any, physical_device: Any, info: Any) -> int:
        """vkCreateDevice; the VkResult. commands: the instance's."""
        made = ffi.new("VkDevice *")
        arguments = (physical_device, info, ffi.NULL, made)
        making = self._make(commands.vkCreateDevice, arguments, made, commands.vkDestroyDevice)
        self.handle = made[0]
        return making.result


class VkObject(VkOwner):
    """An object of a VkDevice: memory, a buffer, an image, a command pool, a fence."""

    __slots__ = ("_device", "raw")

    def __init__(self, device: VkDeviceOwner) -> None:
        super().__init__(device)
        self._device = device
        self.raw = 0
        """The handle; 0 before it is made, and once it is destroyed."""

    def make(
        self, command: Any, arguments: tuple[Any, ...], made: Any, destroy: Any, consumes: Owner | None = None
    ) -> Making:
        """Call a command that puts the handle into `made[0]`, and owe its destruction. The call, with its VkResult."""
        making = self._make(command, arguments, made, destroy, (self._device.handle,), consumes)
        self.raw = 0 if making.result else int(made[0])
        return making

    def is_of(self, device: VkDeviceOwner) -> bool:
        """Whether it is that device's."""
        return self._device is device and self.raw != 0

    def give_back(self) -> None:
        """See `Owner`."""
        super().give_back()
        self.raw = 0
