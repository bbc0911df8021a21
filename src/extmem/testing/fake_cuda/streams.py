"""Streams and events: each stream executes what it was given in order, each thing as soon as it can.

How this works. A function that gives work to a stream puts a step into its queue, and `advance` executes all steps that
can be. So work behind no wait is done when the function returns. A thread executes the rest, since what a stream waits
for may be signaled by another process, without a call here. It ends when no step is left.

A stream is any number: those that a program created by other code are not known here. The numbers 0 to 2 are the
default streams, here one. The functions that work is given by need a current context, but which one does not matter.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.machine import INVALID_CONTEXT, Refusal
from extmem.testing.fake_cuda.objects import Event, Pinned, Stream

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__ = ["Step", "advance", "enqueue", "pending", "word"]

_NOT_READY = 600
_POLL_S = 0.001
_REGISTERED_READ_ONLY = 0x08
_LAST_DEFAULT_STREAM = 2
_HALF = 1 << 63
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Step:
    """Something that a stream executes. `attempt` returns whether it is done; it is called until it is."""

    def __init__(self, attempt: Callable[[], bool], uses: object = None) -> None:
        self.attempt = attempt
        self.uses = uses
        """What must not be destroyed before."""


def enqueue(fake: FakeCuda, stream: Any, step: Step) -> None:
    """Give a step to a stream. Ends the call with CUDA_ERROR_INVALID_CONTEXT if no context is current."""
    if not fake.stack:
        raise Refusal(INVALID_CONTEXT)
    number = int(stream)
    queue = fake.queues.setdefault(0 if number <= _LAST_DEFAULT_STREAM else number, deque())
    queue.append(step)
    advance(fake)
    if any(fake.queues.values()) and fake.pump is None:
        fake.pump = threading.Thread(target=_pump, args=(fake,), name="fake-cuda-streams", daemon=True)
        fake.pump.start()


def advance(fake: FakeCuda) -> None:
    """Execute every step that can be."""
    progress = True
    while progress:
        progress = False
        for queue in fake.queues.values():
            while queue and queue[0].attempt():
                queue.popleft()
                progress = True


def _pump(fake: FakeCuda) -> None:
    while True:
        with fake.lock:
            advance(fake)
            if not any(fake.queues.values()):
                fake.pump = None
                return
        time.sleep(_POLL_S)


def pending(fake: FakeCuda, used: object) -> bool:
    """Whether a stream has still to execute something that uses this."""
    return any(step.uses is used for queue in fake.queues.values() for step in queue)


def _queue(fake: FakeCuda, stream: Any) -> deque[Step]:
    advance(fake)
    number = int(stream)
    return fake.queues.get(0 if number <= _LAST_DEFAULT_STREAM else number, deque())


# Streams and events.


def cuStreamCreate(fake: FakeCuda, flags: int) -> tuple[Any]:
    """Create a stream."""
    fake.current()
    return (fake.module.CUstream(fake.add(Stream())),)


def cuStreamDestroy(fake: FakeCuda, stream: Any) -> None:
    """Destroy a stream. What it has still to execute is executed."""
    fake.end(fake.get(stream, Stream))


def cuStreamQuery(fake: FakeCuda, stream: Any) -> None:
    """Succeed if the stream has executed everything."""
    fake.current()
    if _queue(fake, stream):
        raise Refusal(_NOT_READY)


def cuStreamSynchronize(fake: FakeCuda, stream: Any) -> None:
    """Wait until the stream has executed everything."""
    fake.current()
    while _queue(fake, stream):
        fake.pause(_POLL_S)


def cuEventCreate(fake: FakeCuda, flags: int) -> tuple[Any]:
    """Create an event."""
    fake.current()
    return (fake.module.CUevent(fake.add(Event())),)


def cuEventDestroy(fake: FakeCuda, event: Any) -> None:
    """Destroy an event. What it marks goes on."""
    fake.end(fake.get(event, Event))


def cuEventRecord(fake: FakeCuda, event: Any, stream: Any) -> None:
    """Record an event: it is complete when the stream has executed what it was given before."""
    recorded = fake.get(event, Event)
    recorded.records += 1
    number = recorded.records

    def complete() -> bool:
        recorded.complete = max(recorded.complete, number)
        return True

    enqueue(fake, stream, Step(complete))


def cuEventQuery(fake: FakeCuda, event: Any) -> None:
    """Succeed if the event is complete, or was never recorded."""
    advance(fake)
    recorded = fake.get(event, Event)
    if recorded.complete < recorded.records:
        raise Refusal(_NOT_READY)


def cuEventSynchronize(fake: FakeCuda, event: Any) -> None:
    """Wait until the event is complete."""
    recorded = fake.get(event, Event)
    while recorded.complete < recorded.records:
        fake.pause(_POLL_S)
        advance(fake)


def cuStreamIsCapturing(fake: FakeCuda, stream: Any, status: int) -> None:
    """Write 1 to `status` if the stream is among `capturing`, else 0. Only by its address."""
    if not fake.stack:
        raise Refusal(INVALID_CONTEXT)
    ctypes.c_int.from_address(int(status)).value = int(int(stream) in fake.capturing)


# Words of memory, and host functions.


def word(fake: FakeCuda, pointer: Any, *, write: bool = False) -> Pinned:
    """Return the registered memory that a 64-bit word is in; a misuse where there is none, or it may not be written."""
    address = int(pointer)
    if address % 8:
        raise fake.wrong(f"the word at {address:#x} is not aligned")
    for pinned in fake.living(Pinned):
        if pinned.address <= address and address + 8 <= pinned.address + pinned.size:
            if write and pinned.flags & _REGISTERED_READ_ONLY:
                raise fake.wrong("a word of memory that may only be read is written", 700)
            return pinned
    raise fake.wrong(f"the word at {address:#x} is not registered memory")


def wait_step(fake: FakeCuda, pointer: Any, value: int) -> Step:
    """A wait until a word is equal or greater, by cyclic comparison."""
    pinned, at = word(fake, pointer), ctypes.c_uint64.from_address(int(pointer))
    return Step(lambda: (at.value - int(value)) % (2 * _HALF) < _HALF, pinned)


def write_step(fake: FakeCuda, pointer: Any, value: int) -> Step:
    """A write of a word."""
    pinned, at = word(fake, pointer, write=True), ctypes.c_uint64.from_address(int(pointer))

    def write() -> bool:
        at.value = int(value)
        return True

    return Step(write, pinned)


def host_step(function: int, data: int) -> Step:
    """A call of a function on the host."""

    def run() -> bool:
        _HOST_FUNCTION(function)(data)
        return True

    return Step(run)


def cuStreamWaitValue64(fake: FakeCuda, stream: Any, pointer: Any, value: int, flags: int) -> None:
    """Wait for a word of memory."""
    if int(flags):
        raise fake.wrong(f"flags {flags} is not CU_STREAM_WAIT_VALUE_GEQ, the only comparison here")
    enqueue(fake, stream, wait_step(fake, pointer, value))


def cuStreamWriteValue64(fake: FakeCuda, stream: Any, pointer: Any, value: int, flags: int) -> None:
    """Write a word of memory."""
    enqueue(fake, stream, write_step(fake, pointer, value))


def cuLaunchHostFunc(fake: FakeCuda, stream: Any, function: Any, data: Any) -> None:
    """Call a C function of the program. As with the real driver, it may not call CUDA."""
    enqueue(fake, stream, host_step(int(function), int(data)))
