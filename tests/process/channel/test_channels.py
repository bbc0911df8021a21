"""Channels between processes: frames, rights, pickles, forks, a broker that is killed, a page that cannot be true."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from typing import Any

import pytest

import extmem
from extmem import ChannelCorruptError, ChannelFullError, ChannelWriter, HandleStateError
from extmem.sharing.channel_page import Words
from extmem.testing.children import Child, Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until


def put(writer: ChannelWriter, times: int = 1) -> None:
    for _ in range(times):
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1


def test_frames_pass_between_processes_and_a_reader_waits_for_the_name(peer: Peer, name: str) -> None:
    peer.start(
        """
import extmem
with extmem.open_channel(name, timeout=20, every=True, reliable=True) as channel:
    found = [(frame.number, int(frame.numpy().sum()), frame.meta) for frame in channel]
found
""",
        name=name,
    )
    with extmem.create_channel(name, 8, "int64", when_full="wait", timeout=20) as writer:
        wait_until(lambda: bool(writer.info.readers), "the reader to come")
        (reader,) = writer.info.readers
        assert (reader.pid, reader.every, reader.reliable) == (peer.pid, True, True)
        for number in range(1, 21):
            with writer.write() as frame:
                frame.numpy()[:] = number
                frame.meta = bytes([number])
        wait_until(lambda: writer.info.readers[0].cursor == 20, "the frames to be read")
    found = peer.finish()
    assert found == [(number, 8 * number, bytes([number])) for number in range(found[0][0], 21)]


@pytest.mark.linux_only("by file descriptors; windows/test_channels.py has the rights of handles")
def test_N12_the_kernel_keeps_a_reader_from_writing(peer: Peer, name: str) -> None:
    with extmem.create_channel(name, 8) as writer:
        put(writer)
        refusals = peer(
            """
import mmap, os
import extmem
from extmem.devices.host.range_locks import Range
channel = extmem.open_channel(name)
frame = channel.read(timeout=5)
refused = []
def refuses(call, *arguments):
    try:
        call(*arguments)
    except (OSError, ValueError, TypeError, extmem.AccessDeniedError) as error:
        refused.append(type(error).__name__)
    else:
        refused.append("allowed")
refuses(mmap.mmap, channel.control._imported.payload.fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE)
refuses(os.pwrite, channel.control._imported.payload.fd, b"x", 0)
refuses(channel.control.locks.try_exclusive, Range(1 << 40))
refuses(channel.frames_page.raise_to, 100)
refuses(os.pwrite, frame.memory.record.allocation.fd, b"x", 0)
refuses(frame.numpy().fill, 1)
refuses(channel.control.numbers.__setitem__, 0, 9)
refused
""",
            name=name,
        )
        assert "allowed" not in refusals and len(refusals) == 7
        assert writer.count == 1


@pytest.mark.slow("starts children that import everything anew")
def test_a_pickled_channel_is_received_as_a_reader(name: str) -> None:
    context = multiprocessing.get_context("spawn")
    with extmem.create_channel(name, 8, "int64") as writer, extmem.open_channel(name, every=True) as reader:
        put(writer)
        for channel, every in ((writer, False), (reader, True)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_receive, args=(channel, theirs))
            process.start()
            theirs.close()
            assert ours.recv() == (name, every, 1, 8)
            process.join(30)
            assert process.exitcode == 0


def _receive(channel: Any, pipe: Any) -> None:
    with channel:
        frame = channel.read(timeout=10)
        pipe.send((channel.name, channel.every, frame.number, int(frame.numpy().sum())))
    pipe.close()


def test_a_pickle_of_a_channel_that_is_gone_is_a_closed_reader(name: str) -> None:
    with extmem.create_channel(name, 8) as writer:
        data = pickle.dumps(writer)
        first = pickle.loads(data)
        assert first.count == 0
        first.close()
        again = pickle.loads(data)
        with pytest.raises(HandleStateError, match="could not be received"):
            again.read()
        again.close()
        frame = writer.write()
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(frame)
        frame.discard()


@pytest.mark.linux_only("Windows has no fork")
def test_a_forked_child_may_not_use_the_channels_of_its_parent(name: str) -> None:
    with extmem.create_channel(name, 8) as writer, extmem.open_channel(name) as reader:
        put(writer)
        frame = reader.read()
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            refused = 0
            for use in (reader.poll, reader.read, writer.write, lambda: reader.info, lambda: writer.count):
                try:
                    use()
                except HandleStateError:
                    refused += 1
            os.write(theirs, bytes([refused]))
            os._exit(0)
        assert os.read(ours, 1) == b"\x05"
        assert os.waitpid(child, 0)[1] == 0
        os.close(ours)
        os.close(theirs)
        assert int(frame.numpy()[0]) == 1
        put(writer, 5)
        assert reader.read().number == 6


@pytest.mark.slow("starts and ends brokers")
@pytest.mark.linux_only("the broker is Linux's object manager; Windows has one in its kernel")
def test_a_channel_goes_on_without_its_broker(own_runtime: Runtime, name: str) -> None:
    environment = own_runtime.environment
    with Peer(env=environment) as writer, Peer(env=environment) as reader:
        writer(_PUT)
        writer("writer = extmem.create_channel(name, 8, 'int64', slots=3)", name=name)
        reader("import extmem; reader = extmem.open_channel(name, every=True)", name=name)
        os.kill(writer("extmem.manager.manager().status().pid"), signal.SIGKILL)
        writer("put(writer, 2)")
        assert reader("[reader.read(timeout=10).number for _ in range(2)]") == [1, 2]
        with Peer(env=environment) as late:
            late("import extmem; late = extmem.open_channel(name, timeout=20)", name=name)
            writer("put(writer)")
            assert late("late.read(timeout=10).number") == 3
            late("late.close()")
        writer("writer.close()")
        assert reader("[frame.number for frame in reader]") == [3]


@pytest.mark.linux_only("the broker is Linux's object manager; Windows has one in its kernel")
@pytest.mark.slow("starts and ends brokers, and waits for what nobody can tell")
def test_a_reader_finds_out_when_writer_and_broker_are_killed_together(own_runtime: Runtime, name: str) -> None:
    environment = own_runtime.environment
    with Peer(env=environment) as writer, Peer(env=environment) as reader:
        writer(_PUT)
        writer("writer = extmem.create_channel(name, 8, 'int64', slots=3)", name=name)
        reader("import extmem; reader = extmem.open_channel(name)", name=name)
        broker = writer("extmem.manager.manager().status().pid")
        reader.start("reader.read()")
        for pid in (broker, writer.pid):
            os.kill(pid, signal.SIGKILL)
        writer.process.wait()
        with pytest.raises(AssertionError, match="WriterGoneError.*ended without closing"):
            reader.finish(deadline=30)


_PUT = """
import extmem, extmem.manager
def put(writer, times=1):
    for _ in range(times):
        with writer.write() as frame:
            frame.numpy()[:] = writer.count + 1
"""


@pytest.mark.parametrize("damage", ["slot", "meta", "epoch", "slots", "limits", "magic"])
def test_a_page_that_cannot_be_true_is_an_error_of_this_channel_alone(name: str, damage: str) -> None:
    with extmem.create_channel(name, 8) as writer, extmem.create_channel(f"{name}.other", 8) as other:
        with extmem.open_channel(name) as reader, extmem.open_channel(f"{name}.other") as fine:
            put(writer)
            assert reader.read().number == 1
            put(writer)
            page = writer.control
            if damage == "slot":
                page.table[2 % page.layout.entries] = 1 << 31
            elif damage == "meta":
                page.sizes[page.table[2 % page.layout.entries]] = 300
            elif damage == "epoch":
                page.words64[Words.EPOCH] = 7
                page.words[Words.SLOTS] = 1 << 20
            elif damage == "slots":
                page.words[Words.SLOTS] = 0
                page.words64[Words.EPOCH] = 7
            elif damage == "limits":
                page.words[3] = 1 << 30
                page.words64[Words.EPOCH] = 7
            else:
                page.words64[0] = 0
                page.words64[Words.EPOCH] = 7
            with pytest.raises(ChannelCorruptError, match=name):
                reader.read(timeout=1)
            put(other)
            assert fine.read(timeout=5).number == 1
            if damage not in ("slot", "meta"):
                with pytest.raises(ChannelCorruptError):
                    extmem.open_channel(name)


def test_a_child_that_executes_a_program_does_not_keep_locks(name: str) -> None:
    with extmem.create_channel(name, 8, slots=2, when_full="raise") as writer:
        with extmem.open_channel(name) as reader, Child.python("import sys; sys.stdin.read()") as child:
            put(writer)
            reader.read()
            assert child.alive
            reader.close()
            put(writer, 4)
            child.kill()


@pytest.mark.linux_only("Windows does not tell which processes have a name open")
def test_a_full_ring_names_the_process_whose_arrays_have_outlived_its_reader(peer: Peer, name: str) -> None:
    with extmem.create_channel(name, 8, "int64", slots=2, when_full="raise") as writer:
        put(writer)
        peer(
            "import extmem; reader = extmem.open_channel(name); array = reader.read(timeout=10).numpy(); "
            "reader.close(); del reader",
            name=name,
        )
        put(writer)
        with pytest.raises(ChannelFullError, match=rf"arrays of a reader that is closed.*process {peer.pid}"):
            put(writer)
        peer("del array")
        put(writer)
