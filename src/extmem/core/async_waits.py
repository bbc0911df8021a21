"""`Timeline.wait_async`: a wait of a coroutine, during which other coroutines run.

How this works. A timeline that has a page (of the host, or a companion page of a driver's) is awaited on the page,
without a thread of its own for each wait. Other timelines are waited for in slices by a thread, which ends with the
wait.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from extmem.core import host_waits
from extmem.core.sync_record import SemaphoreRecord

if TYPE_CHECKING:
    from extmem.devices.sync import SyncBackend

__all__ = ["wait"]

_SLICE_NS = 20_000_000
"""Nanoseconds of one slice: a cancelled wait ends within this time."""


async def wait(record: SemaphoreRecord, value: int, timeout: float | None) -> None:
    """Wait until a timeline that is in use has the value: `Timeline.wait_async`."""
    value = host_waits.value_of(value)
    limit = host_waits.nanoseconds(timeout)
    if record.native.counter() >= value:
        return
    backend: Any = record.device.backend
    deadline = host_waits.deadline_after(limit)
    wait_async = getattr(backend, "wait_async", None)
    if wait_async is not None:
        reached = await wait_async(record.native, value, deadline)
    else:
        reached = await _in_thread(backend, record.native, value, deadline)
    if not reached:
        raise host_waits.timed_out(record, value, timeout)


async def _in_thread(backend: SyncBackend, native: Any, value: int, deadline: int | None) -> bool:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()
    cancelled = threading.Event()

    def finish(result: bool, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    def run() -> None:
        result, error = False, None
        try:
            while not cancelled.is_set():
                left = _SLICE_NS if deadline is None else min(_SLICE_NS, max(0, deadline - time.monotonic_ns()))
                result = backend.wait_semaphores([(native, value)], timeout_ns=left)
                if result or (deadline is not None and time.monotonic_ns() >= deadline):
                    break
        except BaseException as raised:
            error = raised
        if not cancelled.is_set():
            loop.call_soon_threadsafe(finish, result, error)

    thread = threading.Thread(target=run, name="extmem-wait-async", daemon=True)
    thread.start()
    try:
        return await done
    finally:
        cancelled.set()
        await _ended(loop, thread)


async def _ended(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Wait for the end of the thread, which is near: nothing of the wait may remain."""
    while thread.is_alive():
        await asyncio.sleep(0.001)
