"""The execution of what was submitted: each queue runs its batches in order, each as soon as its waits are satisfied.

How this works. vkQueueSubmit puts batches into the list of its queue, and `advance` runs all that can run. So work
without waits is done when vkQueueSubmit returns. A thread runs the rest, since what a batch waits for may be signaled
by another process, without a call here. It ends when no batch is left.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from extmem.testing.fake_vulkan.objects import Batch, FakeObject, Queue

if TYPE_CHECKING:
    from extmem.testing.fake_vulkan.machine import FakeVulkan

__all__ = ["advance", "is_pending", "start_pump"]

_POLL_S = 0.001


def advance(fake: FakeVulkan) -> None:
    """Run every batch that can run."""
    progress = True
    while progress:
        progress = False
        for queue in fake.living(Queue):
            while queue.batches and _is_ready(queue.batches[0]):
                _run(fake, queue.batches.pop(0))
                progress = True
    fake.tell_change()


def _is_ready(batch: Batch) -> bool:
    """Whether all waits are satisfied. A binary signal is consumed at once, and remembered."""
    for wait in batch.waits:
        if wait.done:
            continue
        page = wait.page
        wait.done = page.number >= wait.value if wait.value is not None else page.consume()
        if not wait.done:
            return False
    return True


def _run(fake: FakeVulkan, batch: Batch) -> None:
    for buffer in batch.buffers:
        fake.run_recorded(buffer.work)
    for page, value in batch.signals:
        if value is not None and value <= page.number:
            fake.misuse(f"a queue signals {value} to a timeline that has reached {page.number}")
        page.signal(1 if value is None else value)
    for copy in batch.copies:
        copy.signal()
    for page in batch.pages():
        page.close()


def is_pending(fake: FakeVulkan, item: FakeObject) -> bool:
    """Whether a batch that has not run uses the object."""
    return any(item in batch.uses for queue in fake.living(Queue) for batch in queue.batches)


def start_pump(fake: FakeVulkan) -> None:
    """Ensure that a thread runs what is left, if anything is. The caller holds the fake's lock."""
    if fake.pump is None and any(queue.batches for queue in fake.living(Queue)):
        fake.pump = threading.Thread(target=_pump, args=(fake,), name="fake-vulkan-queue", daemon=True)
        fake.pump.start()


def _pump(fake: FakeVulkan) -> None:
    while True:
        with fake.locked("vkQueueSubmit"):
            advance(fake)
            if not any(queue.batches for queue in fake.living(Queue)):
                fake.pump = None
                return
        time.sleep(_POLL_S)
