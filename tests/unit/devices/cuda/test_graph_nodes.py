"""Waits and signals in a program's graph: each launch waits and signals, and wakes who waits on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw
from extmem.api import Device
from extmem.testing import fake_cuda

ON_LINUX = pytest.mark.linux_only("on Windows graphs do not signal what the host waits for")

STREAM = 0x5000


@pytest.fixture
def graph(cuda: Device, fake: fake_cuda.FakeCuda) -> Iterator[int]:
    made = fake.module.cuGraphCreate(0)[1]
    yield int(made)
    fake.module.cuGraphDestroy(made)
    cuda.backend.finish_submitted()  # type: ignore[attr-defined]


def launch(cuda: Device, fake: fake_cuda.FakeCuda, graph: int) -> None:
    module: Any = fake.module
    backend: Any = cuda.backend
    with backend.device.gpu.current:
        made = module.cuGraphInstantiate(module.CUgraph(graph), 0)[1]
        assert not module.cuGraphLaunch(made, STREAM)[0]
        module.cuGraphExecDestroy(made)


@ON_LINUX
@pytest.mark.parametrize("kinds", ["page", "driver", "both"])
def test_a_graph_waits_and_signals(
    kinds: str, cuda: Device, vulkan: Device, fake: fake_cuda.FakeCuda, graph: int
) -> None:
    with cuda.timeline() as page, vulkan.timeline() as driver:
        timelines = {"page": [page], "driver": [driver], "both": [page, driver]}[kinds]
        node = raw.cuda_graph_wait(cuda, graph, [(one, 1) for one in timelines])
        assert node
        raw.cuda_graph_signal(cuda, graph, [(one, 5) for one in timelines], [node])
        launch(cuda, fake, graph)
        assert [one.value for one in timelines] == [0] * len(timelines)
        for one in timelines:
            one.signal(1)
        for one in timelines:
            one.wait(5, 10)


def test_a_node_of_another_graph_is_no_dependency(cuda: Device, fake: fake_cuda.FakeCuda, graph: int) -> None:
    with cuda.timeline() as one, pytest.raises(extmem.DriverError, match="CUDA_ERROR_INVALID_VALUE"):
        raw.cuda_graph_wait(cuda, graph, (one, 1), [77])
    fake.misuses.clear()


def test_other_devices_have_no_graphs(vulkan: Device) -> None:
    with vulkan.timeline() as one, pytest.raises(extmem.UnsupportedError, match="no streams"):
        raw.cuda_graph_wait(vulkan, 1, (one, 1))


@pytest.mark.windows_only("on Linux the host function is a node of the graph")
def test_a_signal_of_what_the_host_waits_for_is_refused(cuda: Device, vulkan: Device, graph: int) -> None:
    with cuda.timeline() as page, vulkan.timeline() as driver:
        for one in (page, driver):
            assert raw.cuda_graph_wait(cuda, graph, (one, 0))
            with pytest.raises(extmem.UnsupportedError, match="after the launch of the graph"):
                raw.cuda_graph_signal(cuda, graph, (one, 5))
            assert one.value == 0
