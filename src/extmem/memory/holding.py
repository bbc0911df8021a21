"""`Holding`: everything that one vkAllocateMemory made this process hold, given back once.

::

    DeviceMemory ──┐
    DeviceMemory ──┼──> Holding ──> Allocation   (the device's: owns or borrows the payload's fd; maps it)
    view (array) ──┘       └──────> references in the object manager (memory objects by number)

The spec's calls make one `DeviceMemory` a `Holding`; the everyday `open()` of a payload that is already here makes
another `DeviceMemory` on the same one. Given back in the order of the arrows, when the last user closes or is lost.
"""

from __future__ import annotations

import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from extmem.errors import HandleStateError, ObjectManagerError
from extmem.handles.here import HERE

if TYPE_CHECKING:
    from extmem.arrays import DeviceArray
    from extmem.devices.base import Allocation
    from extmem.manager import Manager
    from extmem.memory.descriptor import Descriptor
    from extmem.memory.device import Device
    from extmem.memory.resources import Resource
    from extmem.rules import ResourceFacts

__all__ = ["Holding", "joining"]


joining = threading.Lock()
"""Held while a memory object joins or leaves a holding, never while anything else happens."""


class Holding(msgspec.Struct, eq=False, weakref=True):
    """The references behind one memory object. Not public; `DeviceMemory` is.

    (A Struct because it is made in C: every import makes one.)
    """

    device: Device
    allocation: Allocation
    descriptor: Descriptor
    size: int
    memory_type_index: int
    references: tuple[int, ...] = ()
    """Memory objects in the object manager, the imported one first."""
    manager: Manager | None = None
    name: str | None = None
    """What it was exported as or opened by, as a program says it."""
    object_id: int = 0
    kmt: int = 0
    import_handle_type: int = 0
    writable: bool = True
    share_reference: int = 0
    """The memory object that was exported with NT or KMT handles; 0 where there is none."""
    lazy_share: int | None = None
    """dwAccess of an unnamed NT share that is made when somebody first asks for it."""
    known_by: tuple[str | int, ...] = ()
    """The names and objects that the device remembers it by."""
    export_handle_types: int = 0
    exported_nt_types: int = 0
    dedicated: ResourceFacts | None = None
    resource: Resource | None = None
    """The buffer or image that it is dedicated to, where the everyday door made that: it ends with the memory."""
    companion: Allocation | None = None
    """What CUDA has imported of a Vulkan device's memory, for GPU arrays: it ends before the memory."""
    pattern: DeviceArray | None = None
    """The GPU array that the descriptor describes, once one was made. It keeps nothing alive."""
    views: tuple[weakref.ref[Any], ...] = ()
    """What looks at it and has outlived the `DeviceMemory` that it came from."""
    released: bool = False
    users: set[int] = msgspec.field(default_factory=set)
    """Ids of the open `DeviceMemory` objects on it. Adding and discarding are atomic, as finalizers need."""
    pid: int = msgspec.field(default_factory=partial(getattr, HERE, "pid"))  # no call of Python

    def leave(self, user: int) -> None:
        """A `DeviceMemory` closes; the last one gives everything back, unless a lost one's view still looks."""
        with joining:
            self.users.discard(user)
            last = not self.users and not self.released and all(view() is None for view in self.views)
            if last:
                self.released = True
        if last:
            self._release()

    def check_process(self) -> None:
        """Refuse what a forked child must not do with its parent's references."""
        if self.pid != HERE.pid:
            raise HandleStateError(
                f"this memory belongs to process {self.pid}, and this is its forked child {HERE.pid}; "
                "start children with spawn and pass the memory, or open its name again"
            )

    def release(self) -> None:
        """Give everything back now, whoever still uses it. Safe to call twice."""
        if not self.released:
            self.released = True
            self._release()

    def _release(self) -> None:
        self.device.forget(self)
        try:
            if self.manager is not None and self.pid == HERE.pid:
                for reference in self.references:
                    self.manager.free(reference)
        finally:
            if self.companion is not None:
                self.companion.close()
            if self.resource is not None:
                self.resource.close()
            self.device.driver.free(self.allocation)

    def _release_later(self) -> None:
        """Give everything back from a finalizer: nothing here may block or raise."""
        self.released = True
        self.device.forget(self)
        if self.manager is not None and self.pid == HERE.pid:
            for reference in self.references:
                self.manager.free_later(reference)
        try:
            if self.companion is not None:
                self.companion.close()
            if self.resource is not None:
                self.resource.close()
            self.device.driver.free(self.allocation)
        except (OSError, ObjectManagerError):
            return

    def __del__(self) -> None:
        # The last user or view is gone without close(): DeviceMemory has warned where that was a mistake.
        if not getattr(self, "released", True) and not sys.is_finalizing():
            self._release_later()
