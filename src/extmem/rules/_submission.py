"""One vkQueueSubmit or vkQueueSubmit2 with its facts, and the suites in which its checks are registered.

How this works. Three kinds of calls are checked: each batch (`BatchCall`), each semaphore operation of a batch
(`Operation`), and the submission as a whole (`Submission`), which has the fence. Each kind has a suite for each of the
two commands. Rules that both commands have stand in one row with two ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._creation import chain_of
from extmem.rules._engine import Suite
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import BatchFacts, FenceFacts, SemaphoreFacts, SubmitFacts, SyncDeviceFacts

__all__ = [
    "BATCH",
    "BATCH2",
    "SIGNAL",
    "SIGNAL2",
    "SUBMISSION",
    "SUBMISSION2",
    "WAIT",
    "WAIT2",
    "BatchCall",
    "Operation",
    "Submission",
    "Traits",
    "chained_path",
    "facts_of_batch",
]


class Submission(msgspec.Struct):
    """The submission as a whole."""

    sync: SyncDeviceFacts
    fence: FenceFacts | None

    @property
    def device(self) -> DeviceFacts:
        """The device that the queue belongs to."""
        return self.sync.device


class Traits:
    """The structs that the chain of a batch contains, as bits."""

    CHAIN = 1 << 0
    """Any at all."""
    TIMELINE = 1 << 1
    D3D12 = 1 << 2
    GROUP = 1 << 3


class BatchCall:
    """One VkSubmitInfo or VkSubmitInfo2."""

    __slots__ = ("chain", "d3d12", "facts", "group", "info", "queue", "sync", "timeline", "traits", "where")

    def __init__(self, info: Any, where: str, sync: SyncDeviceFacts, facts: BatchFacts, queue: int) -> None:
        self.info = info
        self.where = where
        self.sync = sync
        self.facts = facts
        self.queue = queue
        self.chain = chain_of(info)
        self.timeline: vk.TimelineSemaphoreSubmitInfo | None = None
        self.d3d12: vk.D3D12FenceSubmitInfoKHR | None = None
        self.group: vk.DeviceGroupSubmitInfo | None = None
        self.traits = Traits.CHAIN if self.chain else 0
        for node in reversed(self.chain):  # so that the first of a type stays
            if type(node) is vk.TimelineSemaphoreSubmitInfo:
                self.timeline = node
                self.traits |= Traits.TIMELINE
            elif type(node) is vk.D3D12FenceSubmitInfoKHR:
                self.d3d12 = node
                self.traits |= Traits.D3D12
            elif type(node) is vk.DeviceGroupSubmitInfo:
                self.group = node
                self.traits |= Traits.GROUP

    @property
    def device(self) -> DeviceFacts:
        """The device that the queue belongs to."""
        return self.sync.device

    def operations(self) -> Iterator[Operation]:
        """Yield each semaphore operation about which something is known."""
        second = type(self.info) is vk.SubmitInfo2
        for kind, facts in (("wait", self.facts.waits), ("signal", self.facts.signals)):
            for i, known in enumerate(facts):
                if known is not None:
                    value = None
                    if known.timeline:
                        value = self._value2(kind, i) if second else self._value(kind, i)
                    yield Operation(known, self, kind, i, value)

    def _value(self, kind: str, index: int) -> int | None:
        values = () if self.timeline is None else getattr(self.timeline, f"{kind}_semaphore_values")
        return int(values[index]) if index < len(values) else None

    def _value2(self, kind: str, index: int) -> int:
        return int(getattr(self.info, f"{kind}_semaphore_infos")[index].value)


class Operation(msgspec.Struct):
    """A semaphore that a batch waits for or signals."""

    facts: SemaphoreFacts
    batch: BatchCall
    kind: str
    """`wait` or `signal`."""
    index: int
    value: int | None
    """The value of a timeline; None if none is given."""

    @property
    def where(self) -> str:
        """Path of the semaphore."""
        if type(self.batch.info) is vk.SubmitInfo2:
            return f"{self.batch.where}.{self.kind}_semaphore_infos[{self.index}].semaphore"
        return f"{self.batch.where}.{self.kind}_semaphores[{self.index}]"

    @property
    def value_where(self) -> str:
        """Path of the value."""
        if type(self.batch.info) is vk.SubmitInfo2:
            return f"{self.batch.where}.{self.kind}_semaphore_infos[{self.index}].value"
        path = f"{self.batch.where}.{chained_path(vk.TimelineSemaphoreSubmitInfo)}"
        return f"{path}.{self.kind}_semaphore_values[{self.index}]"


def chained_path(struct: type) -> str:
    """Return the path of a struct in a chain."""
    return f"pNext<{struct.__name__}>"


BATCH: Suite[BatchCall] = Suite("vkQueueSubmit")
BATCH2: Suite[BatchCall] = Suite("vkQueueSubmit2")
WAIT: Suite[Operation] = Suite("vkQueueSubmit")
WAIT2: Suite[Operation] = Suite("vkQueueSubmit2")
SIGNAL: Suite[Operation] = Suite("vkQueueSubmit")
SIGNAL2: Suite[Operation] = Suite("vkQueueSubmit2")
SUBMISSION: Suite[Submission] = Suite("vkQueueSubmit")
SUBMISSION2: Suite[Submission] = Suite("vkQueueSubmit2")


def facts_of_batch(facts: SubmitFacts, index: int) -> BatchFacts:
    """Return the facts of the batch at this index; facts about nothing if there are none."""
    return facts.batches[index] if index < len(facts.batches) else BatchFacts()
