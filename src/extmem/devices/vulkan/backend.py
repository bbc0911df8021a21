"""`VulkanBackend`: a VkDevice as a `Backend`, put together from its parts.

How this works. Each part has one subject, and is built on those before it; none knows the backend::

    LogicalDevice ──> Memories, Resources ──> Transfers ──> FdCheck ──> Imports

A member of `Backend` that a part implements as it is, is that part's method: `__init__` lists them. A VkDevice is
destroyed when it was closed and everything of it is destroyed (`owners`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from extmem.devices import host
from extmem.devices.vulkan.capabilities import Answers
from extmem.devices.vulkan.fd_check import FdCheck
from extmem.devices.vulkan.imports import Imports
from extmem.devices.vulkan.logical import LogicalDevice
from extmem.devices.vulkan.resources import Resources
from extmem.devices.vulkan.transfers import Transfers
from extmem.sharing.kinds import Backing

if sys.platform == "win32":
    from extmem.devices.vulkan.win32 import Win32Memories as Memories
else:
    from extmem.devices.vulkan.memory import Memories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem import vk
    from extmem.devices.sync import Batch, FenceSpec, NativeFence, NativeSemaphore, SemaphoreSpec
    from extmem.devices.types import ExaminedFd, QueueFacts
    from extmem.devices.vulkan.physical import PhysicalDevice
    from extmem.devices.vulkan.sync import VulkanSyncBackend
    from extmem.owning import Uses
    from extmem.vk.handle_types import SyncHandleType

__all__ = ["VulkanBackend"]


class VulkanBackend(Answers):
    """One VkDevice as a `Backend`, which documents its members."""

    kind = "vulkan"
    payload_backing = Backing.DRIVER_FD
    """The driver's own files, whose payloads the kernel does not identify."""
    allocates_zeroed = False
    """Vulkan leaves the content of new memory to the driver."""
    enabled_features: frozenset[str]
    """Features of semaphores on a VkDevice that extmem creates; of an adopted one, those that its owner stated."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """See `LogicalDevice`."""
        super().__init__(physical)
        self.device = LogicalDevice(physical, device=device, queue_family=queue_family, queue=queue)
        self.enabled_features = self.device.features
        self.memories = Memories(self.device)
        self.resources = Resources(self.device)
        self.transfers = Transfers(self.device, self.memories, self.resources)
        self.imports = Imports(
            self.device, self.memories, FdCheck(self.device, self.memories, self.resources, self.transfers)
        )

        limits = physical.properties.limits
        self.identity = physical.identity
        self.raw = self.device.raw
        """VkDevice as a number."""
        self.name = physical.identity.device_name
        self.max_memory_allocation_count = int(limits.max_memory_allocation_count)
        self.max_framebuffer = int(limits.max_framebuffer_width), int(limits.max_framebuffer_height)

        self.buffer_requirements = self.resources.buffer_requirements
        self.image_requirements = self.resources.image_requirements
        self.image_subresource_layout = self.resources.image_subresource_layout
        self.create_buffer = self.resources.create_buffer
        self.create_image = self.resources.create_image
        self.adopt_resource = self.resources.adopt
        self.bind = self.resources.bind

        self.allocate = self.memories.allocate
        self.export_fd = self.memories.export_fd
        self.imports_handles = self.memories.imports_handles
        self.handle_memory_type_bits = self.memories.handle_memory_type_bits
        self.examine_fd = self.imports.examine_fd
        self.import_fd = self.imports.import_fd
        self.import_payload = self.imports.import_payload
        self.import_host_pointer = self.imports.import_host_pointer
        self.fd_memory_type_bits = self.imports.fd_memory_type_bits
        self.host_pointer_memory_type_bits = self.imports.host_pointer_memory_type_bits
        self.host_range_mapped = host.range_is_mapped
        self.missing_for = self.imports.missing_for
        self.adopt_memory = self.imports.adopt_memory

        self.queue_facts: QueueFacts | None = self.transfers.queue_facts()
        self.flush = self.transfers.flush
        self.invalidate = self.transfers.invalidate
        self.write = self.transfers.write
        self.read = self.transfers.read
        self.fill = self.transfers.fill
        self.submit = self.transfers.submit
        self.finish_submitted = self.transfers.finish_submitted
        self.owns, self.release_ownership = self.transfers.owns, self.transfers.release_ownership

    def close(self) -> None:
        """See `Backend`. Errors: DriverError while commands run; safe to repeat."""
        self.transfers.close()
        self.device.close()

    # Semaphores and fences (`SyncBackend`), whose module is imported at their first use.

    @property
    def sync(self) -> VulkanSyncBackend:
        """The semaphores and fences of the device."""
        return self.transfers.sync

    @property
    def max_timeline_difference(self) -> int:
        return self.sync.max_timeline_difference

    @property
    def timelines(self) -> str:
        return self.sync.timelines

    @property
    def fences(self) -> str:
        return "driver"

    def external_semaphore_properties(
        self, info: vk.PhysicalDeviceExternalSemaphoreInfo
    ) -> vk.ExternalSemaphoreProperties:
        return self.sync.external_semaphore_properties(info)

    def external_fence_properties(self, info: vk.PhysicalDeviceExternalFenceInfo) -> vk.ExternalFenceProperties:
        return self.sync.external_fence_properties(info)

    def create_semaphore(self, spec: SemaphoreSpec) -> NativeSemaphore:
        return self.sync.create_semaphore(spec)

    def create_fence(self, spec: FenceSpec) -> NativeFence:
        return self.sync.create_fence(spec)

    def examine_sync_fd(
        self,
        fd: int,
        handle_type: SyncHandleType,
        *,
        fence: bool = False,
        timeline: bool = False,
        trusted: bool = False,
    ) -> ExaminedFd:
        return self.sync.examine_sync_fd(fd, handle_type, fence=fence, timeline=timeline, trusted=trusted)

    def wait_semaphores(
        self, waits: Sequence[tuple[NativeSemaphore, int]], *, any_of: bool = False, timeout_ns: int = 0
    ) -> bool:
        return self.sync.wait_semaphores(waits, any_of=any_of, timeout_ns=timeout_ns)

    def wait_fences(self, fences: Sequence[NativeFence], *, any_of: bool = False, timeout_ns: int = 0) -> bool:
        return self.sync.wait_fences(fences, any_of=any_of, timeout_ns=timeout_ns)

    def submit_batches(
        self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses, *, wait: bool = False
    ) -> None:
        self.sync.submit_batches(batches, fence, uses, wait=wait)
