"""The host device's allocations: a payload's fd, or memory that the caller owns."""

from __future__ import annotations

from weakref import ref

from extmem.devices.backend import Mapping
from extmem.devices.host.system import FileMapping, identity_of, is_sealed, map_file, seal
from extmem.devices.types import HostRange
from extmem.errors import HandleStateError
from extmem.owning import OwnedFd
from extmem.sharing.payload import PayloadFd

__all__ = ["HostAllocation", "PointerAllocation"]


class HostAllocation:
    """A payload's fd, or HANDLE, and its mappings. Ownership: released by `close`."""

    __slots__ = ("_mappings", "_payload", "memory_type_index", "size", "writable")

    stated_identity = 0
    """0: the kernel identifies memory files."""

    def __init__(self, source: OwnedFd | PayloadFd, size: int, memory_type_index: int, writable: bool) -> None:
        """source: the descriptor, or an import's hold on it. The allocation owns it from then on."""
        payload = source if isinstance(source, PayloadFd) else PayloadFd(source, writable)
        self._payload: PayloadFd | None = payload
        self._mappings: dict[bool, FileMapping] = {}
        """The mappings, by whether they may be written. A mapping ends when nothing uses it any more."""
        self.size = size
        self.memory_type_index = memory_type_index
        self.writable = writable

    @property
    def fd(self) -> int:
        """The fd, borrowed. HandleStateError once closed."""
        payload = self._payload
        if payload is None:
            raise self._freed()
        return payload.fd

    @property
    def file(self) -> OwnedFd:
        """The owner of the fd, borrowed. HandleStateError once closed."""
        payload = self._payload
        shared = payload.shared if payload is not None else None
        if shared is None:
            raise self._freed()
        return shared

    @property
    def identity(self) -> tuple[int, int] | None:
        """(st_dev, st_ino) of the payload; on Windows None."""
        return identity_of(self.fd)

    @property
    def closed(self) -> bool:
        return self._payload is None

    @property
    def mapped(self) -> bool:
        """Whether `map` was called."""
        return bool(self._mappings)

    def close(self) -> None:
        """Release mappings and fd. Safe to call twice, and again after an exception."""
        self._mappings.clear()
        payload = self._payload
        if payload is not None:
            payload.close()
            self._payload = None

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. The allocation is mapped, without the self-description behind it."""
        mapped = self._mappings.get(writable)
        if mapped is not None:
            return mapped
        payload = self._payload
        shared = payload.shared if payload is not None else None
        if shared is None:
            raise self._freed()
        shared_mapping = shared.mapping
        # What another import has mapped serves this one too, if it is of the same size and rights.
        mapping: FileMapping | None = shared_mapping() if shared_mapping is not None else None
        if mapping is None or mapping.size != self.size or mapping.writable is not writable:
            mapping = map_file(shared.fd, self.size, writable)
            shared.mapping = ref(mapping)
        return self._mappings.setdefault(writable, mapping)

    @property
    def frozen(self) -> bool:
        """Whether the kernel lets nobody write to it any more. HandleStateError once closed."""
        return is_sealed(self.fd)

    def freeze(self) -> bool:
        """Let nobody write to it any more, here neither. Return False if somebody has mapped it for writing.

        The caller ensures that nothing of this process uses its mappings, which end here. Errors: as `seal`.
        """
        self._mappings.clear()
        file = self.file
        with file.use():
            return seal(file.fd) and self.look_at_seal()

    def look_at_seal(self) -> bool:
        """Return `frozen`, and record it: an exception may come between the seal and its record."""
        frozen = self.frozen
        if frozen:
            self.writable = False
            payload = self._payload
            if payload is not None:
                payload.writable = False
        return frozen

    def _freed(self) -> HandleStateError:
        return HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")


class PointerAllocation:
    """Imported host memory: an address range that stays the caller's."""

    __slots__ = ("_address", "memory_type_index", "size")

    fd: int | None = None
    """None: there is no file."""
    identity: tuple[int, int] | None = None
    """None: there is no file."""
    stated_identity = 0
    """0: there is no payload."""
    frozen = False
    """False: there is no file."""
    writable = True
    """True: memory that is not writable is not imported."""
    mapped = True
    """True: its owner has mapped it."""

    def __init__(self, address: int, size: int, memory_type_index: int) -> None:
        self._address: int | None = address
        self.size = size
        self.memory_type_index = memory_type_index

    @property
    def address(self) -> int:
        """The host pointer. HandleStateError once closed."""
        if self._address is None:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self._address

    @property
    def closed(self) -> bool:
        return self._address is None

    def close(self) -> None:
        """Forget the address. Safe to call twice."""
        self._address = None

    def map(self, writable: bool = True) -> Mapping:
        return HostRange(self.address, self.size)
