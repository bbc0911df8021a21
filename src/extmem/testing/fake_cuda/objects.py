"""The objects of a fake CUDA driver, and its GPUs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_vulkan.payloads import FilePayload

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.sync_pages import SyncPage

__all__ = [
    "Context",
    "Event",
    "ExternalMemory",
    "ExternalSemaphore",
    "FakeObject",
    "Gpu",
    "Graph",
    "Mapped",
    "Physical",
    "Pinned",
    "Reserved",
    "Stream",
]

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as CUDA reports it. The default is the same GPU as `fake_vulkan.DISCRETE`."""

    name: str = "Fake Discrete GPU"
    uuid: bytes = b"fake gpu 0000001"
    driver_uuid: bytes = b"fake driver 0001"
    """The UUID of the Vulkan driver, whose payloads this one can import."""
    memory: int = 8 * _GIB
    """The memory in bytes. Allocating more fails."""
    granularity: int = 65_536
    """The unit of allocations in bytes; 2 MiB on real GPUs."""
    virtual_memory: bool = True
    shares: bool = True
    """Whether its memory can be exported: as POSIX file descriptors, on Windows as NT handles."""
    luid: bytes = b"fakeluid"
    """Its LUID on Windows; 8 bytes."""
    maps_host: bool = True
    registers_read_only: bool = True
    waits_for_words: bool = True
    """Whether streams wait for 64-bit words of memory."""


@dataclass(slots=True)
class Context:
    """A primary context, and how often it is retained."""

    ordinal: int
    retained: int = 0

    @property
    def handle(self) -> int:
        """The CUcontext as a number."""
        return 0xC0DE_0000 + self.ordinal


@dataclass(slots=True, eq=False)
class FakeObject:
    """An object with a handle."""

    number: int = 0


@dataclass(slots=True, eq=False)
class ExternalMemory(FakeObject):
    """CUexternalMemory."""

    payload: FilePayload | None = None
    size: int = 0
    ordinal: int = 0


@dataclass(slots=True, eq=False)
class Mapped(FakeObject):
    """A buffer (by its address) or an array that is mapped onto an external memory."""

    memory: ExternalMemory | None = None
    address: int = 0
    size: int = 0
    keep: object = None


@dataclass(slots=True, eq=False)
class Physical(FakeObject):
    """CUmemGenericAllocationHandle. It counts references: of each create, import and retain, and of each mapping."""

    payload: FilePayload | None = None
    size: int = 0
    ordinal: int = 0
    handle_types: int = 0
    """The handle type that it can be exported as; 0 for none."""
    references: int = 1


@dataclass(slots=True, eq=False)
class Reserved(FakeObject):
    """A reserved address range, and what is mapped there."""

    address: int = 0
    size: int = 0
    keep: Any = None
    physical: Physical | None = None
    access: int = 0


@dataclass(slots=True, eq=False)
class Pinned(FakeObject):
    """Host memory that is registered, or that the driver allocated."""

    address: int = 0
    size: int = 0
    flags: int = 0
    keep: object = None
    """The memory, if the driver allocated it."""


@dataclass(slots=True, eq=False)
class ExternalSemaphore(FakeObject):
    """CUexternalSemaphore."""

    page: SyncPage | None = None
    kind: int = 0
    """CUexternalSemaphoreHandleType."""
    ordinal: int = 0


@dataclass(slots=True, eq=False)
class Stream(FakeObject):
    """CUstream, created by extmem."""


@dataclass(slots=True, eq=False)
class Event(FakeObject):
    """CUevent: how often it was recorded, and which record a stream has reached."""

    records: int = 0
    complete: int = 0


@dataclass(slots=True, eq=False)
class Graph(FakeObject):
    """CUgraph or CUgraphExec: for each node, what makes its steps."""

    nodes: list[Any] = field(default_factory=list)
