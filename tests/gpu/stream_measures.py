"""What waits and signals of streams cost on a GPU, against C in the same run: `python -m tests.gpu.stream_measures`.

It prints JSON. Times are in microseconds, of the median round and of the 99th percentile:

* `pair`: the host's time for a wait and a signal of a driver's timeline on a stream (`raw.stream_timeline`);
* `pair_in_c`: the same two calls of CUDA in C, in this process, on the same semaphore and stream;
* `pair_of_page`: of a timeline that is a page of the host;
* `to_other_process`: from the call that gives the signal to the stream, to the waiter's return in another process.

How this works. The C function is compiled by `cc`, and gets the addresses of the driver's functions, so it needs no
header and no library of CUDA. Rounds are made in blocks, after each of which the stream is waited for, outside of the
measured time: otherwise a full queue of the stream would be measured.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import extmem
from extmem import raw
from extmem.api import Device
from extmem.testing.children import Peer
from tests.gpu.streams import new_stream, synchronize

__all__ = ["main", "measure"]

ROUNDS, BLOCK = 2_000, 50
WARM = 200
HEARD = 300

SOURCE = r"""
#include <stdint.h>
#include <time.h>
typedef int (*on_semaphores)(void **, void *, unsigned, void *);
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}
int pairs(on_semaphores wait, on_semaphores signal, void *semaphore, void *stream, uint64_t value, int n, double *took)
{
    uint64_t waits[18] = {0}, signals[18] = {0};
    for (int i = 0; i < n; i++) {
        double before = now();
        waits[0] = value + i;
        signals[0] = value + i + 1;
        int failed = wait(&semaphore, waits, 1, stream);
        if (!failed) failed = signal(&semaphore, signals, 1, stream);
        if (failed) return failed;
        took[i] = now() - before;
    }
    return 0;
}
"""

HEARING = """
import time
import extmem
timeline = extmem.open_timeline(name)
back = extmem.open_timeline(name + " back")
heard = []
for value in range(1, count + 1):
    timeline.wait(value, 30)
    heard.append(time.monotonic_ns())
    back.signal(value)
timeline.close()
back.close()
heard
"""


def summary(took: list[float]) -> dict[str, float]:
    ordered = sorted(took)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 2),
    }


def in_blocks(round_of: Callable[[int], float], settle: Callable[[], None], first: int) -> list[float]:
    """Make the rounds with the values from `first` on; return the time of each, without those that warm up."""
    took = []
    for turn in range(WARM + ROUNDS):
        took.append(round_of(first + turn))
        if turn % BLOCK == BLOCK - 1:
            settle()
    settle()
    return took[WARM:]


def pairs_in_c(backend: Any, native: Any, stream: int, settle: Callable[[], None], first: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "pairs.c"), Path(folder, "pairs.so")
        source.write_text(SOURCE)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        function = ctypes.CDLL(str(library)).pairs
    pointer = ctypes.c_void_p
    function.argtypes = [pointer, pointer, pointer, pointer, ctypes.c_uint64, ctypes.c_int, pointer]
    module = backend.device.module
    addresses = [
        int(module.cuGetProcAddress(name, 12_000, 0)[1])
        for name in (b"cuWaitExternalSemaphoresAsync", b"cuSignalExternalSemaphoresAsync")
    ]
    took: list[float] = []
    with backend.device.gpu.current:
        for block in range((WARM + ROUNDS) // BLOCK):
            room = (ctypes.c_double * BLOCK)()
            at = first + block * BLOCK
            failed = function(*addresses, native.raw, stream, at, BLOCK, ctypes.addressof(room))
            if failed:
                raise RuntimeError(f"CUresult {failed}")
            settle()
            took += room
    return took[WARM:]


def measure(cuda: Device, vulkan: Device | None, name: str) -> dict[str, Any]:
    """Measure everything. Without a Vulkan device, only what needs none."""
    backend: Any = cuda.backend
    found: dict[str, Any] = {"gpu": cuda.name}
    with new_stream(cuda) as stream, backend.device.gpu.current:

        def settle() -> None:
            synchronize(cuda, stream)

        def pair_of(timeline: extmem.Timeline) -> Callable[[int], float]:
            ordered = raw.stream_timeline(cuda, timeline)

            def pair(value: int) -> float:
                before = time.perf_counter_ns()
                ordered.wait(stream, value)
                ordered.signal(stream, value + 1)
                return (time.perf_counter_ns() - before) / 1e3

            return pair

        with cuda.timeline() as page:
            found["pair_of_page"] = summary(in_blocks(pair_of(page), settle, 0))
        if vulkan is not None and vulkan.backend.timelines == "driver":  # type: ignore[attr-defined]
            with vulkan.timeline(name=name), extmem.open_timeline(name, device=cuda) as mine:
                native = mine.record.native
                if shutil.which("cc"):
                    found["pair_in_c"] = summary(pairs_in_c(backend, native, stream, settle, 0))
                found["pair"] = summary(in_blocks(pair_of(mine), settle, WARM + ROUNDS))
        for maker in (cuda, vulkan):
            if maker is not None:
                found[f"to_other_process_{maker.kind}"] = summary(heard(cuda, maker, stream, f"{name} {maker.kind}"))
    return found


def heard(cuda: Device, maker: Device, stream: int, name: str) -> list[float]:
    backend: Any = cuda.backend
    with (
        maker.timeline(name=name) as timeline,
        extmem.open_device(kind="host") as host,
        host.timeline(name=f"{name} back") as back,
        extmem.open_timeline(name, device=cuda) as mine,
        Peer() as peer,
    ):
        peer.start(HEARING, name=name, count=HEARD)
        given = []
        for value in range(1, HEARD + 1):
            time.sleep(0.001)  # so that the other process sleeps
            given.append(time.monotonic_ns())
            backend.stream_signal(stream, ((mine.record.native, value),))
            back.wait(value, 30)
        ends = peer.finish(deadline=60)
        timeline.wait(HEARD, 30)
        synchronize(cuda, stream)
    return [(end - start) / 1e3 for start, end in zip(given, ends, strict=True)]


def main() -> int:
    """Measure on the first GPU, and print JSON."""
    with extmem.open_device(kind="cuda") as cuda:
        try:
            vulkan = extmem.open_device(kind="vulkan", uuid=cuda.uuid)
        except extmem.UnsupportedError as error:
            print(f"without Vulkan: {error}", file=sys.stderr)
            print(json.dumps(measure(cuda, None, "extmem measures"), indent=2))
            return 0
        with vulkan:
            print(json.dumps(measure(cuda, vulkan, "extmem measures"), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
