"""What some drivers and allocations can besides what `base` asks of all: whoever needs it asks `isinstance`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import Allocation
    from extmem.devices.resources import NativeResource
    from extmem.devices.types import Origin
    from extmem.sharing.payload import PayloadFd

__all__ = [
    "AdoptsMemory",
    "WrapsPointers",
    "DescribesFormats",
    "FinishesLater",
    "ReleasesOwnership",
    "ImportsByDescriptor",
    "ImportsHandles",
    "RepeatsImports",
]


@runtime_checkable
class AdoptsMemory(Protocol):
    """A driver whose memory objects other bindings make, too."""

    def adopt_memory(
        self,
        raw: int,
        size: int,
        memory_type_index: int,
        handle_types: int,
        dedicated: NativeResource | None,
        *,
        imported: int = 0,
    ) -> Allocation:
        """A memory object of this device that somebody else allocated, for these export types, and frees.

        imported: the handle type that it was imported as; 0 for memory that was not.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE where its own export contradicts size or memory type.
        """

    def adopt_resource(self, raw: int, info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> NativeResource:
        """A buffer or image of this device that somebody else created, as `info` says, and destroys."""


@runtime_checkable
class DescribesFormats(Protocol):
    """A driver that says what a format can do, and with which DRM format modifiers: a Vulkan device's."""

    def format_properties(self, vk_format: int) -> vk.FormatProperties2:
        """vkGetPhysicalDeviceFormatProperties2; DrmFormatModifierPropertiesListEXT chained where the device has it."""


@runtime_checkable
class ImportsHandles(Protocol):
    """A driver of a system whose GPU drivers share by handles of its kernel: a Vulkan device's."""

    @property
    def imports_handles(self) -> bool:
        """Whether it takes other programs' NT handles and KMT numbers, too, as Windows's drivers do."""

    def missing_for(self, handle_type: int) -> str:
        """The extension that the device lacks for this handle type (one bit); empty where it has all that it takes."""


@runtime_checkable
class RepeatsImports(Protocol):
    """A driver that imports many payloads that are alike faster than one by one: a Vulkan device's."""

    def known_imports(self, size: int, memory_type_index: int, handle_type: int) -> Callable[[int], Allocation]:
        """`Backend.import_fd` with these arguments, known and not dedicated, of one fd after the other."""


@runtime_checkable
class FinishesLater(Protocol):
    """A driver whose commands may still run after an exception ended the wait for them: a Vulkan device's."""

    def finish_submitted(self) -> None:
        """Wait for such commands, so that what they use can be given back. Errors: DriverError while they run."""


@runtime_checkable
class ReleasesOwnership(Protocol):
    """An allocation of a device that owns what it used until it gives it away: a Vulkan device's."""

    def release_ownership(self) -> None:
        """Release the payload to its other users, and wait until that is done; what a program holds is left alone."""


@runtime_checkable
class WrapsPointers(Protocol):
    """A driver whose memory other code of the process makes, too, and knows by its address."""

    def wrap_pointer(self, address: int, size: int) -> Allocation:
        """The allocation that is mapped at `address`, to be shared; its size is what the driver says.

        Errors: UnsupportedError where it cannot be exported, where another allocation than one that begins at `address`
        lies there, or where it has less than `size` bytes.
        """


@runtime_checkable
class ImportsByDescriptor(Protocol):
    """A driver of another API than Vulkan, for which a payload's descriptor says all that is to be said of it."""

    @property
    def producer(self) -> str:
        """`Descriptor.producer` of what it allocates."""

    def import_by_descriptor(
        self,
        handle: int,
        origin: Origin,
        *,
        payload: PayloadFd | None = None,
        name: str | None = None,
        identity: int = 0,
        writable: bool = True,
    ) -> Allocation:
        """A view of the payload behind a handle: an fd, an NT handle or a KMT number; or behind a name (Windows).

        handle: borrowed for the call. payload: its owner, which the allocation closes with itself, on success.
        identity: the `stated_identity` of the allocation that was shared. writable: whether the handle came with the
        right to write. Errors: DriverError, with both devices where the payload is another's; UnsupportedError;
        OutOfMemoryError.
        """
