"""The Vulkan device: a real driver behind the `Backend` interface. This module finds what drivers there are.

::

    vk.loader ──> instance ──> physical ──> driver ──> allocation
                                  │            ├─────> transfer   (what moves bytes: queue, command buffer, staging)
                            capabilities       └─────> proving    (no unproven fd reaches a device in use)

One VkInstance serves a process; each opened device is a VkDevice of its own. The Win32 handle types are the driver's
own where it has them, and elsewhere its opaque fds in the object manager: `types` translates.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from extmem.devices import descriptor_shortage
from extmem.errors import DriverError, ExtmemError, UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import late_imports

if TYPE_CHECKING:
    from extmem.devices.backend import Offer
    from extmem.devices.vulkan.backend import VulkanBackend
    from extmem.devices.vulkan.instance import Instance
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.memory import Memories
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = [
    "WIN32_IS_NATIVE",
    "forget",
    "loaded_by",
    "memories_of",
    "missing",
    "new_loader",
    "offers",
    "shared_instance",
]

WIN32_IS_NATIVE = sys.platform == "win32"
"""Whether drivers of this platform make Win32 handles themselves."""
_instances: dict[int, Instance] = {}
"""This process's instance, by process id: a forked child must not use its parent's."""
_missing: dict[int, str] = {}
_make_loader: Callable[[], Any] | None = None
"""What stands in for the system's loader; None for the system's own."""


if sys.platform == "win32":

    def memories_of(device: LogicalDevice) -> Memories:
        """The memory part of a backend: drivers of Windows share by Win32 handles of their own."""
        from extmem.devices.vulkan.win32 import Win32Memories

        return Win32Memories(device)

else:

    def memories_of(device: LogicalDevice) -> Memories:
        """The memory part of a backend: sharing is the object manager's, over the driver's fds."""
        from extmem.devices.vulkan.memory import Memories

        return Memories(device)


def new_loader() -> Any:
    """The Vulkan loader of this process: what `Instance` takes. Errors: UnsupportedError without one."""
    if _make_loader is not None:
        return _make_loader()
    with late_imports():
        from extmem.vk.loader import Loader

    return Loader()


def shared_instance() -> Instance:
    """This process's VkInstance, made at the first call. Errors: UnsupportedError without loader or driver."""
    known = _instances.get(current_process.pid)
    if known is None:
        with late_imports():
            from extmem.devices.vulkan.instance import Instance

        known = _instances.setdefault(current_process.pid, Instance(new_loader()))
    return known


def offers() -> list[Offer]:
    """The Vulkan devices of this machine; none where Vulkan is not to be had, and `missing` says why."""
    pid = current_process.pid
    if _missing.get(pid):
        return []
    found: list[Offer] = []
    problems: list[str] = []
    try:
        for physical in shared_instance().physical_devices():
            try:
                found.append(physical.offer(partial(_open, physical)))
            except (UnsupportedError, DriverError) as error:
                problems.append(str(error))  # and the next one may be fine
    except (UnsupportedError, DriverError) as error:
        problems.append(str(error))
    if problems:
        descriptor_shortage.refuse("the Vulkan devices cannot be looked for")
    said = "; ".join(problems) or (
        "the loader finds no device of Vulkan 1.1 or later; install a driver for the GPU (on Debian software rendering "
        "is in mesa-vulkan-drivers)"
    )
    _missing[pid] = "" if found else said
    return found


def _open(physical: PhysicalDevice) -> VulkanBackend:
    with late_imports():
        from extmem.devices.vulkan.backend import VulkanBackend

    return VulkanBackend(physical)


def missing() -> str:
    """Why `offers` had none; empty where it had some, or was not asked."""
    return _missing.get(current_process.pid, "")


def forget() -> None:
    """Look again at the next call (for tests)."""
    _missing.clear()
    for known in _instances.values():
        try:
            known.close()
        except ExtmemError:
            continue
    _instances.clear()


@contextlib.contextmanager
def loaded_by(make_loader: Callable[[], Any]) -> Iterator[None]:
    """Within the block this process's Vulkan is another loader's (for tests); what was there before stays as it is.

    make_loader: makes what `Instance` takes. The instance is destroyed at the end, after the block's devices.
    """
    global _make_loader
    instances, absent, maker = dict(_instances), dict(_missing), _make_loader
    _instances.clear()
    _missing.clear()
    _make_loader = make_loader
    try:
        yield
    finally:
        forget()
        _make_loader = maker
        _instances.update(instances)
        _missing.update(absent)
