"""What the host device's memory is to the layers above: a payload's fd, or memory that the caller owns."""

from __future__ import annotations

import os
from collections.abc import Callable

from extmem.errors import HandleStateError

__all__ = ["HostAllocation", "PointerAllocation"]


class HostAllocation:
    """A payload's fd, and how to give it back. Closed when lost."""

    __slots__ = ("_fd", "_release", "identity", "memory_type_index", "size", "writable")

    def __init__(
        self,
        fd: int,
        size: int,
        memory_type_index: int,
        *,
        identity: tuple[int, int],
        writable: bool,
        release: Callable[[], None] | None = None,
    ) -> None:
        self._fd = fd
        self._release = release
        self.size = size
        """VkMemoryAllocateInfo::allocationSize in bytes."""
        self.memory_type_index = memory_type_index
        """VkMemoryAllocateInfo::memoryTypeIndex."""
        self.identity: tuple[int, int] | None = identity
        """(st_dev, st_ino) of the payload."""
        self.writable = writable
        """Whether the fd allows writing."""

    @property
    def fd(self) -> int:
        """The fd, borrowed. HandleStateError once closed."""
        if self._fd < 0:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        return self._fd

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._fd < 0

    def close(self) -> None:
        """Give the fd back. Safe to call twice."""
        fd, self._fd = self._fd, -1
        release, self._release = self._release, None
        if fd < 0:
            return
        if release is not None:
            release()
        else:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


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
    def closed(self) -> bool:
        """True after `close()`."""
        return self._address is None

    def close(self) -> None:
        """Let go of the address. Safe to call twice."""
        self._address = None
