"""Transfers: bytes between the host and CUDA's memory, by CUDA's copies. All are done when they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extmem.devices.cuda.commands import CudaRecorder
from extmem.devices.cuda.memory import native_allocation
from extmem.devices.cuda.row_copies import rows_copy
from extmem.devices.cuda.submission import Submissions
from extmem.handles.process_id import current_process
from extmem.owning import LateModule

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation, Recorder
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.owning import Uses
    from extmem.vk import abi
else:
    abi = LateModule(globals(), "extmem.vk.abi")

__all__ = ["Transfers"]

_LONG = 1 << 20
"""Bytes from which a copy from or to pageable memory goes through the pinned ring."""
_PIECE = 64 << 20
"""Bytes of one call of the driver, so that signal handlers run in between."""
_UNPINNED = 8 << 20
"""Bytes of a buffer that takes the place of the pinned ring."""
_PITCH = 1 << 31
"""Bytes: CU_DEVICE_ATTRIBUTE_MAX_PITCH is one less on every GPU."""
_HOST = 1
"""CU_MEMORYTYPE_HOST."""


class Transfers:
    """What moves bytes on one device, and does a program's commands."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device
        self.submissions = Submissions(device)

    def flush(self, allocation: Allocation, offset: int, size: int) -> None:
        """Do nothing: what the host sees of it is coherent."""

    def invalidate(self, allocation: Allocation, offset: int, size: int) -> None:
        """Do nothing: what the host sees of it is coherent."""

    def write(self, allocation: Allocation, offset: int, data: memoryview) -> None:
        """See `Backend`. cuMemcpyHtoD, or through the pinned ring."""
        at, device, size = self._pointer_to_range(allocation, offset, data.nbytes), self._device, data.nbytes
        source = abi.ffi.from_buffer(data)
        address = int(abi.ffi.cast("uintptr_t", source))
        with self.submissions.work(native_allocation(allocation)):
            if size >= _LONG and not self._is_pinned(address, size):
                with device.gpu.ring.taken(device, self.submissions) as ring:
                    if ring is not None:
                        ring.write(at, address, size, source, self.submissions)
                        return
            for start in range(0, size, _PIECE):
                part = min(_PIECE, size - start)
                result = device.module.cuMemcpyHtoD(at + start, address + start, part)[0]
                device.check(result, "cuMemcpyHtoD", f"{part} bytes")
        del source

    def read(self, allocation: Allocation, offset: int, into: memoryview) -> None:
        """See `Backend`. cuMemcpyDtoH, or through the pinned ring."""
        at, device, size = self._pointer_to_range(allocation, offset, into.nbytes), self._device, into.nbytes
        target = abi.ffi.from_buffer(into, require_writable=True)
        address = int(abi.ffi.cast("uintptr_t", target))
        with self.submissions.work(native_allocation(allocation)):
            if size >= _LONG and not self._is_pinned(address, size):
                with device.gpu.ring.taken(device, self.submissions) as ring:
                    if ring is not None:
                        ring.read(at, address, size, target, self.submissions)
                        return
            for start in range(0, size, _PIECE):
                part = min(_PIECE, size - start)
                result = device.module.cuMemcpyDtoH(address + start, at + start, part)[0]
                device.check(result, "cuMemcpyDtoH", f"{part} bytes")
        del target

    def write_from(
        self, allocation: Allocation, offset: int, size: int, fill: Callable[[memoryview, int], object]
    ) -> None:
        """See `WritesFrom`. The bytes are brought into the slots of the pinned ring, without a copy before."""
        at, device = self._pointer_to_range(allocation, offset, size), self._device

        def move(target: int, start: int, count: int) -> None:
            fill(memoryview(abi.ffi.buffer(abi.ffi.cast("char *", target), count)), start)

        with self.submissions.work(native_allocation(allocation)):
            if size >= _LONG:
                with device.gpu.ring.taken(device, self.submissions) as ring:
                    if ring is not None:
                        ring.write(at, 0, size, fill, self.submissions, move=move)
                        return
            octets = bytearray(min(size, _UNPINNED))
            with memoryview(octets) as view, abi.ffi.from_buffer(octets) as source:
                for start in range(0, size, _UNPINNED):
                    part = min(_UNPINNED, size - start)
                    fill(view[:part], start)
                    result = device.module.cuMemcpyHtoD(at + start, int(abi.ffi.cast("uintptr_t", source)), part)[0]
                    device.check(result, "cuMemcpyHtoD", f"{part} bytes")

    def _is_pinned(self, address: int, size: int) -> bool:
        """Whether CUDA knows this host memory, so that the GPU transfers it itself. The context is current."""
        module = self._device.module
        attribute = module.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        for end in (address, address + size - 1):
            result, kind = module.cuPointerGetAttribute(attribute, end)
            if result or int(kind) != _HOST:
                return False
        return True

    def write_rows(self, allocation: Allocation, offset: int, data: memoryview, size: int, pitch: int) -> None:
        """See `WritesRows`. cuMemcpy2D, or from the pinned ring; row by row where the driver has no such pitch."""
        count, device = data.nbytes // size, self._device
        at = self._pointer_to_range(allocation, offset, (count - 1) * pitch + size)
        if pitch >= _PITCH or size >= _LONG:
            for index in range(count):
                self.write(allocation, offset + index * pitch, data[index * size : (index + 1) * size])
            return
        source = abi.ffi.from_buffer(data)
        address = int(abi.ffi.cast("uintptr_t", source))
        with self.submissions.work(native_allocation(allocation)):
            if data.nbytes >= _LONG and not self._is_pinned(address, data.nbytes):
                with device.gpu.ring.taken(device, self.submissions) as ring:
                    if ring is not None:
                        ring.write(at, address, data.nbytes, source, self.submissions, rows=(size, pitch))
                        return
            copy = rows_copy(device.module, at, address, size, pitch, count)
            device.check(device.module.cuMemcpy2D(copy)[0], "cuMemcpy2D", f"{count} rows of {size} bytes")
        del source

    def fill(self, allocation: Allocation, offset: int, size: int, value: int) -> None:
        """See `Backend`. cuMemsetD8."""
        at, device = self._pointer_to_range(allocation, offset, size), self._device
        with self.submissions.work(native_allocation(allocation)):
            device.check(device.module.cuMemsetD8(at, value, size)[0], "cuMemsetD8", f"{size} bytes")

    def copy_from(self, allocation: Allocation, pieces: Sequence[tuple[int, int, int]]) -> None:
        """See `CopiesPointers`. cuMemcpyDtoDAsync, which also copies between GPUs with peer access.

        The host waits once, for all pieces together.
        """
        device = self._device
        targets = [self._pointer_to_range(allocation, offset, size) for offset, _, size in pieces]
        copy = device.module.cuMemcpyDtoDAsync
        with self.submissions.work(native_allocation(allocation)):
            for target, (_, pointer, size) in zip(targets, pieces, strict=True):
                device.check(copy(target, pointer, size, 0)[0], "cuMemcpyDtoDAsync", f"{size} bytes at {pointer:#x}")

    def _pointer_to_range(self, allocation: Allocation, offset: int, size: int) -> int:
        self._device.check_open()
        if offset < 0 or size < 0 or offset + size > allocation.size:
            raise ValueError(f"bytes {offset} to {offset + size} reach outside the allocation of {allocation.size}")
        return native_allocation(allocation).live + offset

    def submit(
        self, record: Callable[[Recorder], None], uses: Uses, owners: Sequence[tuple[Allocation, bool]] = ()
    ) -> None:
        """See `Backend`. CUDA has no ownership by queue families."""
        self._device.check_open()
        with self.submissions.work(uses=uses):
            record(CudaRecorder(self._device))

    def wait(self, stream: int) -> None:
        """Wait until the work that was given to a stream is done; 0 is the default one. Errors: DriverError."""
        self._device.check_open()
        with self._device.gpu.current:
            self.submissions.finish(stream)

    def finish_submitted(self) -> None:
        if self.submissions.unfinished and self._device.pid == current_process.pid:
            with self._device.gpu.current:
                self.submissions.finish()
