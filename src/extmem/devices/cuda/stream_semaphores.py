"""`StreamSemaphore`: a payload that streams of one device wait for and signal, with what each stream needs of it.

A payload is one of these:

* a page of the host (a timeline of extmem's own): streams wait for its word and write it (`stream_words`);
* a driver's semaphore (`external_semaphores`), alone, or with a page: the companion page of a driver's timeline, on
  which the host waits for what streams have signaled.

How this works. CUDA forbids to destroy a semaphore while work is outstanding that waits for it or signals it. So each
semaphore has an event for each stream, which is recorded after a wait. A signal of a page is done when its host
function has run (`host_function`). `idle` looks at both; `stream_order.Streams` holds the semaphore until then. The
arguments of CUDA's calls that are the same each time are made once for each stream and thread (`Lane`).
"""

from __future__ import annotations

from collections import deque
from operator import getitem
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from extmem.devices.cuda import call_sequence
from extmem.devices.cuda.call_sequence import Program
from extmem.devices.cuda.driver_calls import FENCE_VALUE, KEY, PARAMS_WORDS, TIMEOUT_MS, DriverCalls
from extmem.devices.cuda.external_semaphores import KEYED_MUTEXES
from extmem.devices.cuda.host_calls import IS_MACHINE_CODE, host_function_address, release_call
from extmem.devices.cuda.owners import Undo, take
from extmem.errors import HandleStateError
from extmem.handles.process_id import current_process
from extmem.owning import Lock, Owner
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.cuda.handle_types import TimelinePage
    from extmem.devices.cuda.logical import LogicalDevice

__all__ = ["DEFAULT_STREAMS", "GREATER_OR_EQUAL", "INFINITE_MS", "Lane", "StreamSemaphore"]

DEFAULT_STREAMS: Final = 2
"""The greatest number of a default stream: 0, 1 (legacy) and 2 (of the thread) are those of the current context."""
GREATER_OR_EQUAL: Final = 0
"""CU_STREAM_WAIT_VALUE_GEQ."""

INFINITE_MS: Final = 0xFFFF_FFFF
"""The timeout of a keyed mutex that never ends."""
_DISABLE_TIMING: Final = 0x2


class Lane:
    """The arguments of CUDA's calls for one semaphore, on one stream, by one thread."""

    __slots__ = (
        "_capturing",
        "_keep",
        "capture",
        "event",
        "mark",
        "marked",
        "page",
        "params",
        "signal",
        "signal_program",
        "stream",
        "wait",
        "wait_program",
    )

    def __init__(self, calls: DriverCalls, semaphore: StreamSemaphore, stream: int, event: int) -> None:
        self.stream = stream
        self.event = event
        self.params = ffi.new("uint64_t[]", PARAMS_WORDS)
        """CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS and …_WAIT_PARAMS, which have the same form."""
        self.params[TIMEOUT_MS] = INFINITE_MS if semaphore.keyed else 0
        self._keep = ffi.new("uint64_t *", semaphore.external)
        capturing = self._capturing = ffi.new("int *")
        self.capture = ((calls.is_capturing, stream, _address(capturing)), (getitem, capturing, 0))
        """The calls that ask whether the stream is being captured. The second one returns CUstreamCaptureStatus."""
        self.mark = (calls.record_event, event, stream)
        """The call that records the event."""
        self.marked = False
        """Whether the event was recorded."""
        if semaphore.external:
            arguments = (_address(self._keep), _address(self.params), 1, stream)
            self.wait = (calls.wait_semaphores, *arguments)
            self.signal = (calls.signal_semaphores, *arguments)
        self.page = (0, 0)
        """The addresses of the page's value and of its sequence, for `signal_program`."""
        self.wait_program: Program | None = None
        """The calls of one wait, for `call_sequence.runner`; None where calls are made one by one."""
        self.signal_program: Program | None = None
        """The calls of one signal of a semaphore that has a page."""
        if IS_MACHINE_CODE and call_sequence.runner() is not None and stream > DEFAULT_STREAMS and not semaphore.keyed:
            self._write_programs(calls, semaphore)

    def _write_programs(self, calls: DriverCalls, semaphore: StreamSemaphore) -> None:
        stream, at = self.stream, calls.addresses
        guarded = (at[calls.is_capturing], (stream, _address(self._capturing)), _address(self._capturing))
        value: int | tuple[int, int]
        if semaphore.external:
            arguments = (_address(self._keep), _address(self.params), 1, stream)
            value = _address(self.params) + 8 * semaphore.value_at
            wait, signal = (at[calls.wait_semaphores], arguments, 0), (at[calls.signal_semaphores], arguments, 0)
        else:
            value = (1, 2)
            wait = (at[calls.wait_value], (stream, semaphore.pointer, 0, GREATER_OR_EQUAL), 0)
            signal = (at[calls.write_value], (stream, semaphore.pointer, 0, 0), 0)
        mark = (at[calls.record_event], (self.event, stream), 0)
        self.wait_program = Program((guarded, wait, mark), value, None)
        page = semaphore.page
        if page is not None:
            self.page = (page.address, page.sequence)
            launch = (at[calls.launch_host_function], (stream, host_function_address(), 0), 0)
            self.signal_program = Program((guarded, signal, launch), value, (2, 2))


class StreamSemaphore(Owner):
    """See the module. Ownership: released by `close` and the end of the last hold; if it is lost, by the GPU."""

    __slots__ = (
        "_calls",
        "_hold",
        "_page_hold",
        "_settling",
        "device",
        "external",
        "keyed",
        "lanes",
        "page",
        "pointer",
        "running",
        "undo",
        "value_at",
    )

    def __init__(
        self,
        device: LogicalDevice,
        calls: DriverCalls,
        undo: Undo,
        *,
        external: int = 0,
        kind: str = "",
        page: TimelinePage | None = None,
        pointer: int = 0,
    ) -> None:
        """undo: calls that release the external semaphore and the registration of the page, owned from now on.

        kind: the external's CUDA type. page: the payload, or the companion page of the external semaphore. pointer: of
        a page that is the payload.
        """
        self.lanes: dict[tuple[int, int], Lane] = {}
        """By stream and thread."""
        super().__init__()
        self.device = device
        self._calls = calls
        self._hold = device.hold()
        self.undo = undo
        self.external = external
        """CUexternalSemaphore; 0 for a page alone."""
        self.keyed = kind in KEYED_MUTEXES
        self.value_at = KEY if self.keyed else FENCE_VALUE
        """The index of the value in `Lane.params`."""
        self.page = page
        self._page_hold = page.keeper.hold() if page is not None else None
        self.pointer = pointer
        """CUdeviceptr of the page's value."""
        self.running: deque[Any] = deque()
        """The calls of the host function (`HostCall`) that were not seen to be done."""
        self._settling = Lock()
        self.owe(device.gpu.when_lost(undo, self._hold, device))

    def lane(self, stream: int) -> Lane:
        """Return what this thread needs for a stream, made at the first use. Errors: DriverError; OutOfMemoryError."""
        key = (stream, get_ident())
        lane = self.lanes.get(key)
        if lane is None:
            device = self.device
            device.check_open()
            with device.making, device.gpu.current:
                cu = device.module
                answer = take(self.undo, (cu.cuEventDestroy, ...), cu.cuEventCreate, _DISABLE_TIMING)
                event = device.value_of(answer, "cuEventCreate")
                lane = self.lanes[key] = Lane(self._calls, self, stream, int(event))
        return lane

    def forget_done_calls(self) -> None:
        """Let records of the host function that are done be used again."""
        running = self.running
        with self._settling:
            while running and running[0].done:
                release_call(running.popleft())

    @property
    def idle(self) -> bool:
        """Whether all waits and signals that were given to streams are done, as far as CUDA tells. In the context.

        CUDA does not tell it of an event that became part of a graph: such a semaphore stays until the process ends.
        """
        self.forget_done_calls()
        if self.running:
            return False
        cu = self.device.module
        return not any(lane.marked and cu.cuEventQuery(lane.event)[0] for lane in list(self.lanes.values()))

    def in_forked_child(self) -> None:
        """See `Owner`. Without lanes, the child's next use of it is refused."""
        self.lanes.clear()
        self.forget()

    def gone(self) -> Exception:
        """See `Held`."""
        return HandleStateError("this semaphore is closed; no stream can use it any more; open it again")

    def close(self) -> None:
        """Destroy it, once no work of a stream uses it. Safe to call twice."""
        self.end()

    def give_back(self) -> None:
        """See `Owner`. A forked child makes no CUDA calls."""
        device = self.device
        if device.pid == current_process.pid:
            device.gpu.undo(self.undo)
        self.forget()
        super().give_back()
        self.external, self.page, self.pointer, self._page_hold = 0, None, 0, None
        self.lanes.clear()
        self._hold.release()
        if device.closing:
            device.end()


def _address(memory: Any) -> int:
    return int(ffi.cast("uintptr_t", memory))
