"""Functions that copy and fill memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.objects import Mapped, Pinned, Reserved
from extmem.testing.fake_cuda.streams import Step, enqueue

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_READ_WRITE, _REGISTERED_READ_ONLY = 3, 0x08
_HOST, _DEVICE = 1, 2


def _on_device(fake: FakeCuda, pointer: Any, size: int, *, write: bool) -> int:
    fake.current()
    address = int(pointer)
    spans: list[Mapped | Reserved | Pinned] = [
        *fake.living(Mapped),
        *fake.living(Reserved),
        *fake.living(Pinned),
    ]
    at, end = address, address + size
    for span in sorted(spans, key=lambda one: one.address):  # memory mapped side by side is one range
        if span.address <= at < span.address + span.size:
            if write and isinstance(span, Reserved) and span.access != _READ_WRITE:
                raise fake.wrong("memory that may only be read is written", 700)
            if write and isinstance(span, Pinned) and span.flags & _REGISTERED_READ_ONLY:
                raise fake.wrong("memory that may only be read is written", 700)
            if isinstance(span, Reserved) and not span.access:
                raise fake.wrong("the range has no access: cuMemSetAccess was not called")
            at = span.address + span.size
            if at >= end:
                return address
    raise fake.wrong(f"{size} bytes at {address:#x} are not device memory")


def cuMemcpyHtoD(fake: FakeCuda, target: Any, source: Any, size: int) -> None:
    """Copy from the host."""
    ctypes.memmove(_on_device(fake, target, size, write=True), int(source), size)


def cuMemcpyDtoH(fake: FakeCuda, target: Any, source: Any, size: int) -> None:
    """Copy to the host."""
    ctypes.memmove(int(target), _on_device(fake, source, size, write=False), size)


def cuMemcpyDtoD(fake: FakeCuda, target: Any, source: Any, size: int) -> None:
    """Copy on the device."""
    ctypes.memmove(_on_device(fake, target, size, write=True), _on_device(fake, source, size, write=False), size)


def _copy_later(fake: FakeCuda, target: int, source: int, size: int, stream: Any) -> None:
    looks = [fake.slow_copies]

    def copy() -> bool:
        looks[0] -= 1
        if looks[0] >= 0:
            return False
        ctypes.memmove(target, source, size)
        return True

    enqueue(fake, stream, Step(copy, fake.pinned_at(source, size) or fake.pinned_at(target, size)))


def cuMemcpyHtoDAsync(fake: FakeCuda, target: Any, source: Any, size: int, stream: Any) -> None:
    """Copy from pinned memory, in the order of a stream. Other memory is a misuse: the host would wait for the copy."""
    if fake.pinned_at(int(source), size) is None:
        raise fake.wrong(f"{size} bytes at {int(source):#x} are not pinned")
    _copy_later(fake, _on_device(fake, target, size, write=True), int(source), size, stream)


def _rows(fake: FakeCuda, copy: Any) -> tuple[list[tuple[int, int]], int]:
    """Return target and source of each row of a CUDA_MEMCPY2D from the host to the device, and the bytes of a row."""
    width, height, pitch, source = int(copy.WidthInBytes), int(copy.Height), int(copy.dstPitch), int(copy.srcHost)
    if int(copy.srcMemoryType) != _HOST or int(copy.dstMemoryType) != _DEVICE or width > min(pitch, int(copy.srcPitch)):
        raise fake.wrong(f"rows of {width} bytes with pitches {copy.srcPitch} and {pitch}, or of other memory")
    at = _on_device(fake, copy.dstDevice, (height - 1) * pitch + width, write=True)
    return [(at + row * pitch, source + row * int(copy.srcPitch)) for row in range(height)], width


def cuMemcpy2D(fake: FakeCuda, copy: Any) -> None:
    """Copy rows from the host."""
    rows, width = _rows(fake, copy)
    for target, source in rows:
        ctypes.memmove(target, source, width)


def cuMemcpy2DAsync(fake: FakeCuda, copy: Any, stream: Any) -> None:
    """Copy rows from pinned memory, in the order of a stream."""
    rows, width = _rows(fake, copy)
    pinned = fake.pinned_at(rows[0][1], rows[-1][1] + width - rows[0][1])
    if pinned is None:
        raise fake.wrong("the rows are not in pinned memory")
    looks = [fake.slow_copies]

    def move() -> bool:
        looks[0] -= 1
        if looks[0] >= 0:
            return False
        for target, source in rows:
            ctypes.memmove(target, source, width)
        return True

    enqueue(fake, stream, Step(move, pinned))


def cuMemcpyDtoHAsync(fake: FakeCuda, target: Any, source: Any, size: int, stream: Any) -> None:
    """Copy to pinned memory, in the order of a stream. Other memory is a misuse."""
    if fake.pinned_at(int(target), size) is None:
        raise fake.wrong(f"{size} bytes at {int(target):#x} are not pinned")
    _copy_later(fake, int(target), _on_device(fake, source, size, write=False), size, stream)


def cuMemsetD8(fake: FakeCuda, target: Any, value: int, count: int) -> None:
    """Fill with bytes."""
    ctypes.memset(_on_device(fake, target, count, write=True), value, count)


def cuMemsetD32(fake: FakeCuda, target: Any, value: int, count: int) -> None:
    """Fill with 32-bit words."""
    at = _on_device(fake, target, 4 * count, write=True)
    ctypes.memmove(at, value.to_bytes(4, "little") * count, 4 * count)


def cuMemcpyDtoDAsync(fake: FakeCuda, target: Any, source: Any, size: int, stream: Any) -> None:
    """Copy on the device, in the order of a stream."""
    to, start = _on_device(fake, target, size, write=True), _on_device(fake, source, size, write=False)

    def copy() -> bool:
        ctypes.memmove(to, start, size)
        return True

    enqueue(fake, stream, Step(copy))


def cuMemsetD32Async(fake: FakeCuda, target: Any, value: int, count: int, stream: Any) -> None:
    """Fill with 32-bit words, in the order of a stream."""
    at = _on_device(fake, target, 4 * count, write=True)

    def fill() -> bool:
        ctypes.memmove(at, value.to_bytes(4, "little") * count, 4 * count)
        return True

    enqueue(fake, stream, Step(fill))


def cuMemsetD8Async(fake: FakeCuda, target: Any, value: int, count: int, stream: Any) -> None:
    """Fill with bytes, in the order of a stream."""
    at = _on_device(fake, target, count, write=True)

    def fill() -> bool:
        ctypes.memset(at, value, count)
        return True

    enqueue(fake, stream, Step(fill))
