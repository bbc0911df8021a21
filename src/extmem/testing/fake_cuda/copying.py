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


def _on_device(fake: FakeCuda, pointer: Any, size: int, *, write: bool) -> int:
    fake.current()
    address = int(pointer)
    spans: list[Mapped | Reserved | Pinned] = [
        *fake.living(Mapped),
        *fake.living(Reserved),
        *fake.living(Pinned),
    ]
    for span in spans:
        if span.address <= address and address + size <= span.address + span.size:
            if write and isinstance(span, Reserved) and span.access != _READ_WRITE:
                raise fake.wrong("memory that may only be read is written", 700)
            if write and isinstance(span, Pinned) and span.flags & _REGISTERED_READ_ONLY:
                raise fake.wrong("memory that may only be read is written", 700)
            if isinstance(span, Reserved) and not span.access:
                raise fake.wrong("the range has no access: cuMemSetAccess was not called")
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
