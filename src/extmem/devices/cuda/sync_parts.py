"""`SyncParts`: what all semaphores of one CUDA device use: its streams, its pages, and a stream of its own."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from extmem.devices.cuda.owners import Undo, take
from extmem.devices.cuda.stream_order import Streams
from extmem.devices.cuda.stream_words import RegisteredPages
from extmem.handles.process_id import current_process
from extmem.owning import Lock

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.stream_semaphores import StreamSemaphore

__all__ = ["SyncParts"]

_NON_BLOCKING = 0x1


class SyncParts:
    """See the module. `CudaSync` adds the members of the backend."""

    def __init__(self, device: LogicalDevice) -> None:
        self.device = device
        self.pages = RegisteredPages(device.gpu)
        self.making = Lock(reentrant=True)
        """Held while a thing is made that is made once."""
        self._undo: Undo = []
        """Destroys the library's own stream."""
        self._own_stream = 0

    @cached_property
    def streams(self) -> Streams:
        """The waits and signals on streams. Errors: DriverError for a driver that lacks them."""
        return Streams(self.device)

    def signal_at_once(self, semaphore: StreamSemaphore, value: int) -> None:
        """Signal a driver's semaphore on a stream without other work. It is signaled when this returns."""
        device = self.device
        device.check_open()
        with device.gpu.current, self.making:
            cu = device.module
            if not self._own_stream:
                answer = take(self._undo, (cu.cuStreamDestroy, ...), cu.cuStreamCreate, _NON_BLOCKING)
                self._own_stream = int(device.value_of(answer, "cuStreamCreate"))
            self.streams.signal(self._own_stream, ((semaphore, value),))
            device.check(cu.cuStreamSynchronize(self._own_stream)[0], "cuStreamSynchronize")
        if semaphore.page is not None:
            semaphore.page.raise_to(value)  # on Windows a thread tells the host of it, perhaps later

    def work_off(self) -> None:
        """Release what no stream uses any more. A forked child leaves it to its parent."""
        if self.device.pid == current_process.pid and "streams" in self.__dict__:
            self.streams.finish()

    def close(self) -> None:
        """Release what belongs to the device. Safe to call twice."""
        self.work_off()
        if self.device.pid == current_process.pid:
            self.device.gpu.undo(self._undo)
            self._own_stream = 0
