"""Work of CUDA streams on frames of channels, as tests give it: fills, copies, and a gate that holds a stream back."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Iterator
from typing import Any

from extmem.api import Device
from extmem.api.timeline import Timeline
from extmem.interop import DeviceArray

__all__ = ["Streams", "Taken", "streams_of"]


class Taken:
    """Bytes on the host that a stream copies from an array."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self._view = (ctypes.c_char * size).from_address(address)

    @property
    def bytes(self) -> set[int]:
        """The different bytes in it; {0} before the copy."""
        return set(self._view.raw)


class Streams:
    """What tests give streams of one device."""

    def __init__(self, device: Device) -> None:
        backend: Any = device.backend
        self.device = device
        self.module = backend.device.module
        self.current = backend.device.gpu.current
        self.pinned: list[int] = []

    def fill(self, array: DeviceArray, byte: int, stream: int) -> None:
        """Fill an array with a byte, in the order of the stream. Returns at once."""
        with self.current:
            assert not self.module.cuMemsetD8Async(array.pointer, byte, _size(array), stream)[0]

    def taken(self, array: DeviceArray, stream: int) -> Taken:
        """Copy an array to the host, in the order of the stream. Returns at once."""
        size = _size(array)
        with self.current:
            result, address = self.module.cuMemHostAlloc(size, 0)
            assert not result
            self.pinned.append(int(address))
            found = Taken(int(address), size)
            ctypes.memset(found.address, 0, size)
            assert not self.module.cuMemcpyDtoHAsync(found.address, array.pointer, size, stream)[0]
        return found

    @contextlib.contextmanager
    def gate(self, stream: int) -> Iterator[Timeline]:
        """Hold a stream back until the timeline is signaled to 1, or the block ends."""
        backend: Any = self.device.backend
        with self.device.timeline() as held:
            backend.stream_wait(stream, [(held.record.native, 1)])
            try:
                yield held
            finally:
                if held.value < 1:
                    held.signal(1)

    def synchronize(self, stream: int) -> None:
        """Wait until a stream has done everything."""
        with self.current:
            assert not self.module.cuStreamSynchronize(stream)[0]


@contextlib.contextmanager
def streams_of(device: Device) -> Iterator[Streams]:
    """Yield what gives work to streams. At the end its memory is freed: the streams must be done."""
    made = Streams(device)
    try:
        yield made
    finally:
        with made.current:
            for address in made.pinned:
                made.module.cuMemFreeHost(address)


def _size(array: DeviceArray) -> int:
    return math.prod(array.shape) * array.layout.element.itemsize
