"""The order of queues, streams and hosts by timelines on a real GPU, and that it is real: a wait is taken away.

How this works. A gate holds the middle of each chain back: a timeline of the host that the test signals. What must come
later is then not done, whatever the speed of the GPU; and the same chain without its wait is done, so that the check
can fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw
from extmem.api import Device
from extmem.testing.children import Peer
from tests.gpu.conftest import framework
from tests.gpu.streams import fill, new_stream, record_copy, record_fill, synchronize

SIZE = 1 << 20
S = 30.0


@pytest.fixture
def stream(cuda: Device) -> Iterator[int]:
    with new_stream(cuda) as made:
        yield made


@pytest.fixture(params=["host", "cuda", "vulkan"])
def maker(request: pytest.FixtureRequest, cuda: Device, vulkan: Device, host: Device) -> Device:
    """The device that makes the timeline: a page of the host, or the driver's semaphore with a companion page."""
    return {"host": host, "cuda": cuda, "vulkan": vulkan}[request.param]


def test_a_stream_waits_for_the_host_and_signals_it(maker: Device, cuda: Device, stream: int, name: str) -> None:
    with cuda.allocate(SIZE) as memory, maker.timeline() as timeline:
        memory.fill(1)
        with memory.access(stream=stream, wait=(timeline, 1), signal=(timeline, 2)) as array:
            del array
            fill(cuda, memory, 2, stream)
        assert timeline.value == 0
        timeline.signal(1)
        timeline.wait(2, S)
        assert timeline.value == 2
        synchronize(cuda, stream)
        assert set(memory.read_bytes()) == {2}


@pytest.mark.parametrize("waits", [True, False], ids=["in order", "a wait is missing"])
def test_vulkan_then_cuda_then_vulkan_without_a_wait_of_the_host(
    waits: bool, cuda: Device, vulkan: Device, host: Device, stream: int, name: str
) -> None:
    with (
        vulkan.allocate(SIZE, name=name) as rendered,
        vulkan.allocate(SIZE) as copied,
        cuda.open(name) as tensor,
        vulkan.timeline() as timeline,
        host.timeline() as gate,
    ):
        copied.fill(9)
        with vulkan.commands(signal=(timeline, 1)) as commands:
            record_fill(commands, rendered, 0x01010101)
        order: list[Any] = [(timeline, 1), (gate, 1)]
        with tensor.access(stream=stream, wait=order, signal=(timeline, 2)) as array:
            del array
            fill(cuda, tensor, 2, stream)
        with vulkan.commands(wait=(timeline, 2 if waits else 1), signal=(timeline, 3)) as commands:
            record_copy(commands, rendered, copied)
        if waits:
            assert timeline.value < 2, "the gate is closed"
            gate.signal(1)
            timeline.wait(3, S)
            assert set(copied.read_bytes()) == {2}
        else:
            timeline.wait(3, S)
            assert set(copied.read_bytes()) == {1}, "the copy did not wait for the stream"
            gate.signal(1)
            synchronize(cuda, stream)


def test_frames_go_around_many_times(cuda: Device, vulkan: Device, stream: int, name: str) -> None:
    """200 rounds of both, given without a wait of the host, which looks at the end alone."""
    rounds = 200
    with (
        vulkan.allocate(4096, name=name) as memory,
        cuda.open(name) as tensor,
        vulkan.timeline() as timeline,
    ):
        for turn in range(rounds):
            with vulkan.commands(wait=(timeline, 2 * turn), signal=(timeline, 2 * turn + 1)) as commands:
                record_fill(commands, memory, 0)
            order = {"wait": (timeline, 2 * turn + 1), "signal": (timeline, 2 * turn + 2)}
            with tensor.access(stream=stream, **order) as array:
                del array
                fill(cuda, tensor, turn % 250 + 1, stream)
        timeline.wait(2 * rounds, S)
        synchronize(cuda, stream)
        assert set(tensor.read_bytes()) == {(rounds - 1) % 250 + 1}


OTHER = """
import extmem
timeline = extmem.open_timeline(name)
for value in range(1, 2 * rounds, 2):
    timeline.wait(value, 30)
    timeline.signal(value + 1)
timeline.close()
None
"""


def test_a_waiter_in_another_process_hears_of_each_signal(maker: Device, cuda: Device, stream: int, name: str) -> None:
    rounds = 50
    with maker.timeline(name=name) as timeline, Peer() as peer:
        with extmem.open_timeline(name, device=cuda) as mine:
            peer.start(OTHER, name=name, rounds=rounds)
            for value in range(1, 2 * rounds, 2):
                backend: Any = cuda.backend
                backend.stream_signal(stream, [(mine.record.native, value)])
                backend.stream_wait(stream, [(mine.record.native, value + 1)])
            timeline.wait(2 * rounds, S)
            synchronize(cuda, stream)
            peer.finish(deadline=S)


def test_graphs_wait_and_signal(maker: Device, cuda: Device, stream: int) -> None:
    backend: Any = cuda.backend
    module = backend.device.module
    with maker.timeline() as timeline, backend.device.gpu.current:
        result, graph = module.cuGraphCreate(0)
        assert not result
        node = raw.cuda_graph_wait(cuda, int(graph), (timeline, 1))
        raw.cuda_graph_signal(cuda, int(graph), (timeline, 2), [node])
        result, made = module.cuGraphInstantiate(graph, 0)
        assert not result
        assert not module.cuGraphLaunch(made, stream)[0]
        assert timeline.value == 0
        timeline.signal(1)
        timeline.wait(2, S)
        synchronize(cuda, stream)
        module.cuGraphExecDestroy(made)
        module.cuGraphDestroy(graph)


def _torch_stream(torch: Any) -> tuple[Any, Any]:
    made = torch.cuda.Stream()
    return made, torch.cuda.stream(made)


def _cupy_stream(cupy: Any) -> tuple[Any, Any]:
    made = cupy.cuda.Stream(non_blocking=True)
    return made, made


STREAMS = {"torch": _torch_stream, "cupy": _cupy_stream}
ON_GPU: dict[str, dict[str, str]] = {"torch": {"device": "cuda"}, "cupy": {"dtype": "float32"}}


@pytest.mark.parametrize("module", STREAMS)
def test_streams_of_frameworks(module: str, cuda: Device, vulkan: Device, host: Device, name: str) -> None:
    found = framework(module)
    made, current = STREAMS[module](found)
    # CUDA loads a kernel at its first launch, and that waits for all streams: also for one that waits for the gate.
    scratch = found.zeros(1 << 18, **ON_GPU.get(module, {}))
    scratch += 5
    del scratch
    with (
        vulkan.allocate((1 << 18,), "float32", name=name) as memory,
        vulkan.timeline() as timeline,
        host.timeline() as gate,
        contextlib.ExitStack() as stack,
    ):
        with vulkan.commands(signal=(timeline, 1)) as commands:
            record_fill(commands, memory, 0)
        array = getattr(memory, module)()
        with memory.access(stream=made, wait=[(timeline, 1), (gate, 1)], signal=(timeline, 2)) as view:
            del view
            stack.enter_context(current)
            array += 5
        assert timeline.value < 2
        gate.signal(1)
        timeline.wait(2, S)
        made.synchronize()
        assert float(array[0]) == float(array[-1]) == 5
        del array
