"""What the CUDA device's memory is to the layers above: a device pointer, and what must be undone when it goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from extmem.devices.cuda.capabilities import HOST_TYPE
from extmem.devices.cuda.sharing import close_descriptor
from extmem.errors import HandleStateError, UnsupportedError
from extmem.handles.here import HERE

if TYPE_CHECKING:
    from extmem.broker.descriptors import PayloadFd
    from extmem.devices.base import Mapping
    from extmem.devices.cuda.driver import CudaDriver

__all__ = ["CudaAllocation", "HostMapping", "Undo", "undo_all"]

Undo = list[tuple[Any, ...]]
"""Calls that give back what was taken, each with its arguments, in the order of taking."""


def undo_all(undo: Undo) -> None:
    """Give everything back, last taken first. What these calls return is of no use: there is nothing else to do."""
    while undo:
        call, *arguments = undo.pop()
        call(*arguments)


class HostMapping(NamedTuple):
    """Memory that the caller mapped and keeps, of an imported host pointer."""

    address: int
    size: int
    writable: bool = True


class CudaAllocation:
    """Memory as CUDA sees it. Ownership: given back by `close`, in reverse order of `undo`, with the fd, if any."""

    __slots__ = (
        "_fd",
        "_payload",
        "array",
        "driver",
        "exports",
        "keep_alive",
        "mapping",
        "memory_type_index",
        "pointer",
        "producer",
        "size",
        "stated_identity",
        "undo",
        "writable",
    )

    def __init__(
        self,
        driver: CudaDriver,
        size: int,
        memory_type_index: int,
        pointer: int,
        undo: Undo,
        *,
        payload: PayloadFd | None = None,
        fd: int = -1,
        identity: int = 0,
        writable: bool = True,
    ) -> None:
        self.driver = driver
        self.size = size
        self.memory_type_index = memory_type_index
        self.pointer = pointer
        """CUdeviceptr; 0 for images, which have an `array`, and once closed."""
        self.undo: Undo | None = undo
        """None once closed."""
        self.array: Any = None
        """CUmipmappedArray of an imported image."""
        self.mapping: Mapping | None = None
        """Where the host has it, for host memory."""
        self.exports: Callable[[], int] | None = None
        """Makes a new fd or NT handle of it, for memory that CUDA made to be shared."""
        self.keep_alive: object = None
        """What the driver was given the address of."""
        self.producer = ""
        """`Descriptor.producer` of the payload."""
        self.stated_identity = identity
        self.writable = writable
        self._payload = payload
        self._fd = fd
        driver.made(id(self))

    @property
    def live(self) -> int:
        """`pointer`. HandleStateError once closed; UnsupportedError for an image."""
        if self.undo is None:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        if not self.pointer:
            raise UnsupportedError(
                "this payload is an image, whose texels lie as the driver likes: it has an array and no pointer; use "
                "extmem.raw.cuda_array(memory), or copy it to a buffer on its Vulkan device",
                requires_one_of=["a buffer", "an image of LINEAR tiling"],
            )
        return self.pointer

    @property
    def fd(self) -> int | None:
        """The payload's fd or NT handle, borrowed: as it came, or exported by CUDA when first asked for."""
        if self.undo is None:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        if self._payload is not None:
            return self._payload.fd if self._payload.fd >= 0 else None
        if self._fd < 0 and self.exports is not None:
            self._fd = self.exports()
        return self._fd if self._fd >= 0 else None

    def keep(self, fd: int) -> None:
        """Own the fd that it was imported from."""
        if self._fd >= 0 or self.undo is None:
            os.close(fd)
            return
        if os.get_inheritable(fd):
            os.set_inheritable(fd, False)
        self._fd = fd

    @property
    def identity(self) -> tuple[int, int] | None:
        """None: the kernel does not tell a driver's payloads apart."""
        return None

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self.undo is None

    @property
    def mapped(self) -> bool:
        """Whether it is host memory, which the host has mapped anyway."""
        return self.mapping is not None

    def map(self, writable: bool = True) -> Mapping:
        """See `Allocation`. Host memory alone is mapped, where the host has it already."""
        if self.undo is None:
            raise HandleStateError(f"this allocation of {self.size} bytes is freed; nothing of it can be used any more")
        if self.mapping is None:
            raise UnsupportedError(
                f"the host cannot see memory type {self.memory_type_index} of {self.driver.name} by CUDA; use "
                "memory.torch(), cupy() or jax() on the GPU, or memory.read() and memory.write()",
                requires_one_of=["a GPU array", "DeviceMemory.read and write"],
            )
        return self.mapping

    def close(self) -> None:
        """Unmap and release. Safe to call twice. In a forked child only what is the child's own is given back."""
        undo, self.undo = self.undo, None
        if undo is None:
            return
        self.pointer, self.array, self.exports, self.keep_alive = 0, None, None, None
        driver = self.driver
        if driver.pid == HERE.pid:
            driver.gpu.undo(undo)
        if self._fd >= 0:
            close_descriptor(self._fd)
        if self._payload is not None:
            self._payload.close()
        self._payload = self.mapping = None
        driver.gone(id(self))

    @property
    def is_host_memory(self) -> bool:
        """Whether its bytes are the host's."""
        return self.memory_type_index == HOST_TYPE
