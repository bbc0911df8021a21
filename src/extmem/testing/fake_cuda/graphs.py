"""Graphs: nodes of waits, signals, words of memory and host functions, which a launch gives to a stream in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from extmem.testing.fake_cuda.objects import ExternalSemaphore, Graph
from extmem.testing.fake_cuda.semaphores import signal_step, wait_step, words_of
from extmem.testing.fake_cuda.streams import Step, enqueue, host_step
from extmem.testing.fake_cuda.streams import wait_step as wait_for_word
from extmem.testing.fake_cuda.streams import write_step as write_word

if TYPE_CHECKING:
    from extmem.testing.fake_cuda.machine import FakeCuda

__all__: list[str] = []

_WAIT_64, _WRITE_64 = 4, 5
_NODES = 0x100_0000


def cuGraphCreate(fake: FakeCuda, flags: int) -> tuple[Any]:
    """Create a graph."""
    return (fake.module.CUgraph(fake.add(Graph())),)


def cuGraphDestroy(fake: FakeCuda, graph: Any) -> None:
    """Destroy a graph."""
    fake.end(fake.get(graph, Graph))


def _add(fake: FakeCuda, graph: Any, dependencies: Any, count: int, *steps: Callable[[], Step]) -> tuple[Any]:
    found = fake.get(graph, Graph)
    first = found.number * _NODES
    for one in (dependencies or [])[:count]:
        if not first <= int(one) < first + len(found.nodes):
            raise fake.wrong(f"node {int(one):#x} is not a node of this graph")
    found.nodes.append(list(steps))
    return (fake.module.CUgraphNode(first + len(found.nodes) - 1),)


def cuGraphAddExternalSemaphoresWaitNode(
    fake: FakeCuda, graph: Any, dependencies: Any, count: int, params: Any
) -> tuple[Any]:
    """Add a wait for semaphores."""
    return _add(fake, graph, dependencies, count, *_of_semaphores(fake, params, wait_step))


def cuGraphAddExternalSemaphoresSignalNode(
    fake: FakeCuda, graph: Any, dependencies: Any, count: int, params: Any
) -> tuple[Any]:
    """Add a signal of semaphores."""
    return _add(fake, graph, dependencies, count, *_of_semaphores(fake, params, signal_step))


def _of_semaphores(fake: FakeCuda, params: Any, make: Callable[..., Step]) -> list[Callable[[], Step]]:
    steps: list[Callable[[], Step]] = []
    for handle, one in zip(params.extSemArray[: params.numExtSems], params.paramsArray, strict=True):
        semaphore, words = fake.get(handle, ExternalSemaphore), words_of(one)
        steps.append(lambda semaphore=semaphore, words=words: make(semaphore, words))  # type: ignore[misc]
    return steps


def cuGraphAddBatchMemOpNode(fake: FakeCuda, graph: Any, dependencies: Any, count: int, params: Any) -> tuple[Any]:
    """Add waits for words of memory, and writes of words."""
    if int(params.ctx) != fake.contexts[fake.current().ordinal].handle or int(params.flags):
        raise fake.wrong(f"context {int(params.ctx):#x}, flags {int(params.flags)}")
    steps: list[Callable[[], Step]] = []
    for one in params.paramArray[: params.count]:
        kind = int(one.operation)
        if kind not in (_WAIT_64, _WRITE_64):
            raise fake.wrong(f"the fake does not support operation {kind}")
        make, member = (wait_for_word, one.waitValue) if kind == _WAIT_64 else (write_word, one.writeValue)
        pointer, value = int(member.address), int(member.value64)
        steps.append(lambda make=make, pointer=pointer, value=value: make(fake, pointer, value))  # type: ignore[misc]
    return _add(fake, graph, dependencies, count, *steps)


def cuGraphAddHostNode(fake: FakeCuda, graph: Any, dependencies: Any, count: int, params: Any) -> tuple[Any]:
    """Add a call of a C function of the program."""
    function, data = int(params.fn), int(params.userData)
    return _add(fake, graph, dependencies, count, lambda: host_step(function, data))


def cuGraphInstantiate(fake: FakeCuda, graph: Any, flags: int) -> tuple[Any]:
    """Return an executable graph, a copy."""
    return (fake.module.CUgraphExec(fake.add(Graph(nodes=list(fake.get(graph, Graph).nodes)))),)


def cuGraphExecDestroy(fake: FakeCuda, graph: Any) -> None:
    """Destroy an executable graph."""
    fake.end(fake.get(graph, Graph))


def cuGraphLaunch(fake: FakeCuda, graph: Any, stream: Any) -> None:
    """Give what the nodes do to a stream, in the order in which the nodes were added."""
    for node in fake.get(graph, Graph).nodes:
        for make in node:
            enqueue(fake, stream, make())
