"""Waits for names in the broker: their pipes are charged, and nothing is left where one cannot be made."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from extmem import wire
from extmem.objects import Refused, Status
from tests.unit.broker.test_open_cache import World

AWAIT = wire.AwaitName("later", 0x80000000, 1)


@pytest.fixture
def world() -> Iterator[World]:
    made = World(quick=False)
    yield made
    made.close()


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_pipe_is_charged_until_the_wait_ends(world: World) -> None:
    session = world.sessions[0]
    used, before = world.quota.used, fds()
    reply, (theirs,) = world.dispatch.answer(session, AWAIT, ())
    assert isinstance(reply, wire.Awaited) and world.quota.used == used + 1
    os.close(theirs)
    with pytest.raises(Refused) as refusal:
        world.dispatch.answer(session, wire.EndWait(reply.number), ())
    assert refusal.value.status is Status.OBJECT_NAME_NOT_FOUND
    assert (world.quota.used, fds()) == (used, before)


def test_the_pipe_tells_once_that_the_name_is_there(world: World) -> None:
    _, (theirs,) = world.dispatch.answer(world.sessions[0], AWAIT, ())
    os.set_blocking(theirs, False)
    with pytest.raises(BlockingIOError):
        os.read(theirs, 9)
    world.export(0, "later", None)
    world.dispatch.collect()
    world.dispatch.collect()
    assert os.read(theirs, 9) == b"!"
    os.close(theirs)
    world.dispatch.end_waits(world.sessions[0].process)


def no_pipe(*arguments: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")


@pytest.mark.parametrize("fails", ["pipe", "watch", "quota"])
def test_where_no_pipe_can_be_made_nothing_is_left(world: World, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session, used, before = world.sessions[0], world.quota.used, fds()
    dispatch: Any = world.dispatch
    if fails == "pipe":
        monkeypatch.setattr(os, "pipe2", no_pipe)
    elif fails == "watch":
        dispatch.loop = msgspec.structs.replace(dispatch.loop, attend=no_pipe)
    else:
        world.quota.limit = world.quota.reserve
    with pytest.raises(Refused) as refusal:
        dispatch.answer(session, AWAIT, ())
    quota = refusal.value.status is Status.QUOTA_EXCEEDED
    assert quota if fails == "quota" else refusal.value.status is Status.INSUFFICIENT_RESOURCES
    assert (world.model.wait_count(), world.quota.used, fds()) == (0, used, before)


def test_an_event_of_a_pipe_that_is_open_does_not_end_its_wait(world: World) -> None:
    """The loop may report an event of an earlier pipe with the same number."""
    dispatch: Any = world.dispatch
    ended: list[Callable[[], None]] = []
    dispatch.loop = msgspec.structs.replace(dispatch.loop, attend=lambda fd, action: ended.append(action))
    _, (theirs,) = dispatch.answer(world.sessions[0], AWAIT, ())
    ended[0]()
    assert world.model.wait_count() == 1
    os.close(theirs)
    ended[0]()
    assert world.model.wait_count() == 0
    ended[0]()


def test_the_time_of_what_was_opened_again_begins_anew(world: World) -> None:
    dispatch: Any = world.dispatch
    now = 0.0
    dispatch._now = lambda: now
    ended: list[int] = []
    dispatch.model.end_time = ended.append
    unused = [[(7, 1000)], [(7, 1000)]]
    dispatch.model._unused = unused[0]
    dispatch.collect()
    now = 0.5
    dispatch.model._unused = unused[1]
    dispatch.collect()
    dispatch.end_times(1.0)
    assert ended == []
    dispatch.end_times(1.5)
    assert ended == [7]
