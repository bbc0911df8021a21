"""What some backends can do besides `Backend`. Callers find out by `isinstance`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from extmem.vk.handle_types import NO_TYPES, MemoryHandleType

if TYPE_CHECKING:
    from extmem import vk
    from extmem.devices.backend import Allocation
    from extmem.devices.resources import NativeResource
    from extmem.devices.sync import NativeSemaphore
    from extmem.devices.types import Origin
    from extmem.owning import OwnedFd
    from extmem.sharing.payload import PayloadFd

__all__ = [
    "AdoptsMemory",
    "AllocatesForFrameworks",
    "AllocationOfParts",
    "CopiesPointers",
    "DescribesFormats",
    "FinishesLater",
    "ImportsByDescriptor",
    "ImportsHandles",
    "OrdersStreams",
    "ReleasesOwnership",
    "WrapsPointers",
    "WritesFrom",
    "WritesRows",
]


@runtime_checkable
class AdoptsMemory(Protocol):
    """A backend whose memory objects, buffers and images other bindings can also create: Vulkan's."""

    def adopt_memory(
        self,
        raw: int,
        size: int,
        memory_type_index: int,
        handle_types: MemoryHandleType,
        dedicated: NativeResource | None,
        *,
        imported: MemoryHandleType = NO_TYPES,
    ) -> Allocation:
        """Adopt a memory object of this device that another binding allocated for these export types, and frees.

        imported: the handle type that it was imported as; 0 for memory that was not imported.

        Errors: DriverError with VK_ERROR_INVALID_EXTERNAL_HANDLE if its own export contradicts size or memory type.
        """

    def adopt_resource(self, raw: int, info: vk.BufferCreateInfo | vk.ImageCreateInfo) -> NativeResource:
        """Adopt a buffer or image of this device that another binding created from `info`, and destroys."""


@runtime_checkable
class CopiesPointers(Protocol):
    """A backend that copies memory of the same device that is not its own, by its address: CUDA's."""

    def copy_from(self, allocation: Allocation, pieces: Sequence[tuple[int, int, int]]) -> None:
        """Copy bytes into an allocation. All of it is done when this returns.

        pieces: offset in the allocation, device pointer, and bytes of each. The caller has waited for the work that
        writes the sources, and keeps them. Errors: ValueError outside the allocation; DriverError.
        """

    def wait(self, stream: int) -> None:
        """Wait for the work in a stream (CUstream); 0 is the default one. Errors: DriverError."""


@runtime_checkable
class DescribesFormats(Protocol):
    """A backend that describes what a format can do, and with which DRM format modifiers: Vulkan's."""

    def format_properties(self, vk_format: int) -> vk.FormatProperties2:
        """vkGetPhysicalDeviceFormatProperties2; DrmFormatModifierPropertiesListEXT chained if the device has it."""


@runtime_checkable
class ImportsHandles(Protocol):
    """A backend of GPUs, whose drivers may share by handles of the system's kernel: Vulkan's and CUDA's."""

    @property
    def imports_handles(self) -> bool:
        """Whether it imports NT handles and KMT numbers of other programs too, as Windows's drivers do."""

    def missing_for(self, handle_type: MemoryHandleType) -> str:
        """The extension that the device lacks for this handle type (one bit); empty if it lacks none."""


@runtime_checkable
class FinishesLater(Protocol):
    """A backend whose commands may still run after an exception ended the wait for them: Vulkan's and CUDA's."""

    def finish_submitted(self) -> None:
        """Wait for such commands, so that what they use can be released. Errors: DriverError while they run."""


@runtime_checkable
class OrdersStreams(Protocol):
    """A backend whose semaphores streams of the program wait for and signal, without a wait of the host: CUDA's.

    A stream is a CUstream as a number; 0 is the default one. The semaphores are this backend's: one of another device
    is imported first. Each (semaphore, value) has a timeline's value, which a binary semaphore ignores. What the work
    uses is held until the stream has done it.
    """

    def stream_wait(self, stream: int, waits: Sequence[tuple[NativeSemaphore, int]]) -> None:
        """Make later work of the stream wait until all values are reached. Returns at once.

        Errors: DriverError; HandleStateError for what is closed.
        """

    def stream_signal(self, stream: int, signals: Sequence[tuple[NativeSemaphore, int]]) -> None:
        """Signal these values when all earlier work of the stream is done, and wake who waits on the host.

        Returns at once. Errors: AccessDeniedError without the right to signal; as `stream_wait`.
        """

    def hold_until_done(self, stream: int, allocation: Allocation) -> None:
        """Keep memory of the device until the earlier work of the stream is done, also if it is closed. Does not wait.

        Errors: DriverError; UnsupportedError for a stream that is being captured into a graph.
        """

    def add_graph_wait(
        self, graph: int, waits: Sequence[tuple[NativeSemaphore, int]], dependencies: Sequence[int] = ()
    ) -> int:
        """Add a wait to a CUgraph, after these nodes (CUgraphNode). Return its last node.

        The caller keeps the semaphores open until the graph, and all that was instantiated from it, is destroyed.
        Errors: as `stream_wait`.
        """

    def add_graph_signal(
        self, graph: int, signals: Sequence[tuple[NativeSemaphore, int]], dependencies: Sequence[int] = ()
    ) -> int:
        """Add signals to a CUgraph; as `add_graph_wait`. Each launch of the graph signals these values."""


@runtime_checkable
class ReleasesOwnership(Protocol):
    """A backend whose device owns the memory that it used until it releases it: Vulkan's."""

    def owns(self, allocation: Allocation) -> bool:
        """Whether the device owns the payload, and the program has not acquired it: it was not released before."""

    def release_ownership(self, allocation: Allocation) -> None:
        """Release the payload to its other users, and wait until that is done. What a program has acquired is left."""


@runtime_checkable
class WritesFrom(Protocol):
    """A backend that gets bytes from their source (a file) in memory that the device reads: CUDA's, pinned memory."""

    def write_from(
        self, allocation: Allocation, offset: int, size: int, fill: Callable[[memoryview, int], object]
    ) -> None:
        """Write `size` bytes that `fill` brings. It is done when this returns.

        fill: fills a buffer with the bytes from a place on; the places begin at 0. It is called for all parts, in any
            order and by several threads at once, and does not keep the buffer. Its error ends the write, and is raised
            when no thread is in it any more. Errors: also as `Backend.write`.
        """


@runtime_checkable
class WritesRows(Protocol):
    """A backend that copies rows with gaps between them in one call: CUDA's."""

    def write_rows(self, allocation: Allocation, offset: int, data: memoryview, size: int, pitch: int) -> None:
        """Copy rows of `size` bytes to places that are `pitch` bytes apart. It is done when this returns.

        offset: where the first row begins. The gaps stay as they are. Errors: as `Backend.write`.
        """


@runtime_checkable
class WrapsPointers(Protocol):
    """A backend whose memory other code of the process can also allocate, and identifies by its address: CUDA's."""

    def wrap_pointer(self, address: int, size: int) -> Allocation:
        """Return the allocation that is mapped at `address`, to be shared. Its size is what the driver reports.

        Errors: UnsupportedError if it cannot be exported, if another allocation than one that begins at `address` is
        there, or if it has less than `size` bytes.
        """

    def wrap_range(self, address: int, size: int) -> Allocation:
        """Return the allocations that are mapped at these addresses, to be shared: one, or several side by side.

        The result (an `AllocationOfParts`) may begin before `address`. The caller keeps what owns the mapping and its
        contents.
        Errors: UnsupportedError, with what helps, if one of them cannot be exported.
        """


@runtime_checkable
class AllocatesForFrameworks(Protocol):
    """A backend with an allocator that a framework can use in place of its own, for shareable memory: CUDA's."""

    def framework_allocator(self) -> tuple[int, int]:
        """Return the addresses of two C functions: void *(size_t size, int device, CUstream stream), and
        void (void *, size_t size, int device, CUstream stream). They stay valid while the process lives.

        Errors: UnsupportedError where there is none; DriverError; OutOfMemoryError.
        """


class AllocationOfParts(Protocol):
    """An allocation of a backend whose memory may consist of several allocations of the driver: CUDA's."""

    size: int
    pointer: int
    """The device pointer of its first byte."""
    parts: tuple[int, ...]
    """The bytes of each; empty for one allocation."""

    @property
    def exports_parts(self) -> bool:
        """Whether it keeps no handles of the allocations, since it can export new ones."""

    def part_fds(self) -> list[OwnedFd | int]:
        """Return a handle of each allocation: those that were imported, borrowed; or new ones, owned by the caller.

        Errors: DriverError; UnsupportedError.
        """


@runtime_checkable
class ImportsByDescriptor(Protocol):
    """A backend of another API than Vulkan, which imports a payload by what its descriptor contains: CUDA's."""

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
        """Import the payload behind a handle: an fd, an NT handle or a KMT number; or behind a name (Windows).

        handle: borrowed for the call. payload: its owner, which the allocation closes with itself, on success.
        identity: the `stated_identity` of the allocation that was shared. writable: whether the handle was opened with
        the right to write. Errors: DriverError, with both devices if the payload is another one's; UnsupportedError;
        OutOfMemoryError.
        """
