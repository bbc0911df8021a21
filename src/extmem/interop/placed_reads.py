"""Reads of the tensors of a file to their places in a payload, by several threads and without a copy between.

How this works. In a safetensors file the tensors stand one after the other, without gaps. In the payload each begins at
a multiple of the alignment, in the same order. So any range of the payload is one range of the file, with gaps between
the tensors, and one call of the kernel reads it into the parts of a buffer (`PlacedTensors.fill`).

The payload is divided into such ranges. On the host the buffer is the payload itself. On a GPU it is pinned memory of
the device's ring, from which the GPU transfers it while the threads read the next range (`WritesFrom`); other devices
copy from a buffer for each range. Behind each range the file's pages in the page cache are given back, because a second
copy of a model would stay there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from extmem.core import views
from extmem.core.memory_record import MemoryRecord
from extmem.devices.copy_threads import copy_threads
from extmem.devices.optional_protocols import WritesFrom
from extmem.interop import positioned_reads
from extmem.interop.safetensors_files import OpenFile, StoredTensor
from extmem.interop.transfer import Progress

__all__ = ["PIECE", "PlacedTensors", "read_into", "read_to"]

PIECE: Final = 64 << 20
"""Bytes that the threads read together. Between two pieces a program's `progress` is called."""
_WRITE: Final = 256 << 20
"""Bytes that a device writes at once: other copies of the program wait for them, as they use the same ring."""


class PlacedTensors:
    """The tensors of a file, and where in a payload they are. Immutable; any thread may use it."""

    def __init__(self, file: OpenFile, tensors: Sequence[StoredTensor], offsets: Sequence[int]) -> None:
        """file: borrowed. tensors: in the order of the file, without gaps. offsets: their places, in the same order."""
        self.file = file
        placed = [(at, one.begin, one.nbytes) for one, at in zip(tensors, offsets, strict=True) if one.nbytes]
        self._starts = [at for at, _, _ in placed]
        self._begins = [begin for _, begin, _ in placed]
        self._sizes = [size for _, _, size in placed]
        self.size = self._starts[-1] + self._sizes[-1] if placed else 0
        """Bytes of the payload, up to the end of the last tensor."""

    def fill(self, octets: memoryview, start: int) -> None:
        """Fill a buffer of bytes with what the payload has from `start` on; gaps between tensors are zero.

        Errors: ValueError for a file that ends early; OSError.
        """
        end, at, number = start + octets.nbytes, start, max(bisect_right(self._starts, start) - 1, 0)
        buffers: list[memoryview] = []
        position = 0
        while at < end:
            if number == len(self._starts) or self._starts[number] > at:
                until = end if number == len(self._starts) else min(end, self._starts[number])
                octets[at - start : until - start] = bytes(until - at)
                at = until
                continue
            into = at - self._starts[number]
            until = min(end, self._starts[number] + self._sizes[number])
            if at < until:
                if not buffers:
                    position = self._begins[number] + into
                buffers.append(octets[at - start : until - start])
                at = until
            number += 1
        self._read(buffers, position)

    def _read(self, buffers: list[memoryview], position: int) -> None:
        file, start = self.file, position
        waiting = iter(buffers)
        batch: list[memoryview] = list(islice(waiting, positioned_reads.BUFFERS))
        while batch:
            got = positioned_reads.read_into(file.fd, file.path, batch, position)
            if not got:
                raise ValueError(f"{file.path!r} ends at byte {position}; it was cut off while it was read")
            position += got
            full = 0
            while full < len(batch) and got >= batch[full].nbytes:
                got -= batch[full].nbytes
                full += 1
            if got:
                batch[full] = batch[full][got:]
            batch = batch[full:] or list(islice(waiting, positioned_reads.BUFFERS))
        positioned_reads.give_back_cache(file.fd, start, position - start)


def read_to(record: MemoryRecord, mapped: bool, placed: PlacedTensors, progress: Progress | None = None) -> None:
    """Read the tensors into memory, which nobody else has yet and whose bytes are zero.

    mapped: whether the host can map it. progress: called in this thread, between pieces; its exceptions end the
    reading. Errors: ValueError for a file that ends early or is changed; OSError; those of the device. No thread reads
    any more then.
    """
    start, backend = record.descriptor.payload_offset, record.device.backend
    if mapped:
        whole = views.view_of_all(record, [])
        read_into(whole[start : start + placed.size], placed, progress)
        backend.flush(record.allocation, 0, record.size)
    elif isinstance(backend, WritesFrom):
        each = _WRITE if progress is None else PIECE
        for at in range(0, placed.size, each):
            size = min(each, placed.size - at)
            backend.write_from(record.allocation, start + at, size, _from(placed, at))
            if progress is not None:
                progress(at + size, placed.size)
    else:

        def through(at: int, size: int) -> None:
            octets = bytearray(size)
            placed.fill(memoryview(octets), at)
            backend.write(record.allocation, start + at, memoryview(octets))

        _in_threads(placed.size, through, progress)
    positioned_reads.give_back_cache(placed.file.fd, 0, 0)
    placed.file.check_unchanged()


def _from(placed: PlacedTensors, begin: int) -> Callable[[memoryview, int], None]:
    return lambda octets, start: placed.fill(octets, begin + start)


def read_into(octets: memoryview, placed: PlacedTensors, progress: Progress | None = None) -> None:
    """Fill a buffer of `placed.size` bytes by several threads. Errors: as `PlacedTensors.fill`; of `progress`."""
    _in_threads(placed.size, lambda at, size: placed.fill(octets[at : at + size], at), progress)


def _in_threads(size: int, read: Callable[[int, int], None], progress: Progress | None) -> None:
    """Call `read` with the place and size of each piece. After an error no piece is begun, and none is unfinished."""
    for at in range(0, size, PIECE):
        count = min(PIECE, size - at)
        reading = copy_threads.begin(0, at, count, None, lambda _, place, part: read(place, part))
        try:
            reading.finish()
        except BaseException:
            reading.drop()
            raise
        if progress is not None:
            progress(at + count, size)
