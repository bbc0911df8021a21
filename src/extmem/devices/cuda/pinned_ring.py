"""`PinnedRing`: pinned memory through which a GPU's copies to and from pageable memory go, piece by piece.

How this works. The GPU reads and writes pinned memory only. For a copy from pageable memory the driver uses one pinned
buffer, which one thread fills, in turn with the transfer. The ring has several slots. While the GPU transfers the bytes
of one, several threads copy those of others (`copy_threads`). Each slot has an event, which is complete when the last
transfer of the slot is; it is waited for before the slot is used again. The transfers are work of the default stream,
like all copies of this device: the caller is in a `Submissions.work` block, which waits for their end, keeps the
payload until then, and does both also after an exception.

An exception may come between a transfer and the record of its event. So a ring whose last use did not end normally
first waits for the stream.

There is one ring for each GPU and process. It is made at the first long copy, on the device that makes it, and released
with that device, after some seconds without a copy, and before a fork. While one thread uses it, others wait.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, Final, Protocol

from extmem.devices.copy_threads import Copying, Move, copy_threads
from extmem.devices.cuda.owners import Undo, take
from extmem.devices.cuda.results import check, value_of
from extmem.devices.cuda.row_copies import rows_copy
from extmem.errors import DriverError, OutOfMemoryError
from extmem.owning import Held, Lock

__all__ = ["SLOTS", "SLOT_SIZE", "PinnedRing"]

SLOTS: Final = 4
SLOT_SIZE: Final = 8 << 20
"""Bytes of a slot."""
_LEAST_PIECE: Final = 512 << 10
_PAGE: Final = 4096
_PORTABLE: Final = 0x01
"""CU_MEMHOSTALLOC_PORTABLE."""
_WITHOUT_TIMING: Final = 0x02
"""CU_EVENT_DISABLE_TIMING."""


class Gpu(Protocol):
    """What a ring needs of its GPU (`physical.Gpu`)."""

    module: Any
    name: str
    current: Any

    def undo(self, undo: Undo) -> None:
        """Release resources in the primary context."""


class Waits(Protocol):
    """What a ring needs of the default stream (`submission.Submissions`)."""

    def until(self, event: Any) -> None:
        """Wait for an event."""

    def finish(self) -> None:
        """Wait for the stream."""


class PinnedRing:
    """The ring of one GPU. Ownership: owns the pinned memory and the events."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._lock = Lock(reentrant=True)
        self._maker: Held | None = None
        """The device whose context the memory belongs to."""
        self._ready = False
        self._undo: Undo = []
        self._memory = 0
        """The address of the first slot."""
        self._events: list[Any] = []
        self._in_use = False
        self._ended = True
        """Whether the last use ended normally."""

    @contextlib.contextmanager
    def taken(self, device: Held, submissions: Waits) -> Iterator[PinnedRing | None]:
        """A block that uses the ring, with its context current. None if it cannot be had: copy without it then.

        That is so while this thread uses it (in a signal handler), and if the driver does not pin the memory.
        """
        with self._lock:
            if self._in_use or not self._make(device):
                yield None
                return
            self._in_use = True
            try:
                if not self._ended:
                    submissions.finish()
                self._ended = False
                yield self
                self._ended = True
            finally:
                self._in_use = False

    def _make(self, device: Held) -> bool:
        if self._ready and self._maker is not None and not self._maker.closing:
            return True
        self.release()
        self._maker, module = device, self._gpu.module
        try:
            step = (module.cuMemFreeHost, ...)
            answer = take(self._undo, step, module.cuMemHostAlloc, SLOTS * SLOT_SIZE, _PORTABLE)
            memory = int(value_of(answer, "cuMemHostAlloc", self._gpu.name, tried=f"{SLOTS * SLOT_SIZE} bytes"))
            events = []
            for _ in range(SLOTS):
                answer = take(self._undo, (module.cuEventDestroy, ...), module.cuEventCreate, _WITHOUT_TIMING)
                events.append(value_of(answer, "cuEventCreate", self._gpu.name))
        except (DriverError, OutOfMemoryError):
            self._gpu.undo(self._undo)
            return False
        except BaseException:
            self._gpu.undo(self._undo)
            raise
        self._memory, self._events, self._ended = memory, events, True
        copy_threads.when_idle[self] = self.release
        self._ready = True
        return True

    def release(self, closing: Held | None = None) -> None:
        """Release the memory, unless it is in use. closing: only if this device made it; it waits for other threads."""
        if self._in_use and closing is None:
            return  # a fork does not wait for a long copy of another thread
        with self._lock:
            if self._in_use or not self._undo or closing not in (None, self._maker):
                return
            self._ready = False
            if not self._gpu.current.push():
                try:
                    self._gpu.module.cuStreamSynchronize(0)
                finally:
                    self._gpu.current.pop()
            self._gpu.undo(self._undo)
            copy_threads.when_idle.pop(self, None)
            self._maker = None

    # Copies, within `taken`.

    def write(
        self,
        target: int,
        source: int,
        size: int,
        keep: object,
        submissions: Waits,
        rows: tuple[int, int] | None = None,
        move: Move = ctypes.memmove,
    ) -> None:
        """Copy from pageable memory to the GPU. The transfers need not have ended when this returns.

        move: what brings parts of the source into the slots, in several threads: for sources that are no memory.
        rows: size and pitch of the target's rows, if there are gaps between them; a row fits into a slot.
        keep: what the source belongs to. Errors: DriverError; those of `move` and of signal handlers, after which no
        thread reads the source.
        """
        copies: list[tuple[Copying, int, int, int]] = []
        try:
            for index, (at, count) in enumerate(_pieces(size, 1 if rows is None else rows[0])):
                slot = index % SLOTS
                submissions.until(self._events[slot])
                copies.append((copy_threads.begin(self._slot(slot), source + at, count, keep, move), slot, at, count))
                if len(copies) > 1:
                    self._send(target, copies, rows)
            while copies:
                self._send(target, copies, rows)
        finally:
            for copying, *_ in copies:
                copying.drop()

    def _send(self, target: int, copies: list[tuple[Copying, int, int, int]], rows: tuple[int, int] | None) -> None:
        """Transfer the first of these copies, when it has ended, and remove it."""
        copying, slot, at, count = copies[0]
        copying.finish()
        module, name = self._gpu.module, self._gpu.name
        if rows is None:
            result = module.cuMemcpyHtoDAsync(target + at, self._slot(slot), count, 0)[0]
            check(result, "cuMemcpyHtoDAsync", name, tried=f"{count} bytes")
        else:
            width, pitch = rows
            copy = rows_copy(module, target + at // width * pitch, self._slot(slot), width, pitch, count // width)
            check(module.cuMemcpy2DAsync(copy, 0)[0], "cuMemcpy2DAsync", name, tried=f"{count} bytes")
        check(module.cuEventRecord(self._events[slot], 0)[0], "cuEventRecord", name)
        del copies[0]

    def read(self, source: int, target: int, size: int, keep: object, submissions: Waits) -> None:
        """Copy from the GPU to pageable memory. Errors: as `write`; no thread writes the target after an exception."""
        pieces = _pieces(size)
        copies: list[tuple[Copying, int]] = []
        try:
            for index in range(min(SLOTS, len(pieces))):
                submissions.until(self._events[index])
                self._receive(source, index, pieces)
            for index, (at, count) in enumerate(pieces):
                slot = index % SLOTS
                submissions.until(self._events[slot])
                copies.append((copy_threads.begin(target + at, self._slot(slot), count, keep), index))
                if len(copies) > 1:
                    self._empty(source, copies, pieces)
            while copies:
                self._empty(source, copies, pieces)
        finally:
            for copying, _ in copies:
                copying.drop()

    def _empty(self, source: int, copies: list[tuple[Copying, int]], pieces: list[tuple[int, int]]) -> None:
        """Wait for the first of these copies, remove it, and transfer the next piece into its slot."""
        copying, index = copies[0]
        copying.finish()
        del copies[0]
        if index + SLOTS < len(pieces):
            self._receive(source, index + SLOTS, pieces)

    def _receive(self, source: int, index: int, pieces: list[tuple[int, int]]) -> None:
        (at, count), slot = pieces[index], index % SLOTS
        module, name = self._gpu.module, self._gpu.name
        result = module.cuMemcpyDtoHAsync(self._slot(slot), source + at, count, 0)[0]
        check(result, "cuMemcpyDtoHAsync", name, tried=f"{count} bytes")
        check(module.cuEventRecord(self._events[slot], 0)[0], "cuEventRecord", name)

    def _slot(self, slot: int) -> int:
        return self._memory + slot * SLOT_SIZE


def _pieces(size: int, unit: int = 1) -> list[tuple[int, int]]:
    """Divide a copy: the offset and size of each piece. Short copies are divided too, so that their parts overlap.

    unit: bytes of which each piece has a multiple; fewer than a slot has.
    """
    piece = min(SLOT_SIZE, max(_LEAST_PIECE, -(-size // (2 * SLOTS) // _PAGE) * _PAGE))
    piece = max(piece // unit, 1) * unit
    return [(at, min(piece, size - at)) for at in range(0, size, piece)]
