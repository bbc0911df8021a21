"""The steps of the tests of semaphores and fences on Windows. Peers import this module, too."""

from __future__ import annotations

import extmem
from extmem import vk
from extmem.api import Device
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.api.timeline import Timeline
from extmem.handles import KmtHandle, NtHandle

__all__ = [
    "KINDS",
    "PEER",
    "SEMAPHORE",
    "FENCE",
    "WAIT_ALONE",
    "create",
    "extmem",
    "handle_of",
    "import_into",
    "is_signaled",
    "signal",
    "vk",
]

SEMAPHORE, FENCE = vk.ExternalSemaphoreHandleTypeFlagBits, vk.ExternalFenceHandleTypeFlagBits
KINDS = ("timeline", "binary", "fence")
WAIT_ALONE = 0x8000_0000
"""GENERIC_READ: READ_CONTROL and the right to wait (0x20001)."""
PEER = "from tests.windows.sync_steps import *\ndevice = extmem.open_device(kind='host')\nNone"
"""What a peer runs first, to import the steps and open a device."""


def create(
    device: Device,
    kind: str,
    *,
    name: str | None = None,
    access: int = 0x1000_0000,
    security: vk.SecurityAttributes | None = None,
    types: int = 0x2,
) -> Semaphore | Fence:
    """Create a semaphore or fence that is exported; for OPAQUE_WIN32 with VkExport…Win32HandleInfoKHR too."""
    if kind == "fence":
        stated = vk.ExportFenceWin32HandleInfoKHR(security, access, name) if types & 2 else None
        return device.create_fence(vk.FenceCreateInfo(p_next=vk.ExportFenceCreateInfo(FENCE(types), stated)))
    win32 = vk.ExportSemaphoreWin32HandleInfoKHR(security, access, name) if types & 2 else None
    chain: vk.ChainStruct = vk.ExportSemaphoreCreateInfo(SEMAPHORE(types), win32)
    if kind == "timeline":
        chain = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, 0, chain)
    return device.create_semaphore(vk.SemaphoreCreateInfo(p_next=chain))


def handle_of(device: Device, item: Semaphore | Fence, bit: int = 0x2) -> NtHandle | KmtHandle:
    """Call vkGet…Win32HandleKHR."""
    if isinstance(item, Fence):
        return device.get_fence_win32_handle(vk.FenceGetWin32HandleInfoKHR(item, FENCE(bit)))
    return device.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(item, SEMAPHORE(bit)))


def import_into(
    device: Device,
    kind: str,
    handle: object = None,
    name: str | None = None,
    bit: int = 0x2,
    *,
    temporary: bool = False,
) -> Semaphore | Fence:
    """Create an object of this kind, and import a payload into it. It is closed again if that is refused."""
    item: Semaphore | Fence
    if kind == "fence":
        item = device.create_fence(vk.FenceCreateInfo())
    else:
        chain = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE, 0) if kind == "timeline" else None
        item = device.create_semaphore(vk.SemaphoreCreateInfo(p_next=chain))
    try:
        if isinstance(item, Fence):
            device.import_fence_win32_handle(
                vk.ImportFenceWin32HandleInfoKHR(item, int(temporary), FENCE(bit), handle, name)
            )
        else:
            device.import_semaphore_win32_handle(
                vk.ImportSemaphoreWin32HandleInfoKHR(item, int(temporary), SEMAPHORE(bit), handle, name)
            )
    except BaseException:
        item.close()
        raise
    return item


def signal(device: Device, item: Semaphore | Fence) -> None:
    """Signal it: a timeline with 1 more, the others by a submission."""
    if isinstance(item, Fence):
        device.queue_submit([], item)
    elif item.semaphore_type == vk.SemaphoreType.TIMELINE:
        device.signal_semaphore(vk.SemaphoreSignalInfo(item, device.get_semaphore_counter_value(item) + 1))
    else:
        device.queue_submit([vk.SubmitInfo(signal_semaphores=[item])])


def is_signaled(device: Device, item: Semaphore | Fence, value: int = 1) -> bool:
    """Whether it is signaled now; a binary semaphore's signal is taken."""
    if isinstance(item, Fence):
        return device.get_fence_status(item)
    if item.semaphore_type == vk.SemaphoreType.TIMELINE:
        return device.get_semaphore_counter_value(item) >= value
    native = item.record.native
    return bool(native.submit_wait(0))


def timeline(device: Device, name: str) -> Timeline:
    """Open a timeline by name."""
    return extmem.open_timeline(name, device=device)
