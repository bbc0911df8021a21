"""`Holding`: everything that one vkAllocateMemory made this process hold, given back once.

::

    DeviceMemory ──┐
    DeviceMemory ──┼──> Holding ──> Allocation   (the device's: owns or borrows the payload's fd; maps it)
    view (array) ──┘       └──────> references in the object manager (memory objects)

How this works. The specification's calls make one `DeviceMemory` a `Holding`; the everyday `open()` of a payload that
is open here already makes another `DeviceMemory` on the same one. Each of them has a hold on it (`Held.hold`), and so
has each view, each GPU array, each command that waits to be submitted, and each verb while it runs. `close()` marks
the memory closed, lets go, and gives everything back if nobody else has a hold; else the last who lets go does.

Its parts are owners (`extmem.owning`). Where a holding is lost, they are lost with it, and each gives itself
back. What could not be given back (a silent broker, an interrupt) stays owed: `owning.work_off` and a second `close()`
try again.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple

from extmem import rules, vk
from extmem.core import rule_facts
from extmem.errors import HandleStateError
from extmem.handles.here import HERE
from extmem.objects import Status, error_for
from extmem.owning import Held

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.core.resources import Resource
    from extmem.devices.backend import Allocation
    from extmem.interop import DeviceArray
    from extmem.manager import Manager, Reference
    from extmem.rules import ResourceFacts
    from extmem.sharing.descriptor.descriptor import Descriptor

__all__ = ["Closed", "Holding", "in_use"]


class Closed(NamedTuple):
    """What is still known of memory that was closed; its fields are named as those of `Holding`."""

    device: Device
    descriptor: Descriptor
    name: str | None
    size: int
    memory_type_index: int
    writable: bool


class Holding(Held):
    """The references behind one memory object. Not public; `DeviceMemory` is."""

    __slots__ = (
        "allocation",
        "companion",
        "dedicated",
        "descriptor",
        "device",
        "export_handle_types",
        "exported_nt_types",
        "identity",
        "import_handle_type",
        "kmt",
        "known_by",
        "lazy_share",
        "manager",
        "memory_type_index",
        "name",
        "object_id",
        "pattern",
        "pid",
        "references",
        "resource",
        "share_reference",
        "size",
        "watch",
        "writable",
    )

    def __init__(
        self,
        device: Device,
        allocation: Allocation,
        descriptor: Descriptor,
        size: int,
        memory_type_index: int,
        *,
        references: tuple[Reference, ...] = (),
        manager: Manager | None = None,
        name: str | None = None,
        object_id: int = 0,
        kmt: int = 0,
        import_handle_type: int = 0,
        writable: bool = True,
        export_handle_types: int = 0,
    ) -> None:
        # Not by `super`: every memory that is opened makes one.
        self._gate = bytearray(1)
        self.closing = False
        self.device = device
        self.allocation = allocation
        self.descriptor = descriptor
        self.size = size
        self.memory_type_index = memory_type_index
        self.references = references
        """Memory objects in the object manager, the imported one first."""
        self.manager = manager
        self.name = name
        """What it was exported as or opened by, as a program says it."""
        self.object_id = object_id
        self.kmt = kmt
        self.import_handle_type = import_handle_type
        self.writable = writable
        self.export_handle_types = export_handle_types
        self.exported_nt_types = 0
        self.identity = 0
        """The `stated_identity` of the payload that an `FdHandle` of extmem's led to; 0 where the allocation has it."""
        self.share_reference = 0
        """The memory object that was exported with NT or KMT handles; 0 where there is none."""
        self.lazy_share: int | None = None
        """dwAccess of an unnamed NT share that is made when somebody first asks for it."""
        self.known_by: tuple[str | int, ...] = ()
        """The names and objects that the device remembers it by."""
        self.dedicated: ResourceFacts | None = None
        self.resource: Resource | None = None
        """The buffer or image that it is dedicated to, where the everyday door made that: it ends with the memory."""
        self.companion: Allocation | None = None
        """What CUDA has imported of a Vulkan device's memory, for GPU arrays: it ends before the memory."""
        self.pattern: DeviceArray | None = None
        """The GPU array that the descriptor describes, once one was made. It keeps nothing alive."""
        self.pid = HERE.pid
        counted = device.holdings
        self.watch: weakref.ref[Holding] = weakref.ref(self, counted.discard)
        """What the device knows it by."""
        counted.add(self.watch)

    def keep_resource(self, resource: Resource) -> None:
        """Its dedicated buffer or image, which extmem made for it: it ends with the memory.

        Copies bind it by themselves, unless the caller would break a rule by binding it, as where the payload's
        description states a resource that was not made for external memory.
        """
        resource.native.private = self.device.check == "off" or not self._breaks(resource)
        self.resource = resource

    def _breaks(self, resource: Resource) -> bool:
        facts, memory = resource.facts, rule_facts.memory_facts(self)
        if facts.kind == "buffer":
            return bool(rules.check_bind_buffer_memory(vk.BindBufferMemoryInfo(), facts, memory))
        return bool(rules.check_bind_image_memory(vk.BindImageMemoryInfo(), facts, memory))

    def closed_facts(self) -> Closed:
        """What is kept of it where the memory is closed."""
        return Closed(self.device, self.descriptor, self.name, self.size, self.memory_type_index, self.writable)

    def gone(self) -> HandleStateError:
        """See `Held`."""
        return HandleStateError("this memory was closed by another thread at this moment; allocate or open it again")

    def check_process(self) -> None:
        """Refuse what a forked child must not do with its parent's references."""
        if self.pid != HERE.pid:
            raise HandleStateError(
                f"this memory belongs to process {self.pid}, and this is its forked child {HERE.pid}; "
                "start children with spawn and pass the memory, or open its name again"
            )

    def check_writable(self, verb: str) -> None:
        """Refuse what would write to memory that is read-only here. AccessDeniedError."""
        if not self.writable:
            raise error_for(
                Status.ACCESS_DENIED,
                f"cannot {verb} this memory ({self.what()}): it is read-only here; ask for Access.READ_WRITE, or its "
                "owner to grant it",
            )

    def what(self) -> str:
        """Its name, if it has one, and its payload's size, for messages."""
        return f"{self.name!r}, " * (self.name is not None) + f"{self.descriptor.payload_size} bytes"

    def give_back(self) -> None:
        """See `Held`. In a forked child only what is the child's own."""
        self.device.live.forget(self)
        try:
            if self.pid == HERE.pid:
                for reference in self.references:
                    reference.give_back()
        finally:
            self._give_back_here()
        self.device.holdings.discard(self.watch)

    def _give_back_here(self) -> None:
        if self.companion is not None:
            self.companion.close()
        if self.resource is not None:
            self.resource.close()
        self.device.driver.free(self.allocation)


def in_use(device: Device) -> HandleStateError:
    """What `Device.close` raises: memory is open, or was closed while something uses it."""
    held = [holding for watch in tuple(device.holdings) if (holding := watch()) is not None]
    count = sum(not holding.closing for holding in held)
    if count:
        return HandleStateError(f"{count} memory objects of {device.name} are open; close them first")
    return HandleStateError(
        f"{len(held)} memory objects of {device.name} are closed, and still in use; end the block of commands, or let "
        "go of the arrays and views, that use them first"
    )
