"""Waits and signals as nodes of a program's graph (CUgraph), which it instantiates and launches.

How this works. Drivers' semaphores are a node of their own (cuGraphAddExternalSemaphores{Wait,Signal}Node). Words of
pages are a node of stream memory operations (cuGraphAddBatchMemOpNode). The host function that wakes waiters is a host
node. They follow each other in this order. The values are part of the graph: the program sets others in the nodes of an
instantiated graph by CUDA's own functions.

A graph can be launched as long as it exists, and CUDA does not tell when it is destroyed. So the records of its host
functions are never used again, and the caller keeps the semaphores open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from extmem.devices.cuda.host_calls import IS_MACHINE_CODE, host_function_address, prepared_call
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.stream_semaphores import StreamSemaphore

__all__ = ["GraphNodes"]

_GREATER_OR_EQUAL = 0

Pairs = Sequence[tuple["StreamSemaphore", int]]


class GraphNodes:
    """Adds nodes to graphs, for one device."""

    def __init__(self, device: LogicalDevice) -> None:
        self._device = device

    def add_wait(self, graph: int, waits: Pairs, dependencies: Sequence[int]) -> int:
        """Add a wait for all values, after these nodes. Return its last node. Errors: DriverError."""
        cu = self._device.module
        nodes = _Nodes(self._device, graph, dependencies)
        with self._device.gpu.current:
            external = [one for one in waits if one[0].external]
            if external:
                waiting = cu.CUDA_EXT_SEM_WAIT_NODE_PARAMS()
                _fill(cu, waiting, cu.CUDA_EXTERNAL_SEMAPHORE_WAIT_PARAMS, external)
                nodes.add(cu.cuGraphAddExternalSemaphoresWaitNode, waiting)
            words = [one for one in waits if not one[0].external]
            if words:
                kind = cu.CUstreamBatchMemOpType.CU_STREAM_MEM_OP_WAIT_VALUE_64
                nodes.add(cu.cuGraphAddBatchMemOpNode, self._operations(words, "waitValue", kind))
        return nodes.last

    def add_signal(self, graph: int, signals: Pairs, dependencies: Sequence[int]) -> int:
        """Add signals of these values, after these nodes. Return the last node.

        Errors: AccessDeniedError without the right to signal; DriverError; UnsupportedError where the system allows no
        host function, and on Windows for a timeline that the host waits for.
        """
        cu = self._device.module
        if not IS_MACHINE_CODE and any(semaphore.page is not None for semaphore, _ in signals):
            raise UnsupportedError(
                "graphs signal no timelines that the host waits for on Windows, where a thread tells the host of each "
                "signal; give the signal to the stream after the launch of the graph",
                requires_one_of=["memory.access(stream=…, signal=…)", "Linux"],
            )
        for semaphore, _ in signals:
            if semaphore.page is not None:
                semaphore.page.announce_signal()
        nodes = _Nodes(self._device, graph, dependencies)
        with self._device.gpu.current:
            external = [one for one in signals if one[0].external]
            if external:
                signaling = cu.CUDA_EXT_SEM_SIGNAL_NODE_PARAMS()
                _fill(cu, signaling, cu.CUDA_EXTERNAL_SEMAPHORE_SIGNAL_PARAMS, external)
                nodes.add(cu.cuGraphAddExternalSemaphoresSignalNode, signaling)
            words = [one for one in signals if not one[0].external]
            if words:
                kind = cu.CUstreamBatchMemOpType.CU_STREAM_MEM_OP_WRITE_VALUE_64
                nodes.add(cu.cuGraphAddBatchMemOpNode, self._operations(words, "writeValue", kind))
            for semaphore, value in signals:
                page = semaphore.page
                if page is None:
                    continue
                prepared = prepared_call(page, value)
                calling = cu.CUDA_HOST_NODE_PARAMS()
                calling.fn = cu.CUhostFn(host_function_address())
                calling.userData = prepared.address
                nodes.add(cu.cuGraphAddHostNode, calling)
        return nodes.last

    def _operations(self, words: Pairs, member: str, kind: Any) -> Any:
        cu = self._device.module
        operations = []
        for semaphore, value in words:
            operation = cu.CUstreamBatchMemOpParams()
            operation.operation = kind
            params = getattr(operation, member)
            params.operation = kind
            params.address = cu.CUdeviceptr(semaphore.pointer)
            params.value64 = value
            params.flags = _GREATER_OR_EQUAL
            operations.append(operation)
        made = cu.CUDA_BATCH_MEM_OP_NODE_PARAMS()
        made.ctx = self._device.gpu.context
        made.count = len(operations)
        made.paramArray = operations
        made.flags = 0
        return made


class _Nodes:
    """Nodes that follow each other."""

    def __init__(self, device: LogicalDevice, graph: int, dependencies: Sequence[int]) -> None:
        self._device = device
        self._graph = device.module.CUgraph(graph)
        self._after = [device.module.CUgraphNode(one) for one in dependencies]
        self.last = 0
        """CUgraphNode as a number."""

    def add(self, call: Any, params: Any) -> None:
        """Add a node after the last one."""
        device = self._device
        answer = call(self._graph, self._after, len(self._after), params)
        node = device.value_of(answer, getattr(call, "__name__", "cuGraphAddNode"))
        self._after = [node]
        self.last = int(node)


def _fill(cu: Any, node: Any, make: Any, pairs: Pairs) -> None:
    params = []
    for semaphore, value in pairs:
        one = make()
        if semaphore.keyed:
            one.params.keyedMutex.key = value
        else:
            one.params.fence.value = value
        params.append(one)
    node.extSemArray = [cu.CUexternalSemaphore(semaphore.external) for semaphore, _ in pairs]
    node.paramsArray = params
    node.numExtSems = len(params)
