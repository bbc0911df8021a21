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
    from extmem.devices.types import QueueFacts
    from extmem.devices.vulkan.physical import PhysicalDevice

__all__ = ["VulkanBackend"]


class VulkanBackend(Answers):
    """One VkDevice as a `Backend`, which documents its members."""

    kind = "vulkan"
    payload_backing = Backing.DRIVER_FD
    """The driver's own files, whose payloads the kernel does not identify."""
    allocates_zeroed = False
    """Vulkan leaves the content of new memory to the driver."""
    enabled_features: frozenset[str] = frozenset()
    """No feature is enabled on a VkDevice that extmem creates; of an adopted one, those that its owner stated."""

    def __init__(
        self, physical: PhysicalDevice, *, device: int | None = None, queue_family: int | None = None, queue: int = 0
    ) -> None:
        """See `LogicalDevice`."""
        super().__init__(physical)
        self.device = LogicalDevice(physical, device=device, queue_family=queue_family, queue=queue)
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
        self.release_ownership = self.transfers.release_ownership

    def close(self) -> None:
        """See `Backend`. Errors: DriverError while commands run; safe to repeat."""
        self.transfers.close()
        self.device.close()
