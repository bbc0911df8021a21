"""`ControlPage`: the control page of a channel in this process, mapped, with this process's locks of it.

How this works. The user's name leads to this page, a shared object of its own kind. It is a sealed memory file: the
writer has it mapped for writing, a reader has a descriptor for reading alone. Its companion page is a file for locks
alone, which is sealed against writing. Each `ControlPage` has an open file description of its own of that file, to
which its locks belong. The bytes that are locked are beyond the end of the file:

    2**40 + e * capacity + i    slot i of epoch e: shared by readers that hold it, exclusive by the writer
    2**50 + k                   the reader in place k is there; the first `max_reliable` places are for reliable ones
"""

from __future__ import annotations

from typing import Any, Final

from extmem.core.describing import start_time_of
from extmem.devices import host
from extmem.devices.host import late
from extmem.devices.host._libc import ffi
from extmem.devices.host.range_lock_system import Range, RangeLocks, create, reopen
from extmem.errors import ChannelCorruptError, HandleStateError, UnsupportedError
from extmem.handles import Access
from extmem.handles.process_id import current_process
from extmem.manager import Imported, Manager, Reference, manager
from extmem.owning import OwnedFd
from extmem.sharing.channel_page import META_LIMIT, Header, Words, parse_header
from extmem.sharing.descriptor.channel import ChannelDescriptor
from extmem.sharing.kinds import ObjectKind, Share
from extmem.sharing.payload import Page

__all__ = ["ControlPage", "adopt", "find", "no_channels", "publish", "publish_lock", "slot_range"]

_SLOTS: Final = 1 << 40
_PLACES: Final = 1 << 50
_READ: Final = int(Access.READ)
_READ_WRITE: Final = int(Access.READ_WRITE)


class ControlPage:
    """See the module. Ownership: it owns its reference, mapping and locks until `close`."""

    __slots__ = (
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
        lock_fd: int,
        size: int,
        reference: Reference,
        imported: Imported | None,
        *,
        writable: bool,
    ) -> None:
        """fd, lock_fd: of the page, and of the file for its locks; borrowed. size: bytes of the sealed page.

        reference, imported: owned from now on.

        Errors: ChannelCorruptError; UnsupportedError; OutOfMemoryError.
        """
        self.name = name
        self.pid = current_process.pid
        self._reference = reference
        self._imported = imported
        self.locks = RangeLocks(reopen(lock_fd, writable=writable))
        try:
            self._mapping = host.map_file(fd, size, writable)
            view = _bytes_at(self._mapping.address, size)
            self._whole = view if writable else view.toreadonly()
            self.header = header = parse_header(self._whole, size, repr(name))
        except BaseException:
            self.locks.close()
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
                f"{current_process.pid}, which shares the locks of its slots; open the channel in the child, or start "
                'children by "spawn"'
            )

    def close(self) -> None:
        """Release the locks, the mapping and the reference. Safe to call twice."""
        self.locks.close()
        imported = self._imported
        if imported is not None:
            imported.payload.close()
        self._reference.give_back()


def _bytes_at(address: int, size: int) -> memoryview:
    view: Any = memoryview(ffi.buffer(ffi.cast("char *", address), size)).cast("B")
    return view  # type: ignore[no-any-return]


def slot_range(capacity: int, epoch: int, slot: int) -> Range:
    """Return the bytes that are locked for a slot of a channel of this capacity."""
    return Range(_SLOTS + epoch * capacity + slot)


def find(name: str, *, writable: bool) -> ControlPage:
    """Open the control page of the channel with this name.

    Errors: NameNotFoundError, ObjectTypeError (another object has the name), AccessDeniedError; ChannelCorruptError;
    UnsupportedError on systems without these locks.
    """
    owner = manager()
    if not owner.has_broker:
        raise no_channels()
    reference = Reference(owner)
    desired = _READ_WRITE if writable else _READ
    return adopt(name, owner.import_by_name(name, desired, reference, object_kind=ObjectKind.CHANNEL), writable)


def adopt(name: str, imported: Imported, writable: bool = False) -> ControlPage:
    """Return the control page that was imported, which owns the import. Errors: as `find`."""
    try:
        pages = imported.payload.pages
        if len(pages) != 1:
            raise ChannelCorruptError(
                f"the channel {name!r} has {len(pages)} companion pages, and a channel has one; its writer is faulty, "
                "or of another version of extmem. Restart the writer, or open another channel"
            )
        fd, size = imported.payload.fd, imported.capacity
        return ControlPage(name, fd, pages[0].handle, size, imported.reference, imported, writable=writable)
    except BaseException:
        imported.give_back()
        raise


def no_channels() -> UnsupportedError:
    """Return the error to raise on Windows."""
    return UnsupportedError(
        "channels need locks of a file's bytes that end with their process, and this release of extmem has them for "
        "Linux alone; share memory and a timeline (extmem.share, Device.timeline) instead",
        requires_one_of=["Linux"],
    )


def publish(name: str, header: Header, arrays: bytes, security: str | None) -> ControlPage:
    """Create the control page of a new channel, and give it the name. Return it, open for writing.

    Errors: NameTakenError, NameInvalidError, SecurityDescriptorError; OutOfMemoryError.
    """
    owner = manager()
    layout = header.layout
    file: OwnedFd = late.system.create(layout.size, b"")
    lock_file = create()
    reference = Reference(owner)
    with file.hold(), lock_file.hold():
        _write(file.fd, header, arrays)
        owner.export(
            (file.fd,),
            _described(header.identity),
            share=Share.NT,
            name=name,
            access=int(Access.ALL),
            sddl=security,
            inherit=False,
            object_kind=ObjectKind.CHANNEL,
            pages=(Page(lock_file.fd, False),),
            reference=reference,
        )
        try:
            page = ControlPage(name, file.fd, lock_file.fd, layout.size, reference, None, writable=True)
        except BaseException:
            reference.give_back()
            raise
    file.close()
    lock_file.close()
    return page


def publish_lock(identity: bytes, name: str) -> tuple[OwnedFd, Reference]:
    """Create a file for locks under this name, which this user alone can open. Return its fd, and the reference.

    Errors: NameTakenError; OutOfMemoryError.
    """
    owner = manager()
    file = create()
    reference = Reference(owner)
    with file.hold():
        owner.export(
            (file.fd,),
            _described(identity, lock=True),
            share=Share.NT,
            name=name,
            access=int(Access.ALL),
            sddl=None,
            inherit=False,
            object_kind=ObjectKind.CHANNEL,
            reference=reference,
        )
    return file, reference


def _described(identity: bytes, *, lock: bool = False) -> bytes:
    pid = current_process.pid
    return ChannelDescriptor(
        identity=identity, lock=lock, share=int(Share.NT), owner_pid=pid, owner_start_time=start_time_of(pid)
    ).encode()


def _write(fd: int, header: Header, arrays: bytes) -> None:
    """Write the first contents of the page, before anybody can open it."""
    mapping = host.map_file(fd, header.layout.size, True)
    view = _bytes_at(mapping.address, header.layout.size)
    view[: len(header.pack())] = header.pack()
    at = header.layout.arrays
    view[at : at + len(arrays)] = arrays
