"""The sleeps of coroutines that wait for frames."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from extmem.devices.host.page_watch import RingWatch
from extmem.devices.host.sync_async import sleep_until_over

if TYPE_CHECKING:
    from extmem.channel.base import Channel
    from extmem.channel.waiting import Waits

__all__ = ["sleep_async"]


class _FrameWatch(RingWatch):
    """A change of the page of the frames, or the end of the reader that waits for it."""

    __slots__ = ("_channel",)

    def __init__(self, page: Any, expected: int, future: asyncio.Future[None], channel: Channel) -> None:
        super().__init__(page, expected, future)
        self._channel = channel

    def is_over(self) -> bool:
        """See `RingWatch`."""
        return self._channel.closed or super().is_over()


async def sleep_async(channel: Channel, expected: int, seconds: float, waits: Waits) -> None:
    """Sleep until somebody signals the page of the frames, unless its sequence is not the expected one any more.

    It may return early. seconds: at most. waits: by which `end_waits` finds it. Cancelled, it leaves nothing behind.
    """
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch = _FrameWatch(channel.frames_page, expected, future, channel)
    try:
        waits[watch] = 0
        await sleep_until_over(watch, future, seconds)
    finally:
        waits.pop(watch, None)
