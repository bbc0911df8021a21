"""One vkQueueSubmit or vkQueueSubmit2 with its facts, and the suites in which its checks are registered.

How this works. Three kinds of calls are checked: each batch (`BatchCall`), each semaphore operation of a batch
(`Operation`), and the submission as a whole (`Submission`), which has the fence. Each kind has a suite for each of the
two commands. Rules that both commands have stand in one row with two ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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
    "chained_path",
    "facts_of_batch",
]


@dataclass(slots=True)
class Submission:
    """The submission as a whole."""

    sync: SyncDeviceFacts
    fence: FenceFacts | None

    @property
    def device(self) -> DeviceFacts:
        """The device that the queue belongs to."""
        return self.sync.device


@dataclass(slots=True)
class BatchCall:
    """One VkSubmitInfo or VkSubmitInfo2."""

    info: Any
    where: str
    sync: SyncDeviceFacts
    facts: BatchFacts
    queue: int
    chain: list[Any] = field(init=False)
    timeline: vk.TimelineSemaphoreSubmitInfo | None = field(init=False)
    d3d12: vk.D3D12FenceSubmitInfoKHR | None = field(init=False)
    group: vk.DeviceGroupSubmitInfo | None = field(init=False)

    def __post_init__(self) -> None:
        self.chain = chain_of(self.info)
        self.timeline = self._chained(vk.TimelineSemaphoreSubmitInfo)
        self.d3d12 = self._chained(vk.D3D12FenceSubmitInfoKHR)
        self.group = self._chained(vk.DeviceGroupSubmitInfo)

    def _chained(self, struct: type) -> Any:
        return next((node for node in self.chain if type(node) is struct), None)

    @property
    def device(self) -> DeviceFacts:
        """The device that the queue belongs to."""
        return self.sync.device

    def operations(self) -> Iterator[tuple[bool, Operation]]:
        """Yield each semaphore operation about which something is known, and whether it is a signal."""
        for signal, facts in ((False, self.facts.waits), (True, self.facts.signals)):
            for i, known in enumerate(facts):
                if known is not None:
                    yield signal, self._operation(signal, i, known)

    def _operation(self, signal: bool, i: int, known: SemaphoreFacts) -> Operation:
        kind = "signal" if signal else "wait"
        if isinstance(self.info, vk.SubmitInfo2):
            where = f"{self.where}.{kind}_semaphore_infos[{i}]"
            info = getattr(self.info, f"{kind}_semaphore_infos")[i]
            return Operation(known, self, f"{where}.semaphore", int(info.value), f"{where}.value")
        values = () if self.timeline is None else getattr(self.timeline, f"{kind}_semaphore_values")
        path = f"{self.where}.{chained_path(vk.TimelineSemaphoreSubmitInfo)}.{kind}_semaphore_values[{i}]"
        value = int(values[i]) if known.timeline and i < len(values) else None
        return Operation(known, self, f"{self.where}.{kind}_semaphores[{i}]", value, path)


@dataclass(slots=True)
class Operation:
    """A semaphore that a batch waits for or signals."""

    facts: SemaphoreFacts
    batch: BatchCall
    where: str
    """Path of the semaphore."""
    value: int | None
    """The value of a timeline; None if none is given."""
    value_where: str
    """Path of the value."""


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
