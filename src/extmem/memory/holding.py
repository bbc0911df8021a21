"""`Holding`: everything that one vkAllocateMemory made this process hold, given back once.

::

    DeviceMemory ──┐
    DeviceMemory ──┼──> Holding ──> Mapping      (made when first looked at)
    view (array) ──┘       ├──────> Allocation   (the device's: owns or borrows the payload's fd)
                           └──────> references in the object manager (memory objects by number)

The spec's calls make one `DeviceMemory` a `Holding`; the everyday `open()` of a payload that is already here makes
another `DeviceMemory` on the same one. Given back in the order of the arrows, when the last user closes or is lost.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING

from extmem.errors import HandleStateError, ObjectManagerError
from extmem.handles import this_process

if TYPE_CHECKING:
    from extmem.devices.base import Allocation, Mapping
    from extmem.manager import Manager
    from extmem.memory.descriptor import Descriptor
    from extmem.memory.device import Device
    from extmem.rules import ResourceFacts

__all__ = ["Holding"]


_joining = threading.Lock()
"""Held while a memory object joins or leaves a holding, never while anything else happens."""


class Holding:
    """The references behind one memory object. Not public; `DeviceMemory` is."""

    __slots__ = (
        "__weakref__",
        "allocation",
        "dedicated",
        "descriptor",
        "device",
        "export_handle_types",
        "exported_nt_types",
        "import_handle_type",
        "kmt",
        "known_by",
        "lazy_share",
        "manager",
        "mapping",
        "memory_type_index",
        "name",
        "object_id",
        "pid",
        "references",
        "released",
        "share_reference",
        "size",
        "users",
        "views",
        "writable",
    )

    def __init__(self, device: Device, allocation: Allocation, descriptor: Descriptor) -> None:
        self.device = device
        self.allocation = allocation
        self.descriptor = descriptor
        self.size: int = descriptor.allocation_size
        self.memory_type_index: int = descriptor.memory_type_index
        self.writable = True
        self.name: str | None = None
        self.manager: Manager | None = None
        self.references: list[int] = []
        """Memory objects in the object manager, the imported one first."""
        self.share_reference = 0
        """The memory object that was exported with NT or KMT handles; 0 where there is none."""
        self.lazy_share: int | None = None
        """dwAccess of an unnamed NT share that is made when somebody first asks for it."""
        self.object_id = 0
        self.known_by: set[str | int] = set()
        """The names and objects that the device remembers it by."""
        self.kmt = 0
        self.export_handle_types = 0
        self.import_handle_type = 0
        self.exported_nt_types = 0
        self.dedicated: ResourceFacts | None = None
        self.mapping: Mapping | None = None
        self.users: set[int] = set()
        """Ids of the open `DeviceMemory` objects on it. Adding and discarding are atomic, as finalizers need."""
        self.views: list[weakref.ref[object]] = []
        """What looks at the mapping; a view may outlive the `DeviceMemory` that it came from."""
        self.released = False
        self.pid = this_process()

    def join(self, user: int) -> bool:
        """Count one more `DeviceMemory`; False where the last one is just leaving."""
        with _joining:
            if self.released:
                return False
            self.users.add(user)
            return True

    def leave(self, user: int) -> None:
        """A `DeviceMemory` closes; the last one gives everything back, unless a lost one's view still looks."""
        with _joining:
            self.users.discard(user)
            last = not self.users and not self.released and all(view() is None for view in self.views)
            if last:
                self.released = True
        if last:
            self._release()

    def map(self) -> Mapping:
        """The mapping of the whole payload, made at the first call."""
        if self.mapping is None:
            self.mapping = self.device.driver.map(self.allocation, writable=self.writable)
        return self.mapping

    def check_process(self) -> None:
        """Refuse what a forked child must not do with its parent's references."""
        if self.pid != this_process():
            raise HandleStateError(
                f"this memory belongs to process {self.pid}, and this is its forked child {this_process()}; "
                "start children with spawn and pass the memory, or open its name again"
            )

    def release(self) -> None:
        """Give everything back now, whoever still uses it. Safe to call twice."""
        if not self.released:
            self.released = True
            self._release()

    def _release(self) -> None:
        self.device.forget(self)
        self._unmap()
        try:
            if self.manager is not None and self.pid == this_process():
                for reference in self.references:
                    self.manager.free(reference)
        finally:
            self.device.driver.free(self.allocation)

    def _release_later(self) -> None:
        """Give everything back from a finalizer: nothing here may block or raise."""
        self.released = True
        self.device.forget(self)
        self._unmap()
        if self.manager is not None and self.pid == this_process():
            for reference in self.references:
                self.manager.free_later(reference)
        try:
            self.device.driver.free(self.allocation)
        except (OSError, ObjectManagerError):
            return

    def _unmap(self) -> None:
        if self.mapping is not None:
            self.mapping.close()
            self.mapping = None

    def __del__(self) -> None:
        # The last user or view is gone without close(): DeviceMemory has warned where that was a mistake.
        if not getattr(self, "released", True) and not sys.is_finalizing():
            self._release_later()
