"""Attaching, inheriting, adopting, leaving (B29–B31, B78)."""

from __future__ import annotations

from extmem.objects import FLAG_INHERIT, FLAG_PROTECT, GENERIC_ALL, Status
from tests.unit.objects.world import ALICE, EVE, World, refused, small


def child_of(world: World, parent: int, **options: object) -> int:
    child = world.m.inherit(parent, **options)  # type: ignore[arg-type]  # the options are inherit's own
    world.m.adopt(child, ALICE, 500)
    return child


def test_B29_the_child_imports_with_the_same_number_then_by_name(world: World) -> None:
    handle = world.handle("frames", inherit=True)
    child = child_of(world, world.a)
    by_handle = world.m.import_by_handle(child, handle)
    by_name = world.m.import_by_name(child, "frames")
    assert by_handle.object == by_name.object


def test_B30_inherited_handles_have_the_same_value_rights_and_flags(world: World) -> None:
    world.handle()
    handle = world.handle(access=0x8000_0000, inherit=True)
    world.m.set_handle_flags(world.a, handle, FLAG_PROTECT, FLAG_PROTECT)
    child = child_of(world, world.a)
    mine, theirs = world.m.handle_info(world.a, handle), world.m.handle_info(child, handle)
    assert mine == theirs
    assert (theirs.inherit, theirs.protect, theirs.granted, theirs.handle_count) == (True, True, 0x20000, 2)


def test_B30_inheritance_is_a_copy_and_goes_on_to_grandchildren(world: World) -> None:
    handle = world.handle("frames", inherit=True)
    child = child_of(world, world.a)
    world.m.detach(world.a)
    grandchild = child_of(world, child)
    world.m.close_handle(child, handle)
    assert world.m.handle_info(grandchild, handle).handle_count == 1


def test_B30_a_handle_list_narrows_what_arrives(world: World) -> None:
    first, second = world.handle(inherit=True), world.handle(inherit=True)
    child = child_of(world, world.a, only=[second])
    assert world.m.handle_info(child, second)
    with refused(Status.INVALID_HANDLE):
        world.m.handle_info(child, first)
    assert world.m.counts()["handles"] == 3
    assert not world.m.describe(child_of(world, world.a, only=[])).handles


def test_B30_listed_handles_must_be_open_and_inheritable(world: World) -> None:
    private = world.handle()
    before = world.m.processes()
    with refused(Status.INVALID_PARAMETER, "HANDLE_FLAG_INHERIT"):
        world.m.inherit(world.a, only=[private])
    with refused(Status.INVALID_HANDLE):
        world.m.inherit(world.a, only=[0x40])
    assert world.m.processes() == before


def test_B31_inheritance_needs_the_flag(world: World) -> None:
    private = world.handle("frames")
    child = child_of(world, world.a)
    with refused(Status.INVALID_HANDLE):
        world.m.handle_info(child, private)
    world.m.set_handle_flags(world.a, private, FLAG_INHERIT, FLAG_INHERIT)
    assert world.m.handle_info(child_of(world, world.a), private)


def test_B31_inherited_values_leave_gaps_that_fill_lowest_first(world: World) -> None:
    world.export("frames")
    for inherit in (False, True, False, True):
        world.m.open_handle(world.a, "frames", GENERIC_ALL, inherit)
    child = child_of(world, world.a)
    assert [record.value for record in world.m.describe(child).handles] == [8, 16]
    assert [world.m.open_handle(child, "frames", GENERIC_ALL) for _ in range(3)] == [4, 12, 20]


def test_memory_and_tickets_are_not_inherited(world: World) -> None:
    exported = world.export(inherit=True)
    world.m.offer(world.a, reference=exported.reference)
    child = child_of(world, world.a)
    assert world.m.describe(child) == world.m.describe(world.b)


def test_a_child_that_never_shows_up_leaves_nothing(world: World) -> None:
    exported = world.export("frames", inherit=True)
    world.m.get_handle(world.a, exported.reference)
    child = world.m.inherit(world.a)
    world.m.detach(world.a)
    assert world.m.import_by_name(world.b, "frames")  # the child's copy holds it, whoever dies
    world.m.detach(world.b)
    assert world.m.take_released() == []
    world.m.detach(child)
    assert world.m.take_released() == [exported.payload]


def test_a_child_is_adopted_once(world: World) -> None:
    child = world.m.inherit(world.a)
    world.m.adopt(child, EVE, 501)
    for process in (child, world.a):
        with refused(Status.INVALID_PARAMETER, "connected before"):
            world.m.adopt(process, ALICE, 502)


def test_a_parent_that_left_first_does_not_matter_to_the_child(world: World) -> None:
    handle = world.handle(inherit=True)
    child = world.m.inherit(world.a)
    world.m.detach(world.a)
    world.m.adopt(child, ALICE, 500)
    assert world.m.handle_info(child, handle).handle_count == 1


def test_children_that_have_not_shown_up_are_bounded() -> None:
    world = small(children=2)
    first, second = world.m.inherit(world.a), world.m.inherit(world.a)
    with refused(Status.QUOTA_EXCEEDED, "2 children"):
        world.m.inherit(world.a)
    world.m.adopt(first, ALICE, 500)
    third = world.m.inherit(world.a)
    for gone in (second, third, first):
        world.m.detach(gone)
    for _ in range(2):
        world.m.inherit(world.a)


def test_process_ids_are_never_used_twice(world: World) -> None:
    gone = world.b
    world.m.detach(gone)
    assert world.m.attach(ALICE, 200) not in {gone, *world.m.processes()[:-1]}
    with refused(Status.INVALID_CID, f"{gone}"):
        world.m.detach(gone)


def test_after_all_have_left_nothing_is_left(world: World) -> None:
    handle = world.handle("frames", inherit=True)
    world.m.offer(world.a, handle=handle)
    world.m.duplicate(world.a, handle, target=world.b, desired=None)
    world.m.import_by_kmt(world.eve, world.export_kmt()[1])
    child_of(world, world.a)
    world.m.inherit(world.a)
    assert world.all_gone()
    assert len(world.m.take_released()) == 2
