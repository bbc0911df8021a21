"""Forks: what a child does at the end of its parent's channels, frames and arrays changes nothing for anybody."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable

import pytest

import extmem
from extmem import ChannelWriter, HandleStateError
from extmem.channel import turns

pytestmark = pytest.mark.linux_only("Windows has no fork")
DEADLINE = 20


def created(name: str) -> ChannelWriter:
    return extmem.create_channel(name, 8, slots=2, when_full="raise")


def in_child(run: Callable[[], object]) -> str:
    """What the function returned in a forked child, or the error that it raised; empty if the child was killed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(DEADLINE)
        try:
            said = repr(run())
        except (extmem.ExtmemError, OSError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
        os.write(theirs, said.encode()[:4000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answers:
        found = answers.read().decode()
    os.waitpid(child, 0)
    return found


def put(writer: ChannelWriter, byte: int) -> None:
    with writer.write() as frame:
        frame.numpy()[:] = byte


def test_a_child_that_leaves_the_blocks_of_its_parent_changes_nothing(name: str) -> None:
    with created(name) as writer, extmem.open_channel(name, every=True, max_held=2) as reader:
        put(writer, 1)
        held = reader.read().hold()

        for use in (writer.write, reader.poll, held.__enter__, held.hold, held.numpy, held.view):
            assert "forked child" in in_child(use)

        def ends() -> object:
            held.__exit__(None, None, None)
            held.release()
            for side in (reader, writer):
                side.__exit__(None, None, None)
                side.close()
            gc.collect()
            return held.released, reader.closed, writer.closed

        assert in_child(ends) == "(True, True, True)"
        assert not held.released and int(held.numpy()[0]) == 1
        assert [one.number for one in writer.info.readers[0].held] == [1]
        assert writer.info.state == "alive"
        put(writer, 2)
        with pytest.raises(extmem.ChannelFullError):  # the frame is held as before
            put(writer, 3)
        held.release()
        assert reader.read(timeout=5).number == 2
        put(writer, 3)
        assert reader.read(timeout=5).number == 3


def test_a_frame_that_is_being_written_is_the_parents(name: str) -> None:
    with created(name) as writer, extmem.open_channel(name) as reader, writer.write() as frame:
        frame.numpy()[:] = 5

        def ends() -> object:
            frame.discard()
            frame.__exit__(None, None, None)
            return frame.released

        assert in_child(ends) == "True"
        for use in (frame.publish, frame.numpy, frame.view):
            assert "forked child" in in_child(use)
        assert not frame.released
        assert reader.poll() is None
        frame.publish()
        assert reader.read(timeout=5).tobytes() == b"\x05" * 8


@pytest.mark.parametrize("end", ["release", "close", "collect", "array"])
def test_a_channel_that_the_child_opens_keeps_its_slots(name: str, end: str) -> None:
    """Whichever fd it gets: the inherited one must not be an fd of another file in the child."""
    writer = created(name)
    reader = extmem.open_channel(name, max_held=2)
    put(writer, 1)
    frame = reader.read().hold()
    array = frame.numpy() if end == "array" else None
    inherited = reader._control.locks._fd
    ours = os.fstat(inherited).st_ino
    go_on, their_go_on = os.pipe()
    ready, their_ready = os.pipe()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(DEADLINE)
        code = 1
        try:
            is_taken = os.fstat(inherited).st_ino != ours
            own = extmem.open_channel(name)
            mine = own.read(timeout=5)
            before = mine.numpy().tolist()
            if end == "release":
                frame.release()
            elif end == "close":
                reader.close()
            else:
                array = None
                del frame, reader
                gc.collect()
            os.write(their_ready, b"1")
            os.read(go_on, 1)
            same = own._control.locks._fd == inherited
            code = 0 if (mine.numpy().tolist(), mine.number, same, is_taken) == (before, 1, False, True) else 2
        finally:
            os._exit(code)
    os.close(their_ready)
    assert os.read(ready, 1) == b"1"
    del array
    frame.release()
    reader.close()
    put(writer, 2)
    with pytest.raises(extmem.ChannelFullError):
        put(writer, 3)  # the child holds frame 1
    os.write(their_go_on, b"1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.close()
    for fd in (go_on, their_go_on, ready):
        os.close(fd)


def test_a_child_ends_channels_of_which_another_thread_had_the_turn(name: str) -> None:
    with created(name) as writer, extmem.open_channel(name) as reader:
        began, end = threading.Event(), threading.Event()

        def have_turns() -> None:
            mine = [{turns.THREAD: threading.get_ident()} for _ in range(2)]
            for side, turn in zip((reader, writer), mine, strict=True):
                side._turns.begin(turn)
            began.set()
            end.wait(DEADLINE)
            for turn in mine:
                turn[turns.ENDED] = True

        thread = threading.Thread(target=have_turns)
        thread.start()
        assert began.wait(DEADLINE)
        assert in_child(lambda: [reader.close(), writer.close()]) == "[None, None]"
        end.set()
        thread.join()
        assert writer.info.state == "alive"
        with pytest.raises(HandleStateError):
            raise writer.refusal("of the parent itself")
