"""Objects that the object manager itself keeps, and objects that another one has replaced."""

from __future__ import annotations

import pytest

from extmem.objects import GENERIC_ALL, MAXIMUM_ALLOWED, ObjectKind, Status, Token, checked_keep
from extmem.objects.lifetimes import KEPT
from extmem.sharing.keeping import NOT_KEPT, Keep, KeepMode
from tests.described_manager import DescribedManager
from tests.unit.objects.world import ALICE, World, refused, small

FOREVER = Keep(KeepMode.FORGOTTEN)
TAKEN = Keep(KeepMode.TAKEN)
MINUTE = Keep(KeepMode.TIME, 60_000)


def live(world: World, name: str = "x") -> bool:
    """Whether the name exists, for a process that does not stay a holder."""
    return bool(world.m.counts()["names"]) and any(name in row.names[0] for row in world.m.snapshot() if row.names)


def test_a_kept_object_outlives_its_processes_until_it_is_forgotten(world: World) -> None:
    exported = world.export("x", keep=FOREVER)
    world.m.detach(world.a)
    found = world.m.import_by_name(world.b, "X")
    assert found.payload == exported.payload
    world.m.release(world.b, found.reference)
    (row,) = world.m.snapshot()
    assert row.holders == () and row.objects[0].kept == "until forgotten"
    assert world.m.forget(world.b, "x") == exported.object
    assert world.m.take_released() == [exported.payload] and not live(world)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.forget(world.b, "x")


def test_an_object_that_is_not_kept_ends_with_its_processes(world: World) -> None:
    world.export("x")
    assert world.m.forget(world.a, "x") == 0
    world.m.detach(world.a)
    assert not live(world) and world.all_gone()


def test_only_the_keepers_user_and_root_forget(world: World) -> None:
    world.export("x", keep=FOREVER, sddl="D:(A;;GA;;;WD)")
    with refused(Status.ACCESS_DENIED, "user 1000", "user 2000"):
        world.m.forget(world.eve, "x")
    assert world.m.forget(world.root, "x")


def test_forgetting_leaves_what_processes_hold(world: World) -> None:
    exported = world.export("x", keep=FOREVER)
    world.m.forget(world.a, "x")
    assert live(world)
    world.m.release(world.a, exported.reference)
    assert not live(world)


def test_what_is_kept_until_taken_ends_after_another_process_has_had_it(world: World) -> None:
    exported = world.export("x", keep=TAKEN)
    world.m.release(world.a, exported.reference)
    own = world.m.import_by_name(world.a, "x")
    world.m.release(world.a, own.reference)
    assert live(world), "the publisher itself does not take it"
    found = world.m.import_by_name(world.b, "x")
    again = world.m.import_by_name(world.b, "x")
    world.m.release(world.b, found.reference)
    assert live(world)
    world.m.release(world.b, again.reference)
    assert not live(world) and world.m.kept_count() == 0


@pytest.mark.parametrize("how", ["import", "handle", "ticket"])
def test_an_undone_opening_does_not_take_it(world: World, how: str) -> None:
    exported = world.export("x", keep=TAKEN)
    if how == "ticket":
        ticket = world.m.offer(world.a, reference=exported.reference)
        world.m.put_back(world.b, world.m.claim(world.b, ticket))
        world.m.withdraw(world.a, ticket)
    elif how == "handle":
        world.m.discard_handle(world.b, world.m.open_handle(world.b, "x", MAXIMUM_ALLOWED))
    else:
        world.m.undo_reference(world.b, world.m.import_by_name(world.b, "x").reference)
    world.m.release(world.a, exported.reference)
    assert live(world)
    handle = world.m.open_handle(world.b, "x", MAXIMUM_ALLOWED)
    world.m.close_handle(world.b, handle)
    assert not live(world)


def test_a_time_begins_when_no_process_holds_the_object(world: World) -> None:
    exported = world.export("x", keep=MINUTE)
    shared = exported.object
    assert shared is not None and world.m.take_unused() == []
    world.m.release(world.a, exported.reference)
    assert world.m.take_unused() == [(shared, 60_000)] and world.m.take_unused() == []
    found = world.m.import_by_name(world.b, "x")
    world.m.end_time(shared)
    assert live(world), "a process has opened it meanwhile"
    world.m.release(world.b, found.reference)
    assert world.m.take_unused() == [(shared, 60_000)]
    world.m.end_time(shared)
    assert not live(world)
    world.m.end_time(shared)  # it has ended: nothing happens


def test_the_number_of_kept_objects_of_a_user_is_limited() -> None:
    world = small(kept=2)
    world.export("x", keep=FOREVER)
    world.export("y", keep=TAKEN, by=world.b)
    with refused(Status.QUOTA_EXCEEDED, "2 objects of user 1000"):
        world.export("z", keep=MINUTE)
    assert not live(world, "z")
    world.export("z", keep=FOREVER, by=world.eve)
    world.m.forget(world.a, "x")
    world.export("u", keep=MINUTE)


def test_a_payload_without_a_name_cannot_be_kept_and_replaces_nothing(world: World) -> None:
    with refused(Status.INVALID_PARAMETER, "name"):
        world.export(keep=FOREVER)
    with refused(Status.INVALID_PARAMETER, "name"):
        world.export(replace=True)
    assert world.all_gone()


def test_numbers_of_a_message_are_a_keeping_or_are_refused() -> None:
    assert checked_keep(0, 0) is NOT_KEPT and not NOT_KEPT
    assert checked_keep(3, 5) == Keep(KeepMode.TIME, 5) and checked_keep(2, 0) == TAKEN
    for mode, milliseconds in ((4, 0), (3, 0), (1, 5), (0, 5)):
        with refused(Status.INVALID_PARAMETER):
            checked_keep(mode, milliseconds)
    assert Keep(KeepMode.TIME, 1500).text == "1.5 s without a holder" and NOT_KEPT.text == ""


# -- replacing --------------------------------------------------------------------------------------------------------


def test_a_replacement_gets_the_name_and_holders_keep_the_old_object(world: World) -> None:
    old = world.export("Frames")
    reader = world.m.import_by_name(world.b, "frames")
    new = world.export("frames", replace=True)
    assert world.m.import_by_name(world.b, "FRAMES").payload == new.payload != old.payload
    assert world.m.is_superseded(world.b, reader.reference) and world.m.is_superseded(world.a, old.reference)
    assert not world.m.is_superseded(world.a, new.reference)
    assert world.m.take_superseded() == [(old.object, old.payload, True)] and not world.m.take_superseded()
    world.m.release(world.a, old.reference)
    world.m.release(world.b, reader.reference)
    assert world.m.take_released() == [old.payload]


def test_without_replace_a_taken_name_is_refused(world: World) -> None:
    old = world.export("x")
    with refused(Status.OBJECT_NAME_COLLISION):
        world.export("x")
    assert not world.m.is_superseded(world.a, old.reference)


def test_a_free_name_is_just_taken(world: World) -> None:
    new = world.export("x", replace=True)
    assert world.m.import_by_name(world.b, "x").payload == new.payload and not world.m.take_superseded()


def test_only_the_publisher_replaces_while_it_lives(world: World) -> None:
    world.export("x")
    world.m.import_by_name(world.b, "x")
    with refused(Status.OBJECT_NAME_COLLISION, "process 100"):
        world.export("x", replace=True, by=world.b)
    world.m.detach(world.a)
    world.export("x", replace=True, by=world.b)


def test_another_process_with_the_publishers_pid_is_not_the_publisher() -> None:
    world = World()
    publisher = world.m.attach(ALICE, 500, 7)
    world.export("x", by=publisher)
    impostor = world.m.attach(ALICE, 500, 8)
    with refused(Status.OBJECT_NAME_COLLISION):
        world.export("x", replace=True, by=impostor)
    world.export("x", replace=True, by=world.m.attach(ALICE, 500, 7))  # another connection of the publisher


def test_another_user_does_not_replace_even_after_the_publishers_end(world: World) -> None:
    world.export("x", keep=FOREVER, sddl="D:(A;;GA;;;WD)")
    for ended in (False, True):
        if ended:
            world.m.detach(world.a)
        for who in (world.eve, world.root):
            with refused(Status.ACCESS_DENIED, "user 1000"):
                world.export("x", replace=True, by=who)
    world.export("x", replace=True, by=world.b)


def test_an_object_of_another_kind_is_not_replaced(world: World) -> None:
    world.export("x", object_kind=ObjectKind.SEMAPHORE)
    with refused(Status.OBJECT_TYPE_MISMATCH):
        world.export("x", replace=True)
    world.export("x", replace=True, object_kind=ObjectKind.SEMAPHORE)


def test_a_replaced_object_is_not_kept_any_more_once_the_reply_has_arrived(world: World) -> None:
    old = world.export("x", keep=FOREVER)
    world.m.release(world.a, old.reference)
    world.export("x", replace=True, keep=MINUTE)
    assert world.m.take_released() == []
    world.m.settle(world.a)
    assert world.m.take_released() == [old.payload] and world.m.kept_count() == 1


@pytest.mark.parametrize("kept", [False, True])
def test_an_undone_replacement_gives_the_name_back(world: World, kept: bool) -> None:
    old = world.export("x", keep=FOREVER if kept else NOT_KEPT)
    if kept:
        world.m.release(world.a, old.reference)
    new = world.export("X", replace=True, keep=MINUTE)
    world.m.undo_reference(world.a, new.reference)
    assert world.m.take_released() == [new.payload]
    assert [(shared, is_so) for shared, _, is_so in world.m.take_superseded()] == [
        (old.object, True),
        (old.object, False),
    ]
    found = world.m.import_by_name(world.b, "x")
    assert found.payload == old.payload and not world.m.is_superseded(world.b, found.reference)
    assert world.m.kept_count() == kept


def test_an_undone_replacement_that_somebody_has_opened_stays(world: World) -> None:
    old = world.export("x", keep=FOREVER)
    new = world.export("x", replace=True)
    world.m.import_by_name(world.b, "x")
    world.m.undo_reference(world.a, new.reference)
    assert world.m.import_by_name(world.b, "x").payload == new.payload
    assert world.m.is_superseded(world.a, old.reference) and world.m.kept_count() == 0


def test_an_undone_export_is_not_kept(world: World) -> None:
    made = world.export("x", keep=FOREVER)
    world.m.undo_reference(world.a, made.reference)
    assert world.all_gone()


def test_a_quick_import_does_not_get_the_old_object(world: World) -> None:
    world.export("x")
    earlier = world.m.reference(world.b, world.m.import_by_name(world.b, "x").reference)
    assert world.m.import_again(world.b, earlier) is not None
    world.export("x", replace=True)
    assert world.m.import_again(world.b, earlier) is None


# -- after a restart --------------------------------------------------------------------------------------------------


def restarted(old: DescribedManager, *processes: int) -> tuple[DescribedManager, list[int]]:
    """A manager to which these processes of `World` have announced what they hold, in this order."""
    new = DescribedManager(random=World().random.randrange)
    ids = []
    for process in processes:
        owner = old._process(process)
        ids.append(new.attach(owner.token, owner.pid))
        assert new.restore(ids[-1], old.describe(process)).nameless == ()
    return new, ids


@pytest.mark.parametrize("first", ["holder", "publisher"])
def test_superseded_and_publisher_survive_a_restart(world: World, first: str) -> None:
    world.export("x")
    reader = world.m.import_by_name(world.b, "x")
    new = world.export("x", replace=True)
    order = (world.b, world.a) if first == "holder" else (world.a, world.b)
    after, ids = restarted(world.m, *order)
    b, a = ids if first == "holder" else ids[::-1]
    assert after.is_superseded(b, reader.reference)
    assert after.import_by_name(b, "x").payload == new.payload
    with refused(Status.OBJECT_NAME_COLLISION, "process 100"):
        after.export(b, ((9, 9),), b"", share=1, name="x", access=GENERIC_ALL, sddl=None, inherit=False, replace=True)
    after.export(a, ((9, 9),), b"", share=1, name="x", access=GENERIC_ALL, sddl=None, inherit=False, replace=True)


def test_clients_that_have_old_records_do_not_bring_a_superseded_name_back(world: World) -> None:
    old = world.export("x")
    assert old.object is not None
    before = world.m.describe(world.a)
    after = DescribedManager(random=World().random.randrange)
    after.superseded_before = {old.object}
    a = after.attach(ALICE, 100)
    assert after.restore(a, before).nameless == ()
    assert after.is_superseded(a, old.reference)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        after.import_by_name(a, "x")


def test_keeping_survives_a_restart_with_a_holder_unless_it_was_forgotten(world: World) -> None:
    exported = world.export("x", keep=MINUTE)
    held = world.m.describe(world.a)
    for forgotten in (False, True):
        after = DescribedManager(random=World().random.randrange)
        if forgotten:
            after.forgotten_before = {exported.object or 0}
        a = after.attach(Token(1000, 1000), 100)
        after.restore(a, held)
        assert after.kept_count() == (not forgotten)
        after.detach(a)
        assert after.take_unused() == ([] if forgotten else [(exported.object, 60_000)])


def test_the_row_of_what_is_kept() -> None:
    assert KEPT == (1, 1, 1, 0)
