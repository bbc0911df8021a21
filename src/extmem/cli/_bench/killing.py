"""kill -9 of processes that share a Vulkan device's memory, and what is left of them.

How this works. In each round a new process works as fast as it can and is killed after some random milliseconds: in
turns an exporter, which allocates, names and frees memory, and an importer, which imports memory of another process,
binds it and frees it. New processes are started some rounds ahead, because a start takes longer than a kill. An
observer, which is not killed, counts before and after: the payloads of the object manager, the fds of the broker, and,
if the driver reports it (VK_EXT_memory_budget, on GPUs), the free memory of the device.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import extmem
from extmem.cli._bench.floor import Floor, compile_floor
from extmem.cli._bench.measure import Figure, at_most, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and opaque fds of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import broker_of, descriptors_at_rest, descriptors_of
from extmem.cli._bench.passing import HandleType, Payload, buffer_info, export_named
from extmem.cli._bench.sharing import import_by_name
from extmem.cli._bench.waiting import wait_for
from extmem.cli._worker import Worker

__all__ = ["figures"]

_LONGEST = 0.02
_KEPT = "bench kept"
_at: dict[str, Any] = {}


def figures(
    env: Environment, uuid: bytes, payload: Payload, rounds: int, report: Callable[[str], None]
) -> Iterator[Figure]:
    """Kill `rounds` processes and count what is left of them."""
    ahead = max(2, min(6, (os.cpu_count() or 2) // 2))
    report(f"kill -9 of an exporter or an importer at work, {rounds} times")
    observer = env.worker("observer")
    try:
        library = compile_floor(env.directory)
    except extmem.UnsupportedError as error:
        report(f"the free memory of the device is not measured: {error}")
        library = ""
    observer.call(f"{__name__}:observe", payload, library, uuid)
    broker = broker_of(env.directory)
    descriptors, (payloads, own, budget) = descriptors_at_rest(broker), observer.call(f"{__name__}:count")
    draw = random.Random(rounds)
    tasks = itertools.cycle((f"{__name__}:export_forever", f"{__name__}:import_forever"))
    victims: deque[tuple[Worker, Iterator[Any]]] = deque()
    for number in range(rounds):
        while len(victims) < min(ahead, rounds - number):
            worker = env.worker("victim")
            worker.start(next(tasks), payload)
            victims.append((worker, worker.stream()))
        worker, answers = victims.popleft()
        next(answers)  # the process is at work
        time.sleep(draw.uniform(0.0, _LONGEST))
        worker.kill()
        env.dismiss(worker)
        if not (number + 1) % 50:
            report(f"{number + 1} killed")
    after = [payloads, own, budget, descriptors]

    def settled() -> bool:
        after[:] = [*observer.call(f"{__name__}:count"), descriptors_of(broker)]
        return bool(after[0] <= payloads and after[3] <= descriptors and after[2] >= budget)

    if not wait_for(settled, 10.0):
        report("not everything was released within 10 s")
    yield at_most(f"payloads left after {rounds} rounds of kill -9", after[0] - payloads, 0, "left")
    yield at_most(f"fds of the broker left after {rounds} rounds of kill -9", after[3] - descriptors, 0, "left")
    yield at_most(f"fds of the observer left after {rounds} rounds of kill -9", after[1] - own, 0, "left")
    if budget:
        # The driver's estimate includes all processes of the machine: less than one payload is not counted as a leak.
        lost = max(0, budget - after[2])
        yield at_most(
            f"device memory missing after {rounds} rounds of kill -9, in payloads", lost // payload.size, 0, "left"
        )
        yield unbounded(f"device memory missing after {rounds} rounds of kill -9", lost / (1 << 20), "MiB")
    yield at_most(
        "allocations that fail after all rounds", 0 if observer.call(f"{__name__}:allocates", payload) else 1, 0, "left"
    )
    observer.leave()


# Tasks of the processes.


def observe(payload: Payload, library: str, uuid: bytes) -> None:
    """Observer: share a payload that importers open, until the process ends."""
    device = extmem.open_device(kind="vulkan")
    _at.update(device=device, memory=export_named(device, payload, _KEPT))
    _at["heap"] = device.memory_properties.memory_types[payload.memory_type].heap_index
    if library:
        _at["floor"] = Floor(library, uuid)


def count() -> tuple[int, int, int]:
    """Observer: return the numbers of payloads, of own fds, and of free bytes of device memory (0: unknown)."""
    from extmem.manager import manager

    floor = _at.get("floor")
    return len(manager().snapshot()), descriptors_of(os.getpid()), floor.budget(_at["heap"]) if floor else 0


def allocates(payload: Payload) -> bool:
    """Observer: whether memory can still be allocated, exported and imported."""
    device: extmem.Device = _at["device"]
    with export_named(device, payload, "bench after"):
        import_by_name(device, "bench after", payload.size, payload.memory_type).close()
    return True


def export_forever(payload: Payload) -> Iterator[str]:
    """Victim: allocate memory with a name, and free it, until the process is killed."""
    with extmem.open_device(kind="vulkan") as device:
        for number in itertools.count():
            memory = export_named(device, payload, f"bench victim {os.getpid()}.{number}")
            if not number:
                yield "at work"
            memory.close()


def import_forever(payload: Payload) -> Iterator[str]:
    """Victim: import the observer's payload, bind a buffer to it, and free both, until the process is killed."""
    with extmem.open_device(kind="vulkan") as device:
        for number in itertools.count():
            buffer = device.create_buffer(buffer_info(payload.buffer_size, HandleType.OPAQUE_WIN32))
            memory = import_by_name(device, _KEPT, payload.size, payload.memory_type)
            device.bind_buffer_memory(buffer, memory)
            if not number:
                yield "at work"
            buffer.close()
            memory.close()
