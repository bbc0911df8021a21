"""The control page of a channel: its slots, and what is in them. Pure: the layout, and every check of it.

::

    0        256       256 + 8 C   …
    +--------+---------+---------+-------+------------+-------+----------+--------+
    | header | numbers | times   | sizes | slot table | metas | arrays   |        |
    +--------+---------+---------+-------+------------+-------+----------+--------+

C is the capacity, the most slots that the channel can have. For each slot: the number of the frame in it (u64; 0 while
it is written), the time of its publication (u64, nanoseconds of CLOCK_MONOTONIC), the size of its metadata (u32), and
256 bytes of metadata. The slot table (u32, 2 C entries) leads from a frame number to its slot: entry `number % (2 C)`.
`arrays` is the table of the named arrays in each slot (`sharing.table`), empty for slots of one array.

All numbers are in native byte order: the page never leaves the machine.

How this works. Only the writer has the page mapped for writing. Readers have a read-only file, so the kernel keeps them
from changing it. A writer may be faulty, or hostile: readers take nothing from the page without a check. `Layout` is
made of the numbers of the header once, when the page is opened, and its sizes are compared with that of the file. What
changes later (`slots`, a slot of the table, the size of metadata) is checked at each use against that layout. A value
beyond it is an error, `ChannelCorruptError`. Wrong numbers inside the limits cannot do harm: a reader locks the slot,
and then compares the slot's number with the number that it looks for.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from extmem.errors import ChannelCorruptError

__all__ = [
    "ARRAYS_LIMIT",
    "CAPACITY_LIMIT",
    "EPOCH_LIMIT",
    "META_LIMIT",
    "READERS_LIMIT",
    "Header",
    "Layout",
    "Words",
    "parse_header",
]

META_LIMIT: Final = 256
"""The most bytes of metadata of a frame."""
CAPACITY_LIMIT: Final = 1024
"""The most slots of a channel."""
READERS_LIMIT: Final = 256
"""The most readers of a channel, reliable ones included."""
EPOCH_LIMIT: Final = 1 << 32
"""The most epochs: for each slot of each of them there is a byte to lock."""
ARRAYS_LIMIT: Final = 1 << 16
"""The most bytes of the table of named arrays."""

_MAGIC: Final = b"EXTMCHAN"
_VERSION: Final = 1
_HEADER_SIZE: Final = 256
_HEADER: Final = struct.Struct("=8sII16sQIIIIQQQ")


class Words:
    """Offsets of the numbers of the header that change, in units of their size."""

    EPOCH: Final = 32 // 8
    """u64: the epoch. It changes when the slots are replaced (`reconfigure`)."""
    SLOTS: Final = 40 // 4
    """u32: the slots of this epoch."""
    ARRAYS: Final = 44 // 4
    """u32: bytes of the table of named arrays."""
    WRITER: Final = 56 // 8
    """u64: pid, start time and pid namespace of the writer, in this and the next two words."""
    DROPPED: Final = 80 // 8
    """u64: frames that were not published, because no slot was free."""
    COUNT: Final = 88 // 8
    """u64: the number of the last frame that was published, for the next writer."""
    WAITING: Final = 96 // 4
    """u32: not 0 while the writer waits for readers to release a slot."""
    CLOSED: Final = 100 // 4
    """u32: 1 after the writer has closed the channel in the usual way; 0 while there is a writer."""
    REFUSES: Final = 104 // 4
    """u32: 1 if the writer does not wait for reliable readers, although the channel has places for them."""


class Header(msgspec.Struct, frozen=True):
    """The numbers at the beginning of the page."""

    capacity: int
    """The most slots."""
    max_readers: int
    """The most readers, reliable ones included."""
    max_reliable: int
    """The most reliable readers, whenever a writer does not refuse them (`Words.REFUSES`)."""
    identity: bytes
    """16 random bytes, of which the names of all parts of the channel are made."""
    epoch: int = 1
    slots: int = 1
    arrays_size: int = 0
    pid: int = 0
    start: int = 0
    namespace: int = 0
    refuses: bool = False
    """Whether the first writer refuses reliable readers."""

    def pack(self) -> bytes:
        """Return the first bytes of the page."""
        limits = self.max_readers | self.max_reliable << 16
        page = bytearray(_HEADER_SIZE)
        _HEADER.pack_into(
            page,
            0,
            _MAGIC,
            _VERSION,
            self.capacity,
            self.identity,
            self.epoch,
            self.slots,
            self.arrays_size,
            limits,
            0,
            self.pid,
            self.start,
            self.namespace,
        )
        page[4 * Words.REFUSES] = self.refuses  # the first byte, or the last one: any number but 0 refuses
        return bytes(page)

    @property
    def layout(self) -> Layout:
        """Where everything is in the page."""
        return Layout(self.capacity)


class Layout:
    """The offsets in a page of this capacity, in bytes."""

    __slots__ = ("arrays", "capacity", "entries", "metas", "numbers", "size", "sizes", "table", "times")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries = 2 * capacity
        """The length of the slot table."""
        self.numbers = _HEADER_SIZE
        self.times = self.numbers + 8 * capacity
        self.sizes = self.times + 8 * capacity
        self.table = self.sizes + 4 * capacity
        self.metas = self.table + 4 * self.entries
        self.arrays = self.metas + META_LIMIT * capacity
        self.size = self.arrays + ARRAYS_LIMIT
        """Bytes of the page."""


def parse_header(page: memoryview | bytes, size: int, name: str = "the channel") -> Header:
    """Return the header of a page, checked. size: the bytes of its file, which is sealed.

    Errors: ChannelCorruptError.
    """
    if size < _HEADER_SIZE:
        raise _corrupt(name, f"the page has {size} bytes, fewer than its header of {_HEADER_SIZE}")
    magic, version, capacity, identity, epoch, slots, arrays, limits, _, pid, start, namespace = _HEADER.unpack_from(
        page
    )
    if magic != _MAGIC:
        raise _corrupt(name, f"the page begins with {magic!r}, and a control page with {_MAGIC!r}")
    if version != _VERSION:
        raise _corrupt(name, f"the page has version {version}, and this extmem reads version {_VERSION}")
    header = Header(capacity, limits & 0xFFFF, limits >> 16, identity, epoch, slots, arrays, pid, start, namespace)
    if not 1 <= capacity <= CAPACITY_LIMIT:
        raise _corrupt(name, f"it has room for {capacity} slots, outside 1 to {CAPACITY_LIMIT}")
    if header.layout.size > size:
        raise _corrupt(name, f"{capacity} slots need a page of {header.layout.size} bytes, and it has {size}")
    if not 1 <= slots <= capacity:
        raise _corrupt(name, f"it has {slots} slots, outside 1 to {capacity}")
    if arrays > ARRAYS_LIMIT:
        raise _corrupt(name, f"its table of arrays has {arrays} bytes, more than {ARRAYS_LIMIT}")
    if not (0 <= header.max_reliable <= header.max_readers <= READERS_LIMIT and header.max_readers):
        raise _corrupt(name, f"it allows {header.max_readers} readers, {header.max_reliable} of them reliable")
    if not 1 <= epoch <= EPOCH_LIMIT:
        raise _corrupt(name, f"its epoch is {epoch}, outside 1 to {EPOCH_LIMIT}")
    return header


def _corrupt(name: str, what: str) -> ChannelCorruptError:
    return ChannelCorruptError(
        f"the control page of {name} cannot be true: {what}; its writer is faulty, or of another version of extmem. "
        "Restart the writer, or open another channel"
    )
