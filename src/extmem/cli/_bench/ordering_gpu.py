"""The GPU's part of `extmem bench sync`: timelines of a Vulkan driver on its queue and on a CUDA stream, against C.

How this works. A C file (`order_floor.c`) makes the same calls on a VkDevice, a stream and a timeline of its own, in
turns with extmem, in one process:

1. *stream*: the time of the host for one wait and one signal on a stream, in two states. In a row, the waits are
   satisfied, and everything is in the processor's caches: that is compared with C's two calls, and with C's two calls
   and a host function that wakes a waiter, which is what extmem does. After a pause, each wait is not satisfied yet: so
   a program that is paced by its GPU calls it.
2. *chain*: the queue signals, the stream waits and signals, and the queue waits, with a fence; the host waits for the
   fence alone.
3. *host*: from before a stream's signal to the end of a wait of the host in another process; beside it the same wait by
   vkWaitSemaphores, to which nothing but the driver tells of CUDA's signals.
4. *imports*: what is left after thousands of imports of a driver's timeline.
5. *kill -9* of a process with a VkDevice that signals. The driver takes long to end such a process, so the time until
   the PeerGoneError has no bound.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem import raw, vk
from extmem.cli._bench.floor import OrderFloor, compile_floor
from extmem.cli._bench.measure import (
    TURNS,
    Figure,
    at_most,
    interleaved,
    microseconds,
    percentile,
    ratio_in_turns,
    unbounded,
)
from extmem.devices import select

if sys.platform != "linux":
    raise ImportError("this benchmark measures opaque fds and the broker of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import broker_of, descriptors_at_rest, holdings

__all__ = ["gpu_of_both", "new_stream", "parts"]

_ROUNDS = 20
"""Rounds in one step: the time of one is short."""
_CHURNED = 4_096
_NON_BLOCKING = 1
_DEADLINE = 30.0
_PAUSE = 0.001
"""Seconds before each wait and signal that are measured after a pause; as in C."""
_AHEAD = 0.002
"""Seconds between the announcement of a wait and the signal."""
_at: dict[str, Any] = {}


def gpu_of_both() -> bytes | None:
    """Return the UUID of a GPU that Vulkan and CUDA have; None without one."""
    cuda = {offer.identity.device_uuid for offer in select.cuda_offers()} if select.cuda_offers() else set()
    found = (one.identity for one in select.enumerate_offers() if one.kind == "vulkan") if cuda else ()
    return next((identity.device_uuid for identity in found if identity.device_uuid in cuda), None)


def parts(
    env: Environment, uuid: bytes, rounds: int, report: Callable[[str], None], *, quick: bool
) -> dict[str, Callable[[], Iterator[Figure]]]:
    """Return the parts for the GPU with this UUID."""
    return {
        "stream and chain": lambda: _against_c(env, uuid, rounds if quick else max(rounds, TURNS), report),
        "signal of a stream to the host": lambda: _to_the_host(env, uuid, 5 if quick else 100, report),
        "imports of a driver's timeline": lambda: _imports(env, uuid, 64 if quick else _CHURNED, report),
        "death of a signaler with a GPU": lambda: _deaths(env, uuid, 2 if quick else 20, report),
    }


def _against_c(env: Environment, uuid: bytes, turns: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"a queue and a stream: {turns} turns")
    worker = env.worker("gpu order")
    library = compile_floor(env.directory, "order_floor.c")
    paced, paced_c, stream, stream_c, heard_c, chain, chain_c = worker.call(
        f"{__name__}:measure_order", library, uuid, turns, deadline=600.0
    )
    env.dismiss(worker)
    yield at_most("host time of a wait and a signal on a stream, against C", ratio_in_turns(stream, stream_c, 1), 1.8)
    yield unbounded("the same, against C that wakes waiters too", ratio_in_turns(stream, heard_c, 1), "times")
    yield unbounded("the same after a pause, against C", ratio_in_turns(paced, paced_c, 1), "times")
    yield at_most(
        "Vulkan queue, CUDA stream, Vulkan queue without a wait of the host, against C",
        ratio_in_turns(chain, chain_c, 1),
        1.5,
    )
    for name, times in (
        ("a wait and a signal on a stream", stream),
        ("a wait and a signal on a stream, by C", stream_c),
        ("a wait, a signal and a host function on a stream, by C", heard_c),
        ("a wait and a signal on a stream after a pause", paced),
        ("a wait and a signal on a stream after a pause, by C", paced_c),
        ("queue, stream, queue", chain),
        ("queue, stream, queue, by C", chain_c),
    ):
        yield microseconds(name, [spent / _ROUNDS for spent in times])


def _to_the_host(env: Environment, uuid: bytes, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"a stream signals, and another process waits on the host, {rounds} times")
    signaler, waiter = env.worker("gpu signaler"), env.worker("gpu waiter")
    name = env.name("gpu signals")
    signaler.call(f"{__name__}:make_timeline", uuid, name)
    spent: dict[bool, list[float]] = {False: [], True: []}
    value = 0
    for number in range(-2, rounds):
        for naive in (False, True):
            value += 1
            waiter.start(f"{__name__}:wait_for_value", uuid, name, value, naive)
            answers = waiter.stream()
            next(answers)  # it is about to wait
            time.sleep(_AHEAD)
            begin = signaler.call(f"{__name__}:signal_value", value)
            end = next(answers)
            if next(answers, None) is not None:
                raise RuntimeError("the waiting process has more to report than the end of its wait")
            if number >= 0:
                spent[naive].append((end - begin) / 1e6)
    for worker in (waiter, signaler):
        worker.call(f"{__name__}:close_all")
        env.dismiss(worker)
    yield at_most(
        "CUDA signals, and a waiter in another process goes on: p50", percentile(spent[False], 0.5), 1.0, "ms"
    )
    yield unbounded("CUDA signals, and a waiter in another process goes on: p95", percentile(spent[False], 0.95), "ms")
    yield unbounded("the same by vkWaitSemaphores of the driver: p50", percentile(spent[True], 0.5), "ms")


def _imports(env: Environment, uuid: bytes, count: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"importing a driver's timeline {count} times")
    maker, importer = env.worker("gpu maker"), env.worker("gpu importer")
    name = env.name("gpu imports")
    maker.call(f"{__name__}:make_timeline", uuid, name)
    importer.call(f"{__name__}:import_often", uuid, name, 4)
    broker = broker_of(env.directory)
    before = descriptors_at_rest(broker)
    left = importer.call(f"{__name__}:import_often", uuid, name, count, deadline=600.0)
    for what, amount in left.items():
        yield at_most(f"{what} left after {count} imports of a driver's timeline", max(0, amount), 0, "left")
    yield at_most(
        f"fds of the broker left after {count} imports of a driver's timeline",
        max(0, descriptors_at_rest(broker) - before),
        0,
        "left",
    )
    for worker in (importer, maker):
        worker.call(f"{__name__}:close_all")
        env.dismiss(worker)


def _deaths(env: Environment, uuid: bytes, kills: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"kill -9 of a signaler with a VkDevice, {kills} times")
    waiter = env.worker("waiter")
    spent: list[float] = []
    for number in range(kills):
        signaler, name = env.worker("gpu signaler"), env.name(f"gpu owed {number}")
        signaler.call(f"{__name__}:make_timeline", uuid, name)
        signaler.call(f"{__name__}:signal_value", 1)
        waiter.start("extmem.cli._bench.ordering:wait_for_more", name)
        answers = waiter.stream()
        next(answers)  # it is about to wait
        time.sleep(_AHEAD)
        begin = time.monotonic_ns()
        signaler.kill()
        spent.append((next(answers) - begin) / 1e6)
        if next(answers, None) is not None:
            raise RuntimeError("the waiting process has more to report than the end of its wait")
        env.dismiss(signaler)
    env.dismiss(waiter)
    for label, share in (("p50", 0.5), ("max", 1.0)):
        yield unbounded(
            f"from kill -9 of a signaler with a VkDevice to PeerGoneError: {label}", percentile(spent, share), "ms"
        )


# Tasks of the processes.


def measure_order(library: str, uuid: bytes, turns: int) -> list[list[int]]:
    """Return the nanoseconds of the steps: by extmem and by C, after pauses, in a row (C: also heard), as a chain."""
    floor = OrderFloor(library, uuid)
    try:
        return order_in_turns(floor, uuid, turns)
    finally:
        floor.close()


def order_in_turns(floor: OrderFloor, uuid: bytes, turns: int) -> list[list[int]]:
    """Run the steps of extmem in turns with those of C; each has `_ROUNDS` rounds."""
    with (
        extmem.open_device(kind="cuda", uuid=uuid) as cuda,  # the timeline is on it, until its queue is done
        extmem.open_device(kind="vulkan", uuid=uuid) as vulkan,
        new_stream(cuda) as (stream, synchronize),
        vulkan.timeline() as timeline,
        vulkan.fence() as fence,
    ):
        on_streams = raw.stream_timeline(cuda, timeline)

        def stream_step() -> int:
            first = timeline.value
            begin = time.perf_counter_ns()
            for value in range(first, first + _ROUNDS):
                on_streams.wait(stream, value)
                on_streams.signal(stream, value + 1)
            spent = time.perf_counter_ns() - begin
            synchronize()
            return spent

        def paced_step() -> int:
            first, spent = timeline.value, 0
            for value in range(first, first + 2 * _ROUNDS, 2):
                time.sleep(_PAUSE)
                begin = time.perf_counter_ns()
                on_streams.wait(stream, value + 1)
                on_streams.signal(stream, value + 2)
                spent += time.perf_counter_ns() - begin
                timeline.signal(value + 1)
                synchronize()
            return spent

        def chain_step() -> int:
            first = timeline.value
            begin = time.perf_counter_ns()
            for value in range(first, first + 2 * _ROUNDS, 2):
                with vulkan.commands(signal=(timeline, value + 1)):
                    pass
                on_streams.wait(stream, value + 1)
                on_streams.signal(stream, value + 2)
                with vulkan.commands(wait=(timeline, value + 2), fence=fence):
                    pass
                fence.wait(_DEADLINE)
                fence.reset()
            return time.perf_counter_ns() - begin

        steps = (
            paced_step,
            functools.partial(floor.paced, _ROUNDS),
            stream_step,
            functools.partial(floor.on_stream, _ROUNDS),
            functools.partial(floor.heard, _ROUNDS),
            chain_step,
            functools.partial(floor.chained, _ROUNDS),
        )
        times = interleaved(turns, *steps, warm_up=3)
        synchronize()
    return times


@contextlib.contextmanager
def new_stream(cuda: extmem.Device) -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield a new CUDA stream, and a function that waits for it."""
    backend: Any = cuda.backend
    module, current = backend.device.module, backend.device.gpu.current

    def synchronize() -> None:
        with current:
            _check(*module.cuStreamSynchronize(stream))

    with current:
        result, made = module.cuStreamCreate(_NON_BLOCKING)
        _check(result)
    stream = int(made)
    try:
        yield stream, synchronize
    finally:
        synchronize()
        with current:
            module.cuStreamDestroy(stream)
        backend.finish_submitted()


def _check(result: object, *_: object) -> None:
    if result:
        raise OSError(f"a call of CUDA failed: {result!r}")


def make_timeline(uuid: bytes, name: str) -> None:
    """Signaler: create a timeline of the Vulkan driver, and a stream that signals it."""
    stack: contextlib.ExitStack = _at.setdefault("stack", contextlib.ExitStack())
    cuda = stack.enter_context(extmem.open_device(kind="cuda", uuid=uuid))
    vulkan = stack.enter_context(extmem.open_device(kind="vulkan", uuid=uuid))
    _at["stream"], _ = stack.enter_context(new_stream(cuda))
    timeline = stack.enter_context(vulkan.timeline(name=name))
    _at["timeline"] = raw.stream_timeline(cuda, timeline)


def signal_value(value: int) -> int:
    """Signaler: signal a value on the stream. Return the time before."""
    begin = time.monotonic_ns()
    _at["timeline"].signal(_at["stream"], value)
    return begin


def wait_for_value(uuid: bytes, name: str, value: int, naive: bool) -> Iterator[int]:
    """Waiting process: wait for a value; yield when it begins, and when it ends. naive: by the driver's own wait."""
    if "opened" not in _at:
        stack: contextlib.ExitStack = _at.setdefault("stack", contextlib.ExitStack())
        _at["device"] = stack.enter_context(extmem.open_device(kind="vulkan", uuid=uuid))
        _at["opened"] = stack.enter_context(extmem.open_timeline(name, device=_at["device"]))
    timeline: extmem.Timeline = _at["opened"]
    yield 0
    if naive:
        _wait_by_driver(_at["device"], timeline, value)
    else:
        timeline.wait(value, _DEADLINE)
    yield time.monotonic_ns()


def _wait_by_driver(device: extmem.Device, timeline: extmem.Timeline, value: int) -> None:
    from extmem.vk.abi import ffi

    backend: Any = device.backend
    logical = backend.device
    semaphores, values = ffi.new("uint64_t *", timeline.record.native.raw), ffi.new("uint64_t *", value)
    kind = int(vk.StructureType.SEMAPHORE_WAIT_INFO)
    info = ffi.new("VkSemaphoreWaitInfo *", (kind, ffi.NULL, 0, 1, semaphores, values))
    result = logical.commands.vkWaitSemaphores(logical.handle, info, int(_DEADLINE * 1e9))
    if result:
        raise OSError(f"vkWaitSemaphores returned {vk.Result(result)!r}")


def import_often(uuid: bytes, name: str, count: int) -> dict[str, int]:
    """Importer: import the timeline into both devices `count` times. Return what is left of it."""
    if "devices" not in _at:
        stack: contextlib.ExitStack = _at.setdefault("stack", contextlib.ExitStack())
        _at["devices"] = [stack.enter_context(extmem.open_device(kind=kind, uuid=uuid)) for kind in ("vulkan", "cuda")]
    devices: list[extmem.Device] = _at["devices"]
    before = _held()
    for number in range(count):
        extmem.open_timeline(name, device=devices[number % 2]).close()
    gc.collect()
    return {what: amount - before[what] for what, amount in _held().items()}


def _held() -> dict[str, int]:
    return {**holdings(), "threads": len(os.listdir("/proc/self/task"))}


def close_all() -> None:
    """Close the devices, and what is on them."""
    stack: contextlib.ExitStack | None = _at.pop("stack", None)
    _at.clear()
    if stack is not None:
        stack.close()
