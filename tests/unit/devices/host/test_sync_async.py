"""Waits for timeline pages in asyncio: values, cancellation, the end of a signaler, the thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from extmem.devices.host import futex, ring_waits, sync_async
from extmem.devices.host.io_ring import MOST, usable
from extmem.devices.host.page_signals import deadline_after
from extmem.devices.host.page_watch import Watch
from extmem.devices.host.sync_async import wait_pages_async
from extmem.devices.host.timeline_page import TimelinePage, create_page, open_page
from extmem.errors import PeerGoneError
from extmem.sharing import timeline_page as layout
from extmem.testing.leaks import no_leaks
from extmem.testing.waiting import DEADLINE, wait_until

FAR = int(DEADLINE * 1e9)


@pytest.fixture(autouse=True, params=["thread", "polled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By the thread, and by what the event loop polls, where it can."""
    if request.param == "thread":
        monkeypatch.setattr(sync_async, "waits_of_loop", lambda _: None)
        return "thread"
    return "ring" if usable() else "thread"


def page() -> TimelinePage:
    return open_page(create_page())


def mark(made: TimelinePage) -> None:
    layout.mark_gone(made._words.cast("B"), 4711, time.monotonic_ns())
    futex.add_and_wake(made.sequence)


def run(coroutine: object) -> None:
    asyncio.run(asyncio.wait_for(coroutine, DEADLINE))  # type: ignore[arg-type]


def watches() -> int:
    """How many watches there are, of all coroutines."""
    return len(sync_async._sleeper._watches) + sum(len(ring._watches) for ring in ring_waits._rings.values())


def has_thread() -> bool:
    return any(thread.name == "extmem-timelines" for thread in threading.enumerate())


def test_a_reached_value_takes_no_thread() -> None:
    one = page()
    one.signal(2)
    wait_until(lambda: not has_thread(), "the thread of an earlier test to end")
    run(wait_pages_async([(one, 1)]))
    run(wait_pages_async([]))
    assert not has_thread()


def test_values_are_awaited_while_the_loop_runs() -> None:
    ping, pong = page(), page()

    def echo() -> None:
        for value in range(1, 51):
            ping.wait(value, deadline_after(FAR))
            pong.signal(value)

    async def main() -> None:
        for value in range(1, 51):
            ping.signal(value)
            await wait_pages_async([(pong, value)])

    thread = threading.Thread(target=echo)
    thread.start()
    run(main())
    thread.join(DEADLINE)


def test_any_and_all_are_awaited() -> None:
    first, second = page(), page()
    waits = [(first, 1), (second, 1)]

    async def main() -> None:
        some = asyncio.ensure_future(wait_pages_async(waits, any_of=True))
        every = asyncio.ensure_future(wait_pages_async(waits))
        await asyncio.sleep(0)
        second.signal(1)
        await some
        assert not every.done()
        first.signal(1)
        await every

    run(main())


def test_many_coroutines_await_many_values() -> None:
    one = page()

    async def main() -> None:
        waits = [asyncio.ensure_future(wait_pages_async([(one, value)])) for value in range(1, 41)]
        await asyncio.sleep(0)
        for value in range(1, 41):
            one.signal(value)
        await asyncio.gather(*waits)

    run(main())


def test_more_pages_than_a_ring_takes_are_awaited() -> None:
    several = [page() for _ in range(MOST + 3)]

    async def main() -> None:
        waits = [asyncio.ensure_future(wait_pages_async([(one, 1)])) for one in several]
        await asyncio.sleep(0)
        for one in reversed(several):
            one.signal(1)
        await asyncio.gather(*waits)

    run(main())


def test_a_cancelled_wait_leaves_nothing() -> None:
    async def main() -> None:
        one = page()
        waits = [asyncio.ensure_future(wait_pages_async([(one, 5)])) for _ in range(3)]
        await asyncio.sleep(0)
        assert watches() == 3
        for wait in waits:
            wait.cancel()
        for wait in waits:
            with pytest.raises(asyncio.CancelledError):
                await wait
        assert watches() == 0
        while ring_waits._rings:  # the loop goes on, and gives the ring back
            await asyncio.sleep(0.01)

    run(main())
    with no_leaks(objects=False):
        run(main())
    wait_until(lambda: not has_thread() and not sync_async._sleeper._armed, "the thread to end")


def test_S59_the_end_of_the_signaler_is_raised() -> None:
    first, second = page(), page()

    async def main() -> None:
        lost = asyncio.ensure_future(wait_pages_async([(first, 1)]))
        some = asyncio.ensure_future(wait_pages_async([(first, 1), (second, 1)], any_of=True))
        await asyncio.sleep(0)
        mark(first)
        with pytest.raises(PeerGoneError, match="4711"):
            await lost
        assert not some.done()
        second.signal(1)
        await some
        with pytest.raises(PeerGoneError):
            await wait_pages_async([(first, 1)])
        repaired = asyncio.ensure_future(wait_pages_async([(first, 9), (second, 9)], any_of=True))
        await asyncio.sleep(0)
        first.signal(9)  # a survivor
        await repaired

    run(main())


def test_a_thread_that_starts_again_arms_its_pages(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has ended just now; its next look was to be in an hour."""
    if way == "ring":
        return
    wait_until(lambda: not has_thread(), "the thread of an earlier test to end")
    monkeypatch.setattr(sync_async._sleeper, "_changed", False)
    monkeypatch.setattr(sync_async._sleeper, "_next_look", time.monotonic_ns() + FAR)
    one = page()

    async def main() -> None:
        wait = asyncio.ensure_future(wait_pages_async([(one, 1)]))
        while one not in sync_async._sleeper._armed:
            await asyncio.sleep(0)
        one.signal(1)
        await wait

    run(main())


def test_a_cancelled_wait_leaves_nothing_while_others_wait() -> None:
    async def main() -> None:
        one, two = page(), page()
        waits = [asyncio.ensure_future(wait_pages_async([(made, 1)])) for made in (one, two)]
        await asyncio.sleep(0)
        waits[0].cancel()
        armed = [sync_async._sleeper, *ring_waits._rings.values()]
        while any(one in place._armed for place in armed) or not any(two in place._armed for place in armed):
            await asyncio.sleep(0.01)
        two.signal(1)
        await waits[1]

    run(main())


def test_a_loop_that_ends_at_once_leaves_nothing() -> None:
    async def main() -> None:
        wait = asyncio.ensure_future(wait_pages_async([(page(), 5)]))
        await asyncio.sleep(0)
        wait.cancel()

    run(main())
    with no_leaks(objects=False):
        run(main())


def test_a_loop_that_was_closed_disturbs_no_other() -> None:
    one = page()
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    sync_async._sleeper.add(Watch(one, 1, 0, future))
    one.signal(1)
    run(wait_pages_async([(one, 1)]))
    wait_until(lambda: not sync_async._sleeper._watches, "the watch to be completed")


def test_a_fork_takes_neither_thread_nor_ring_along(way: str) -> None:
    one = page()

    async def main() -> None:
        wait = asyncio.ensure_future(wait_pages_async([(one, 1)]))
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            os._exit(has_thread() or watches())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert watches() == 1
        assert has_thread() or way == "ring"
        one.signal(1)
        await wait

    run(main())
