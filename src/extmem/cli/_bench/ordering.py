"""`extmem bench sync`: timelines between processes, against a futex in C and multiprocessing.Semaphore.

Where there is a GPU that both Vulkan and CUDA have, `ordering_gpu` adds its figures.

How this works. One hop is half of a round, in which two processes wake each other up once. The hops run in turns: some
rounds by a futex in C, as many by `multiprocessing.Semaphore`, as many by timelines of the host device. Both processes
run in one group of processors, so that all three ways wake the same processors up. For `wait_async` one of the two
processes awaits in an event loop; the difference of two rounds is that of one waiting.

In a round of kill -9, a process without a GPU creates a timeline, signals it, and is killed while another waits for
more. The time is that from the kill to the PeerGoneError in the waiting process.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import extmem
from extmem.cli._bench.floor import compile_floor
from extmem.cli._bench.measure import Figure, at_most, measured_parts, percentile, ratio_in_turns, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and futexes of Linux")

from extmem.cli._bench import ordering_gpu
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import broker_of, descriptors_at_rest, descriptors_of
from extmem.cli._bench.waiting import wait_for
from extmem.cli._worker import Worker

__all__ = ["figures"]

_ROUNDS = 200
"""Rounds of each way in one turn."""
_DEADLINE = 30.0
"""Seconds that a wait may take before the benchmark fails."""
_WAYS = ("futex in C", "multiprocessing.Semaphore", "timeline", "wait_async")


def figures(
    env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False, kills: int | None = None
) -> Iterator[Figure]:
    """Measure `rounds` turns of hops, and kill `kills` processes."""
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "hops": lambda: _hops(env, 3 if quick else rounds, report),
        "death of the signaler": lambda: _deaths(env, kills or (5 if quick else 200), report),
    }
    uuid = ordering_gpu.gpu_of_both()
    if uuid is not None:
        parts |= ordering_gpu.parts(env, uuid, 3 if quick else rounds, report, quick=quick)
    yield from measured_parts(parts, report)


def _hops(env: Environment, turns: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"hops between two processes: {turns} turns")
    worker = env.worker("first")
    library = compile_floor(env.directory, "sync_floor.c")
    times: dict[str, list[float]] = worker.call(f"{__name__}:measure_hops", library, turns, env.name("hops"))
    env.dismiss(worker)
    floor, semaphore, timeline, awaited = (times[way] for way in _WAYS)
    yield at_most("one hop of a host timeline, against a futex in C", ratio_in_turns(timeline, floor, 1), 3.5)
    yield at_most(
        "one hop of a host timeline, against multiprocessing.Semaphore", ratio_in_turns(timeline, semaphore, 1), 3.0
    )
    # One of the two waits of a round is asynchronous.
    more = statistics.median(2 * (one - other) for one, other in zip(awaited, timeline, strict=True))
    yield at_most("wait_async, longer than wait", max(0.0, more) / 1000, 15.0, "µs")
    for way, hops in times.items():
        yield unbounded(f"p50 of one hop: {way}", statistics.median(hops) / 1000, "µs")


def _deaths(env: Environment, kills: int, report: Callable[[str], None]) -> Iterator[Figure]:
    report(f"kill -9 of a signaler while another process waits, {kills} times")
    waiter = env.worker("waiter")
    waiter.call(f"{__name__}:prepare")
    broker = broker_of(env.directory)
    payloads, own, threads = waiter.call(f"{__name__}:count")
    descriptors = descriptors_at_rest(broker)
    ahead = max(2, min(4, os.cpu_count() or 2))
    ready: deque[tuple[Worker, str]] = deque()
    spent: list[float] = []
    for number in range(kills):
        while len(ready) < min(ahead, kills - number):
            name = env.name(f"owed {number + len(ready)}")
            worker = env.worker("signaler")
            worker.start(f"{__name__}:signal_once", name)
            ready.append((worker, name))
        worker, name = ready.popleft()
        worker.finish()
        waiter.start(f"{__name__}:wait_for_more", name)
        answers = waiter.stream()
        next(answers)  # it is about to wait
        time.sleep(0.002)
        begin = time.monotonic_ns()
        worker.kill()
        spent.append((next(answers) - begin) / 1e6)
        if next(answers, None) is not None:
            raise RuntimeError("the waiting process has more to report than the end of its wait")
        env.dismiss(worker)
        if not (number + 1) % 50:
            report(f"{number + 1} killed")
    yield at_most("from kill -9 of the signaler to PeerGoneError: p50", percentile(spent, 0.5), 5.0, "ms")
    yield at_most("from kill -9 of the signaler to PeerGoneError: max", max(spent), 50.0, "ms")
    after = [payloads, own, threads, descriptors]

    def settled() -> bool:
        after[:] = [*waiter.call(f"{__name__}:count"), descriptors_of(broker)]
        return all(now <= before for now, before in zip(after, (payloads, own, threads, descriptors), strict=True))

    if not wait_for(settled, 10.0):
        report("not everything was released within 10 s")
    yield at_most(f"timelines left after {kills} rounds of kill -9", max(0, after[0] - payloads), 0, "left")
    yield at_most(f"fds of the waiting process left after {kills} rounds of kill -9", max(0, after[1] - own), 0, "left")
    yield at_most(
        f"threads of the waiting process left after {kills} rounds of kill -9", max(0, after[2] - threads), 0, "left"
    )
    yield at_most(f"fds of the broker left after {kills} rounds of kill -9", max(0, after[3] - descriptors), 0, "left")
    waiter.leave()


# Tasks of the processes.


def measure_hops(library: str, turns: int, label: str) -> dict[str, list[float]]:
    """First process: start the second one, and return the mean nanoseconds of a hop in each turn, by the way."""
    spawning = multiprocessing.get_context("spawn")
    there, back = spawning.Semaphore(0), spawning.Semaphore(0)
    ours, theirs = spawning.Pipe()
    page = os.memfd_create("extmem-bench")
    os.ftruncate(page, 4096)
    with extmem.open_device(kind="host") as device:
        with device.timeline(name=f"{label} there") as to, device.timeline(name=f"{label} back") as fro:
            arguments = (theirs, library, f"/proc/{os.getpid()}/fd/{page}", there, back, label)
            second = spawning.Process(target=_second, args=arguments, daemon=True)
            second.start()
            theirs.close()
            try:
                _receive(ours)
                steps = _first_steps(library, page, there, back, to, fro)
                times: dict[str, list[float]] = {way: [] for way in _WAYS}
                for turn in range(-2, turns):  # the first two warm up
                    for way in _WAYS[turn % 4 :] + _WAYS[: turn % 4]:
                        ours.send(way)
                        _receive(ours)
                        spent = steps[way]()
                        if turn >= 0:
                            times[way].append(spent / (2 * _ROUNDS))
                ours.send(None)
            finally:
                ours.close()
                second.join(5)
                second.kill()
                os.close(page)
    return times


def _receive(connection: Connection) -> None:
    if not connection.poll(_DEADLINE):
        raise RuntimeError(f"the second process did not reply within {_DEADLINE:g} s")
    connection.recv()


def _hops_in_c(library: str, fd: int, first: bool) -> Callable[[], int]:
    function = ctypes.CDLL(library).sync_floor_hops
    function.restype = ctypes.c_int64
    function.argtypes = (ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_int)
    starts = itertools.count(0, _ROUNDS)

    def step() -> int:
        spent = int(function(fd, next(starts), _ROUNDS, int(first)))
        if spent < 0:
            raise OSError("the C code failed: a system call failed")
        return spent

    return step


def _first_steps(
    library: str, page: int, there: Any, back: Any, to: extmem.Timeline, fro: extmem.Timeline
) -> dict[str, Callable[[], int]]:
    def by_semaphore() -> int:
        begin = time.perf_counter_ns()
        for _ in range(_ROUNDS):
            there.release()
            back.acquire(True, _DEADLINE)
        return time.perf_counter_ns() - begin

    def by_timeline() -> int:
        start = to.value + 1
        begin = time.perf_counter_ns()
        for value in range(start, start + _ROUNDS):
            to.signal(value)
            fro.wait(value, _DEADLINE)
        return time.perf_counter_ns() - begin

    async def awaiting() -> int:
        start = to.value + 1
        begin = time.perf_counter_ns()
        for value in range(start, start + _ROUNDS):
            to.signal(value)
            await fro.wait_async(value, _DEADLINE)
        return time.perf_counter_ns() - begin

    ways = (_hops_in_c(library, page, True), by_semaphore, by_timeline, lambda: asyncio.run(awaiting()))
    return dict(zip(_WAYS, ways, strict=True))


def _second(connection: Connection, library: str, page_path: str, there: Any, back: Any, label: str) -> None:
    """Second process: reply to each round of the first."""
    page = os.open(page_path, os.O_RDWR)
    in_c = _hops_in_c(library, page, False)
    with extmem.open_timeline(f"{label} there") as to, extmem.open_timeline(f"{label} back") as fro:
        connection.send(True)
        while (way := connection.recv()) is not None:
            connection.send(True)
            if way == _WAYS[0]:
                in_c()
            elif way == _WAYS[1]:
                for _ in range(_ROUNDS):
                    there.acquire(True, _DEADLINE)
                    back.release()
            else:
                start = fro.value + 1
                for value in range(start, start + _ROUNDS):
                    to.wait(value, _DEADLINE)
                    fro.signal(value)


_at: dict[str, Any] = {}


def prepare() -> None:
    """Waiting process: open the device, and wait once, so that nothing is counted that stays for all waits."""
    device = extmem.open_device(kind="host")
    _at["device"] = device
    name = f"bench prepared {os.getpid()}"
    with device.timeline(1, name=name), extmem.open_timeline(name) as opened:
        opened.wait(1, 1.0)


def count() -> tuple[int, int, int]:
    """Waiting process: return the numbers of payloads, of own fds, and of own threads."""
    from extmem.manager import manager

    return len(manager().snapshot()), descriptors_of(os.getpid()), len(os.listdir("/proc/self/task"))


def signal_once(name: str) -> None:
    """Signaler: create a timeline, signal it once, and keep it until the process is killed."""
    device = extmem.open_device(kind="host")
    timeline = device.timeline(name=name)
    timeline.signal(1)
    _at.update(device=device, timeline=timeline)


def wait_for_more(name: str) -> Iterator[int]:
    """Waiting process: wait for a value that the killed process owes; yield when it begins, and when it ends."""
    with extmem.open_timeline(name) as timeline:
        timeline.wait(1, _DEADLINE)
        yield 0
        try:
            timeline.wait(2, _DEADLINE)
        except extmem.PeerGoneError:
            ended = time.monotonic_ns()
        else:
            raise RuntimeError("the wait succeeded, though nothing signaled the value")
    yield ended
