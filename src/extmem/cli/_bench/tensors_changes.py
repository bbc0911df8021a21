"""Parts of `extmem bench tensors`: an update in place, reads beside updates, and a table that lies.

How this works.

1. *changes*: one process changes 62 MiB in a block of `update`, and another waits for it. From the time of the round
   the change itself is taken off, which ends when the bytes are there (on a GPU: when its work is done). What is left
   is the count and the wake. Afterwards the same change is counted and announced by a `multiprocessing.Condition`.
2. *reads*: one process updates without a pause, in two halves, and another reads in blocks of `stable`. A read that is
   torn and was not reported as changed is the figure. How many were reported shows that there was something to find.
3. *table*: a payload of 4 KiB whose table has an array of a terabyte. The time and the memory are those of the
   refusal; the process has opened an honest table before. The library `safetensors` refuses a file of the same claim.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import extmem
from extmem import api as _api  # noqa: F401  # sets the class of shared devices
from extmem.cli._bench.measure import Figure, at_most, percentile, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures memory by /proc of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import kib_of
from extmem.core import shared_devices, sharing_arrays
from extmem.core.device_state import DeviceState
from extmem.interop import safetensors_files
from extmem.owning import Uses
from extmem.sharing import table
from extmem.sharing.kinds import PageRole

__all__ = ["changes", "lying_table", "reads"]

_SIZE = 62 << 20
_READ_SIZE = 256 << 10
_DEADLINE = 30.0
_AHEAD = 0.002
"""Seconds between the announcement of a wait and the update."""
_TERABYTE = 1 << 40
_at: dict[str, Any] = {}


def changes(env: Environment, rounds: int, report: Callable[[str], None], *, on_gpu: bool = False) -> Iterator[Figure]:
    """Measure `rounds` updates."""
    where = "on the GPU" if on_gpu else "on the host"
    report(f"updating 62 MiB {where} while another process waits, {rounds} times")
    writer, reader, name = env.worker("writer"), env.worker("reader"), env.name(f"changes {where}")
    writer.call(f"{__name__}:{'share_on_gpu' if on_gpu else 'share_on_host'}", name)
    reader.call(f"{__name__}:open_changes", name)
    spent, wakes, written = [], [], []
    for number in range(-3, rounds):
        reader.start(f"{__name__}:wait_for_update")
        answers = reader.stream()
        next(answers)  # it is about to wait
        time.sleep(_AHEAD)
        begun, entered, changed = writer.call(f"{__name__}:update_once", number & 0xFF)
        woken = next(answers)
        if next(answers, None) is not None:
            raise RuntimeError("the waiting process has more to report than the end of its wait")
        if number >= 0:
            spent.append((entered - begun + woken - changed) / 1e6)
            wakes.append((woken - changed) / 1e6)
            written.append((changed - entered) / 1e6)
    notified = writer.call(f"{__name__}:condition_wakes", rounds)
    for worker in (reader, writer):
        worker.call(f"{__name__}:close_all")
        env.dismiss(worker)
    what = f"update of 62 MiB {where}"
    yield at_most(f"{what}: count and wake, p50", percentile(spent, 0.5), 1.0, "ms")
    yield unbounded(f"{what}: count and wake, p95", percentile(spent, 0.95), "ms")
    yield unbounded(f"{what}: from the last byte to the reader, p50", percentile(wakes, 0.5), "ms")
    yield unbounded(f"{what}: the change itself, p50", percentile(written, 0.5), "ms")
    yield unbounded(f"{what}: multiprocessing.Condition, p50", percentile(notified, 0.5) / 1e6, "ms")


def reads(env: Environment, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Read `rounds` times beside a process that updates."""
    report(f"reading {rounds} times beside a process that updates")
    writer, reader, name = env.worker("writer"), env.worker("reader"), env.name("reads")
    writer.start(f"{__name__}:update_forever", name)
    next(writer.stream())  # the memory exists
    accepted, torn, unnoticed, updates = reader.call(f"{__name__}:read_beside", name, rounds, deadline=600.0)
    for worker in (reader, writer):
        env.dismiss(worker)
    yield at_most(f"torn reads that stable() accepted in {rounds} rounds", unnoticed, 0, "left")
    yield unbounded("torn reads that stable() reported", torn, "reads")
    yield unbounded("reads that stable() accepted", accepted, "reads")
    yield unbounded("updates beside the reads", updates, "updates")


def lying_table(env: Environment, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Open a table that claims a terabyte `rounds` times."""
    report(f"opening a table that claims a terabyte, {rounds} times")
    liar, reader, name = env.worker("liar"), env.worker("reader"), env.name("terabyte")
    liar.call(f"{__name__}:share_table", f"{name} honest", 1024)
    liar.call(f"{__name__}:share_table", name, _TERABYTE // 4)
    times, grown = reader.call(f"{__name__}:open_table", name, f"{name} honest", rounds)
    theirs = reader.call(f"{__name__}:open_lying_file", str(env.directory / "terabyte.safetensors"), rounds)
    for worker in (reader, liar):
        env.dismiss(worker)
    yield at_most("a table that claims a terabyte: refused after, p95", percentile(times, 0.95) / 1e6, 10.0, "ms")
    yield unbounded("a table that claims a terabyte: refused after, p50", percentile(times, 0.5) / 1e6, "ms")
    yield at_most("a table that claims a terabyte: memory of the process", grown / 1024, 1.0, "MiB")
    what = "a safetensors file that claims a terabyte, by safetensors"
    if theirs:
        yield unbounded(f"{what}: refused after, p50", percentile(theirs, 0.5) / 1e6, "ms")
    else:
        yield unbounded(f"{what}: it is not installed", 0, "not measured")


# Tasks of the processes.


def share_on_host(name: str) -> None:
    """Writer: share 62 MiB of the host, until `close_all`."""
    stack = _stack()
    device = stack.enter_context(extmem.open_device(kind="host"))
    memory = stack.enter_context(device.allocate(_SIZE, name=name))
    view = memory.map()
    stack.callback(view.release)
    patterns = [bytes([number]) * _SIZE for number in (1, 2)]

    def change(number: int) -> None:
        view[:] = patterns[number & 1]

    _at.update(memory=memory, change=change)


def share_on_gpu(name: str) -> None:
    """Writer: share 300 tensors of a GPU, until `close_all`."""
    from extmem.cli._bench.tensors_passing import make_state

    torch = importlib.import_module("torch")
    stack = _stack()
    memory = stack.enter_context(extmem.share(make_state(torch), name))
    octets = memory.torch("uint8", (memory.size,))

    def change(number: int) -> None:
        octets.fill_(number)
        torch.cuda.synchronize()

    _at.update(memory=memory, change=change)


def open_changes(name: str) -> None:
    """Reader: open the memory, until `close_all`."""
    _at["memory"] = _stack().enter_context(extmem.open(name))


def wait_for_update() -> Iterator[int]:
    """Reader: wait for the next update; yield when it begins, and when it ends."""
    memory: extmem.DeviceMemory = _at["memory"]
    known = memory.generation
    yield 0
    memory.wait(after=known, timeout=_DEADLINE)
    yield time.monotonic_ns()


def update_once(number: int) -> tuple[int, int, int]:
    """Writer: change everything. Return the times before the block, at its beginning, and after the change."""
    memory, change = _at["memory"], _at["change"]
    begun = time.monotonic_ns()
    with memory.update(timeout=_DEADLINE):
        entered = time.monotonic_ns()
        change(number)
        changed = time.monotonic_ns()
    return begun, entered, changed


def condition_wakes(rounds: int) -> list[int]:
    """Writer: change everything, count under a `multiprocessing.Condition`, notify another process.

    Return the nanoseconds from the change until it was awake.
    """
    spawning = multiprocessing.get_context("spawn")
    condition, count, (ours, theirs) = spawning.Condition(), spawning.Value("Q", 0, lock=False), spawning.Pipe()
    child = spawning.Process(target=_listen, args=(theirs, condition, rounds), daemon=True)
    child.start()
    theirs.close()
    change, spent = _at["change"], []
    try:
        for number in range(rounds):
            if not ours.poll(_DEADLINE):
                raise RuntimeError(f"the process that waits for the condition did not reply within {_DEADLINE:g} s")
            ours.recv()
            change(number & 0xFF)
            begin = time.monotonic_ns()
            with condition:
                count.value += 2
                condition.notify_all()
            spent.append(int(ours.recv()) - begin)
    finally:
        ours.close()
        child.join(5)
        child.kill()
    return spent


def _listen(connection: Connection, condition: Any, rounds: int) -> None:
    for _ in range(rounds):
        with condition:
            connection.send(0)
            condition.wait(_DEADLINE)
            woken = time.monotonic_ns()
        connection.send(woken)


def update_forever(name: str) -> Iterator[str]:
    """Writer: update memory in two halves, until the process is killed."""
    half = _READ_SIZE // 2
    patterns = [bytes([number]) * half for number in range(256)]
    with extmem.open_device(kind="host") as device, device.allocate(_READ_SIZE, name=name) as memory:
        view = memory.map()
        yield "at work"
        number = 0
        while True:
            number = (number + 1) & 0xFF
            with memory.update():
                view[:half] = patterns[number]
                view[half:] = patterns[number]


def read_beside(name: str, rounds: int) -> tuple[int, int, int, int]:
    """Reader: read in blocks of `stable`. Return how many were accepted, torn and reported, torn and not; updates."""
    accepted = torn = unnoticed = 0
    whole = [bytes([number]) * _READ_SIZE for number in range(256)]
    with extmem.open(name) as memory:
        view = memory.map()
        first = memory.generation
        for _ in range(rounds):
            with memory.stable(timeout=_DEADLINE) as look:
                data = bytes(view)
            differs = data != whole[data[0]]
            if look.changed:
                torn += differs
            else:
                accepted += 1
                unnoticed += differs
        updates = (memory.generation - first) // 2
        view.release()
    return accepted, torn, unnoticed, updates


def share_table(name: str, count: int) -> None:
    """Liar: share 4 KiB whose table has one array of `count` float32, true or not, until the process ends."""
    device: DeviceState = shared_devices.device_for(None)
    data = table.encode(table.Table((table.Entry("weight", "float32", (count,), 0, 4 * count),)))
    with Uses(device) as uses:
        made = sharing_arrays.allocate(
            device, uses, 4096, sharing_arrays.how(name, None), pages={PageRole.TABLE: data}, stamps=1
        )
        _at[name] = extmem.DeviceMemory(*made.memory)
        sharing_arrays.publish(made)


def open_table(name: str, honest: str, rounds: int) -> tuple[list[int], int]:
    """Reader: return the nanoseconds of each refusal, and the largest growth of the resident memory in KiB."""
    with extmem.open(honest) as memory:
        if not isinstance(memory, extmem.NamedArrays) or memory["weight"].nbytes != 4096:
            raise RuntimeError(f"{honest!r} has another table than it was shared with")
    _refused(name)  # everything is loaded
    times, grown = [], 0
    for _ in range(rounds):
        before = _rest_peak()
        times.append(_refused(name))
        grown = max(grown, kib_of("/proc/self/status", "VmHWM") - before)
    return times, grown


def _refused(name: str) -> int:
    begin = time.perf_counter_ns()
    with extmem.open(name) as memory:
        try:
            memory.numpy() if "numpy" in sys.modules else memory["weight"]
        except extmem.DescriptorError:
            return time.perf_counter_ns() - begin
    raise RuntimeError("a table was accepted that claims more bytes than the payload has")


def open_lying_file(path: str, rounds: int) -> list[int]:
    """Reader: return the nanoseconds in which the library `safetensors` refuses a file; empty without the library."""
    if not all(map(importlib.util.find_spec, ("safetensors", "numpy"))):
        return []
    library = importlib.import_module("safetensors")
    header, _ = safetensors_files.encode_header([("weight", "float32", (_TERABYTE // 4,), _TERABYTE)], {})
    with open(path, "wb") as file:
        file.write(header + bytes(4096))
    times = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        try:
            library.safe_open(path, "numpy").__enter__()
        except library.SafetensorError:
            times.append(time.perf_counter_ns() - begin)
    return times


def _rest_peak() -> int:
    """Set the peak of the resident memory to what it is now, and return that in KiB."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return kib_of("/proc/self/status", "VmHWM")


def _stack() -> contextlib.ExitStack:
    stack: contextlib.ExitStack = _at.setdefault("stack", contextlib.ExitStack())
    return stack


def close_all() -> None:
    """Close the memory of this process."""
    stack: contextlib.ExitStack | None = _at.pop("stack", None)
    _at.clear()
    if stack is not None:
        stack.close()
