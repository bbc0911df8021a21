"""`Work`, one submission until its end is seen, and `Worker`, a thread that handles submissions in their order."""

from __future__ import annotations

import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, cast

from extmem import vk
from extmem.devices.sync import Batch
from extmem.errors import DriverError
from extmem.owning import Lock, Uses

if TYPE_CHECKING:
    from collections.abc import Callable

    from extmem.devices.host.page_signals import PageSignals
    from extmem.devices.sync import NativeSemaphore
    from extmem.devices.vulkan.owners import VkObject
    from extmem.devices.vulkan.submit_infos import Submit
    from extmem.devices.vulkan.sync_objects import VulkanSync

__all__ = ["NOTE_OF_EARLIER", "NOT_SUBMITTED", "Work", "Worker"]

_LINGER_S: Final = 1.0
"""Seconds that a thread without work waits for more before it ends."""
NOTE_OF_EARLIER: Final = (
    "This is the error of a submission that waited for a timeline of the host, and whose call had returned. It was not "
    "made. The call that raises it has submitted nothing: repeat it."
)
"""What is added to the error of a deferred submission, which a later call raises."""
NOT_SUBMITTED: Final = DriverError(
    "the driver refused it, earlier work of the same call failed, or the device is lost",
    result=int(vk.Result.ERROR_UNKNOWN),
    command="vkQueueSubmit",
)
"""The reason of work that is not submitted, where no other is known."""
_LOOK_S: Final = 0.02
"""Seconds until a thread without work sees work that it was not woken for."""


class Work:
    """One submission, until its end is seen."""

    __slots__ = (
        "after",
        "calls",
        "deferred",
        "ended",
        "fence",
        "hosts",
        "keep",
        "own",
        "raises",
        "reason",
        "recorded",
        "result",
        "results",
        "uses",
    )

    def __init__(self) -> None:
        self.uses = Uses()
        """What it uses, held."""
        self.results: list[int] = []
        """The VkResults of its calls; empty before they were made."""
        self.calls = 1
        """The number of its calls: 2 if the program's fence is submitted with the batches, and its own behind it."""
        self.fence: VkObject | None = None
        self.recorded: list[Any] = []
        """Its command buffers, given back at its end."""
        self.hosts: list[tuple[NativeSemaphore, int]] = []
        """Host timelines that have to reach a value before it is submitted."""
        self.raises: list[tuple[PageSignals, int]] = []
        """Pages of host words and host timelines that are raised at the end, and the values."""
        self.deferred = False
        """Whether its call has returned before it was submitted."""
        self.own: Submit | None = None
        """The calls, once they are built."""
        self.after: Work | None = None
        """Earlier work of the same call: if that fails, this is not submitted."""
        self.reason: Exception | None = None
        """Why it is not submitted; None of other work."""
        self.keep: list[Any] = []
        """Its batches and the program's fence, or None."""
        self.result: int | None = None
        """The VkResult of its end; None before."""
        self.ended: SimpleQueue[None] = SimpleQueue()
        """Has an item once it has ended."""

    def announce(self) -> None:
        """Tell the waiters of its pages, before it is submitted, that this process is going to signal.

        Otherwise a page that is marked, because a signaler has ended, would be an error for them until the work is
        done.
        """
        for page, _ in self.raises:
            page.announce_signal()

    def withdraw(self, *, promised: bool) -> None:
        """Tell those who wait for its values that they do not come.

        promised: whether the program was told of no error. Otherwise only what `announce` changed is taken back.
        """
        for page, value in self.raises:
            if (promised or page.marked) and page.value < value:
                page.poison()

    def abandon(self) -> None:
        """Tell fences and binary semaphores that it was to signal that it was not submitted; its call has returned."""
        reason = self.reason = self.reason or NOT_SUBMITTED
        for one in self.keep:
            if isinstance(one, Batch):
                one.abandoned = True
                for signal in one.signals:
                    if not signal.semaphore.timeline:  # of a timeline, the page tells
                        cast("VulkanSync", signal.semaphore).abandoned = reason
            elif one is not None:
                one.abandoned = reason

    def waits_for_abandoned(self) -> Exception | None:
        """Return why a binary semaphore that it waits for is not signaled; None if all are, or may be."""
        for batch in self.keep:
            for wait in batch.waits if isinstance(batch, Batch) else ():
                reason = cast("VulkanSync", wait.semaphore).abandoned
                if reason is not None:
                    return reason
        return None

    def wait(self, seconds: float) -> bool:
        """Wait for its end. Signal handlers run meanwhile. Return whether it has ended."""
        try:
            self.ended.get(timeout=seconds)
        except Empty:
            return False
        self.ended.put(None)  # for other threads
        return True


class Worker:
    """A daemon thread that handles the items of a list, oldest first, and ends when it has had none for a while."""

    def __init__(self, name: str, handle: Callable[[Work], bool]) -> None:
        """handle: handles the oldest item for a moment; returns whether it is done with it, which removes it."""
        self._name = name
        self._handle = handle
        self._lock = Lock()
        self._thread: threading.Thread | None = None
        self._linger = _LINGER_S
        self._woken: SimpleQueue[None] = SimpleQueue()
        self.items: deque[Work] = deque()
        """What is to be handled. The thread alone removes items from the left."""

    def add(self, work: Work, *, wake: bool = True) -> None:
        """Add an item, and ensure that the thread runs.

        wake: False if the caller calls `wake` soon, or if nobody waits for the work: the thread looks a moment later.
        """
        self.items.append(work)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
        if wake:
            self.wake()

    def wake(self) -> None:
        """Make the thread look at the items."""
        self._woken.put(None)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to handle. The thread itself may ask while it handles the last item."""
        return len(self.items) <= (threading.current_thread() is self._thread)

    def stop(self) -> None:
        """Make the thread end as soon as it has no work. Work that is added later starts another one."""
        self._linger = 0.0
        self.wake()

    def pause(self, seconds: float) -> bool:
        """Wait for `wake`, at most this long. Called by the thread. Return whether it was woken."""
        try:
            self._woken.get(timeout=seconds)
        except Empty:
            return False
        return True

    def _run(self) -> None:
        with self._lock:  # an exception of a signal handler may have come before this thread was recorded
            if self._thread is not threading.current_thread():
                return
        calm = 0.0
        while True:
            if not self.items:
                seconds = min(self._linger, _LOOK_S)
                calm = 0.0 if self.pause(seconds) else calm + seconds
                if calm >= self._linger and self._ends():
                    return
                continue
            calm = 0.0
            work = self.items[0]
            if self._handle(work):
                self.items.popleft()
            del work

    def _ends(self) -> bool:
        with self._lock:
            if not self.items:
                self._thread = None
            return self._thread is None
