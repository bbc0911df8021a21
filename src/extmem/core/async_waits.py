"""`Timeline.wait_async`: a wait of a coroutine, during which other coroutines run.

How this works. A timeline that has a page (of the host, or a companion page of a driver's) is awaited on the page, by
one thread of the process for all coroutines. Other timelines are waited for in slices by a thread, which ends with the
wait.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from extmem.core import host_waits, wait_errors
from extmem.core.order_pairs import checked_value
from extmem.core.sync_record import SemaphoreRecord
from extmem.devices.host.sync_async import wait_pages_async
from extmem.errors import ExtmemError

if TYPE_CHECKING:
    from extmem.devices.sync import SyncBackend

__all__ = ["wait"]

_SLICE_NS = 20_000_000
"""Nanoseconds of one slice: a cancelled wait ends within this time."""


async def wait(record: SemaphoreRecord, value: int, timeout: float | None) -> None:
    """Wait until a timeline that is in use has the value: `Timeline.wait_async`."""
    value = checked_value(value, "value")
    limit = host_waits.nanoseconds(timeout)
    if record.native.counter() >= value:
        return
    try:
        async with asyncio.timeout(None if limit is None else limit / 1e9) as scope:
            if record.page is not None:
                await wait_pages_async([(record.page, value)])
            else:
                await _in_thread(record.device.backend, record.native, value)
    except TimeoutError:
        if not scope.expired():
            raise
        wait_errors.check_reached(record, value, timeout)


async def _in_thread(backend: Any, native: Any, value: int) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    cancelled: list[bool] = []
    """Not empty once the wait is over for the coroutine."""

    def finish(error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)

    thread = threading.Thread(
        target=_wait_in_slices, args=(backend, native, value, loop, finish, cancelled), name="extmem-wait", daemon=True
    )
    thread.start()
    try:
        await done
    finally:
        cancelled.append(True)
        while thread.is_alive():  # its end is near, and nothing of the wait may remain
            await asyncio.sleep(0.001)


def _wait_in_slices(
    backend: SyncBackend,
    native: Any,
    value: int,
    loop: asyncio.AbstractEventLoop,
    finish: Any,
    cancelled: list[bool],
) -> None:
    error: Exception | None = None
    try:
        while not cancelled and not backend.wait_semaphores([(native, value)], timeout_ns=_SLICE_NS):
            pass
    except (ExtmemError, OSError) as raised:
        error = raised
    if not cancelled:
        loop.call_soon_threadsafe(finish, error)
