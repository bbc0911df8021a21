"""Sharing of semaphores and fences on Linux: VK_KHR_external_semaphore_fd and VK_KHR_external_fence_fd."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise ImportError("a driver's fds are Linux's; on Windows the fake driver has NT handles and KMT numbers")

from extmem import vk
from extmem.testing.fake_vulkan.execution import advance
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Fence, Queue, Semaphore, Share, SyncObject
from extmem.testing.fake_vulkan.sync_pages import SYNC_FILE_NAME, SyncPage

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__ = ["created"]

Result = vk.Result
_FD = int(vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_FD)
_SYNC_FD = {
    Semaphore: int(vk.ExternalSemaphoreHandleTypeFlagBits.SYNC_FD),
    Fence: int(vk.ExternalFenceHandleTypeFlagBits.SYNC_FD),
}
_TEMPORARY = 1
_NO_MEMORY = int(Result.ERROR_OUT_OF_HOST_MEMORY)
_BAD_HANDLE = int(Result.ERROR_INVALID_EXTERNAL_HANDLE)
_NOT_STARTED = int(Result.ERROR_INITIALIZATION_FAILED)
_TOO_MANY = int(Result.ERROR_TOO_MANY_OBJECTS)
_EXPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE)
_IMPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.IMPORTABLE)


def created(fake: FakeVulkan, device: Device, info: Any, kind: str, number: int) -> tuple[SyncPage, Share | None, int]:
    """Return the payload of a new object; and how it is shared, and its KMT number, on Windows alone."""
    try:
        return SyncPage.new(kind, number, device.gpu.device_uuid, device.gpu.driver_uuid), None, 0
    except OSError:
        raise Refusal(_NO_MEMORY) from None


def vkGetSemaphoreFdKHR(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """Export the current payload as a new fd."""
    semaphore = fake.get(info.semaphore, Semaphore, fake.get(handle, Device))
    return _exported(fake, semaphore, int(info.handleType), out)


def vkGetFenceFdKHR(fake: FakeVulkan, handle: Any, info: Any, out: Any) -> int:
    """Export the current payload as a new fd."""
    fence = fake.get(info.fence, Fence, fake.get(handle, Device))
    return _exported(fake, fence, int(info.handleType), out)


def _kind(item: SyncObject) -> str:
    return "fence" if isinstance(item, Fence) else "timeline" if getattr(item, "timeline", False) else "binary"


def _exported(fake: FakeVulkan, item: SyncObject, kind: int, out: Any) -> int:
    gpu = item.parent.gpu
    allowed = item.export_types
    if item.import_type:
        found = gpu.says_of_sync(_kind(item), item.import_type)
        allowed = found.export_from_imported if found is not None else 0
    if not allowed & kind or kind.bit_count() != 1:
        raise fake.wrong(f"{item} was not made to be exported as type {kind:#x}", _TOO_MANY)
    try:
        if kind == _FD:
            item.page.shared = True
            out[0] = os.dup(item.page.fd)
        else:
            out[0] = _copied(fake, item)
    except OSError:
        raise Refusal(_TOO_MANY) from None
    return 0


def _copied(fake: FakeVulkan, item: SyncObject) -> int:
    """Export a sync_file: -1 if the payload is signaled. The object is then as after a wait, or a reset."""
    advance(fake)
    page = item.page
    pending = [
        batch for queue in fake.living(Queue) for batch in queue.batches if page in (p for p, _ in batch.signals)
    ]
    if not page.number and not pending:
        fake.misuse(f"{item} is exported as a sync_file, and is neither signaled nor going to be")
    if page.number:
        item.restore()
        page.signal(0)
        return -1
    made = SyncPage.new(page.kind, 0, page.device_uuid, page.driver_uuid, name=SYNC_FILE_NAME)
    fd = os.dup(made.fd)
    # The signal goes to the copy: the object is as after a wait that was submitted.
    for batch in pending[-1:]:
        batch.copies.append(made)
        batch.signals = [(p, value) for p, value in batch.signals if p is not page]
        page.close()
    item.restore()
    return fd


def vkImportSemaphoreFdKHR(fake: FakeVulkan, handle: Any, info: Any) -> int:
    """Import a payload, and consume the fd."""
    semaphore = fake.get(info.semaphore, Semaphore, fake.get(handle, Device))
    return _imported(fake, semaphore, int(info.handleType), int(info.fd), int(info.flags))


def vkImportFenceFdKHR(fake: FakeVulkan, handle: Any, info: Any) -> int:
    """Import a payload, and consume the fd."""
    fence = fake.get(info.fence, Fence, fake.get(handle, Device))
    return _imported(fake, fence, int(info.handleType), int(info.fd), int(info.flags))


def _imported(fake: FakeVulkan, item: SyncObject, kind: int, fd: int, flags: int) -> int:
    device, temporary = item.parent, bool(flags & _TEMPORARY)
    found = device.gpu.says_of_sync(_kind(item), kind)
    if found is None or not found.features & _IMPORTABLE:
        raise fake.wrong(f"type {kind:#x} is imported into {item}, and cannot be", _BAD_HANDLE)
    is_copy = kind == _SYNC_FD[type(item)]
    if is_copy and not temporary:
        fake.misuse(f"a sync_file is imported into {item} permanently")
    if temporary and _kind(item) == "timeline":
        fake.misuse(f"{item} is a timeline, and the import is temporary")
    if fd == -1 and is_copy:
        signaled = SyncPage.new(_kind(item), 1, device.gpu.device_uuid, device.gpu.driver_uuid)
        item.replace(signaled, kind, temporary=temporary)
        return 0
    page = SyncPage.from_fd(fd)
    if page is None or page.is_sync_file != is_copy:
        return _refused(fake, item, fd, page)
    if not is_copy and (page.device_uuid, page.driver_uuid) != (device.gpu.device_uuid, device.gpu.driver_uuid):
        return _refused(fake, item, fd, page)
    if not is_copy and page.kind != _kind(item):
        silent = fake.manners.any_semaphore_type and "fence" not in (page.kind, _kind(item))
        if not silent:
            return _refused(fake, item, fd, page)
    item.replace(page, kind, temporary=temporary)
    return 0


def _refused(fake: FakeVulkan, item: SyncObject, fd: int, page: SyncPage | None) -> int:
    """Refuse an fd, which stays the caller's."""
    what = f"fd {fd} is the payload of a {page.kind}" if page is not None else f"fd {fd} is not a payload"
    if page is not None:
        page.forget()
    fake.bad_imports.append((item.parent.number, f"{what}, and is imported into {item}"))
    if fake.manners.bad_semaphore_fd_poisons and isinstance(item, Semaphore):
        fake.semaphores_poisoned_by = item.parent.number
        raise Refusal(_NOT_STARTED)
    raise Refusal(_BAD_HANDLE)
