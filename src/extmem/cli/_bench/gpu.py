"""`extmem bench vulkan`: memory of a Vulkan device shared by extmem, against C that makes the same calls.

How this works. A small C file (`floor.c`) is compiled and loaded into worker processes; it contains its own
declarations of Vulkan. C and extmem run in turns, and each figure is a ratio of medians:

1. *passing*: from before vkAllocateMemory for export in one process until another process has imported the memory and
   bound it (`passing` has the data path). The calls of extmem are checked by the rules. They use an fd handle, as C
   does; also a name, without a bound. The figure is the median of the ratios of neighbouring turns, because a round
   takes so long that the speed of the machine changes in between. There are many turns, because single ones scatter by
   a third at 4 KiB, when a processor sleeps.
2. *opening again*: `extmem.open(name)` of a payload that this process has imported already.
3. *importing*: one process imports an fd that it exported, binds a buffer and maps it, with and without checks. A
   software driver takes some microseconds for it, so the figure shows the time of Python; on a GPU it has no bound.
4. *leaks*: thousands of imports, and what is left of them in the process, the device and the object manager.
5. *kill -9* of an exporter or importer at work, many times, and what is left (`killing`).

A part that fails is one figure that is not ok; the other parts are still measured. Sizes from 1 GiB on have at least 20
rounds, smaller ones at least 100.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, cast

import extmem
from extmem import vk
from extmem.cli._bench.floor import Floor, compile_floor
from extmem.cli._bench.measure import (
    TURNS,
    Figure,
    at_most,
    interleaved,
    measured_parts,
    microseconds,
    ratio,
    ratio_in_turns,
    unbounded,
)
from extmem.devices.vulkan.backend import VulkanBackend

if sys.platform != "linux":
    raise ImportError("this benchmark measures the broker and opaque fds of Linux")

from extmem.cli._bench import killing
from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import broker_of, descriptors_at_rest, holdings, processors, resident_kib
from extmem.cli._bench.passing import USAGE, HandleType, Payload, buffer_info, exportable
from extmem.cli._bench.sharing import SHARE, import_by_name, timed

__all__ = ["figures"]

_PASSING = "extmem.cli._bench.passing"
_GPU_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "256 MiB": 256 << 20, "4 GiB": 4 << 30}
_SOFTWARE_SIZES = {"4 KiB": 4 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20}
_SMALL, _BIG = 4 << 20, 1 << 30
_FEW = 20
_TURN = 5
_CHURNED = 4_096
_SOFTWARE_VICTIM, _GPU_VICTIM = 1 << 20, 64 << 20
_AGAIN = 20.0
"""Bound of opening again in microseconds, for every size."""


class _Subject(NamedTuple):
    """The device that is measured."""

    uuid: bytes
    name: str
    software: bool
    mappable: bool
    """Whether the host can map the shared memory."""
    payloads: dict[str, Payload]
    victim: Payload
    """The payload of the killed processes: on GPUs so large that a leak of one shows in the free memory."""


def figures(
    env: Environment, rounds: int, report: Callable[[str], None], *, quick: bool = False, kills: int | None = None
) -> Iterator[Figure]:
    """Measure `rounds` of each comparison, with `kills` kills. Errors: UnsupportedError without Vulkan."""
    subject = _open_subject(quick)
    report(f"{subject.name}, {'a software driver' if subject.software else 'a GPU'}")
    parts = {
        "passing": lambda: _passing(env, subject, rounds, report, quick=quick),
        "opening again": lambda: _again(env, subject, rounds, report),
        "importing": lambda: _importing(env, subject, rounds, report),
        "leaks": lambda: _leaks(env, subject, 128 if quick else _CHURNED, report),
        "kill -9": lambda: killing.figures(
            env, subject.uuid, subject.victim, (_FEW if quick else 200) if kills is None else kills, report
        ),
    }
    yield from measured_parts(parts, report)


def _open_subject(quick: bool) -> _Subject:
    with extmem.open_device(kind="vulkan") as device:
        software = _backend(device).device.physical.device_type not in _GPUS
        sizes = dict(list((_SOFTWARE_SIZES if software else _GPU_SIZES).items())[: 2 if quick else None])
        payloads = {}
        for label, size in sizes.items():
            payload = exportable(device, size)
            if payload.size <= device.facts.memory_types[payload.memory_type].heap_size // 2:
                payloads[label] = payload
        victim = exportable(device, _SOFTWARE_VICTIM if software else _GPU_VICTIM)
        return _Subject(
            device.uuid,
            device.name,
            software,
            _backend(device).device.host_visible[victim.memory_type],
            payloads,
            victim,
        )


_GPUS = (vk.PhysicalDeviceType.DISCRETE_GPU, vk.PhysicalDeviceType.INTEGRATED_GPU, vk.PhysicalDeviceType.VIRTUAL_GPU)


def _backend(device: extmem.Device) -> VulkanBackend:
    return cast("VulkanBackend", device.backend)


def _bounded(name: str, value: float, bound: float, has_bound: bool) -> Figure:
    return at_most(name, value, bound) if has_bound else unbounded(name, value, "ratio")


# The parts.


def _passing(
    env: Environment, subject: _Subject, rounds: int, report: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    # All exporters run on one processor and all importers on another: the choice of processors makes a larger
    # difference than the code that is compared.
    numbers = processors()
    exporters, importers = [], []
    passing: dict[str, Callable[..., list[int]]] = {}
    for way, arguments in (("by_fd", ()), ("by_c", (compile_floor(env.directory), subject.uuid)), ("by_name", ())):
        exporter, importer = env.worker(f"exporter {way}"), env.worker(f"importer {way}")
        exporter.call(f"{_PASSING}:bind_to", numbers[len(numbers) // 3])
        importer.call(f"{_PASSING}:bind_to", numbers[2 * len(numbers) // 3])
        address = str(env.directory / f"{way}.sock")
        exporter.call(f"{_PASSING}:listen", address)
        importer.start(f"{_PASSING}:take_{way}", address, *arguments)
        exporters.append(exporter)
        importers.append(importer)
        passing[way] = partial(exporter.call, f"{_PASSING}:pass_{way}", *arguments)
    few, many = max(_FEW, rounds // 5), rounds if quick else max(rounds, TURNS * _TURN)
    for label, payload in subject.payloads.items():
        count = few if payload.size >= _BIG else many
        report(f"passing {label} to another process {count} times, in turns with C")
        mine, theirs = _in_turns(count, partial(passing["by_fd"], payload), partial(passing["by_c"], payload))
        [named] = _in_turns(few, partial(passing["by_name"], payload))
        bound = 1.5 if payload.size <= _SMALL else 1.06
        yield _bounded(
            f"export, pass, import and bind {label}, checked, against C",
            ratio_in_turns(mine, theirs, _TURN),
            bound,
            not subject.software,
        )
        yield microseconds(f"export, pass, import and bind {label}", mine)
        yield microseconds(f"the same by C, {label}", theirs)
        yield microseconds(f"the same by name, through the object manager, {label}", named)
    for worker in exporters + importers:
        worker.leave()


def _in_turns(count: int, *steps: Callable[[int], list[int]]) -> list[list[int]]:
    """Run `count` rounds of each step, in turns of some rounds, each turn in another order.

    A turn has several rounds, because a request to a worker takes time, too, and empties the worker's caches.
    """
    times: list[list[int]] = [[] for _ in steps]
    order, draw = list(range(len(steps))), random.Random(count)
    for step in steps:
        step(2)  # the first rounds create objects that are kept
    while len(times[0]) < count:
        draw.shuffle(order)
        for index in order:
            times[index] += steps[index](_TURN)
    return times


def _again(env: Environment, subject: _Subject, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    exporter, opener = env.worker("exporter"), env.worker("opener")
    labels = list(subject.payloads)
    names = {label: f"bench again {label}" for label in labels}
    report(f"opening again {', '.join(labels)}, {rounds} times each")
    exporter.call(SHARE, [(names[label], subject.payloads[label].buffer_size) for label in labels], "vulkan")
    *again, imported = opener.call(f"{__name__}:open_again", list(names.values()), rounds)
    for label, times in zip(labels, again, strict=True):
        yield at_most(f"open again in the same process, {label}", statistics.median(times) / 1000, _AGAIN, "µs")
    yield unbounded(f"open again, {labels[-1]}, against importing it again", ratio(again[-1], imported), "ratio")
    for worker in (opener, exporter):
        worker.leave()


def _importing(env: Environment, subject: _Subject, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    if not subject.mappable:
        report("importing and mapping is not measured: the host cannot map shared memory of this device")
        return
    worker = env.worker("importer")
    report(f"importing 4 KiB {rounds} times, checked and unchecked, in turns with C")
    off, checked, theirs = worker.call(
        f"{__name__}:compare_imports", compile_floor(env.directory), subject.payloads["4 KiB"], rounds
    )
    what = "import, bind and map an fd of extmem"
    yield _bounded(f"{what}, unchecked, against C", ratio(off, theirs), 5.0, subject.software)
    yield _bounded(f"{what}, checked, against C", ratio(checked, theirs), 6.0, subject.software)
    yield microseconds(f"{what}, unchecked", off)
    yield microseconds(f"{what}, checked", checked)
    yield microseconds(f"{what}, by C", theirs)
    worker.leave()


def _leaks(env: Environment, subject: _Subject, count: int, report: Callable[[str], None]) -> Iterator[Figure]:
    exporter, importer = env.worker("exporter"), env.worker("importer")
    report(f"importing, binding and closing {count} times")
    exporter.call(SHARE, [("bench leaving", subject.payloads["1 MiB"].buffer_size)], "vulkan")
    importer.call(
        f"{__name__}:import_and_close", "bench leaving", 4
    )  # from now on it is connected, and the other workers have ended
    broker = broker_of(env.directory)
    before = descriptors_at_rest(broker)
    left, grown = importer.call(f"{__name__}:import_and_close", "bench leaving", count)
    for what, amount in left.items():
        yield at_most(f"{what} left after {count} imports", amount, 0, "left")
    yield at_most(f"fds of the broker left after {count} imports", descriptors_at_rest(broker) - before, 0, "left")
    yield at_most(f"growth of the process by {count} imports (VmRSS)", grown / 1024, 1.0, "MiB")
    for worker in (importer, exporter):
        worker.leave()


# Tasks of the processes.


def open_again(names: list[str], rounds: int) -> list[list[int]]:
    """Opener: return the nanoseconds of opening each open name again, then of importing the last one again."""
    kept = [extmem.open(name) for name in names]
    last = kept[-1]

    importing = partial(import_by_name, last.device, names[-1], last.allocation_size, last.memory_type_index)
    times = interleaved(rounds, *(timed(partial(extmem.open, name)) for name in names), timed(importing))
    for memory in kept:
        memory.close()
    return times


def compare_imports(library: str, payload: Payload, rounds: int) -> list[list[int]]:
    """Importer: return the nanoseconds of import, bind and map: unchecked, checked, by C. Freeing is not counted."""
    opaque = HandleType.OPAQUE_FD
    export = vk.MemoryAllocateInfo(payload.size, payload.memory_type, vk.ExportMemoryAllocateInfo(opaque))
    with (
        extmem.open_device(kind="vulkan", check="off") as unchecked,
        extmem.open_device(kind="vulkan") as checked,
        checked.allocate_memory(export) as memory,
        checked.get_memory_fd(vk.MemoryGetFdInfoKHR(memory, opaque)) as handle,
    ):
        floor = Floor(library, checked.uuid)

        def importing(device: extmem.Device) -> Callable[[], int]:
            def step() -> int:
                buffer = device.create_buffer(buffer_info(payload.buffer_size, opaque))
                start = time.perf_counter_ns()
                link = vk.ImportMemoryFdInfoKHR(opaque, handle.duplicate())
                imported = device.allocate_memory(vk.MemoryAllocateInfo(payload.size, payload.memory_type, link))
                device.bind_buffer_memory(buffer, imported)
                view = imported.map()
                spent = time.perf_counter_ns() - start
                del view
                buffer.close()
                imported.close()
                return spent

            return step

        def by_c() -> int:
            return floor.imported(int(handle), payload.size, payload.memory_type, payload.buffer_size, int(USAGE))

        try:
            return interleaved(rounds, importing(unchecked), importing(checked), by_c)
        finally:
            floor.close()


def import_and_close(name: str, count: int) -> tuple[dict[str, int], int]:
    """Importer: return what is left after `count` imports, by type, and the growth of the process in KiB."""
    with extmem.open_device(kind="vulkan") as device:
        with extmem.open(name, device=device) as first:
            size, memory_type, buffer_size = first.allocation_size, first.memory_type_index, first.size

        def once() -> None:
            with device.create_buffer(buffer_info(buffer_size, HandleType.OPAQUE_WIN32)) as buffer:
                memory = import_by_name(device, name, size, memory_type)
                device.bind_buffer_memory(buffer, memory)
                if _backend(device).device.host_visible[memory_type]:
                    memory.map()[0]
                memory.close()

        # Memory that the first imports leave behind is reused by the later ones.
        for _ in range(count // 4):
            once()
        gc.collect()
        before, resident = _holdings(device), resident_kib(os.getpid())
        for _ in range(count):
            once()
        gc.collect()
        left = {what: amount - before[what] for what, amount in _holdings(device).items()}
        return left, resident_kib(os.getpid()) - resident


def _holdings(device: extmem.Device) -> dict[str, int]:
    return {**holdings(), "memories and buffers of the VkDevice": _backend(device).device.living}
