"""Parts of `extmem bench tensors`: a safetensors file in four processes, against the library `safetensors`.

How this works. A file of 2 GiB is written, and its pages are taken out of the page cache. Four processes that have
loaded a small file before, so that everything is imported, then load the large one at the same time and read every
byte.

1. *files*, *torch-files*: the memory of the group is what its processes map, anonymous and shared, each page divided
   by the number of processes that map it (Pss of /proc/PID/smaps_rollup), and what the page cache has of the file
   (mincore). The figure is its growth against the size of the file. With `safetensors` the same is measured: for
   PyTorch it maps the file, for NumPy each process reads it.
2. *gpu-files*: the first process to ask for the name reads the file to the GPU, the others open it. The file is in the
   page cache before each load, for both sides. Device memory is what PyTorch reports as free.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import extmem
from extmem.cli._bench.measure import Figure, at_least, at_most, size_text, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures memory by /proc of Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.machine import kib_of
from extmem.cli._worker import Worker
from extmem.interop import safetensors_files

__all__ = ["cached_kib", "on_the_gpu", "on_the_host", "write_file"]

_TENSOR = (1024, 2048)
_TENSOR_BYTES = 4 * 1024 * 2048
_BIG, _QUICK, _SMALL = 256, 8, 2
"""Tensors of 8 MiB in the file: 2 GiB, 64 MiB with `quick`, and a file to begin with."""
_PROCESSES = 4
_LOADS = 3
"""Loads to the GPU in each way."""
_at: dict[str, Any] = {}


def on_the_host(
    env: Environment, framework: str, no_safetensors: str, report: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    """Measure with a framework, "NumPy" or "PyTorch". no_safetensors: why that library is missing; empty otherwise."""
    path, label = _files(env, quick, report)
    for library in ("extmem", "safetensors"):
        what = f"a file of {label} in {_PROCESSES} processes, {framework} by {library}"
        if library == "safetensors" and no_safetensors:
            report(f"{what}: not measured, {no_safetensors}")
            yield unbounded(f"{what}: {no_safetensors}", 0, "not measured")
            continue
        report(f"loading {what}")
        grown, times, wrong = _loaded_by_all(env, path, framework, library)
        name = f"{what}: memory, against the file"
        yield at_most(name, grown, 1.05) if library == "extmem" else unbounded(name, grown, "ratio")
        yield at_most(f"{what}: processes that read other contents", wrong, 0, "left")
        yield unbounded(f"{what}: until all have it", max(times) / 1e6, "ms")


def _loaded_by_all(env: Environment, path: str, framework: str, library: str) -> tuple[float, list[int], int]:
    """Return the growth of the group's memory against the file, the times of loading, and the wrong contents."""
    workers = [env.worker(f"loader {number}") for number in range(_PROCESSES)]
    name = env.name(f"{framework} {library}")
    _begin(workers, f"{path}.small", name, framework, library, "cpu")
    empty_cache_of(path)
    before = _group_kib(workers, path)
    for worker in workers:
        worker.start(f"{__name__}:load", path, name, framework, library, "cpu")
    answers = [worker.finish(deadline=600.0) for worker in workers]
    grown = (_group_kib(workers, path) - before) * 1024 / os.path.getsize(path)
    for worker in workers:
        worker.call(f"{__name__}:drop")
        env.dismiss(worker)
    return grown, [spent for spent, _ in answers], sum(not right for _, right in answers)


def on_the_gpu(
    env: Environment, no_safetensors: str, report: Callable[[str], None], *, quick: bool
) -> Iterator[Figure]:
    """Measure loads to the GPU."""
    path, label = _files(env, quick, report)
    what = f"a file of {label} on the GPU"
    report(f"loading {what}")
    workers = [env.worker(f"loader {number}") for number in range(_PROCESSES)]
    _begin(workers, f"{path}.small", env.name("gpu"), "PyTorch", "extmem", "cuda")
    if not no_safetensors:
        _begin(workers, f"{path}.small", "", "PyTorch", "safetensors", "cuda")
    first: list[int] = []
    others: list[int] = []
    theirs: list[int] = []
    used, wrong = [], 0
    for number in range(1 if quick else _LOADS):
        name = env.name(f"gpu file {number}")
        _read_all(path)
        free = _free_memory(workers)
        for worker in workers:
            spent, right = worker.call(f"{__name__}:load", path, name, "PyTorch", "extmem", "cuda", deadline=600.0)
            (first if worker is workers[0] else others).append(spent)
            wrong += not right
        used.append((free - _free_memory(workers)) / os.path.getsize(path))
        for worker in workers:
            worker.call(f"{__name__}:drop")
        if no_safetensors:
            continue
        _read_all(path)
        spent, right = workers[number % _PROCESSES].call(
            f"{__name__}:load", path, "", "PyTorch", "safetensors", "cuda", deadline=600.0
        )
        workers[number % _PROCESSES].call(f"{__name__}:drop")
        theirs.append(spent)
        wrong += not right
    for worker in workers:
        env.dismiss(worker)
    yield at_most(f"{what}, in {_PROCESSES} processes: device memory, against the file", max(used), 1.05)
    mine = statistics.median(first)
    if theirs:
        yield at_least(
            f"{what}, the first load: times as fast as load_file(device='cuda')", statistics.median(theirs) / mine, 2
        )
        yield unbounded(f"{what}: load_file(device='cuda'), p50", statistics.median(theirs) / 1e6, "ms")
    else:
        yield unbounded(f"{what}, against load_file(device='cuda'): {no_safetensors}", 0, "not measured")
    yield unbounded(f"{what}: the first load, p50", mine / 1e6, "ms")
    yield at_most(f"{what}: the other processes, max", max(others) / 1e6, 10.0, "ms")
    yield at_most(f"{what}: processes that read other contents", wrong, 0, "left")


def _begin(workers: list[Worker], path: str, name: str, framework: str, library: str, place: str) -> None:
    """Load a small file often, so that each process has read one and has opened one that another process had read."""
    for worker in workers:  # imports take long, so all processes do them at the same time
        worker.start(f"{__name__}:prepare", framework, library)
    for worker in workers:
        worker.finish()
    for turn in range(len(workers)):
        for worker in workers[turn:] + workers[:turn]:
            worker.call(f"{__name__}:load", path, f"{name} small {turn}", framework, library, place)
        for worker in workers:
            worker.call(f"{__name__}:drop")


def _free_memory(workers: list[Worker]) -> int:
    """Return the free bytes of device memory when no process has any in its cache."""
    return int([worker.call(f"{__name__}:free_memory") for worker in workers][-1])


# The files.


def _files(env: Environment, quick: bool, report: Callable[[str], None]) -> tuple[str, str]:
    """Write the large file and a small one, unless they exist. Return the path of the large one, and its size."""
    count = _QUICK if quick else _BIG
    path = str(env.directory / "weights.safetensors")
    if not os.path.exists(path):
        report(f"writing a file of {size_text(count * _TENSOR_BYTES)}")
        write_file(f"{path}.small", _SMALL)
        write_file(path, count)
    return path, size_text(count * _TENSOR_BYTES)


def write_file(path: str, count: int) -> None:
    """Write a safetensors file with `count` tensors of 8 MiB. The elements of each are its number, as float32."""
    arrays = [(f"layers.{number:03}.weight", "float32", _TENSOR, _TENSOR_BYTES) for number in range(count)]
    start, order = safetensors_files.encode_header(arrays, {})
    with open(path, "wb") as file:
        file.write(start)
        for number in order:
            file.write(bytes(ctypes.c_float(number)) * (_TENSOR_BYTES // 4))
        file.flush()
        os.fsync(file.fileno())


def empty_cache_of(path: str) -> None:
    """Take the pages of a file out of the page cache, where its file system does that."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_all(path: str) -> None:
    """Bring a file into the page cache."""
    buffer = bytearray(16 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def cached_kib(path: str) -> int:
    """Return how many KiB of a file are in the page cache. Errors: OSError."""
    size = os.path.getsize(path)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE) as mapped:
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        start = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.addressof(start), size, pages)
        number = ctypes.get_errno()
        del start
    if failed:
        raise OSError(number, os.strerror(number), path)
    return sum(byte & 1 for byte in pages.raw) * mmap.PAGESIZE // 1024


def _group_kib(workers: list[Worker], path: str) -> int:
    """Return the anonymous and shared memory of the processes, and the page cache of the file, in KiB."""
    mapped = sum(
        kib_of(f"/proc/{worker.pid}/smaps_rollup", label) for worker in workers for label in ("Pss_Anon", "Pss_Shmem")
    )
    return mapped + cached_kib(path)


# Tasks of the processes.


def prepare(framework: str, library: str) -> None:
    """Import what the library and the framework need."""
    module = "torch" if framework == "PyTorch" else "numpy"
    importlib.import_module(module if library == "extmem" else f"safetensors.{module}")


def load(path: str, name: str, framework: str, library: str, place: str) -> tuple[int, bool]:
    """Load a file and read every byte. Return the nanoseconds of loading, and whether the contents are right."""
    if place == "cuda":
        importlib.import_module("torch").zeros(1, device="cuda")
    begin = time.perf_counter_ns()
    arrays = _loaded_by_extmem(path, name, framework, place) if library == "extmem" else _loaded(path, framework, place)
    if place == "cuda":
        importlib.import_module("torch").cuda.synchronize()
    spent = time.perf_counter_ns() - begin
    _at["arrays"] = arrays
    # The least and the greatest element: no copy of the array is made for it.
    return spent, all(
        float(array.min()) == float(array.max()) == number for number, (_, array) in enumerate(sorted(arrays.items()))
    )


def _loaded_by_extmem(path: str, name: str, framework: str, place: str) -> Mapping[str, Any]:
    memory = extmem.load_safetensors(path, name, device=place)
    _at["memory"] = memory
    views: Mapping[str, Any] = memory.torch() if framework == "PyTorch" else memory.numpy()
    return views


def _loaded(path: str, framework: str, place: str) -> Mapping[str, Any]:
    module = importlib.import_module("safetensors.torch" if framework == "PyTorch" else "safetensors.numpy")
    found: Mapping[str, Any] = module.load_file(path, **({"device": place} if framework == "PyTorch" else {}))
    return found


def drop() -> None:
    """Close what was loaded."""
    _at.pop("arrays", None)
    gc.collect()
    memory = _at.pop("memory", None)
    if memory is not None:
        memory.close()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def free_memory() -> int:
    """Return the free bytes of device memory."""
    torch = importlib.import_module("torch")
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info()[0])
