"""kill -9 of processes that share a Vulkan device's memory, and what of them is left.

How this works. Each round a fresh process works as fast as it can and is killed after some drawn milliseconds: in turns
an exporter (allocating, naming, freeing) and an importer (of what a keeper shares, binding, freeing). Fresh processes
are started some rounds ahead, as starting takes longer than dying. A watcher, which lives through all of it, looks
before and after: at the object manager's payloads, at the broker's descriptors, and where the driver says (
VK_EXT_memory_budget, on GPUs) at how much of the device's memory is to be had.
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
from extmem.cli._bench.measure import Figure, at_most, told

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and opaque fds; there is none to measure here")

from extmem.cli._bench.house import House
from extmem.cli._bench.machine import broker_of, descriptors_of
from extmem.cli._bench.passing import HandleType, Payload, buffer_info, export_named
from extmem.cli._bench.sharing import import_by_name
from extmem.cli._bench.waiting import wait_for
from extmem.cli._worker import Worker

__all__ = ["figures"]

_HERE = __name__
_LONGEST = 0.02
_KEPT = "bench kept"
_at: dict[str, Any] = {}


def figures(house: House, uuid: bytes, payload: Payload, rounds: int, say: Callable[[str], None]) -> Iterator[Figure]:
    """Kill so many processes."""
    ahead = max(2, min(6, (os.cpu_count() or 2) // 2))
    say(f"kill -9 of an exporter or an importer at work, {rounds} times")
    watcher = house.worker("watcher")
    try:
        library = compile_floor(house.directory)
    except extmem.UnsupportedError as error:
        say(f"the device's memory is not looked at: {error}")
        library = ""
    watcher.call(f"{_HERE}:watch", payload, library, uuid)
    broker = broker_of(house.directory)
    descriptors, (payloads, own, budget) = descriptors_of(broker), watcher.call(f"{_HERE}:look")
    draw = random.Random(rounds)
    tasks = itertools.cycle((f"{_HERE}:export_forever", f"{_HERE}:import_forever"))
    victims: deque[tuple[Worker, Iterator[Any]]] = deque()
    for number in range(rounds):
        while len(victims) < min(ahead, rounds - number):
            worker = house.worker("victim")
            worker.start(next(tasks), payload)
            victims.append((worker, worker.stream()))
        worker, answers = victims.popleft()
        next(answers)  # it has begun
        time.sleep(draw.uniform(0.0, _LONGEST))
        worker.kill()
        house.dismiss(worker)
        if not (number + 1) % 50:
            say(f"{number + 1} killed")
    after = [payloads, own, budget, descriptors]

    def settled() -> bool:
        after[:] = [*watcher.call(f"{_HERE}:look"), descriptors_of(broker)]
        return bool(after[0] <= payloads and after[3] <= descriptors and after[2] >= budget)

    try:
        wait_for(settled, 10.0)
    except TimeoutError:
        say("not everything was given back within 10 s")
    yield at_most(f"payloads left after {rounds} rounds of kill -9", after[0] - payloads, 0, "left")
    yield at_most(f"descriptors of the broker left after {rounds} rounds of kill -9", after[3] - descriptors, 0, "left")
    yield at_most(f"descriptors of a bystander left after {rounds} rounds of kill -9", after[1] - own, 0, "left")
    if budget:
        # The estimate counts what every process of the machine takes: less than one payload is nobody's leak.
        lost = max(0, budget - after[2])
        yield at_most(
            f"device memory missing after {rounds} rounds of kill -9, in payloads", lost // payload.size, 0, "left"
        )
        yield told(f"device memory missing after {rounds} rounds of kill -9", lost / (1 << 20), "MiB")
    yield at_most(
        "allocations that fail after all of it", 0 if watcher.call(f"{_HERE}:allocates", payload) else 1, 0, "left"
    )
    watcher.leave()


# What the processes do.


def watch(payload: Payload, library: str, uuid: bytes) -> None:
    """The watcher: share a payload that importers will open, until the process ends."""
    device = extmem.open_device(kind="vulkan")
    _at.update(device=device, memory=export_named(device, payload, _KEPT))
    _at["heap"] = device.memory_properties.memory_types[payload.memory_type].heap_index
    if library:
        _at["floor"] = Floor(library, uuid)


def look() -> tuple[int, int, int]:
    """The watcher: payloads in the object manager, own descriptors, bytes of device memory to be had (0: unknown)."""
    from extmem.manager import manager

    floor = _at.get("floor")
    return len(manager().snapshot()), descriptors_of(os.getpid()), floor.budget(_at["heap"]) if floor else 0


def allocates(payload: Payload) -> bool:
    """The watcher: whether memory can be allocated, exported and imported as before."""
    device: extmem.Device = _at["device"]
    with export_named(device, payload, "bench after"):
        import_by_name(device, "bench after", payload.size, payload.memory_type).close()
    return True


def export_forever(payload: Payload) -> Iterator[str]:
    """A victim: allocate and name memory, and free it, until the end."""
    with extmem.open_device(kind="vulkan") as device:
        for number in itertools.count():
            memory = export_named(device, payload, f"bench victim {os.getpid()}.{number}")
            if not number:
                yield "at work"
            memory.close()


def import_forever(payload: Payload) -> Iterator[str]:
    """A victim: import what is kept, bind a buffer to it, and free both, until the end."""
    with extmem.open_device(kind="vulkan") as device:
        for number in itertools.count():
            buffer = device.create_buffer(buffer_info(payload.buffer_size, HandleType.OPAQUE_WIN32))
            memory = import_by_name(device, _KEPT, payload.size, payload.memory_type)
            device.bind_buffer_memory(buffer, memory)
            if not number:
                yield "at work"
            buffer.close()
            memory.close()
