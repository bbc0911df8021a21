"""`Slot`: one slot of a ring in this process: its memory, and the range that is locked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from extmem import interop, vk
from extmem.api import functions
from extmem.api.device import DeviceMemory
from extmem.channel import names
from extmem.channel.format import SlotFormat
from extmem.core import views
from extmem.errors import (
    ChannelCorruptError,
    LiveViewError,
    NameNotFoundError,
    ObjectTypeError,
    OutOfMemoryError,
    RuleViolation,
)
from extmem.sharing.layout import ArrayLayout
from extmem.sharing.table import strides_of

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.channel.control import ControlPage
    from extmem.devices.host.range_lock_system import Range, RangeLocks
    from extmem.sharing.table import Entry

__all__ = ["Slot", "close_memory", "make_slot", "open_slot"]

_BEYOND_HEAP: Final = "VUID-vkAllocateMemory-pAllocateInfo-01713"
"""The rule that an allocation breaks that is larger than the heap."""


class Slot:
    """See the module. Ownership: it owns the memory until `close`."""

    __slots__ = (
        "_layout",
        "_numpy",
        "_view",
        "epoch",
        "format",
        "gpu",
        "has_meta",
        "index",
        "locking",
        "memory",
        "order",
        "range",
        "unlocking",
        "unlocking_once",
    )

    def __init__(self, index: int, epoch: int, memory: DeviceMemory, form: SlotFormat, place: Range) -> None:
        self.index = index
        self.epoch = epoch
        self.memory = memory
        self.format = form
        self.range = place
        self.locking: tuple[Any, ...] = ()
        """The arguments of `RangeLocks.call` with which this side locks the slot: `prepare` sets them."""
        self.unlocking: tuple[Any, ...] = ()
        """The arguments that unlock it."""
        self.unlocking_once: tuple[tuple[Any, ...]] = ((),)
        """What `starmap` makes a call of that unlocks it at most once."""
        self.has_meta = True
        """Whether the page may have metadata of this slot. For the writer."""
        self._numpy: Any = None
        self._view: memoryview | None = None
        self._layout: Any = None
        self.gpu: Any = None
        """What this side has of it for work on a GPU (`gpu_lanes.SlotUse`)."""
        self.order: Any = None
        """Of a reader, for memory of a GPU: which frames are complete (`gpu_order.EpochOrder`)."""

    def prepare(self, locks: RangeLocks, *, exclusive: bool) -> None:
        """Prepare the calls that lock the slot."""
        self.locking = locks.exclusive(self.range) if exclusive else locks.shared(self.range)
        self.unlocking = locks.unlocking(self.range)
        self.unlocking_once = (self.unlocking,)

    def another_memory(self, exporters: list[ref[Any]]) -> DeviceMemory:
        """Return another memory object of the slot, whose views are those of one frame.

        exporters: gets references to what its views, and the holds of its GPU arrays, keep alive.
        """
        record = self.memory.record
        return DeviceMemory(record, record.hold()).listing_views(exporters)

    def cached_numpy(self, memory: DeviceMemory) -> Any:
        """Return the array over the slot, which is made once. memory: this slot's."""
        if memory is not self.memory:
            return memory.numpy()
        array = self._numpy
        if array is None:
            array = self._numpy = memory.numpy()
        return array

    def cached_view(self, memory: DeviceMemory) -> memoryview:
        """Return the bytes of the slot, by a memoryview that is made once. memory: this slot's."""
        if memory is not self.memory:
            return memory.map()
        view = self._view
        if view is None:
            view = self._view = memory.map()
        return view

    def view(self, exporters: list[ref[Any]]) -> memoryview:
        """Return the bytes of the slot, zero copy. exporters: gets a reference to what the view keeps alive.

        Errors: as `DeviceMemory.map`.
        """
        return views.view(self.memory.record, exporters)

    def array(self, view: memoryview, entry: Entry | None = None) -> Any:
        """Return a NumPy array over the bytes of the slot. entry: of one of several arrays in it.

        Errors: as `DeviceMemory.numpy`.
        """
        if entry is not None:
            return interop.numpy_view(view, ArrayLayout(entry.shape, entry.dtype, strides_of(entry), entry.offset))
        layout = self._layout
        if layout is None:
            layout = self._layout = interop.layout_for(self.memory.size, self.memory.descriptor.array)
        return interop.numpy_view(view, layout)

    def close(self) -> None:
        """Close the memory. Arrays of it that are alive keep it. Safe to call twice."""
        self._numpy = self._view = self.gpu = None
        close_memory(self.memory)


def close_memory(memory: DeviceMemory) -> None:
    """Close memory. Arrays of it that are alive keep its record."""
    try:
        memory.close()
    except LiveViewError:
        memory.leave_to_views()


def make_slot(
    page_names: tuple[bytes, int], index: int, device: Device, form: SlotFormat, place: Range, security: str | None
) -> Slot:
    """Return a new slot. page_names: the identity of the channel, and its epoch. Errors: as `Device.allocate`."""
    identity, epoch = page_names
    try:
        memory = form.allocate(device, names.slot(identity, epoch, index), security)
    except RuleViolation as error:
        if _BEYOND_HEAP not in error.vuids:
            raise
        raise OutOfMemoryError(
            f"slot {index} of the channel is to have the shape {form}, and that is more than {device.name} has: "
            f"{error.violations[0].problem}; give a smaller shape, or another device",
            result=vk.Result.ERROR_OUT_OF_DEVICE_MEMORY,
            command="vkAllocateMemory",
            devices=[device.name],
        ) from None
    return Slot(index, epoch, memory, form, place)


def open_slot(
    page: ControlPage, epoch: int, index: int, device: Device | None, encoded: bytes, *, access: int
) -> Slot | None:
    """Return a slot that exists, opened by its name; None if there is none.

    encoded: the table of its arrays. Errors: ChannelCorruptError for memory that cannot be the slot.
    """
    name = names.slot(page.identity, epoch, index)
    try:
        memory = functions.open(name, access=access) if device is None else device.open(name, access=access)
    except NameNotFoundError:
        return None
    except ObjectTypeError as error:
        raise ChannelCorruptError(
            f"slot {index} of {page.name!r} ({name}) is no memory: {error} Restart the writer, or open another channel"
        ) from None
    try:
        return Slot(index, epoch, memory, SlotFormat.read(encoded, memory), page.slot_range(epoch, index))
    except BaseException:
        memory.close()
        raise
