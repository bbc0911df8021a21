"""The GPU's part of `extmem bench channel`: the time of the host for a frame whose slot is memory of a GPU.

How this works. A writer and a reader in one process, so that nobody waits; both give work to streams of CUDA, or the
writer to the queue of Vulkan. A round is one frame:

* the writer's time is that of the block `with channel.write() as frame, frame.on(stream)`, publication included;
* the reader's time is that of `with channel.read().on(stream)`, when the frame is ready.

The work of the program is not measured: the blocks are empty, and the commands of the queue, which fill a buffer, run
in turns with the same commands without a frame. The difference is what the frame costs. Between rounds the GPU is
waited for. Without a GPU that Vulkan and CUDA have, each figure has the unit "not measured".
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import extmem
from extmem.cli._bench.channel_bounds import bounded
from extmem.cli._bench.measure import Figure, interleaved, microseconds, unbounded

if sys.platform != "linux":
    raise ImportError("this benchmark measures channels on Linux")

from extmem.cli._bench.environment import Environment
from extmem.cli._bench.ordering_gpu import gpu_of_both, new_stream

__all__ = ["figures"]

_SIZE = 1 << 20
_WARM_UP = 20
_WRITES, _READS = "host time to write a frame of a GPU", "host time to read a frame of a GPU"


def figures(env: Environment, rounds: int, report: Callable[[str], None]) -> Iterator[Figure]:
    """Measure `rounds` frames of each way."""
    uuid = gpu_of_both()
    if uuid is None:
        reason = "no GPU here that both Vulkan and CUDA find"
        report(f"{reason}: frames of GPUs are not measured")
        for kind in (_WRITES, _READS):
            yield unbounded(f"{kind}: {reason}", 0, "not measured")
        return
    report(f"frames of a GPU, {rounds} of each way")
    worker = env.worker("gpu frames")
    wrote, read = worker.call(f"{__name__}:time_streams", env.name("gpu frames"), uuid, rounds, deadline=300.0)
    yield bounded(_WRITES, f"{_WRITES}: a stream, p50", statistics.median(wrote) / 1000)
    yield bounded(_READS, f"{_READS}: a stream after a stream, p50", statistics.median(read) / 1000)
    with_frame, without, read = worker.call(
        f"{__name__}:time_queue", env.name("gpu queue"), uuid, rounds, deadline=300.0
    )
    env.dismiss(worker)
    added = (statistics.median(with_frame) - statistics.median(without)) / 1000
    yield bounded(_WRITES, f"{_WRITES}: added to the commands of a queue", max(0.0, added))
    yield bounded(_READS, f"{_READS}: a stream after a queue, p50", statistics.median(read) / 1000)
    yield microseconds("commands of a queue that fill a frame, p50", with_frame)
    yield microseconds("the same commands, without a frame, p50", without)


# Tasks of the processes.


def time_streams(name: str, uuid: bytes, rounds: int) -> tuple[list[int], list[int]]:
    """Return the nanoseconds of frames that a stream writes, and of those that another stream reads."""
    with (
        extmem.open_device(kind="cuda", uuid=uuid) as cuda,
        new_stream(cuda) as (first, _),
        new_stream(cuda) as (second, _),
        extmem.create_channel(name, _SIZE, device=cuda) as writer,
        extmem.open_channel(name, device=cuda) as reader,
    ):
        wrote: list[int] = []
        read: list[int] = []
        for number in range(-_WARM_UP, rounds):
            begin = time.perf_counter_ns()
            with writer.write() as frame, frame.on(first):
                pass
            middle = time.perf_counter_ns()
            with reader.read().on(second):
                pass
            end = time.perf_counter_ns()
            _await_gpu(reader)
            if number >= 0:
                wrote.append(middle - begin)
                read.append(end - middle)
        return wrote, read


def time_queue(name: str, uuid: bytes, rounds: int) -> tuple[list[int], list[int], list[int]]:
    """Return the nanoseconds of commands that fill a frame, of the same commands without one, and of reads."""
    now = time.perf_counter_ns
    with (
        extmem.open_device(kind="cuda", uuid=uuid) as cuda,
        extmem.open_device(kind="vulkan", uuid=uuid) as vulkan,
        new_stream(cuda) as (stream, _),
        extmem.create_channel(name, _SIZE, device=vulkan) as writer,
        extmem.open_channel(name, device=cuda) as reader,
        vulkan.allocate(_SIZE) as memory,
        vulkan.timeline() as timeline,
    ):
        own, read = memory.buffer(), []
        value = 0
        with vulkan.commands() as commands:
            commands.acquire(own)

        def with_frame() -> int:
            begin = now()
            with writer.write() as frame, vulkan.commands() as commands, frame.on(commands) as buffer:
                commands.fill_buffer(buffer, 1)
            spent = now() - begin
            begin = now()
            with reader.read().on(stream):
                pass
            read.append(now() - begin)
            _await_gpu(reader)
            return spent

        def without() -> int:
            nonlocal value
            value += 1
            begin = now()
            with vulkan.commands(signal=(timeline, value)) as commands:
                commands.fill_buffer(own, 1)
            spent = now() - begin
            timeline.wait(value)
            return spent

        written, alone = interleaved(rounds, with_frame, without, warm_up=_WARM_UP)
        with vulkan.commands() as commands:
            commands.release(own)
        return written, alone, read[_WARM_UP:]


def _await_gpu(reader: extmem.ChannelReader) -> None:
    while reader.poll() is None and reader.held:
        pass
