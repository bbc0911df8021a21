"""Waits for names: a process that waits gets the payload at the moment at which its name is published."""

from __future__ import annotations

import pytest

from extmem.objects import MAXIMUM_ALLOWED, Imported, ObjectKind, Status
from tests.unit.objects.world import World, refused, small


def wait(world: World, name: str = "x", *, by: int | None = None, number: int = 1, **more: int) -> Imported | None:
    return world.m.await_name(world.b if by is None else by, number, name, more.pop("desired", MAXIMUM_ALLOWED), **more)


def test_a_name_that_exists_is_imported_at_once(world: World) -> None:
    exported = world.export("x")
    found = wait(world, "X")
    assert found is not None and found.payload == exported.payload and world.m.wait_count() == 0


def test_a_waiting_process_holds_the_payload_before_it_asks(world: World) -> None:
    assert wait(world) is None and world.m.wait_count() == 1
    exported = world.export("X")
    assert world.m.serve_waits() == [(world.b, 1)] and world.m.serve_waits() == []
    world.m.detach(world.a)  # the publisher ends before the other process runs again
    found = world.m.end_wait(world.b, 1)
    assert found.payload == exported.payload and found.name is not None
    assert world.m.take_released() == [] and world.m.wait_count() == 0
    with refused(Status.INVALID_HANDLE):
        world.m.end_wait(world.b, 1)


def test_a_name_that_does_not_come_is_not_found(world: World) -> None:
    wait(world)
    world.export("y")
    assert not world.m.has_news and world.m.serve_waits() == []
    with refused(Status.OBJECT_NAME_NOT_FOUND, "'x'"):
        world.m.end_wait(world.b, 1)
    assert world.m.wait_count() == 0


def test_an_export_that_is_undone_before_it_was_served_is_not_seen(world: World) -> None:
    wait(world)
    world.m.undo_reference(world.a, world.export("x").reference)
    assert world.m.serve_waits() == [] and world.m.wait_count() == 1
    world.export("x")
    assert world.m.serve_waits() == [(world.b, 1)]


@pytest.mark.parametrize("served", [False, True])
def test_a_cancelled_wait_leaves_nothing(world: World, served: bool) -> None:
    wait(world)
    exported = world.export("x")
    if served:
        world.m.serve_waits()
    world.m.cancel_wait(world.b, 1)
    world.m.cancel_wait(world.b, 1)
    assert world.m.serve_waits() == [] and world.m.wait_count() == 0
    world.m.release(world.a, exported.reference)
    assert world.m.take_released() == [exported.payload]


@pytest.mark.parametrize("served", [False, True])
def test_the_end_of_a_process_ends_its_waits(world: World, served: bool) -> None:
    wait(world)
    if served:
        world.export("x")
        world.m.serve_waits()
    world.m.detach(world.b)
    assert world.m.wait_count() == 0
    world.export("y")
    assert world.all_gone()


def test_all_that_wait_get_it_in_order(world: World) -> None:
    wait(world, number=1)
    wait(world, "Local\\X", number=2)
    wait(world, by=world.a, number=3)
    world.export("x")
    assert world.m.serve_waits() == [(world.b, 1), (world.b, 2), (world.a, 3)]
    assert len({world.m.end_wait(world.b, number).reference for number in (1, 2)}) == 2


def test_a_process_without_rights_is_told_so_when_the_name_appears(world: World) -> None:
    wait(world, by=world.eve)
    world.export("x")
    assert world.m.serve_waits() == [(world.eve, 1)]
    with refused(Status.ACCESS_DENIED, "2000"):
        world.m.end_wait(world.eve, 1)


def test_an_object_of_another_kind_ends_the_wait(world: World) -> None:
    wait(world)
    wait(world, number=2, object_kind=ObjectKind.SEMAPHORE)
    world.export("x", object_kind=ObjectKind.SEMAPHORE)
    world.m.serve_waits()
    with refused(Status.OBJECT_TYPE_MISMATCH):
        world.m.end_wait(world.b, 1)
    assert world.m.end_wait(world.b, 2).object_kind is ObjectKind.SEMAPHORE


def test_a_name_that_no_object_can_have_is_not_waited_for(world: World) -> None:
    with refused(Status.OBJECT_PATH_NOT_FOUND):
        wait(world, "folder\\x")
    world.m.insert_foreign("mutex", "Mutant")
    with refused(Status.OBJECT_TYPE_MISMATCH):
        wait(world, "mutex")
    assert world.m.wait_count() == 0


def test_a_restored_object_and_a_replacement_appear_too(world: World) -> None:
    world.export("x")
    held = world.m.describe(world.a)
    after = World()
    wait(after)
    after.m.restore(after.a, held)
    assert after.m.serve_waits() == [(after.b, 1)]
    assert wait(after, number=2) is not None


def test_waits_are_limited_by_process_and_by_user() -> None:
    world = small(waits=2, user_waits=3)
    wait(world, "x", number=1)
    wait(world, "y", number=2)
    with refused(Status.QUOTA_EXCEEDED, "waits for 2 names"):
        wait(world, "z", number=3)
    wait(world, by=world.a, number=4)
    with refused(Status.QUOTA_EXCEEDED, "user 1000 for 3"):
        wait(world, by=world.a, number=5)
    wait(world, by=world.eve, number=6)
    world.m.cancel_wait(world.b, 1)
    wait(world, by=world.a, number=7)


def test_a_process_at_its_limit_of_references_is_told_so() -> None:
    world = small(references=1)
    wait(world)
    world.export("y", by=world.b)
    world.export("x")
    world.m.serve_waits()
    with refused(Status.QUOTA_EXCEEDED):
        world.m.end_wait(world.b, 1)
