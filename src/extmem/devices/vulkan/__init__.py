"""The Vulkan device: a driver behind the `Backend` interface. This module finds the devices of the drivers.

One VkInstance serves a process; each opened device is a VkDevice of its own (`backend` shows its parts). The Win32
handle types are the driver's own on Windows. Elsewhere they stand for its opaque fds in the object manager
(`handle_types`).
"""

from __future__ import annotations

import contextlib
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
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = [
    "forget",
    "loaded_by",
    "missing",
    "new_loader",
    "offers",
    "shared_instance",
]

_instances: dict[int, Instance] = {}
"""This process's VkInstance, by process id: a forked child must not use its parent's."""
_missing: dict[int, str] = {}
_make_loader: Callable[[], Any] | None = None
"""Returns a replacement of the system's loader (for tests); None for the system's own."""


def new_loader() -> Any:
    """Return the Vulkan loader of this process, for `Instance`. Errors: UnsupportedError without one."""
    if _make_loader is not None:
        return _make_loader()
    with late_imports():
        from extmem.vk.loader import Loader

    return Loader()


def shared_instance() -> Instance:
    """Return this process's VkInstance, created at the first call. Errors: UnsupportedError without a driver."""
    instance = _instances.get(current_process.pid)
    if instance is None:
        with late_imports():
            from extmem.devices.vulkan.instance import Instance

        instance = _instances.setdefault(current_process.pid, Instance(new_loader()))
    return instance


def offers() -> list[Offer]:
    """Return the Vulkan devices of this machine. If there are none, `missing` returns the reason."""
    pid = current_process.pid
    if _missing.get(pid):
        return []
    offered: list[Offer] = []
    problems: list[str] = []
    try:
        for physical in shared_instance().physical_devices():
            try:
                offered.append(_offer(physical))
            except (UnsupportedError, DriverError) as error:
                problems.append(str(error))  # and the next one may be fine
    except (UnsupportedError, DriverError) as error:
        problems.append(str(error))
    if problems:
        descriptor_shortage.refuse("the Vulkan devices cannot be searched")
    reason = "; ".join(problems) or (
        "the loader finds no device of Vulkan 1.1 or later; install a driver for the GPU (on Debian software rendering "
        "is in mesa-vulkan-drivers)"
    )
    _missing[pid] = "" if offered else reason
    return offered


def _offer(physical: PhysicalDevice) -> Offer:
    with late_imports():
        from extmem.devices.backend import Offer
        from extmem.devices.vulkan.capabilities import Answers

    return Offer("vulkan", physical.identity, physical.rank, partial(_open, physical), partial(Answers, physical))


def _open(physical: PhysicalDevice) -> VulkanBackend:
    with late_imports():
        from extmem.devices.vulkan.backend import VulkanBackend

    return VulkanBackend(physical)


def missing() -> str:
    """Why `offers` returned none; empty if it returned some, or was not called."""
    return _missing.get(current_process.pid, "")


def forget() -> None:
    """Search again at the next call (for tests)."""
    _missing.clear()
    for instance in _instances.values():
        try:
            instance.close()
        except ExtmemError:
            continue
    _instances.clear()


@contextlib.contextmanager
def loaded_by(make_loader: Callable[[], Any]) -> Iterator[None]:
    """Within the block this process uses another loader (for tests). Afterwards everything is as before.

    make_loader: returns what `Instance` takes. The instance is destroyed at the end, after the block's devices.
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
