"""`ControlPage`: the control page of a channel in this process, mapped, with this process's locks of it.

How this works. The user's name leads to this page, a shared object of its own kind. The writer has it mapped for
writing; a reader has the right to read it, and the kernel refuses it others. Each `ControlPage` has locks of its own
(`system`, `range_lock_system`), which the kernel releases with the process. What is locked are ranges of numbers:

    2**40 + e * capacity + i    slot i of epoch e: shared by readers that hold it, exclusive by the writer
    2**50 + k                   the reader in place k is there; the first `max_reliable` places are for reliable ones
"""

from __future__ import annotations

from typing import Any, Final

from extmem.channel import system
from extmem.devices import host
from extmem.devices.host._libc import ffi
from extmem.devices.host.range_lock_system import Range, RangeLocks
from extmem.errors import ChannelCorruptError, HandleStateError, NameNotFoundError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import Imported, Manager, Reference, manager
from extmem.owning import OwnedFd
from extmem.sharing.channel_page import META_LIMIT, Header, Words, parse_header
from extmem.sharing.kinds import ObjectKind

__all__ = ["ControlPage", "adopt", "find", "publish", "slot_range"]

_SLOTS: Final = 1 << 40
_PLACES: Final = 1 << 50
_WHERE: Final = "The broker in "
"""With this begins what the object manager's errors say of where it has looked."""
_READ: Final = int(Access.READ)
_READ_WRITE: Final = int(Access.READ_WRITE)


class ControlPage:
    """See the module. Ownership: it owns its reference, mapping and locks until `close`."""

    __slots__ = (
        "_file",
        "_imported",
        "_mapping",
        "_places",
        "_reference",
        "_whole",
        "header",
        "identity",
        "layout",
        "locks",
        "metas",
        "name",
        "numbers",
        "pid",
        "sizes",
        "table",
        "times",
        "words",
        "words64",
    )

    def __init__(
        self,
        name: str,
        fd: int,
        locks: RangeLocks,
        size: int,
        reference: Reference,
        imported: Imported | None,
        file: OwnedFd | None = None,
        *,
        writable: bool,
    ) -> None:
        """fd: of the page, whose size does not change; borrowed. size: its bytes.

        locks, reference, imported: owned from now on; after an error, the locks alone. file: of `fd`, where this
        process has created it: a section of Windows keeps its name as long as a handle of it is open.

        Errors: ChannelCorruptError; UnsupportedError; OutOfMemoryError.
        """
        self.name = name
        self.pid = current_process.pid
        self._reference = reference
        self._imported = imported
        self._file = file
        self.locks = locks
        try:
            self._mapping = host.map_file(fd, size, writable)
            view = _bytes_at(self._mapping.address, size)
            self._whole = view if writable else view.toreadonly()
            self.header = header = parse_header(self._whole, size, repr(name))
        except BaseException:
            locks.close()
            raise
        self.identity = header.identity
        self.layout = layout = header.layout
        self.words = self._whole[: layout.numbers].cast("I")
        """The header as u32 (`Words`)."""
        self.words64 = self._whole[: layout.numbers].cast("Q")
        """The header as u64 (`Words`)."""
        self.numbers = self._whole[layout.numbers : layout.times].cast("Q")
        """The number of the frame in each slot; 0 while it is written."""
        self.times = self._whole[layout.times : layout.sizes].cast("Q")
        self.sizes = self._whole[layout.sizes : layout.table].cast("I")
        self.table = self._whole[layout.table : layout.metas].cast("I")
        self.metas = self._whole[layout.metas : layout.arrays]
        self._places: dict[int, Range] = {}

    @property
    def epoch(self) -> int:
        """The epoch now."""
        return self.words64[Words.EPOCH]

    def refreshed(self) -> Header:
        """Return the header as it is now, checked. Errors: ChannelCorruptError."""
        found = parse_header(self._whole, len(self._whole), repr(self.name))
        before = self.header
        if (found.capacity, found.identity, found.max_readers, found.max_reliable) != (
            before.capacity,
            before.identity,
            before.max_readers,
            before.max_reliable,
        ):
            raise ChannelCorruptError(
                f"the control page of {self.name!r} has other limits or another identity than when it was opened, "
                "which never change; its writer is faulty. Restart the writer, or open another channel"
            )
        return found

    def arrays(self) -> bytes:
        """Return the table of the named arrays in each slot, as it is now; empty for slots of one array."""
        size = min(self.words[Words.ARRAYS], len(self._whole) - self.layout.arrays)
        return bytes(self._whole[self.layout.arrays : self.layout.arrays + size])

    def set_arrays(self, encoded: bytes) -> None:
        """Write that table."""
        self._whole[self.layout.arrays : self.layout.arrays + len(encoded)] = encoded
        self.words[Words.ARRAYS] = len(encoded)

    def meta(self, slot: int) -> bytes:
        """Return the metadata of the frame in a slot that is locked. Errors: ChannelCorruptError."""
        size = self.sizes[slot]
        if size > META_LIMIT:
            raise ChannelCorruptError(
                f"slot {slot} of {self.name!r} is said to have {size} bytes of metadata, and {META_LIMIT} is the "
                "limit; its writer is faulty. Restart it, or open another channel"
            )
        at = slot * META_LIMIT
        return bytes(self.metas[at : at + size])

    def set_meta(self, slot: int, meta: bytes) -> None:
        """Store the metadata of the frame in a slot that is being written."""
        at = slot * META_LIMIT
        self.sizes[slot] = len(meta)
        self.metas[at : at + len(meta)] = meta

    def slot_range(self, epoch: int, slot: int) -> Range:
        """Return the bytes that are locked for a slot."""
        return slot_range(self.layout.capacity, epoch, slot)

    def place_range(self, place: int) -> Range:
        """Return the byte that the reader in this place has locked."""
        found = self._places.get(place)
        if found is None:
            found = self._places[place] = Range(_PLACES + place)
        return found

    def reliable_range(self) -> Range:
        """Return the bytes of the places of reliable readers."""
        return Range(_PLACES, max(1, self.header.max_reliable))

    def readers(self, own: int | None = None) -> list[int]:
        """Return the places of the readers that are there. own: the place of this description, which it does not see
        itself.
        """
        found = set() if own is None else {own}
        ranges = [(_PLACES, _PLACES + self.header.max_readers)]
        while ranges:
            at, end = ranges.pop()
            place = self.locks.any_foreign(at, end - at) if at < end else None
            if place is not None:
                found.add(place - _PLACES)
                ranges += [(at, place), (place + 1, end)]
        return sorted(found)

    def ticket(self) -> tuple[Manager, bytes]:
        """Return a ticket for the channel, which the object manager keeps for whoever claims it."""
        owner = self._reference.manager
        return owner, owner.offer(reference=self._reference.number)

    def check_process(self) -> None:
        """Raise HandleStateError in a forked child."""
        if self.pid != current_process.pid:
            raise HandleStateError(
                f"the channel {self.name!r} was opened by process {self.pid}, and this is its forked child "
                f"{current_process.pid}, which has none of the locks of its slots; open the channel in the child, or "
                'start children by "spawn"'
            )

    def close(self) -> None:
        """Release the locks, the mapping and the reference. Safe to call twice."""
        self.locks.close()
        imported = self._imported
        if imported is not None:
            imported.payload.close()
        self._reference.give_back()
        if self._file is not None:
            self._file.close()


def _bytes_at(address: int, size: int) -> memoryview:
    view: Any = memoryview(ffi.buffer(ffi.cast("char *", address), size)).cast("B")
    return view  # type: ignore[no-any-return]


def slot_range(capacity: int, epoch: int, slot: int) -> Range:
    """Return the bytes that are locked for a slot of a channel of this capacity."""
    return Range(_SLOTS + epoch * capacity + slot)


def find(name: str, *, writable: bool, security: str | None = None) -> ControlPage:
    """Open the control page of the channel with this name.

    security: SDDL, of a new writer, for parts that nobody has kept.
    Errors: NameNotFoundError, ObjectTypeError (another object has the name), AccessDeniedError; ChannelCorruptError;
    UnsupportedError.
    """
    owner = manager()
    reference = Reference(owner)
    desired = _READ_WRITE if writable else _READ
    try:
        imported = owner.import_by_name(name, desired, reference, object_kind=ObjectKind.CHANNEL)
    except NameNotFoundError as error:
        raise _not_found(name, error) from None
    return adopt(name, imported, writable, security)


def _not_found(name: str, error: NameNotFoundError) -> NameNotFoundError:
    """Return the error for a name without a channel, which says what makes one. error: of the object manager."""
    where = str(error)
    at = where.find(_WHERE)
    return NameNotFoundError(
        f"no channel is named {name!r}: start its writer (extmem.create_channel), or wait for the name: "
        f"extmem.open_channel(name, timeout=seconds){'. ' + where[at:] if at >= 0 else ''}",
        ntstatus=error.ntstatus,
        winerror=error.winerror,
    )


def adopt(name: str, imported: Imported, writable: bool = False, security: str | None = None) -> ControlPage:
    """Return the control page that was imported, which owns the import. Errors: as `find`."""
    try:
        locks = system.locks_of(name, imported, security, writable=writable)
        fd, size = imported.payload.fd, imported.capacity
        return ControlPage(name, fd, locks, size, imported.reference, imported, writable=writable)
    except BaseException:
        imported.give_back()
        raise


def publish(name: str, header: Header, arrays: bytes, security: str | None) -> ControlPage:
    """Create the control page of a new channel, and give it the name. Return it, open for writing.

    Errors: NameTakenError, NameInvalidError, SecurityDescriptorError; OutOfMemoryError; UnsupportedError.
    """
    size = header.layout.size

    def write(fd: int) -> None:
        mapping = host.map_file(fd, size, True)
        view = _bytes_at(mapping.address, size)
        packed, at = header.pack(), header.layout.arrays
        view[: len(packed)] = packed
        view[at : at + len(arrays)] = arrays

    file, locks, reference = system.publish(name, size, header.identity, write, security)
    try:
        return ControlPage(name, file.fd, locks, size, reference, None, file, writable=True)
    except BaseException:
        reference.give_back()
        file.close()
        raise
