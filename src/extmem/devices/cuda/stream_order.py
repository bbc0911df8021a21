"""`Streams`: waits and signals of semaphores on the program's streams, without a wait of the host.

How this works. A stream waits for a driver's semaphore by cuWaitExternalSemaphoresAsync, and for a page of the host by
cuStreamWaitValue64. It signals a driver's semaphore by cuSignalExternalSemaphoresAsync, and writes the word of a page
by cuStreamWriteValue64. Then it calls a host function for each page, which wakes who waits on the host, in this process
and in others; for a driver's timeline it raises the companion page first. Several semaphores of drivers are one call.

The steps for one stream are made in one call of C code: of one semaphore by `call_sequence`, of several by `_attempt`.
No signal handler runs in between, so a driver's
semaphore is not left signaled without the page that says so. A stream of the program brings its context along; the
primary context is made current for the default streams, and if CUDA asks for it.

What streams use is held until CUDA says that it is done (`finish`). Nothing here waits. A wait that nobody satisfies
blocks its stream, and keeps what it uses, until somebody raises the value: any process that has the timeline can, on
the host or on another stream.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Sequence
from itertools import starmap
from operator import call, getitem, setitem
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from extmem.devices.cuda import call_sequence, host_function
from extmem.devices.cuda.call_sequence import CAPTURING
from extmem.devices.cuda.driver_calls import PARAMS_WORDS, TIMEOUT_MS, DriverCalls
from extmem.devices.cuda.host_calls import IS_MACHINE_CODE, HostCall, host_function_address, prepared_call
from extmem.devices.cuda.owners import Undo, take
from extmem.devices.cuda.results import fail
from extmem.devices.cuda.stream_semaphores import DEFAULT_STREAMS, GREATER_OR_EQUAL, INFINITE_MS
from extmem.errors import UnsupportedError
from extmem.handles.process_id import current_process
from extmem.owning import Held, Uses, late_imports
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from extmem.devices.cuda.call_sequence import Program
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.stream_semaphores import Lane, StreamSemaphore

__all__ = ["Streams", "finish_all"]

Step = tuple[Any, ...]
"""A call and its arguments."""
Pairs = Sequence[tuple["StreamSemaphore", int]]

_WRONG_CONTEXT: Final = (201, 400)
"""CUDA_ERROR_INVALID_CONTEXT and _INVALID_HANDLE: CUDA's answers if another context, or none, is current."""
_NOT_TRIED: Final = -1
_MANY_CALLS: Final = 16
_BLOCKING_SYNC, _DISABLE_TIMING = 0x1, 0x2

_went_well: Final = {0: None, None: None}.__getitem__
"""Raises KeyError with the CUresult of a call that failed. (`setitem` returns None, and `getitem` 0 if all is well.)"""
_working: Final[set[Streams]] = set()
"""Those with outstanding work, also of devices that are closed."""


class Busy(Protocol):
    """Something that has outstanding work."""

    @property
    def idle(self) -> bool:
        """Whether the work is done. The primary context is current."""


class Marked(Held):
    """The work that a stream had at one moment: an event is recorded after it.

    Ownership: the event is destroyed once the work is done and nobody uses it. HandleStateError for a later use.
    """

    __slots__ = ("_device", "_undo", "event")

    def __init__(self, device: LogicalDevice, undo: Undo, event: Any) -> None:
        """undo: destroys the event."""
        super().__init__()
        self._device = device
        self._undo = undo
        self.event = event

    @property
    def idle(self) -> bool:
        """See `Busy`. Once it is, the event is destroyed, or at the end of its last use."""
        if self._undo and self._device.module.cuEventQuery(self.event)[0]:
            return False
        self.end()
        return True

    def give_back(self) -> None:
        """See `Held`. The primary context is current."""
        self._device.gpu.undo(self._undo)


class Streams:
    """The waits and signals of one device on streams."""

    def __init__(self, device: LogicalDevice) -> None:
        """Errors: DriverError for a driver that lacks these functions."""
        self._device = device
        self.calls = DriverCalls(device.module)
        self._busy: dict[Busy, Uses] = {}
        """What outstanding work uses."""
        self._run: Any = call_sequence.runner()
        """Makes the calls of a program; None where no lane has one."""
        self._function = 0
        """Address of the host function; 0 before its first use, and always 0 without machine code."""
        finish_all()

    def wait(self, stream: int, waits: Pairs, timeout_ms: int = INFINITE_MS) -> None:
        """Make later work of the stream wait until all values are reached. Returns at once.

        timeout_ms: of keyed mutexes, whose value is their key. Errors: DriverError; HandleStateError once closed.
        """
        if len(waits) == 1 and timeout_ms == INFINITE_MS:
            ((semaphore, value),) = waits
            lane = semaphore.lanes.get((stream, get_ident()))
            if lane is not None and lane.wait_program is not None:
                self.wait_for_one(semaphore, lane, lane.wait_program, value)
                return
        calls = self.calls
        with Uses() as uses:
            lanes = self._lanes(stream, waits, uses)
            steps: list[Step] = list(lanes[0][2].capture) if lanes else []
            external = [one for one in lanes if one[0].external]
            if len(external) == 1:
                semaphore, value, lane = external[0]
                if semaphore.keyed:
                    steps.append((setitem, lane.params, TIMEOUT_MS, timeout_ms))
                steps += ((setitem, lane.params, semaphore.value_at, value), lane.wait)
            elif external:
                _arguments, step = _together(calls.wait_semaphores, external, timeout_ms)
                steps.append(step)
            for semaphore, value, _ in lanes:
                if not semaphore.external:
                    steps.append((calls.wait_value, stream, semaphore.pointer, value, GREATER_OR_EQUAL))
            for _, _, lane in lanes:
                lane.marked = True
                steps.append(lane.mark)
            self._give(stream, steps, [])
            self._keep(lanes)

    def signal(self, stream: int, signals: Pairs) -> None:
        """Signal these values when all earlier work of the stream is done, and wake who waits on the host.

        Returns at once. Errors: AccessDeniedError without the right to signal; as `wait`; UnsupportedError where the
        system allows no host function.
        """
        if len(signals) == 1:
            ((semaphore, value),) = signals
            lane = semaphore.lanes.get((stream, get_ident()))
            if lane is not None and lane.signal_program is not None:
                self.signal_one(semaphore, lane, lane.signal_program, value)
                return
        calls = self.calls
        with Uses() as uses:
            for semaphore, _ in signals:
                if semaphore.page is not None:
                    semaphore.page.announce_signal()
            lanes = self._lanes(stream, signals, uses)
            steps: list[Step] = list(lanes[0][2].capture) if lanes else []
            external = [one for one in lanes if one[0].external]
            if len(external) == 1:
                semaphore, value, lane = external[0]
                steps += ((setitem, lane.params, semaphore.value_at, value), lane.signal)
            elif external:
                _arguments, step = _together(calls.signal_semaphores, external)
                steps.append(step)
            announced: list[HostCall] = []
            last: list[Step] = []
            made: list[None] = []
            try:
                for semaphore, value, lane in lanes:
                    page = semaphore.page
                    if page is None:
                        lane.marked = True
                        steps.append(lane.mark)
                        continue
                    if not semaphore.external:
                        steps.append((calls.write_value, stream, semaphore.pointer, value, 0))
                    prepared = prepared_call(page, value)
                    announced.append(prepared)
                    semaphore.running.append(prepared)
                    if len(semaphore.running) > _MANY_CALLS:
                        semaphore.forget_done_calls()
                    function = self._function or self._host_function()
                    last.append((calls.launch_host_function, stream, function, prepared.address))
                self._give(stream, steps + last, made)
                self._keep(lanes)
            except BaseException:
                for prepared in announced[max(0, len(made) - len(steps)) :]:
                    prepared.cancel()
                raise

    def wait_for_one(self, semaphore: StreamSemaphore, lane: Lane, program: Program, value: int) -> None:
        """Wait for one semaphore. As `wait`, and faster. program: of the lane."""
        hold = semaphore.hold()
        try:
            busy = self._busy
            lane.marked = True
            if semaphore not in busy:
                self._keep_one(semaphore)
            outcome = self._run(program.address, value, 0)
            if outcome != program.done:
                if not self._helps(outcome):
                    self._fail_program(outcome, lane, self.calls.wait_semaphores, semaphore)
                with self._device.gpu.current:
                    outcome = self._run(program.address, value, 0)
                if outcome != program.done:
                    self._fail_program(outcome, lane, self.calls.wait_semaphores, semaphore)
            if semaphore not in busy:  # `finish` of another thread has found it idle before
                self._keep_one(semaphore)
        finally:
            del hold  # before the next line: what was closed meanwhile is released then
            if semaphore.closing:
                semaphore.close()

    def signal_one(self, semaphore: StreamSemaphore, lane: Lane, program: Program, value: int) -> None:
        """Signal one semaphore that has a page. As `signal`, and faster. program: of the lane."""
        hold = semaphore.hold()
        try:
            page, busy = semaphore.page, self._busy
            if page is not None:
                page.announce_signal()
            if semaphore not in busy:
                self._keep_one(semaphore)
            outcome = self._run_with_record(semaphore, lane, program, value)
            if outcome != program.done:
                if not self._helps(outcome):
                    self._fail_program(outcome, lane, self.calls.signal_semaphores, semaphore)
                with self._device.gpu.current:
                    outcome = self._run_with_record(semaphore, lane, program, value)
                if outcome != program.done:
                    self._fail_program(outcome, lane, self.calls.signal_semaphores, semaphore)
            if semaphore not in busy:
                self._keep_one(semaphore)
        finally:
            del hold  # as in `wait_for_one`
            if semaphore.closing:
                semaphore.close()

    def _run_with_record(self, semaphore: StreamSemaphore, lane: Lane, program: Program, value: int) -> int:
        running = semaphore.running
        if len(running) > _MANY_CALLS:
            semaphore.forget_done_calls()
        at, sequence = lane.page
        prepared = host_function.prepare(at, value, sequence)
        try:
            running.append(prepared)
            outcome: int = self._run(program.address, value, prepared[0])
        except BaseException:
            if not prepared.given:
                prepared.cancel()
            raise
        return outcome

    @staticmethod
    def _helps(outcome: int) -> bool:
        """Whether the calls may succeed in the primary context, and none of them has given work to the stream."""
        return outcome >> 32 <= 1 and outcome & 0xFFFF_FFFF in _WRONG_CONTEXT

    def _fail_program(self, outcome: int, lane: Lane, external: Any, semaphore: StreamSemaphore) -> NoReturn:
        """Raise the error of the call that failed."""
        calls, made, result = self.calls, outcome >> 32, outcome & 0xFFFF_FFFF
        if not made:
            self._fail(result, getitem if result == CAPTURING else calls.is_capturing, lane.stream)
        is_wait = external is calls.wait_semaphores
        last = calls.record_event if is_wait else calls.launch_host_function
        word = calls.wait_value if is_wait else calls.write_value
        self._fail(result, last if made > 1 else external if semaphore.external else word, lane.stream)

    def _keep_one(self, semaphore: StreamSemaphore) -> None:
        self._busy[semaphore] = Uses(semaphore)
        _working.add(self)

    def _lanes(self, stream: int, pairs: Pairs, uses: Uses) -> list[tuple[StreamSemaphore, int, Lane]]:
        """Return the pairs with their lanes. They are held, until their work is done."""
        thread = get_ident()
        found = []
        for semaphore, value in pairs:
            uses.add(semaphore)
            lane = semaphore.lanes.get((stream, thread)) or semaphore.lane(stream)
            found.append((semaphore, value, lane))
        self._keep(found)
        return found

    def _keep(self, lanes: Iterable[tuple[StreamSemaphore, int, Lane]]) -> None:
        """Hold the semaphores until their work is done.

        Called before the work is given to the stream, and again afterwards: `finish` of another thread can have found
        them idle in between.
        """
        for semaphore, _, _ in lanes:
            if semaphore not in self._busy:
                self._keep_one(semaphore)

    def _give(self, stream: int, steps: Sequence[Step], made: list[None]) -> None:
        """Make the calls, in the context that the stream needs. made: gets an item for each call that succeeded."""
        result = _attempt(steps, made) if stream > DEFAULT_STREAMS else _NOT_TRIED
        if result:
            self._give_in_context(stream, steps, made, result)

    def _give_in_context(self, stream: int, steps: Sequence[Step], made: list[None], result: int) -> None:
        """Make the other calls in the primary context, if that can help. result: of the first that failed."""
        if result == _NOT_TRIED or result in _WRONG_CONTEXT:
            with self._device.gpu.current:
                result = _attempt(steps[len(made) :], made)
        if result:
            self._fail(result, steps[len(made)][0], stream)

    def _fail(self, result: int, function: Any, stream: int) -> NoReturn:
        if function is getitem:
            raise UnsupportedError(
                f"stream {stream:#x} is being captured into a graph, which could be launched when the timelines are "
                "closed; add the wait or signal by extmem.raw.cuda_graph_wait and cuda_graph_signal",
                requires_one_of=["a stream that is not being captured", "extmem.raw.cuda_graph_signal"],
            )
        name = self.calls.names[function]
        fail(self._device.module.CUresult(result), name, self._device.name, tried=f"stream {stream:#x}")

    def _host_function(self) -> int:
        address = host_function_address()
        if IS_MACHINE_CODE:
            self._function = address
        return address

    # The end of what streams use.

    def hold(self, stream: int, uses: Uses) -> Marked:
        """Hold everything in `uses` until what was given to the stream so far is done. The context is current.

        Errors: DriverError; OutOfMemoryError; UnsupportedError for a stream that is being captured, because CUDA does
        not tell of the end of an event that became part of a graph.
        """
        device, undo = self._device, Undo()
        capturing = ffi.new("int *")
        if not self.calls.is_capturing(stream, int(ffi.cast("uintptr_t", capturing))) and capturing[0]:
            self._fail(0, getitem, stream)
        cu = device.module
        answer = take(undo, (cu.cuEventDestroy, ...), cu.cuEventCreate, _DISABLE_TIMING | _BLOCKING_SYNC)
        event = device.value_of(answer, "cuEventCreate")
        marked = Marked(device, undo, event)
        held = Uses()
        held.add_all(uses)
        device.check(cu.cuEventRecord(event, stream)[0], "cuEventRecord")
        self._busy[marked] = held
        _working.add(self)
        return marked

    def finish(self) -> None:
        """Release what no stream uses any more. Does not wait. Errors: DriverError."""
        for one in list(self._busy):
            uses = self._busy.pop(one, None)
            if uses is None:
                continue  # another thread is faster
            try:
                with self._device.gpu.current:
                    idle = one.idle
            except BaseException:
                self._busy.setdefault(one, uses)
                raise
            if idle or self._busy.setdefault(one, uses) is not uses:
                uses.end()
        if not self._busy:
            _working.discard(self)
            if self._busy:  # another thread has given work to a stream meanwhile
                _working.add(self)


def finish_all() -> None:
    """Release what no stream uses any more, of all devices, also those that are closed."""
    for streams in list(_working):
        if streams._device.pid == current_process.pid:
            streams.finish()


def _attempt(steps: Sequence[Step], made: list[None]) -> int:
    """Make the calls in order, in one call of C code, up to the first that fails. Return its CUresult, or 0."""
    try:
        made.extend(map(_went_well, starmap(call, steps)))
    except KeyError as error:
        return int(error.args[0])
    return 0


def _together(
    function: Any, lanes: Sequence[tuple[StreamSemaphore, int, Lane]], timeout_ms: int = 0
) -> tuple[object, Step]:
    """Return the call for several semaphores of drivers, and what keeps its arguments."""
    count = len(lanes)
    semaphores = ffi.new("uint64_t[]", [semaphore.external for semaphore, _, _ in lanes])
    params = ffi.new("uint64_t[]", PARAMS_WORDS * count)
    for index, (semaphore, value, _) in enumerate(lanes):
        params[index * PARAMS_WORDS + semaphore.value_at] = value
        if semaphore.keyed:
            params[index * PARAMS_WORDS + TIMEOUT_MS] = timeout_ms
    addresses = (int(ffi.cast("uintptr_t", memory)) for memory in (semaphores, params))
    return (semaphores, params), (function, *addresses, count, lanes[0][2].stream)


@atexit.register
def _keep_what_streams_use() -> None:
    """Keep what outstanding work uses when the process ends: the GPU may still use it, so it is never released."""
    for streams in list(_working):
        with late_imports():
            import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(streams))
