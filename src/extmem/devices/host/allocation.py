"""What the host device's memory is to the layers above: a payload's fd, or memory that the caller owns."""

# Annotations are evaluated when a class is made (msgspec reads them), so they are not postponed here.

from typing import NamedTuple
from weakref import ref

import msgspec

from extmem.broker.descriptors import OwnedFd, PayloadFd
from extmem.devices.base import Mapping
from extmem.devices.host._system import FileMapping, identity_of, map_file
from extmem.errors import HandleStateError

__all__ = ["HostAllocation", "PointerAllocation"]


_NO_DESCRIPTOR = OwnedFd(-1)


class HostAllocation(msgspec.Struct, gc=False, eq=False):
    """A payload's fd, or HANDLE, and its owner, which is let go of by `close`, or with this object when that is lost.

    (A Struct because it is made in C: every import makes one.)
    """

    number: int
    """The fd; -1 once closed."""
    size: int
    """VkMemoryAllocateInfo::allocationSize in bytes."""
    memory_type_index: int
    """VkMemoryAllocateInfo::memoryTypeIndex."""
    writable: bool
    """Whether the fd allows writing."""
    shared: OwnedFd
    """The descriptor. All imports of a payload in this process share one, and its mapping."""
    owner: OwnedFd | PayloadFd | None
    """What to close: the descriptor itself, or an import's hold on it."""
    mapping: FileMapping | None = None
    """Once it was looked at, until it is closed."""

    @property
    def fd(self) -> int:
        """The fd, borrowed. HandleStateError once closed."""
        if self.number < 0:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self.number

    @property
    def identity(self) -> tuple[int, int] | None:
        """(st_dev, st_ino) of the payload; on Windows None."""
        return identity_of(self.fd)

    @property
    def stated_identity(self) -> int:
        """0: the kernel tells memory files apart."""
        return 0

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self.number < 0

    @property
    def mapped(self) -> bool:
        """Whether `map` was called."""
        return self.mapping is not None

    def close(self) -> None:
        """Give the fd back. Safe to call twice."""
        owner, self.owner = self.owner, None
        self.number, self.shared, self.mapping = -1, _NO_DESCRIPTOR, None
        if owner is not None:
            owner.close()

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. Exactly the allocation is mapped, never the self-description behind it."""
        mapping = self.mapping
        if mapping is None or mapping.writable is not writable:
            known = self.shared.mapping
            mapping = known() if known is not None else None
            if mapping is None or mapping.size != self.size or mapping.writable is not writable:
                mapping = map_file(self.fd, self.size, writable)
                self.shared.mapping = ref(mapping)
            self.mapping = mapping
        return mapping


class PointerMapping(NamedTuple):
    """Memory that the caller mapped and keeps, of an imported host pointer."""

    address: int
    size: int
    writable: bool = True


class PointerAllocation:
    """Imported host memory: an address range that stays the caller's."""

    __slots__ = ("_address", "memory_type_index", "size")

    def __init__(self, address: int, size: int, memory_type_index: int) -> None:
        self._address: int | None = address
        self.size = size
        """VkMemoryAllocateInfo::allocationSize in bytes."""
        self.memory_type_index = memory_type_index
        """VkMemoryAllocateInfo::memoryTypeIndex."""

    @property
    def address(self) -> int:
        """The host pointer. HandleStateError once closed."""
        if self._address is None:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self._address

    @property
    def identity(self) -> tuple[int, int] | None:
        """None: there is no file."""
        return None

    @property
    def writable(self) -> bool:
        """True: what may not be written is not imported."""
        return True

    @property
    def fd(self) -> int | None:
        """None: there is no file."""
        return None

    @property
    def stated_identity(self) -> int:
        """0: there is no payload of its own."""
        return 0

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._address is None

    @property
    def mapped(self) -> bool:
        """True: it is mapped where its owner has it."""
        return True

    def close(self) -> None:
        """Let go of the address. Safe to call twice."""
        self._address = None

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`."""
        return PointerMapping(self.address, self.size)
