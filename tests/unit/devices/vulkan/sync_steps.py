"""The steps of the tests of semaphores and fences: a scripted driver, and payloads as the object manager gives them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import extmem
from extmem.devices.host import HAS_FDS
from extmem.devices.sync import Batch, FenceSpec, NativeSync, SemaphoreSignal, SemaphoreSpec, SemaphoreWait
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.fences import VulkanFence
from extmem.devices.vulkan.semaphores import VulkanSemaphore
from extmem.owning import Uses, copy_fd
from extmem.sharing.payload import PayloadFd
from extmem.testing import fake_vulkan
from extmem.vk.handle_types import (
    FENCE_OPAQUE_FD,
    FENCE_OPAQUE_WIN32,
    SEMAPHORE_OPAQUE_FD,
    SEMAPHORE_OPAQUE_WIN32,
)

SHARED_SEMAPHORE = SEMAPHORE_OPAQUE_FD if HAS_FDS else SEMAPHORE_OPAQUE_WIN32
SHARED_FENCE = FENCE_OPAQUE_FD if HAS_FDS else FENCE_OPAQUE_WIN32
"""What drivers of this system share them as."""
SECOND = 1_000_000_000
"""Nanoseconds."""


@contextlib.contextmanager
def fake_backend(
    gpu: fake_vulkan.Gpu = fake_vulkan.DISCRETE, manners: fake_vulkan.Manners | None = None
) -> Iterator[tuple[fake_vulkan.FakeVulkan, VulkanBackend]]:
    """Open a device of a scripted driver. At the end nothing is left, and the driver has recorded no misuse."""
    fake = fake_vulkan.FakeVulkan([gpu], manners or fake_vulkan.Manners())
    with fake_vulkan.installed(fake):
        with extmem.open_device(kind="vulkan") as device:
            assert isinstance(device.backend, VulkanBackend)
            yield fake, device.backend
        assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()


def sharing(*sync: fake_vulkan.ExternalSync) -> fake_vulkan.Gpu:
    """Return a GPU that shares these semaphores and fences."""
    return replace(fake_vulkan.DISCRETE, sync=sync)


def semaphore(backend: VulkanBackend, *, timeline: bool = False, shared: bool = False) -> VulkanSemaphore:
    """Create a semaphore."""
    types = SHARED_SEMAPHORE if shared else 0
    made = backend.create_semaphore(SemaphoreSpec(timeline, export_types=types))
    assert isinstance(made, VulkanSemaphore)
    return made


def fence(backend: VulkanBackend, *, signaled: bool = False, shared: bool = False) -> VulkanFence:
    """Create a fence."""
    made = backend.create_fence(FenceSpec(signaled, SHARED_FENCE if shared else 0))
    assert isinstance(made, VulkanFence)
    return made


def payload_of(native: NativeSync, *, writable: bool = True) -> PayloadFd:
    """Return the payload as the object manager gives it to an importer: copies of its fd and of its pages."""
    assert native.fd is not None
    pages = [copy_fd(page.handle) for page in native.pages]
    return PayloadFd(copy_fd(native.fd), writable, pages, [2 if writable else 1] * len(pages))


def signal(backend: VulkanBackend, one: VulkanSemaphore, value: int = 0) -> None:
    """Submit a batch that signals a semaphore."""
    backend.submit_batches([Batch(signals=[SemaphoreSignal(one, value)])], None, Uses())


def wait_for(backend: VulkanBackend, one: VulkanSemaphore, value: int = 0, then: VulkanFence | None = None) -> None:
    """Submit a batch that waits for a semaphore, and then signals a fence."""
    backend.submit_batches([Batch(waits=[SemaphoreWait(one, value)])], then, Uses())
