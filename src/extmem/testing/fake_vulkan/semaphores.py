"""Semaphores and fences: creating, waiting on the host, signaling, resetting, and what can be shared of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.testing.fake_vulkan._system import sync_sharing
from extmem.testing.fake_vulkan.devices import complete
from extmem.testing.fake_vulkan.execution import advance, is_pending
from extmem.testing.fake_vulkan.machine import Refusal
from extmem.testing.fake_vulkan.objects import Device, Fence, Physical, Semaphore, SyncObject
from extmem.vk.abi import from_c

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__: list[str] = []

Result = vk.Result
_NOT_STARTED = int(Result.ERROR_INITIALIZATION_FAILED)
_TIMEOUT, _NOT_READY = int(Result.TIMEOUT), int(Result.NOT_READY)
_TIMELINE = int(vk.SemaphoreType.TIMELINE)
_EXPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE)
_POLL_S = 0.001
_FOR_EVER = 1 << 63
"""Nanoseconds. A fence may be submitted while another thread waits for it, but a wait without an end is a fault."""


# What can be shared.


def vkGetPhysicalDeviceExternalSemaphoreProperties(fake: FakeVulkan, handle: Any, asked: Any, out: Any) -> None:
    """Answer as the `Gpu` states for the semaphore type in the chain."""
    gpu = fake.get(handle, Physical).gpu
    info = from_c(vk.PhysicalDeviceExternalSemaphoreInfo, asked)
    chained = vk.find(info, vk.SemaphoreTypeCreateInfo)
    kind = "timeline" if chained is not None and int(chained.semaphore_type) == _TIMELINE else "binary"
    found = gpu.says_of_sync(kind, _one_bit(fake, int(asked.handleType)))
    out.externalSemaphoreFeatures = found.features if found is not None else 0
    out.compatibleHandleTypes = found.compatible if found is not None else 0
    out.exportFromImportedHandleTypes = found.export_from_imported if found is not None else 0


def vkGetPhysicalDeviceExternalFenceProperties(fake: FakeVulkan, handle: Any, asked: Any, out: Any) -> None:
    """Answer as the `Gpu` states."""
    found = fake.get(handle, Physical).gpu.says_of_sync("fence", _one_bit(fake, int(asked.handleType)))
    out.externalFenceFeatures = found.features if found is not None else 0
    out.compatibleHandleTypes = found.compatible if found is not None else 0
    out.exportFromImportedHandleTypes = found.export_from_imported if found is not None else 0


def _one_bit(fake: FakeVulkan, handle_type: int) -> int:
    if handle_type.bit_count() != 1:
        raise fake.wrong(f"handleType {handle_type:#x} is not one type")
    return handle_type


# Creating and destroying.


def vkCreateSemaphore(fake: FakeVulkan, handle: Any, raw: Any, allocator: Any, out: Any) -> int:
    """Create a semaphore with a payload of its own."""
    device = fake.get(handle, Device)
    info = from_c(vk.SemaphoreCreateInfo, raw)
    kind_info, export = vk.find(info, vk.SemaphoreTypeCreateInfo), vk.find(info, vk.ExportSemaphoreCreateInfo)
    timeline = kind_info is not None and int(kind_info.semaphore_type) == _TIMELINE
    initial = int(kind_info.initial_value) if kind_info is not None else 0
    types = int(export.handle_types) if export is not None else 0
    if timeline and "timelineSemaphore" not in device.features:
        fake.misuse("a timeline semaphore is created, and the feature timelineSemaphore is not enabled")
    if initial and not timeline:
        fake.misuse(f"a binary semaphore is created with the initial value {initial}")
    kind = "timeline" if timeline else "binary"
    _check_export(fake, device, kind, types)
    if fake.semaphores_poisoned_by:
        raise Refusal(_NOT_STARTED)
    page, share, number = sync_sharing()[0].created(fake, device, info, kind, initial)
    out[0] = fake.add(Semaphore(device, page, types, timeline=timeline, share=share, kmt=number))
    return 0


def vkCreateFence(fake: FakeVulkan, handle: Any, raw: Any, allocator: Any, out: Any) -> int:
    """Create a fence, signaled or not, with a payload of its own."""
    device = fake.get(handle, Device)
    info = from_c(vk.FenceCreateInfo, raw)
    export = vk.find(info, vk.ExportFenceCreateInfo)
    types = int(export.handle_types) if export is not None else 0
    _check_export(fake, device, "fence", types)
    page, share, number = sync_sharing()[0].created(fake, device, info, "fence", int(info.flags) & 1)
    out[0] = fake.add(Fence(device, page, types, share=share, kmt=number))
    return 0


def _check_export(fake: FakeVulkan, device: Device, kind: str, types: int) -> None:
    for bit in (1 << place for place in range(types.bit_length()) if types >> place & 1):
        found = device.gpu.says_of_sync(kind, bit)
        if found is None or not found.features & _EXPORTABLE:
            fake.misuse(f"a {kind} cannot be exported as type {bit:#x}, which is among the export types")


def vkDestroySemaphore(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Destroy a semaphore, which pending work must not use."""
    _destroy(fake, handle, raw, Semaphore)


def vkDestroyFence(fake: FakeVulkan, handle: Any, raw: int, allocator: Any) -> None:
    """Destroy a fence, which pending work must not signal."""
    _destroy(fake, handle, raw, Fence)


def _destroy(fake: FakeVulkan, handle: Any, raw: int, kind: type[SyncObject]) -> None:
    device = fake.get(handle, Device)
    if raw:
        found = fake.get(raw, kind, device)
        busy = bool(found.running) or is_pending(fake, found)
        if busy and not device.lost:
            fake.misuse(f"{found} is destroyed while work that uses it may still run")
        fake.end(found)
        found.close()


# Host operations.


def wait_until(fake: FakeVulkan, is_done: Callable[[], bool], timeout_ns: int) -> bool:
    """Let other threads and processes go on until `is_done` returns True. Return whether it did within the time."""
    deadline = time.monotonic_ns() + timeout_ns
    while True:
        advance(fake)
        if is_done():
            return True
        remaining = (deadline - time.monotonic_ns()) / 1e9
        if remaining <= 0:
            return False
        fake.wait_for_change(min(remaining, _POLL_S))


def vkGetSemaphoreCounterValue(fake: FakeVulkan, handle: Any, raw: int, out: Any) -> int:
    """Return the counter of a timeline."""
    advance(fake)
    out[0] = _timeline(fake, fake.get(handle, Device), raw).page.number
    return 0


def _timeline(fake: FakeVulkan, device: Device, raw: int) -> Semaphore:
    found = fake.get(raw, Semaphore, device)
    if not found.timeline:
        raise fake.wrong(f"{found} is binary, and the command takes timelines")
    return found


def vkWaitSemaphores(fake: FakeVulkan, handle: Any, info: Any, timeout: int) -> int:
    """Wait until the timelines have reached their values."""
    device = fake.get(handle, Device)
    waits = [
        (_timeline(fake, device, info.pSemaphores[index]), int(info.pValues[index]))
        for index in range(info.semaphoreCount)
    ]
    combine = any if int(info.flags) & int(vk.SemaphoreWaitFlagBits.ANY) else all
    reached = wait_until(fake, lambda: combine(one.page.number >= value for one, value in waits), int(timeout))
    return 0 if reached else _TIMEOUT


def vkSignalSemaphore(fake: FakeVulkan, handle: Any, info: Any) -> int:
    """Raise the counter of a timeline."""
    found = _timeline(fake, fake.get(handle, Device), info.semaphore)
    if int(info.value) <= found.page.number:
        fake.misuse(f"{found} has the value {found.page.number}, and {int(info.value)} is signaled")
    found.page.signal(int(info.value))
    advance(fake)
    return 0


def vkGetFenceStatus(fake: FakeVulkan, handle: Any, raw: int) -> int:
    """Return whether the fence is signaled, which completes what was submitted with it."""
    fence = fake.get(raw, Fence, fake.get(handle, Device))
    advance(fake)
    if not fence.page.number:
        return _NOT_READY
    _complete(fence)
    return 0


def vkWaitForFences(fake: FakeVulkan, handle: Any, count: int, fences: Any, every: int, timeout: int) -> int:
    """Wait for fences, and complete what was submitted with them."""
    device = fake.get(handle, Device)
    waited = [fake.get(raw, Fence, device) for raw in fences[0:count]]
    advance(fake)
    for fence in waited:
        unsignaled = not fence.page.number and not fence.page.shared and not is_pending(fake, fence)
        if unsignaled and timeout >= _FOR_EVER:
            fake.misuse("a fence is waited for that nothing signals")
            raise Refusal(_TIMEOUT)
    combine = all if every else any
    if not wait_until(fake, lambda: combine(fence.page.number for fence in waited), int(timeout)):
        return _TIMEOUT
    for fence in waited:
        if fence.page.number:
            _complete(fence)
    return 0


def _complete(fence: Fence) -> None:
    for buffer in fence.running:
        complete(buffer)
    fence.waiting = []  # the buffers may be submitted again, with other fences


def vkResetFences(fake: FakeVulkan, handle: Any, count: int, fences: Any) -> int:
    """Reset fences, which pending work must not signal. A temporary payload ends first."""
    device = fake.get(handle, Device)
    for raw in fences[0:count]:
        fence = fake.get(raw, Fence, device)
        if fence.running or is_pending(fake, fence):
            fake.misuse(f"{fence} is reset while work that signals it may still run")
        fence.restore()
        fence.page.signal(0)
        fence.waiting = []
    return 0
