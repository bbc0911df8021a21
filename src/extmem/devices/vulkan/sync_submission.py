"""`BatchQueue`: batches that wait for and signal semaphores, submitted without a wait for their end.

How this works. Each vkQueueSubmit here is a `Work`: it has a VkFence of its own, holds everything that the commands
use, and is in a list until that fence is signaled. A thread of the device waits for the fence of the oldest work in the
list, as long as there is one. When work is done, the thread raises the host words of the timelines that it has
signaled, ends the holds, and gives fence and command buffers back for the next submission. The program's fence, if
there is one, is submitted with the batches, and the work's own behind it, with no batches.

A submission with several batches is divided after each batch that signals a timeline with a host word, so that a host
that waits for this word is woken when that batch is done, and not the last one.

Host timelines are no objects of the driver. A batch that waits for one is *deferred*: a second thread waits for the
values, and then submits. What is submitted afterwards is deferred, too, until the thread has submitted all that came
before: a queue executes in order. Signals of host timelines are done by the first thread.

The commands are recorded in the call that submits, so that their errors are raised there. Threads use no Python lock
while they wait, and an exception of a signal handler loses no submission: it is in the list before it is submitted.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import operator
import time
from collections import deque
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

from extmem import vk
from extmem.devices.sync import Batch
from extmem.devices.vulkan.batch_groups import divided, of_driver, set_owners
from extmem.devices.vulkan.command_buffers import CommandBuffers
from extmem.devices.vulkan.host_words import page_of
from extmem.devices.vulkan.memory import native_allocation
from extmem.devices.vulkan.owners import VkObject
from extmem.devices.vulkan.queued_work import NOT_SUBMITTED, NOTE_OF_EARLIER, Work, Worker
from extmem.devices.vulkan.results import fail
from extmem.devices.vulkan.semaphores import VulkanSemaphore
from extmem.devices.vulkan.submit_infos import Submit, operations_of, submit_call
from extmem.errors import DriverError, ExtmemError
from extmem.owning import Lock, Uses, late_imports
from extmem.vk.abi import ffi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extmem.devices.host.page_signals import PageSignals
    from extmem.devices.sync import NativeFence, NativeSemaphore
    from extmem.devices.vulkan.host_words import HostWords
    from extmem.devices.vulkan.logical import LogicalDevice
    from extmem.devices.vulkan.sync_objects import VulkanSync

__all__ = ["BatchQueue"]

_SLICE_NS: Final = 50_000_000
"""Nanoseconds of one wait for a fence, or for a host timeline."""
_SLICE_S: Final = 0.05
_PATIENCE_S: Final = 60.0
"""Seconds that `drain` waits; then it raises an error at once until everything is done."""
_TIMEOUT = int(vk.Result.TIMEOUT)
_LOST = int(vk.Result.ERROR_DEVICE_LOST)
_ABANDONED = int(vk.Result.ERROR_UNKNOWN)
"""The result of work that is not submitted, because what it depends on failed."""
_FENCE = int(vk.StructureType.FENCE_CREATE_INFO)
_log = logging.getLogger("extmem")
_queues: Final[WeakSet[BatchQueue]] = WeakSet()


class BatchQueue:
    """The queue of one device, for batches. Ownership: everything is released by `close`."""

    def __init__(self, device: LogicalDevice, words: HostWords) -> None:
        self._device = device
        self._words = words
        self._queue = ffi.cast("VkQueue", device.queue)
        self._lock = Lock(reentrant=True)
        """Held while commands are recorded and work is put into the lists."""
        self._buffers = CommandBuffers(device)
        self._fences: deque[VkObject] = deque()
        """Unsignaled fences that no work uses."""
        self._signaled: deque[VkObject] = deque()
        """Signaled fences that no work uses."""
        self._running = Worker("extmem-vulkan-done", self._watch)
        self._deferred = Worker("extmem-vulkan-waits", self._wait_and_send)
        self._patience = _PATIENCE_S
        self._lost = False
        """Whether the device is lost."""
        self._failed: list[Exception] = []
        """Errors of deferred submissions, which the next call raises."""
        _queues.add(self)

    # Submission.

    def submit(self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses, *, wait: bool = False) -> None:
        """See `SyncBackend.submit_batches`."""
        self._device.check_open()
        if self._failed:
            for batch in batches:
                batch.abandoned = True
            raise self._failed.pop(0)
        with self._lock:
            works = self._submit(batches, fence, uses)
        if wait:
            self._wait_for(works)

    def _submit(self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses) -> list[Work]:
        groups = divided(batches, has_fence=fence is not None)
        works: list[Work] = []
        try:
            for index, group in enumerate(groups):
                last = index == len(groups) - 1
                work = self._prepared(group, fence if last else None, uses)
                work.after = works[-1] if works else None
                works.append(work)
            is_deferred = bool(self._deferred.items)
            for work in works:
                is_deferred = is_deferred or not self._reached(work)
                work.announce()
                if is_deferred:
                    work.deferred = True
                    self._deferred.add(work)
                else:
                    self._send(work)
        except BaseException:
            for work in works:
                if not work.results and work not in self._deferred.items:
                    with contextlib.suppress(ExtmemError, OSError):
                        work.withdraw(promised=False)
                    self._abandon(work)
            raise
        finally:
            if any(work.results and not work.results[0] for work in works) or self._deferred.items:
                set_owners(batches)
        return works

    def _prepared(self, batches: Sequence[Batch], fence: NativeFence | None, uses: Uses) -> Work:
        """Record the commands, and build the call."""
        work = Work()
        try:
            work.uses.add_all(uses)
            raw_fence = 0
            if fence is not None:
                work.uses.add(fence.keeper)
                cast("VulkanSync", fence).abandoned = None
                raw_fence = fence.raw
            driver_batches, buffers = [], []
            for batch in batches:
                self._hold(work, batch)
                driver_batches.append(of_driver(batch))
                buffers.append(self._recorded(work, batch))
                for wait in batch.waits:
                    if isinstance(wait.semaphore, VulkanSemaphore) and wait.semaphore.host is not None:
                        work.hosts.append((wait.semaphore.host, wait.value))
                for signal in batch.signals:
                    cast("VulkanSync", signal.semaphore).abandoned = None
                    page = self._page(work, signal.semaphore)
                    if page is not None:
                        work.raises.append((page, signal.value))
            own = work.fence = self._unsignaled_fence()
            work.calls = 1 if fence is None else 2
            work.own = submit_call(self._device, self._queue, driver_batches, buffers, raw_fence or own.raw)
            work.keep = [*batches, fence]
        except BaseException:
            self._abandon(work)
            raise
        return work

    def _hold(self, work: Work, batch: Batch) -> None:
        for one in operations_of(batch):
            work.uses.add(one.semaphore.keeper)
        for signal in batch.signals:
            if isinstance(signal.semaphore, VulkanSemaphore):
                signal.semaphore.check_writable()
        for allocation, _ in batch.owners:
            work.uses.add(native_allocation(allocation).keeper)

    def _page(self, work: Work, semaphore: NativeSemaphore) -> PageSignals | None:
        """Return the page of a semaphore that is raised at the end, and hold it; None for one without a page."""
        if not isinstance(semaphore, VulkanSemaphore):
            return None
        word = semaphore.host if semaphore.host is not None else semaphore.word
        if word is None:
            return None
        work.uses.add(word.keeper)
        return page_of(word)

    def _recorded(self, work: Work, batch: Batch) -> list[int]:
        """Record the commands of a batch. Return its VkCommandBuffers."""
        if batch.record is None:
            return list(batch.command_buffers)
        buffer, raw = self._buffers.recorded(batch.record, follows=bool(self._running.items or self._deferred.items))
        work.recorded.append(buffer)
        return [raw, *batch.command_buffers]

    def _unsignaled_fence(self) -> VkObject:
        device = self._device
        if self._signaled:
            fence = self._signaled[0]
            fences = ffi.new("uint64_t *", fence.raw)
            device.check(device.commands.vkResetFences(device.handle, 1, fences), "vkResetFences")
            self._signaled.popleft()
            return fence
        if self._fences:
            return self._fences.popleft()
        made, owner = ffi.new("uint64_t *"), VkObject(device.owner)
        info = ffi.new("VkFenceCreateInfo *", (_FENCE,))
        create, destroy = device.commands.vkCreateFence, device.commands.vkDestroyFence
        making = owner.make(create, (device.handle, info, ffi.NULL, made), made, destroy)
        device.check(making.result, "vkCreateFence")
        return owner

    def _reached(self, work: Work) -> bool:
        """Whether the host timelines that it waits for have reached their values."""
        return all(semaphore.counter() >= value for semaphore, value in work.hosts)

    def _send(self, work: Work) -> None:
        """vkQueueSubmit; with a fence of the program also a second one, with the work's own.

        Errors: DriverError, OutOfMemoryError.
        """
        own = work.own
        if own is None or work.fence is None:  # pragma: no cover  (it is prepared)
            raise AssertionError("work is prepared before it is sent")
        device = self._device
        calls: list[tuple[Any, ...]] = [(own.command, *own.arguments)]
        if work.calls > 1:
            calls.append((device.commands.vkQueueSubmit, self._queue, 0, ffi.NULL, work.fence.raw))
        self._running.add(work, wake=False)
        with device.queue_lock:
            # The calls are made in one call of C code: no signal handler runs between them.
            work.results.extend(starmap(operator.call, calls))
        self._running.wake()
        result = work.results[0]
        if result:
            fail(result, own_name(own, device), device.name)
        self._restore(work)

    def _restore(self, work: Work) -> None:
        """Record that temporary payloads that were waited for are gone: their waits are submitted."""
        for batch in work.keep:
            for wait in batch.waits if isinstance(batch, Batch) else ():
                if isinstance(wait.semaphore, VulkanSemaphore):
                    wait.semaphore.restored()

    def _abandon(self, work: Work) -> None:
        """Release what was prepared for work that is not sent."""
        if work.fence is not None:
            self._fences.append(work.fence)
            work.fence = None
        self._buffers.give_back(work.recorded)
        work.raises = []
        work.uses.end()

    # The end of work. Only the thread calls this.

    def _watch(self, work: Work) -> bool:
        """Wait for the end of work for a moment; see `Worker`. work: the oldest."""
        if len(work.results) < work.calls:  # it is being sent, or an exception came before that
            self._running.pause(_SLICE_S)
            return not work.results and work.fence is None
        device, fence = self._device, work.fence
        refused, unfenced = work.results[0], work.results[-1]  # without a fence of the program they are one call
        if fence is None or (unfenced and (refused or unfenced == _LOST)):
            self._end(work, refused or unfenced, is_signaled=False)
            return True
        if unfenced:
            with device.queue_lock:  # there was no memory for the second call; try again
                work.results[1] = device.commands.vkQueueSubmit(self._queue, 0, ffi.NULL, fence.raw)
            self._running.pause(_SLICE_S)
            return False
        result = self._waited_for(fence)
        if result in (0, _LOST):
            self._end(work, refused or result, is_signaled=result == 0)
            return True
        if result != _TIMEOUT:
            self._running.pause(_SLICE_S)
        return False

    def _waited_for(self, fence: VkObject) -> int:
        """Wait for a fence for a moment. Return the VkResult."""
        device, fences = self._device, ffi.new("uint64_t *", fence.raw)
        result: int = device.commands.vkWaitForFences(device.handle, 1, fences, 1, _SLICE_NS)
        return result

    def _raise_words(self, work: Work) -> None:
        """Raise the words of the timelines that work has signaled."""
        raises, work.raises = work.raises, []
        for page, value in raises:
            try:
                page.raise_to(value)
            except (ExtmemError, OSError) as error:
                _log.warning("a timeline could not be raised to %s: %s", value, str(error))

    def _end(self, work: Work, result: int, *, is_signaled: bool) -> None:
        self._lost = self._lost or result == _LOST
        was_promised = work.deferred or not (work.results and work.results[0])
        if not result:
            self._raise_words(work)
        else:
            with contextlib.suppress(ExtmemError, OSError):
                work.withdraw(promised=was_promised)
            if work.deferred and (not work.results or work.results[0]):
                work.abandon()
        self._buffers.give_back(work.recorded)
        fence, work.fence = work.fence, None
        if fence is not None:
            (self._signaled if is_signaled and not self._was_reset(fence) else self._fences).append(fence)
        work.raises, work.keep, work.own = [], [], None
        try:
            work.uses.end()
        except (ExtmemError, OSError) as error:
            _log.warning("what a submission has used could not be released: %s; it is tried again later", str(error))
        work.result, work.after = result, None
        work.ended.put(None)

    def _was_reset(self, fence: VkObject) -> bool:
        """Reset a signaled fence here, so that the next submission need not. Return whether it is unsignaled."""
        device = self._device
        return not device.commands.vkResetFences(device.handle, 1, ffi.new("uint64_t *", fence.raw))

    # Deferred work. Only its thread calls this.

    def _wait_and_send(self, work: Work) -> bool:
        """Wait for host timelines for a moment, and submit once their values are reached; see `Worker`."""
        after = work.after
        reason = work.waits_for_abandoned() if after is None or not after.result else after.reason or NOT_SUBMITTED
        if self._lost or reason is not None:
            work.reason = reason
            self._end(work, _LOST if self._lost else _ABANDONED, is_signaled=False)
            return True
        try:
            if not self._words.wait(work.hosts, timeout_ns=_SLICE_NS):
                return False
            self._send(work)
        except (ExtmemError, OSError) as error:
            error.add_note(NOTE_OF_EARLIER)
            self._failed.append(error)
            _log.warning("a submission that waited for a timeline of the host failed: %s", str(error))
            work.reason = error
            if not work.results:
                self._end(work, _ABANDONED, is_signaled=False)
        return True

    # Waiting.

    @property
    def idle(self) -> bool:
        """Whether nothing is submitted or deferred.

        The end of the last hold closes a device that the program has closed, in the thread that ends the hold.
        """
        return self._deferred.idle and self._running.idle  # work goes from the first to the second

    def _wait_for(self, works: Sequence[Work]) -> None:
        """Wait until this work is done. Signal handlers run meanwhile. Errors: DriverError for a lost device."""
        for work in works:
            while not work.wait(_SLICE_S):
                pass
            if work.result:
                if self._failed:
                    raise self._failed.pop(0)
                fail(work.result, "vkWaitForFences", self._device.name, "what was just submitted")

    def drain(self) -> None:
        """Wait until nothing is submitted or deferred.

        Errors: DriverError if that takes longer than `_PATIENCE_S` seconds; later calls then only look.
        """
        until = time.monotonic() + self._patience
        while not self.idle:
            for items in (self._deferred.items, self._running.items):
                with contextlib.suppress(IndexError):
                    items[0].wait(min(_SLICE_S, max(0.0, until - time.monotonic())))
            if time.monotonic() >= until and not self.idle:
                self._patience = 0.0
                raise DriverError(
                    f"{self._device.name}: submitted commands do not end (the wait was {_PATIENCE_S:.0f} seconds at "
                    "first): they wait for a semaphore that nobody has signaled, or the device hangs. What they use is "
                    "held until they end. Signal the semaphore, or end this process",
                    result=_TIMEOUT,
                    command="vkWaitForFences",
                    devices=[self._device.name],
                )
        self._patience = _PATIENCE_S

    def close(self) -> None:
        """Release everything, when all work is done. Safe to repeat. Errors: as `drain`; nothing was released then."""
        self.drain()
        self._deferred.stop()
        self._running.stop()
        with self._lock:
            for fences in (self._fences, self._signaled):
                while fences:
                    fences[0].settle()
                    fences.popleft()
            self._buffers.close()


def own_name(own: Submit, device: LogicalDevice) -> str:
    """Return the name of the command, for errors."""
    return "vkQueueSubmit" if own.command is device.commands.vkQueueSubmit else "vkQueueSubmit2"


@atexit.register
def _keep_running_work() -> None:
    """Keep what still runs when the process ends, so that it is never released."""
    for queue in list(_queues):
        if not queue.idle:
            with late_imports():
                import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(queue))  # never lost, so never released
