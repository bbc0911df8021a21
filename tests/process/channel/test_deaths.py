"""What a channel's processes see when one of them is killed or stopped, at each step of a frame."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import extmem
from extmem import ChannelFullError, ChannelWriter, WriterGoneError
from extmem.errors import ReaderTooSlowError
from extmem.testing.children import Peer
from extmem.testing.waiting import wait_until
from tests.sigstop import stop
from tests.systems import on_linux

SETUP = """
import os, signal, time
import numpy as np
import extmem

def put(writer, times=1):
    for _ in range(times):
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1
    return writer.count

def die(*_):
    os.kill(os.getpid(), 9)  # SIGKILL; TerminateProcess on Windows

def die_at(writer, step):
    # Ends the process at a step of the next frame.
    call, ring = writer._call, writer._ring
    releases = [slot.unlocking for slot in writer._slots]
    if step == "before the lock":
        writer._call = die
    elif step == "with the lock":
        writer._made = die
        writer._numbers = Dying(writer._numbers, 0)
    elif step == "before the number":
        writer._numbers = Dying(writer._numbers, 1)
    elif step == "before the table":
        writer._table = Dying(writer._table, 0)
    elif step == "before the release":
        writer._call = lambda *arguments: die() if arguments in releases else call(*arguments)
    elif step == "before the count":
        writer._values = Dying(writer._values, 0)
    elif step == "before the wake":
        writer._ring = die
    else:
        writer._ring = lambda bell: (ring(bell), die())

class Dying:
    # Ends the process at a store.
    def __init__(self, words, after):
        self.words, self.after = words, after
    def __getitem__(self, index):
        return self.words[index]
    def __setitem__(self, index, value):
        if not self.after:
            die()
        self.after -= 1
        self.words[index] = value

def create(name, **options):
    return extmem.create_channel(name, 1 << 16, "uint64", **options)
"""
_FEW = "processes start slowly on Windows, which has the other steps"
STEPS = (
    on_linux("before the lock", reason=_FEW),
    "with the lock",
    on_linux("before the number", reason=_FEW),
    on_linux("before the table", reason=_FEW),
    on_linux("before the release", reason=_FEW),
    on_linux("before the count", reason=_FEW),
    on_linux("before the wake", reason=_FEW),
    "after the wake",
)


@pytest.fixture
def start() -> Iterator[Callable[[], Peer]]:
    with ExitStack() as stack:

        def started() -> Peer:
            peer = stack.enter_context(Peer())
            peer(SETUP)
            return peer

        yield started


def kill(peer: Peer) -> int:
    peer.process.kill()
    peer.process.wait()
    return peer.pid


def whole(frame: extmem.Frame) -> bool:
    """Whether each element has the number of the frame."""
    array = frame.numpy()
    return bool((array == frame.number).all())


def put(writer: ChannelWriter, times: int = 1) -> None:
    for _ in range(times):
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1


def create(name: str, **options: object) -> ChannelWriter:
    return extmem.create_channel(name, 1 << 16, "uint64", **options)  # type: ignore[arg-type]


@pytest.mark.slow("kills a process for each step")
@pytest.mark.parametrize("step", STEPS)
def test_a_writer_killed_at_any_step_leaves_whole_frames_and_the_next_goes_on(
    start: Callable[[], Peer], name: str, step: str
) -> None:
    peer = start()
    # One slot for the frame that is kept, one for that of the loop, one for the newest, and one to write.
    peer("writer = create(name, slots=4); put(writer, 6)", name=name)
    with extmem.open_channel(name, every=True, start="oldest", max_held=3) as reader:
        first = reader.read().hold()
        assert (first.number, whole(first)) == (3, True)
        peer.start(f"die_at(writer, {step!r}); put(writer)")
        found = []
        with pytest.raises(WriterGoneError, match=rf"process {peer.pid}.*without closing"):
            while True:
                frame = reader.read(timeout=20)
                assert whole(frame)
                found.append(frame.number)
        done = step in ("before the wake", "after the wake")
        # The slot that is being written may have a frame that this reader had not read yet.
        assert found == sorted(set(found)) and found[-1] == 6 + done
        assert len(found) >= found[-1] - found[0]
        with create(name, slots=4) as writer:
            assert writer.count == 6 + done
            put(writer, 4)
            assert whole(first)
            assert [whole(frame) and frame.number for frame in iter(reader.poll, None)][-1] == writer.count
            first.release()
            put(writer, 4)
            assert {writer.write().slot for _ in range(2)} <= {0, 1, 2, 3}


@pytest.mark.slow("kills a process for each step")
@pytest.mark.parametrize("step", ["before the count", "before the wake"])
def test_a_reader_that_sleeps_is_woken_when_the_writer_is_killed_between_the_count_and_the_wake(
    start: Callable[[], Peer], name: str, step: str
) -> None:
    writer, reader = start(), start()
    writer("writer = create(name)", name=name)
    reader("reader = extmem.open_channel(name, reconnect=True)", name=name)
    reader.start("reader.read(timeout=60).number")
    writer.start(f"die_at(writer, {step!r}); put(writer)")
    writer.process.wait(20)
    if step == "before the count":  # nobody can know of the frame; its number is that of the next writer's first one
        with create(name) as following:
            put(following)
            assert reader.finish(deadline=20) == 1
    else:
        assert reader.finish(deadline=20) == 1


@pytest.mark.slow("kills processes")
def test_a_waiting_reader_is_told_of_the_killed_writer(start: Callable[[], Peer], name: str) -> None:
    writer, reader = start(), start()
    writer("writer = create(name)", name=name)
    reader("reader = extmem.open_channel(name)", name=name)
    reader.start("reader.read()")
    pid = kill(writer)
    with pytest.raises(AssertionError, match=rf"WriterGoneError.*process {pid}\) ended without closing"):
        reader.finish()


@pytest.mark.slow("kills processes")
def test_a_slot_of_a_killed_holder_is_free_at_the_next_write(start: Callable[[], Peer], name: str) -> None:
    peer = start()
    with create(name, slots=2, when_full="raise") as writer:
        peer("reader = extmem.open_channel(name)", name=name)
        put(writer)
        peer("frame = reader.read().hold()")
        put(writer)
        with pytest.raises(ChannelFullError, match=f"process {peer.pid} holds frame 1"):
            writer.write()
        kill(peer)
        put(writer, 3)
        wait_until(lambda: not writer.info.readers, "the reader to be forgotten")


@pytest.mark.slow("kills processes")
def test_a_killed_reliable_reader_does_not_keep_the_writer(start: Callable[[], Peer], name: str) -> None:
    peer = start()
    with create(name, slots=3, when_full="wait", timeout=30) as writer:
        peer("reader = extmem.open_channel(name, every=True, reliable=True)", name=name)
        put(writer, 3)
        peer.process.kill()
        put(writer, 5)
        peer.process.wait()


@pytest.mark.slow("stops processes")
@pytest.mark.linux_only("Windows has no signal that stops a process")
def test_a_stopped_reader_keeps_its_slot_alone(start: Callable[[], Peer], name: str) -> None:
    peer = start()
    with create(name, slots=3, when_full="raise") as writer:
        peer("reader = extmem.open_channel(name)", name=name)
        put(writer)
        peer("frame = reader.read()")
        stop(peer.pid)
        put(writer, 9)
        with extmem.open_channel(name) as reader:
            frame = reader.read()
            assert whole(frame)
            with pytest.raises(ChannelFullError, match=rf"process {peer.pid} holds frame 1 in slot \d for \d+\.\d+ s"):
                put(writer, 2)
        os.kill(peer.pid, signal.SIGCONT)
        assert peer("int(frame.numpy()[0])") == 1


@pytest.mark.slow("stops processes")
@pytest.mark.linux_only("Windows has no signal that stops a process")
def test_a_stopped_reliable_reader_is_named(start: Callable[[], Peer], name: str) -> None:
    peer = start()
    with create(name, slots=3, when_full="wait", timeout=0.05) as writer:
        peer("reader = extmem.open_channel(name, every=True, reliable=True)", name=name)
        stop(peer.pid)
        with pytest.raises(ReaderTooSlowError, match=rf"process {peer.pid}, a reliable reader, has read up to frame 0"):
            put(writer, 5)
        os.kill(peer.pid, signal.SIGCONT)


@pytest.mark.slow("stops processes")
@pytest.mark.linux_only("Windows has no signal that stops a process")
def test_a_stopped_writer_is_late_and_not_dead(start: Callable[[], Peer], name: str) -> None:
    peer = start()
    peer("writer = create(name); put(writer)", name=name)
    with extmem.open_channel(name) as reader:
        stop(peer.pid)
        assert reader.read(timeout=5).number == 1
        with pytest.raises(TimeoutError, match=rf"process {peer.pid}, which has not ended\) is frame 1, \d"):
            reader.read(timeout=0.6)
        os.kill(peer.pid, signal.SIGCONT)
        peer("put(writer)")
        assert reader.read(timeout=5).number == 2


@pytest.mark.slow("stops processes")
@pytest.mark.linux_only("Windows has no signal that stops a process")
@pytest.mark.parametrize("step", ["with the lock", "before the release", "before the count", "before the wake"])
def test_a_writer_stopped_in_a_frame_hurts_no_reader(start: Callable[[], Peer], name: str, step: str) -> None:
    peer = start()
    peer("writer = create(name); put(writer, 2); die = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)", name=name)
    with extmem.open_channel(name, every=True, start="oldest") as reader:
        peer.start(f"die_at(writer, {step!r}); put(writer)")
        wait_until(lambda: "T" in _state(peer.pid), "the writer to stop")
        published = 3 if step == "before the wake" else 2
        assert [whole(frame) and frame.number for frame in iter(reader.poll, None)] == list(range(1, published + 1))
        with pytest.raises(TimeoutError):
            reader.read(timeout=0)
    kill(peer)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0]


STORM = """
def storm(name):
    writer = create(name, slots=4)
    while True:
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1
"""
KILLS, READERS, SECONDS = (8, 2, 6.0) if sys.platform == "linux" else (1, 1, 3.0)
READ_STORM = """
def check(name, number):
    torn = checked = 0
    with extmem.open_channel(name, timeout=30, every=bool(number % 2), reconnect=True) as reader:
        end = time.monotonic() + seconds
        while time.monotonic() < end or checked <= 20:  # there is a writer in the end
            try:
                frame = reader.read(timeout=2)
            except TimeoutError:
                continue
            array = frame.numpy()
            first = int(array[0])
            time.sleep(0.002)
            torn += not (first == frame.number and (array == frame.number).all())
            checked += 1
            del array
    return torn, checked
"""


@pytest.mark.slow("kills a writer again and again, for seconds")
def test_no_frame_is_torn_while_writers_and_holders_are_killed(start: Callable[[], Peer], name: str) -> None:
    readers = [start() for _ in range(READERS)]
    keeper = start()
    writer = start()
    writer(STORM)
    writer.start("storm(name)", name=name)
    keeper("reader = extmem.open_channel(name, timeout=30, reconnect=True)", name=name)
    for number, reader in enumerate(readers):
        reader(READ_STORM)
        reader.start("check(name, number)", name=name, number=number, seconds=SECONDS)
    for _ in range(KILLS):
        wait_until(lambda: keeper("reader.read(timeout=5).number") > 0, "frames")
        kill(writer)
        writer = start()
        writer(STORM)
        writer.start("storm(name)", name=name)
        holder = start()
        holder("reader = extmem.open_channel(name, timeout=30); frame = reader.read(timeout=10).hold()", name=name)
        kill(holder)
    results = [reader.finish(deadline=60) for reader in readers]
    assert [torn for torn, _ in results] == [0] * READERS
    assert all(checked > 20 for _, checked in results), results
    kill(writer)
    with create(name, slots=4, when_full="raise") as last:
        put(last, 10)
