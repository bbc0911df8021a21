"""`ReadSource`: what a reader sees of the ring in one epoch: the slots that it has opened, and their locks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extmem.channel.slots import Slot, open_slot
from extmem.errors import ChannelCorruptError
from extmem.handles import Access
from extmem.objects import Status, error_for
from extmem.owning import late_imports
from extmem.sharing.channel_page import Words

if TYPE_CHECKING:
    from extmem.api.device import Device
    from extmem.channel.control import ControlPage
    from extmem.channel.gpu_frames import GpuFrame
    from extmem.channel.gpu_order import EpochOrder
    from extmem.channel.gpu_reading import ReaderOrder

__all__ = ["ReadSource", "gpu_parts"]

_READ = int(Access.READ)
_ATTEMPTS = 100


class ReadSource:
    """See the module, and `ring.Source`. Ownership: it owns the memory of the slots until `close`."""

    __slots__ = (
        "_device",
        "_encoded",
        "_entries",
        "_page",
        "_table",
        "control",
        "epoch",
        "numbers",
        "order",
        "slots",
        "taking",
    )

    def __init__(self, control: ControlPage, page: Any, device: Device | None, epoch: int, encoded: bytes) -> None:
        self.control = control
        self._page = page
        self._device = device
        self._encoded = encoded
        self._table = control.table
        self._entries = control.layout.entries
        self.epoch = epoch
        self.numbers = control.numbers
        self.slots: list[Slot | None] = []
        self.order: EpochOrder | None = None
        """Which frames are complete, of slots that this reader has as memory of a GPU; None for those of the host."""
        self.taking = -1
        """The slot whose lock is being taken: if an exception ends that, the next read releases it."""

    @classmethod
    def opened(cls, control: ControlPage, page: Any, device: Device | None) -> ReadSource:
        """Open the slots of the present epoch. page: of the timeline that counts frames.

        Errors: NameNotFoundError if there are none, because the writer has ended; ChannelCorruptError.
        """
        for _ in range(_ATTEMPTS):
            header = control.refreshed()
            found = cls(control, page, device, header.epoch, control.arrays())
            try:
                found.open_up_to(header.slots)
                found.set_order()
            except BaseException:
                found.close()
                raise
            if control.epoch == header.epoch:
                if any(found.slots):
                    return found
                break
            found.close()
        raise error_for(
            Status.OBJECT_NAME_NOT_FOUND,
            f"The slots of the channel {control.name!r} do not exist: its writer has ended. Start the writer again.",
        )

    def open_up_to(self, count: int) -> None:
        """Open the slots that are not open yet."""
        while len(self.slots) < count:
            slot = open_slot(self.control, self.epoch, len(self.slots), self._device, self._encoded, access=_READ)
            if slot is not None:
                slot.prepare(self.control.locks, exclusive=False)
                slot.order = self.order
            self.slots.append(slot)

    def set_order(self) -> None:
        """Open what orders the frames, if the slots are open on a GPU."""
        open_now = [slot for slot in self.slots if slot is not None]
        if open_now and open_now[0].memory.device.kind != "host":
            with late_imports():
                from extmem.channel.gpu_order import EpochOrder

            opened_on = open_now[0].memory.device
            self.order = EpochOrder(self.control, self.epoch, self._device, opened_on)
            for slot in open_now:
                slot.order = self.order

    def count(self) -> int:
        """See `ring.Source`."""
        count: int = self._page.value
        return count

    def slot_of(self, number: int) -> int:
        """See `ring.Source`. Errors: ChannelCorruptError for a slot that there cannot be."""
        slot = self._table[number % self._entries]
        if slot >= len(self.slots):
            self._grow(number, slot)
        return slot

    def lock(self, slot: int) -> bool:
        """See `ring.Source`."""
        known = self.slots[slot]
        if known is None:
            return False
        self.taking = slot
        return self.control.locks.try_shared(known.range)

    def unlock(self, slot: int) -> None:
        """See `ring.Source`."""
        known = self.slots[slot]
        if known is not None:
            self.control.locks.unlock(known.range)
        self.taking = -1

    def moved(self) -> bool:
        """See `ring.Source`."""
        return self.control.words64[Words.EPOCH] != self.epoch

    def reconcile(self, held: Mapping[int, Slot]) -> None:
        """Release the lock that a read was taking when an exception ended it. held: the slots that are held."""
        slot = self.taking
        if not is_held(slot, self.epoch, held):
            self.unlock(slot)
        self.taking = -1

    def close(self, held: Mapping[int, Slot] | None = None) -> None:
        """Close the memory of the slots. Arrays that are alive keep theirs. Safe to call twice.

        held: the slots that are held, which are closed when they are released.
        """
        for slot in self.slots:
            if slot is not None and not (held and is_held(slot.index, self.epoch, held)):
                slot.close()

    def _grow(self, number: int, slot: int) -> None:
        """Open the slots up to the one that the table names for this frame."""
        there = self.control.words[Words.SLOTS]
        if slot >= there or there > self.control.layout.capacity:
            # The slots may be replaced by fewer just now: the table is cleared before their number changes.
            if slot < self.control.layout.capacity and (self.moved() or self._table[number % self._entries] != slot):
                self.slots.extend([None] * (slot + 1 - len(self.slots)))  # of another epoch: nothing is read here
                return
            raise ChannelCorruptError(
                f"the control page of {self.control.name!r} says that a frame is in slot {slot}, and it has {there} of "
                f"at most {self.control.layout.capacity}; its writer is faulty. Restart it, or open another channel"
            )
        self.open_up_to(there)


def gpu_parts(reader: Any, known: ReaderOrder | None) -> tuple[ReaderOrder, type[GpuFrame]]:
    """Return what orders the lanes of a reader on a GPU, and the class of its frames. known: of an earlier epoch."""
    with late_imports():
        from extmem.channel.gpu_frames import GpuFrame
        from extmem.channel.gpu_reading import ReaderOrder

    return known or ReaderOrder(reader), GpuFrame


def is_held(slot: int, epoch: int, slots: Mapping[int, Slot]) -> bool:
    """Return whether a slot of an epoch is among those that are held, by the numbers of their frames."""
    return any(held.index == slot and held.epoch == epoch for held in list(slots.values()))
