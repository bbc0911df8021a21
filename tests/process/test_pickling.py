"""Memory and handles are sent through `multiprocessing` (spawn) in every way that it has, and leak in none."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import extmem
from extmem import errors
from extmem.api import Device, DeviceMemory
from extmem.manager import manager
from extmem.testing.leaks import object_manager
from extmem.testing.waiting import DEADLINE, wait_until
from extmem.vk import SecurityAttributes
from tests.behaviours.platforms import FD_TYPES
from tests.behaviours.steps import FD, KMT, W32, export, get, put
from tests.process import workers

spawn = multiprocessing.get_context("spawn")


@pytest.fixture
def things(device: Device) -> Iterator[dict[str, Any]]:
    """One of each: memory, an NT handle with read access only, a KMT number and an fd."""
    memory, numbered = export(device), export(device, types=KMT)
    described = [export(device, types=kind) for kind in FD_TYPES]
    for one in (memory, numbered, *described):
        put(one, b"sent")
    handle = memory.export_handle(W32)
    reading = handle.duplicate(access=0x8000_0000, inherit=True)  # type: ignore[call-arg, union-attr]  # an NtHandle
    found: dict[str, Any] = {
        "memory": memory,
        "nt": reading,
        "kmt": numbered.export_handle(KMT),
    }
    for one in described:
        found["fd"] = one.export_handle(FD)
    yield found
    for thing in (*found.values(), handle, numbered, *described):
        thing.close()


def expected(kind: str, thing: Any) -> tuple[Any, ...]:
    return {
        "memory": ("memory", b"sent", False, False),
        "nt": ("nt", b"sent", 0x20000, False),
        "kmt": ("kmt", b"sent", int(thing) if kind == "kmt" else 0),
        "fd": ("fd", b"sent", True, False),
    }[kind]


def joined(process: Any) -> None:
    process.join(DEADLINE)
    alive = process.is_alive()
    if alive:
        process.kill()
        process.join()
    assert not alive and process.exitcode == 0
    process.close()


def test_as_process_arguments_with_answers_through_a_queue(things: dict[str, Any]) -> None:
    answers = spawn.Queue()
    for kind, thing in things.items():
        process = spawn.Process(target=workers.look, args=(thing, answers))
        process.start()
        assert answers.get(timeout=DEADLINE) == expected(kind, thing)
        joined(process)
    answers.close()
    answers.join_thread()


def test_over_a_pipe_and_back(things: dict[str, Any]) -> None:
    for kind in ("memory", "nt"):
        here, there = spawn.Pipe()
        process = spawn.Process(target=workers.echo, args=(there,))
        process.start()
        there.close()
        here.send(things[kind])
        assert here.poll(DEADLINE)
        assert here.recv() == expected(kind, things[kind])
        back = here.recv()
        here.send("thanks")
        assert workers.describe(back) == expected(kind, things[kind])
        back.close()
        joined(process)
        here.close()


def test_through_a_queue(things: dict[str, Any]) -> None:
    questions, answers = spawn.Queue(), spawn.Queue()
    process = spawn.Process(target=_from_queue, args=(questions, answers, len(things)))
    process.start()
    for thing in things.values():
        questions.put(thing)
    for kind, thing in things.items():
        assert answers.get(timeout=DEADLINE) == expected(kind, thing)
    joined(process)
    for queue in (questions, answers):
        queue.close()
        queue.join_thread()


@pytest.mark.parametrize("what", ["memory", "a handle"])
def test_what_is_closed_before_a_queue_pickles_it_is_not_sent_and_nothing_is_lost(
    device: Device, name: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The queue's thread is busy with earlier items, more than a pipe holds; it reports what it could not send."""
    queue, before = spawn.Queue(), bytes(4 << 20)
    memory = export(device, name=name)
    handle = memory.export_handle(W32)
    queue.put(before)
    queue.put(memory if what == "memory" else handle)
    handle.close()
    memory.close()
    with export(device, name=name) as other:  # the name is free
        put(other, b"sent")
        queue.put(other)
        assert queue.get(timeout=DEADLINE) == before
        with queue.get(timeout=DEADLINE) as received:
            assert get(received) == b"sent"
    queue.close()
    queue.join_thread()
    assert "HandleStateError" in capsys.readouterr().err


def _from_queue(questions: Any, answers: Any, count: int) -> None:
    for _ in range(count):
        workers.look(questions.get(), answers)


def test_through_pools(things: dict[str, Any], device: Device) -> None:
    with spawn.Pool(1) as pool:
        for kind, thing in things.items():
            assert pool.apply_async(workers.describe_and_close, (thing,)).get(DEADLINE) == expected(kind, thing)
        assert pool.apply_async(workers.write, (things["memory"], b"pool")).get(DEADLINE) > 0
        assert get(things["memory"]) == b"pool"
        pool.close()
        pool.join()
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        assert executor.submit(workers.write, things["memory"], b"next").result(DEADLINE) > 0
        assert get(things["memory"]) == b"next"
        with export(device, security=SecurityAttributes("D:(A;;GR;;;OW)")) as closed_to_writing:
            handle = closed_to_writing.export_handle(W32)
            assert isinstance(handle, extmem.NtHandle)
            with handle, handle.duplicate(access=0x8000_0000) as weaker, extmem.open(weaker) as reading:
                assert reading.read_only
                assert executor.submit(workers.try_to_write, reading).result(DEADLINE) == "TypeError"


def unpickled_here(make: Callable[[], DeviceMemory]) -> None:
    with make() as memory:
        put(memory, b"self")
        with pickle.loads(pickle.dumps(memory)) as other:
            assert other is not memory and get(other) == b"self"


def test_within_one_process_a_pickle_is_an_import(device: Device, name: str) -> None:
    unpickled_here(lambda: export(device))
    unpickled_here(lambda: export(device, name=name))
    unpickled_here(lambda: export(device, types=KMT))
    for kind in FD_TYPES:
        unpickled_here(functools.partial(export, device, types=kind))
    unpickled_here(lambda: device.allocate((4, 4), "float32"))


def test_a_ticket_is_good_once(device: Device) -> None:
    with export(device) as memory:
        text = pickle.dumps(memory)
        pickle.loads(text).close()
        again = pickle.loads(text)
        with pytest.raises(errors.InvalidHandleError, match="once"):
            again.map()


def test_an_array_arrives_as_an_array(device: Device) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    with device.allocate((3, 5), "int32") as memory:
        memory.numpy()[:] = numpy.arange(15).reshape(3, 5)
        with pickle.loads(pickle.dumps(memory)) as other:
            assert other.numpy().shape == (3, 5) and int(other.numpy()[2, 4]) == 14


def test_a_closed_thing_cannot_be_pickled(device: Device) -> None:
    memory = export(device)
    handle = memory.export_handle(W32)
    handle.close()
    memory.close()
    for thing in (memory, handle):
        with pytest.raises(errors.HandleStateError, match="closed"):
            pickle.dumps(thing)


def test_a_child_killed_before_it_unpickles_leaks_nothing(device: Device) -> None:
    """Killed while its interpreter starts: what was in flight to it is released at once, not after a minute."""
    with export(device) as memory:
        handle = memory.export_handle(W32)
        before = object_manager()
        process = spawn.Process(target=workers.never, args=((memory, handle),))
        process.start()
        process.kill()
        process.join()
        process.close()
        wait_until(lambda: object_manager() == before, lambda: f"{before} again; it is {object_manager()}")
        handle.close()


def test_what_nobody_received_ends_with_its_sender(peer: Any) -> None:
    peer("from tests.behaviours.steps import *\nimport pickle\ndevice = extmem.open_device()")
    peer("memory = export(device)\ntexts = [pickle.dumps(memory) for _ in range(20)]\nmemory.close()")
    assert [row for row in manager().snapshot() if row.holders[0].pid == peer.pid]
    peer.kill()
    wait_until(
        lambda: not [row for row in manager().snapshot() if any(h.pid == peer.pid for h in row.holders)],
        "the tickets of a dead sender to end",
    )
