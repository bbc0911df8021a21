"""Handles that others put into a process's table count against those others, until the process uses them."""

from __future__ import annotations

import pytest

from extmem.objects import GENERIC_ALL, Status
from tests.unit.objects.world import World, refused, small


def give(world: World, handle: int, giver: int | None = None) -> int:
    return world.m.duplicate(world.a if giver is None else giver, handle, target=world.b, desired=None)


@pytest.fixture
def world() -> World:
    made = small(handles=4)
    made.export("frames")
    return made


@pytest.fixture
def handle(world: World) -> int:
    return world.m.open_handle(world.a, "frames", GENERIC_ALL)


def test_a_full_table_of_others_is_room_for_ones_own(world: World, handle: int) -> None:
    for _ in range(4):
        give(world, handle)
    with refused(Status.QUOTA_EXCEEDED, "put 4 handles into other processes"):
        give(world, handle)
    own = [world.m.open_handle(world.b, "frames", GENERIC_ALL) for _ in range(4)]
    with refused(Status.QUOTA_EXCEEDED, "4 handles open"):
        world.m.open_handle(world.b, "frames", GENERIC_ALL)
    world.m.close_handle(world.b, own[0])
    assert world.m.open_handle(world.b, "frames", GENERIC_ALL)


def test_what_is_closed_or_used_counts_against_the_giver_no_more(world: World, handle: int) -> None:
    values = [give(world, handle) for _ in range(4)]
    world.m.close_handle(world.b, values[0])
    world.m.take_over(world.b, values[1])
    world.m.take_over(world.b, values[1])
    for _ in range(2):
        values.append(give(world, handle))
    with refused(Status.QUOTA_EXCEEDED):
        give(world, handle)
    for _ in range(3):
        world.m.open_handle(world.b, "frames", GENERIC_ALL)
    with refused(Status.QUOTA_EXCEEDED):
        world.m.open_handle(world.b, "frames", GENERIC_ALL)


def test_a_full_table_takes_nothing_over_and_can_still_use_it(world: World, handle: int) -> None:
    given = give(world, handle)
    for _ in range(4):
        world.m.open_handle(world.b, "frames", GENERIC_ALL)
    world.m.take_over(world.b, given)
    assert world.m.import_by_handle(world.b, given).granted
    world.m.close_handle(world.b, given)


def test_processes_that_come_and_go_cannot_fill_a_table_either(world: World, handle: int) -> None:
    for _ in range(4):
        giver = world.m.attach(world.m._process(world.a).token, 900)
        mine = world.m.open_handle(giver, "frames", GENERIC_ALL)
        give(world, mine, giver)
        world.m.detach(giver)
    with refused(Status.QUOTA_EXCEEDED, "left 4 there"):
        give(world, handle)
    assert world.m.counts()["handles"] == 5
    world.m.detach(world.b)
    world.b = world.m.attach(world.m._process(world.a).token, 201)
    assert give(world, handle) == 4


def test_the_accounts_are_empty_when_all_have_left(world: World, handle: int) -> None:
    for _ in range(3):
        give(world, handle)
    world.m.detach(world.a)
    for process in world.m.processes():
        world.m.detach(process)
    assert not world.m._left_behind and not any(world.m.counts().values())


def test_another_users_account_is_another(world: World) -> None:
    mine = [world.m.open_handle(world.a, "frames", GENERIC_ALL) for _ in range(2)]
    for _ in range(4):
        give(world, mine[0])
    theirs = world.m.duplicate(world.root, _root_handle(world), target=world.b, desired=None)
    assert theirs


def _root_handle(world: World) -> int:
    exported = world.export("roots", by=world.root)
    return world.m.get_handle(world.root, exported.reference)
