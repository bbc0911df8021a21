"""Waits on Windows: by events of the page's steps, for several at once, and for the end of the signaler."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import extmem
from extmem import errors
from extmem.api import Device
from extmem.api.timeline import Timeline
from extmem.devices.host import wake_events
from extmem.devices.host.windows_timeline_page import TimelinePage
from extmem.handles._win32 import calls, waitables
from extmem.sharing import timeline_page as layout
from extmem.testing.children import Peer, python_environment
from extmem.testing.waiting import DEADLINE
from tests.windows.sync_steps import PEER, import_into, is_signaled, signal

NAMED = PEER + "\nopened = extmem.open_timeline(name, device=device)\nNone"


@pytest.fixture
def device() -> Iterator[Device]:
    """The host device."""
    with extmem.open_device(kind="host") as opened:
        yield opened


@pytest.fixture
def timeline(device: Device, name: str) -> Iterator[Timeline]:
    """A timeline with a name, of this process."""
    with device.timeline(name=name) as made:
        yield made


START = """
import threading
thread = threading.Thread(target=exec, args=(source, globals()))
thread.start()
None
"""


@contextlib.contextmanager
def in_peer(peer: Peer, source: str) -> Iterator[None]:
    """Run it in a thread of the peer during the block."""
    peer(START, source=source)
    yield
    assert peer(f"thread.join({DEADLINE})\nthread.is_alive()") is False


def page_of(timeline: Timeline) -> TimelinePage:
    """The page of a timeline."""
    page = timeline.record.native.page
    assert isinstance(page, TimelinePage)
    return page


def test_a_signal_of_another_process_wakes_the_waiter(timeline: Timeline, peer: Peer, name: str) -> None:
    peer(NAMED, name=name)
    with in_peer(peer, "for n in range(2, 60, 2):\n    opened.wait(n - 1, timeout=20)\n    opened.signal(n)"):
        for value in range(2, 60, 2):
            timeline.signal(value - 1)
            timeline.wait(value, timeout=DEADLINE)
    peer("opened.close()")


def test_many_waiters_with_values_of_their_own_are_woken(timeline: Timeline) -> None:
    woken: list[int] = []

    def wait(value: int) -> None:
        timeline.wait(value, timeout=DEADLINE)
        woken.append(value)

    threads = [threading.Thread(target=wait, args=(value,)) for value in range(1, 9)]
    for thread in threads:
        thread.start()
    for value in range(1, 9):
        timeline.signal(value)
        threads[value - 1].join(DEADLINE)
        assert value in woken
    assert sorted(woken) == list(range(1, 9))


def test_a_waiter_without_the_right_to_signal_is_woken(device: Device, peer: Peer, name: str) -> None:
    """It has the page for reading only, and no other process sees anything of it."""
    with device.timeline(name=name) as made:
        peer(PEER + "\nopened = extmem.open_timeline(name, device=device, access=0x80000000)\nNone", name=name)
        with in_peer(peer, "opened.wait(1, timeout=20)"):
            made.signal(1)
        assert peer("opened.record.writable") is False
        peer("opened.close()")


def test_the_step_between_two_looks_is_not_missed(timeline: Timeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal after the sequence was read, and before the event exists: the waiter does not sleep."""
    from extmem.devices.host import wake_events

    timeline.signal(1)  # the first signal enters this process into the table
    real = wake_events.event_of_step
    steps: list[int] = []

    def late(path: str, sequence: int) -> int:
        if not steps:
            steps.append(sequence)
            timeline.signal(2)
        return real(path, sequence)

    monkeypatch.setattr(wake_events, "event_of_step", late)
    sleeps: list[int] = []
    from extmem.handles._win32 import waitables

    monkeypatch.setattr(waitables, "wait_any", lambda handles, left: sleeps.append(left) or waitables.TIMED_OUT)
    timeline.wait(2, timeout=DEADLINE)
    assert steps and not sleeps


@pytest.mark.parametrize("rights", ["all", "wait alone"])
def test_a_killed_signaler_ends_the_wait(device: Device, peer: Peer, name: str, rights: str) -> None:
    peer(PEER + "\nmade = device.timeline(name=name)\nmade.signal(3)", name=name)
    access = None if rights == "all" else 0x8000_0000
    with extmem.open_timeline(name, device=device, access=access) as opened:
        opened.wait(3, timeout=DEADLINE)
        killer = threading.Timer(0.1, peer.kill)
        killer.start()
        with pytest.raises(errors.PeerGoneError, match=f"process {peer.pid}"):
            opened.wait(4, timeout=DEADLINE)
        killer.join()
        with pytest.raises(errors.PeerGoneError):
            opened.wait(4, timeout=DEADLINE)
        opened.wait(3, timeout=DEADLINE)
        if rights == "all":
            opened.signal(4)  # the repair: nobody waits in vain, and the mark stays
            opened.wait(4, timeout=DEADLINE)
            assert opened.peer_gone is not None and opened.repaired


def test_a_signaler_that_has_ended_before_is_noticed(device: Device, peer: Peer, name: str) -> None:
    peer(PEER + "\nmade = device.timeline(name=name)\nmade.signal(3)", name=name)
    with extmem.open_timeline(name, device=device) as opened:
        peer.kill()
        with pytest.raises(errors.PeerGoneError):
            opened.wait(4, timeout=DEADLINE)


@pytest.mark.parametrize("rights", ["all", "wait alone"])
def test_a_signaler_that_ends_normally_is_told_as_that(device: Device, peer: Peer, name: str, rights: str) -> None:
    # A variable of the peer would be closed when its function returns.
    peer(PEER + "\nimport sys\nsys.kept = made = device.timeline(name=name)\nmade.signal(3)", name=name)
    access = None if rights == "all" else 0x8000_0000
    with extmem.open_timeline(name, device=device, access=access) as opened:
        opened.wait(3, timeout=DEADLINE)
        leaver = threading.Timer(0.1, peer.leave)
        leaver.start()
        with pytest.raises(errors.PeerGoneError, match=f"process {peer.pid}, .* ended normally"):
            opened.wait(4, timeout=DEADLINE)
        leaver.join()
        told = opened.peer_gone
        assert told is not None and (told.pid, told.reached, told.closed) == (peer.pid, 3, True)


@pytest.mark.parametrize("rights", ["all", "wait alone"])
def test_others_signal_after_a_normal_end(device: Device, peer: Peer, name: str, rights: str) -> None:
    access = None if rights == "all" else 0x8000_0000
    with device.timeline(name=name) as made, extmem.open_timeline(name, device=device, access=access) as waiting:
        made.signal(1)
        peer(NAMED + "\nimport sys\nsys.kept = opened\nopened.signal(2)", name=name)
        waiting.wait(2, timeout=DEADLINE)
        leaver = threading.Timer(0.1, peer.leave)
        leaver.start()
        with pytest.raises(errors.WaitTimeoutError):
            waiting.wait(3, timeout=1)
        leaver.join()
        assert waiting.peer_gone is None
        made.signal(3)
        waiting.wait(3, timeout=DEADLINE)


def test_a_closed_timeline_ends_the_wait(device: Device, peer: Peer, name: str) -> None:
    peer(PEER + "\nmade = device.timeline(name=name)\nmade.signal(3)", name=name)
    with extmem.open_timeline(name, device=device) as opened:
        with in_peer(peer, "made.close()"), pytest.raises(errors.PeerGoneError, match="closed it"):
            opened.wait(4, timeout=DEADLINE)


def test_a_timeline_that_is_lost_ends_the_wait(device: Device, peer: Peer, name: str) -> None:
    peer(PEER + "\nmade = device.timeline(name=name)\nmade.signal(3)", name=name)
    with extmem.open_timeline(name, device=device) as opened:
        lose = "global made\ndel made\nimport gc\ngc.collect()"
        with in_peer(peer, lose), pytest.raises(errors.PeerGoneError, match="closed it"):
            opened.wait(4, timeout=DEADLINE)


def test_the_end_of_a_waiter_hurts_nobody(timeline: Timeline, peer: Peer, name: str) -> None:
    peer(NAMED, name=name)
    peer(START, source="opened.wait(5, timeout=20)")
    timeline.signal(1)
    peer.kill()
    timeline.signal(2)
    timeline.wait(2, timeout=DEADLINE)
    assert page_of(timeline).facts.state == layout.State.ALIVE


@pytest.mark.parametrize("kind", ["binary", "fence"])
def test_a_killed_signaler_of_an_event_ends_the_wait(device: Device, peer: Peer, name: str, kind: str) -> None:
    peer(PEER + "\nmade = create(device, kind, name=name)\nNone", kind=kind, name=name)
    with import_into(device, kind, name=name) as opened:
        peer("signal(device, made)")
        assert is_signaled(device, opened)
        if kind == "fence":
            device.reset_fences([opened])  # type: ignore[list-item]  # a fence
        killer = threading.Timer(0.1, peer.kill)
        killer.start()
        with pytest.raises(errors.PeerGoneError):
            if kind == "fence":
                device.wait_for_fences([opened], 20_000_000_000)  # type: ignore[list-item]  # a fence
            else:
                opened.record.native.submit_wait()
        killer.join()


def test_a_binary_signal_is_taken_once(device: Device, peer: Peer, name: str) -> None:
    peer(PEER + "\nmade = create(device, 'binary', name=name)\nNone", name=name)
    with import_into(device, "binary", name=name) as opened:
        for _ in range(20):
            signal(device, opened)
            taken = [is_signaled(device, opened), peer("is_signaled(device, made)")]
            assert sorted(taken) == [False, True]
        with pytest.raises(errors.DriverError):
            signal(device, opened)
            signal(device, opened)
        peer("made.close()")


def test_waits_for_any_and_all_hear_of_a_death(device: Device, peer: Peer, name: str) -> None:
    peer(PEER + "\nmade = device.timeline(name=name)\nmade.signal(3)", name=name)
    with device.timeline() as own, extmem.open_timeline(name, device=device) as opened:
        peer.kill()
        own.signal(1)
        assert extmem.wait_any([(opened, 9), (own, 1)], timeout=DEADLINE) == 1
        with pytest.raises(errors.PeerGoneError):
            extmem.wait_all([(own, 1), (opened, 9)], timeout=DEADLINE)
        signaler = threading.Timer(0.1, own.signal, (2,))
        signaler.start()
        assert extmem.wait_any([(opened, 9), (own, 2)], timeout=DEADLINE) == 1
        signaler.join()


def test_coroutines_hear_of_signals_and_of_a_death(device: Device, peer: Peer, name: str) -> None:
    peer(PEER + "\nmade = device.timeline(name=name)\nmade.signal(3)", name=name)

    async def waits(opened: Timeline) -> None:
        cancelled = asyncio.create_task(opened.wait_async(9))
        await opened.wait_async(3, timeout=DEADLINE)
        cancelled.cancel()
        threading.Timer(0.1, peer.kill).start()
        with pytest.raises(errors.PeerGoneError):
            await opened.wait_async(4, timeout=DEADLINE)

    with extmem.open_timeline(name, device=device) as opened:
        asyncio.run(waits(opened))


INTERRUPTED = """
import signal, sys, threading, extmem
device = extmem.open_device(kind='host')
made = device.timeline()
threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()
try:
    made.wait(1)
except KeyboardInterrupt:
    print('interrupted')
"""


def test_control_c_ends_a_wait() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "interrupted" in done.stdout, done.stderr


def test_a_page_full_of_nonsense_does_no_harm(timeline: Timeline, device: Device, name: str) -> None:
    """A process with the right to signal can write anything into it."""
    page = page_of(timeline)
    with extmem.open_timeline(name, device=device) as opened:
        page._words[:] = memoryview(os.urandom(4096)).cast("I")
        with pytest.raises((errors.ExtmemError, TimeoutError)):
            opened.wait((1 << 64) - 1, timeout=0.05)
        page._words[:] = memoryview(bytes(4096)).cast("I")


def test_a_nudge_wakes_who_sleeps_and_leaves_no_event_set(device: Device, name: str) -> None:
    with device.timeline(name=name) as timeline, timeline.use() as record:
        page = record.page
        expected = page.sequence_number
        woken: list[bool] = []
        thread = threading.Thread(target=lambda: woken.append(page.sleep(expected, time.monotonic_ns() + 60 * 10**9)))
        thread.start()
        while thread.is_alive():  # it may not sleep yet
            page.nudge()
            thread.join(0.001)
        assert woken == [True] and page.sequence_number == expected
        event = wake_events.event_of_step(page.path, expected)
        try:
            assert not waitables.take(event)
            page.nudge()
            assert not waitables.take(event)
            wake_events.nudge_step(page.path, expected, lambda: expected + 1)
            assert waitables.take(event)
        finally:
            calls.close_handle(event)
