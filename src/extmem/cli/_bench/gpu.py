"""`extmem bench vulkan`: a Vulkan device's memory shared through this library, against C that makes the same calls.

How this works. A small C file (`floor.c`) is compiled and loaded into worker processes; it declares what it needs of
Vulkan itself. C and this library take turns, and each figure is a ratio of medians:

1. *passing*: from before vkAllocateMemory for export in one process until another has it imported and bound (`passing`
   has the data path). The library's calls are judged by the rules; by fd handle as C's, and told beside it, by name.
   The ratio is the median of neighbouring turns': a round is so long that the machine's speed changes in between, and
   the turns are many, because single ones scatter by a third at 4 KiB, as the processes meet sleeping processors.
2. *opening again*: `extmem.open(name)` of what this process has imported already.
3. *importing*: one process imports an fd that it exported, binds a buffer and maps it; with the rules on and off. This
   takes a software driver some microseconds, so it shows what Python adds; on a GPU it is told without a bound.
4. *leaving nothing*: thousands of imports, and what is left of them in the process, the device and the object manager.
5. *kill -9* of an exporter or importer in the middle of its work, many times, and what is left (`killing`).

A part that fails is one figure that is not ok; the others are measured all the same. Sizes from 1 GiB on take at least
20 rounds, smaller ones at least 100.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import extmem
from extmem import vk
from extmem.cli._bench.floor import Floor, compile_floor
from extmem.cli._bench.measure import TURNS, Figure, at_most, interleaved, ratio, ratio_in_turns, told
from extmem.devices.vulkan.backend import VulkanBackend

if sys.platform != "linux":
    raise ImportError("the benchmarks measure Linux's object manager and opaque fds; there is none to measure here")

from extmem.cli._bench import killing
from extmem.cli._bench.house import House
from extmem.cli._bench.machine import broker_of, descriptors_of, resident_kib
from extmem.cli._bench.passing import USAGE, HandleType, Payload, buffer_info, exportable
from extmem.cli._bench.sharing import import_by_name

__all__ = ["figures"]

_HERE = __name__
_PASSING = "extmem.cli._bench.passing"
_GPU_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "256 MiB": 256 << 20, "4 GiB": 4 << 30}
_SOFTWARE_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20}
_SMALL, _BIG = 4 << 20, 1 << 30
_FEW = 20
_TURN = 5
_CHURNED = 4_096
_SOFTWARE_VICTIM, _GPU_VICTIM = 1 << 20, 64 << 20
_AGAIN = 20.0
"""Microseconds that opening again may take, whatever the size."""
_clock = time.perf_counter_ns
_kept: list[Any] = []


class _Subject(NamedTuple):
    """The device that is measured."""

    uuid: bytes
    name: str
    software: bool
    mappable: bool
    """Whether the host sees what is shared."""
    payloads: dict[str, Payload]
    victim: Payload
    """What the killed processes work with: on GPUs so much that one that is lost shows in what is left."""


def figures(
    house: House, rounds: int, say: Callable[[str], None], *, quick: bool = False, kills: int | None = None
) -> Iterator[Figure]:
    """Measure; `rounds` of everything that is compared, and so many kills. Errors: UnsupportedError without Vulkan."""
    subject = _look(quick)
    say(f"{subject.name}, {'a software driver' if subject.software else 'a GPU'}")
    parts: dict[str, Callable[[], Iterator[Figure]]] = {
        "passing": lambda: _passing(house, subject, rounds, say, quick=quick),
        "opening again": lambda: _again(house, subject, rounds, say),
        "importing": lambda: _importing(house, subject, rounds, say),
        "leaving nothing": lambda: _leaving(house, subject, 128 if quick else _CHURNED, say),
        "kill -9": lambda: killing.figures(
            house, subject.uuid, subject.victim, (_FEW if quick else 200) if kills is None else kills, say
        ),
    }
    for part, measure in parts.items():
        try:
            yield from measure()
        except (extmem.ExtmemError, OSError, ValueError, RuntimeError, subprocess.SubprocessError) as error:
            say(f"{part} failed: {error}")
            yield at_most(f"{part}: could not be measured", 1, 0, "failed")


def _look(quick: bool) -> _Subject:
    with extmem.open_device(kind="vulkan") as device:
        software = device_type(device) not in _GPUS
        sizes = dict(list((_SOFTWARE_SIZES if software else _GPU_SIZES).items())[: 2 if quick else None])
        payloads = {}
        for label, size in sizes.items():
            payload = exportable(device, size)
            if payload.size <= device.facts.memory_types[payload.memory_type].heap_size // 2:
                payloads[label] = payload
        victim = exportable(device, _SOFTWARE_VICTIM if software else _GPU_VICTIM)
        mappable = _backend(device).host_visible[victim.memory_type]
        return _Subject(device.uuid, device.name, software, mappable, payloads, victim)


_GPUS = (vk.PhysicalDeviceType.DISCRETE_GPU, vk.PhysicalDeviceType.INTEGRATED_GPU, vk.PhysicalDeviceType.VIRTUAL_GPU)


def device_type(device: extmem.Device) -> vk.PhysicalDeviceType:
    """VkPhysicalDeviceType of an opened Vulkan device."""
    return _backend(device).physical.device_type


def _backend(device: extmem.Device) -> VulkanBackend:
    if not isinstance(device.backend, VulkanBackend):
        raise TypeError(f"{device!r} is no Vulkan device")
    return device.backend


def _bounded(name: str, value: float, bound: float, where: bool) -> Figure:
    return at_most(name, value, bound) if where else told(name, value, "ratio")


# The parts.


def _passing(
    house: House, subject: _Subject, rounds: int, say: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    library = compile_floor(house.directory)
    c_address, our_address, named_address = (str(house.directory / f"{who}.sock") for who in ("c", "ours", "named"))
    c_exporter, c_importer = house.worker("c exporter"), house.worker("c importer")
    exporter, importer = house.worker("exporter"), house.worker("importer")
    namer, finder = house.worker("exporter by name"), house.worker("importer by name")
    # All exporters on one processor and all importers on another: which two a pair gets makes more of a difference
    # than what is compared.
    processors = sorted(os.sched_getaffinity(0))
    for side, workers in ((1, (c_exporter, exporter, namer)), (2, (c_importer, importer, finder))):
        for worker in workers:
            worker.call(f"{_PASSING}:settle", processors[side * len(processors) // 3])
    c_exporter.call(f"{_PASSING}:listen", c_address)
    exporter.call(f"{_PASSING}:listen", our_address)
    namer.call(f"{_PASSING}:listen", named_address)
    c_importer.start(f"{_PASSING}:take_by_c", c_address, library, subject.uuid)
    importer.start(f"{_PASSING}:take_by_fd", our_address)
    finder.start(f"{_PASSING}:take_by_name", named_address)
    few, many = max(_FEW, rounds // 5), rounds if quick else max(rounds, TURNS * _TURN)
    for label, payload in subject.payloads.items():
        count = few if payload.size >= _BIG else many
        say(f"passing {label} to another process {count} times, in turns with C")

        def ours(rounds: int, payload: Payload = payload) -> list[int]:
            return list(exporter.call(f"{_PASSING}:pass_by_fd", payload, rounds))

        def by_c(rounds: int, payload: Payload = payload) -> list[int]:
            return list(c_exporter.call(f"{_PASSING}:pass_by_c", library, subject.uuid, payload, rounds))

        def by_name(rounds: int, payload: Payload = payload) -> list[int]:
            return list(namer.call(f"{_PASSING}:pass_by_name", payload, rounds))

        mine, theirs = _in_turns(count, ours, by_c)
        [named] = _in_turns(few, by_name)
        bound = 1.5 if payload.size <= _SMALL else 1.05
        name = f"export, pass, import and bind {label}, checked, against C"
        yield _bounded(name, ratio_in_turns(mine, theirs, _TURN), bound, not subject.software)
        yield told(f"export, pass, import and bind {label}", statistics.median(mine) / 1000, "µs")
        yield told(f"the same by C, {label}", statistics.median(theirs) / 1000, "µs")
        yield told(f"the same by name, through the object manager, {label}", statistics.median(named) / 1000, "µs")
    for worker in (exporter, c_exporter, namer, importer, c_importer, finder):
        worker.leave()


def _in_turns(count: int, *steps: Callable[[int], list[int]]) -> list[list[int]]:
    """`count` rounds of each, in turns of some rounds, each turn in another order.

    A turn is several rounds because asking a worker for one is work too, and leaves its caches to others.
    """
    times: list[list[int]] = [[] for _ in steps]
    order, draw = list(range(len(steps))), random.Random(count)
    for step in steps:
        step(2)  # the first ones make what is kept
    while len(times[0]) < count:
        draw.shuffle(order)
        for index in order:
            times[index] += steps[index](_TURN)
    return times


def _again(house: House, subject: _Subject, rounds: int, say: Callable[[str], None]) -> Iterator[Figure]:
    exporter, opener = house.worker("exporter"), house.worker("opener")
    labels = list(subject.payloads)
    names = {label: f"bench again {label}" for label in labels}
    say(f"opening again {', '.join(labels)}, {rounds} times each")
    exporter.call(f"{_HERE}:share", [(names[label], subject.payloads[label].buffer_size) for label in labels])
    *again, imported = opener.call(f"{_HERE}:open_again", list(names.values()), rounds)
    for label, times in zip(labels, again, strict=True):
        yield at_most(f"open again in the same process, {label}", statistics.median(times) / 1000, _AGAIN, "µs")
    yield told(f"open again, {labels[-1]}, against importing it again", ratio(again[-1], imported), "ratio")
    for worker in (opener, exporter):
        worker.leave()


def _importing(house: House, subject: _Subject, rounds: int, say: Callable[[str], None]) -> Iterator[Figure]:
    if not subject.mappable:
        say("importing and mapping is not measured: what this device shares, the host does not see")
        return
    worker = house.worker("importer")
    say(f"importing 4 KiB {rounds} times, checked and unchecked, in turns with C")
    library = compile_floor(house.directory)
    off, checked, theirs = worker.call(f"{_HERE}:compare_imports", library, subject.payloads["4 KiB"], rounds)
    what = "import, bind and map an fd of our own"
    yield _bounded(f"{what}, unchecked, against C", ratio(off, theirs), 5.0, subject.software)
    yield _bounded(f"{what}, checked, against C", ratio(checked, theirs), 6.0, subject.software)
    yield told(f"{what}, unchecked", statistics.median(off) / 1000, "µs")
    yield told(f"{what}, checked", statistics.median(checked) / 1000, "µs")
    yield told(f"{what}, by C", statistics.median(theirs) / 1000, "µs")
    worker.leave()


def _leaving(house: House, subject: _Subject, count: int, say: Callable[[str], None]) -> Iterator[Figure]:
    exporter, importer = house.worker("exporter"), house.worker("importer")
    say(f"importing, binding and closing {count} times")
    payload = subject.payloads["1 MiB"]
    exporter.call(f"{_HERE}:share", [("bench leaving", payload.buffer_size)])
    importer.call(f"{_HERE}:import_and_close", "bench leaving", 4)  # it is connected from here on, and others are gone
    broker = broker_of(house.directory)
    before = descriptors_of(broker)
    left, grown = importer.call(f"{_HERE}:import_and_close", "bench leaving", count)
    for what, amount in left.items():
        yield at_most(f"{what} left after {count} imports", amount, 0, "left")
    yield at_most(f"descriptors of the broker left after {count} imports", descriptors_of(broker) - before, 0, "left")
    yield at_most(f"growth of the process by {count} imports (VmRSS)", grown / 1024, 1.0, "MiB")
    for worker in (importer, exporter):
        worker.leave()


# What the processes do.


def share(payloads: list[tuple[str, int]]) -> None:
    """Exporter: share these names and sizes until the process ends."""
    device = extmem.open_device(kind="vulkan")
    _kept.extend([device, *(device.allocate(size, name=name) for name, size in payloads)])


def open_again(names: list[str], rounds: int) -> list[list[int]]:
    """Opener: nanoseconds of opening each name while it is open; then of importing the last of them again."""
    kept = [extmem.open(name) for name in names]
    last = kept[-1]

    def opening(name: str) -> Callable[[], int]:
        def step() -> int:
            start = _clock()
            memory = extmem.open(name)
            spent = _clock() - start
            memory.close()
            return spent

        return step

    def importing() -> int:
        start = _clock()
        memory = import_by_name(last.device, names[-1], last.allocation_size, last.memory_type_index)
        spent = _clock() - start
        memory.close()
        return spent

    times = interleaved(rounds, *map(opening, names), importing)
    for memory in kept:
        memory.close()
    return times


def compare_imports(library: str, payload: Payload, rounds: int) -> list[list[int]]:
    """Importer: nanoseconds of import, bind and map with the rules off and on, and by C; freeing is not counted."""
    opaque = HandleType.OPAQUE_FD
    export = vk.MemoryAllocateInfo(payload.size, payload.memory_type, vk.ExportMemoryAllocateInfo(opaque))
    with (
        extmem.open_device(kind="vulkan", check="off") as lax,
        extmem.open_device(kind="vulkan") as strict,
        strict.allocate_memory(export) as memory,
        strict.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, opaque)) as handle,
    ):
        floor = Floor(library, strict.uuid)

        def importing(device: extmem.Device) -> Callable[[], int]:
            mappable = _backend(device).host_visible[payload.memory_type]

            def step() -> int:
                buffer = device.create_buffer(buffer_info(payload.buffer_size, opaque))
                start = _clock()
                copy = handle.duplicate()
                imported = device.allocate_memory(
                    vk.MemoryAllocateInfo(payload.size, payload.memory_type, vk.ImportMemoryFdInfoKHR(opaque, copy))
                )
                device.bind_buffer_memory(buffer, imported)
                view = imported.map() if mappable else None
                spent = _clock() - start
                del view
                buffer.close()
                imported.close()
                return spent

            return step

        def by_c() -> int:
            return floor.imported(int(handle), payload.size, payload.memory_type, payload.buffer_size, int(USAGE))

        try:
            return interleaved(rounds, importing(lax), importing(strict), by_c)
        finally:
            floor.close()


def import_and_close(name: str, count: int) -> tuple[dict[str, int], int]:
    """Importer: what so many imports left in this process, its device and the object manager; its growth in KiB."""
    with extmem.open_device(kind="vulkan") as device:
        with extmem.open(name, device=device) as first:
            size, kind, octets = first.allocation_size, first.memory_type_index, first.size
        mappable = _backend(device).host_visible[kind]

        def once() -> None:
            with device.create_buffer(buffer_info(octets, HandleType.OPAQUE_WIN32)) as buffer:
                memory = import_by_name(device, name, size, kind)
                device.bind_buffer_memory(buffer, memory)
                if mappable:
                    memory.map()[0]
                memory.close()

        # What the first ones leave is room for the next.
        for _ in range(count // 4):
            once()
        gc.collect()
        before, resident = _holdings(device), resident_kib(os.getpid())
        for _ in range(count):
            once()
        gc.collect()
        grown = resident_kib(os.getpid()) - resident
        return {what: amount - before[what] for what, amount in _holdings(device).items()}, grown


def _holdings(device: extmem.Device) -> dict[str, int]:
    from extmem.manager import manager

    mine = [holder for row in manager().snapshot() for holder in row.holders if holder.pid == os.getpid()]
    return {
        "descriptors": descriptors_of(os.getpid()),
        "memories and buffers of the VkDevice": _backend(device).living,
        "memory objects": sum(holder.memories for holder in mine),
        "handles": sum(len(holder.handles) for holder in mine),
    }
