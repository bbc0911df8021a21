"""Frozen payloads in the model: who may write to them, and what they refuse and give afterwards."""

from __future__ import annotations

from extmem.objects import MAXIMUM_ALLOWED, MEMORY, READ_CONTROL, Status
from tests.unit.objects.world import READ_WRITE, World, refused


def writes(granted: int) -> bool:
    return bool(granted & MEMORY.modify)


def test_nobody_gets_the_right_to_write_to_a_frozen_payload(world: World) -> None:
    exported = world.export("x")
    handle = world.m.get_handle(world.a, exported.reference)
    ticket = world.m.offer(world.a, reference=exported.reference)
    assert writes(world.granted(world.a, handle))
    assert world.m.freeze(world.a, [exported.reference], [exported.payload]) == []
    assert world.m.is_frozen(exported.payload)
    with refused(Status.ACCESS_DENIED, "frozen"):
        world.m.import_by_name(world.b, "x", READ_WRITE)
    with refused(Status.ACCESS_DENIED, "frozen"):
        world.m.open_handle(world.b, "x", READ_WRITE)
    with refused(Status.ACCESS_DENIED, "frozen"):
        reading = world.m.open_handle(world.a, "x", READ_CONTROL)
        world.m.duplicate(world.a, reading, desired=READ_WRITE)
    found = world.m.import_by_name(world.b, "x", MAXIMUM_ALLOWED)
    assert not writes(found.granted)
    assert not writes(world.m.import_by_handle(world.a, handle).granted)
    claimed = world.m.claim(world.b, ticket).imported
    assert claimed is not None and not writes(claimed.granted)
    assert not writes(world.granted(world.a, world.m.get_handle(world.a, exported.reference)))
    world.m.set_frozen(exported.payload, False)
    assert writes(world.m.import_by_name(world.b, "x", READ_WRITE).granted)
    assert world.all_gone()


def test_a_kmt_import_of_a_frozen_payload_reads(world: World) -> None:
    exported, number = world.export_kmt()
    first = world.m.import_by_kmt(world.b, number)
    assert writes(first.granted)
    assert world.m.freeze(world.a, [exported.reference], [exported.payload]) == [200]
    world.m.release(world.b, first.reference)
    assert world.m.freeze(world.a, [exported.reference], [exported.payload]) == []
    assert not writes(world.m.import_by_kmt(world.b, number).granted)


def test_other_writers_prevent_it_and_are_named(world: World) -> None:
    exported = world.export("x", sddl="D:(A;;GA;;;WD)")
    mine = world.m.import_by_name(world.a, "x", READ_WRITE)
    reader = world.m.import_by_name(world.b, "x", READ_CONTROL)
    writer = world.m.import_by_name(world.b, "x", READ_WRITE)
    other = world.m.import_by_name(world.eve, "x", READ_WRITE)
    again = world.m.import_again(world.b, world.m.reference(world.eve, other.reference))
    assert again is not None
    own = [exported.reference, mine.reference]
    assert world.m.freeze(world.a, own[:1], [exported.payload]) == [100, 200, 300]
    assert world.m.freeze(world.a, own, [exported.payload]) == [200, 300]
    assert not world.m.is_frozen(exported.payload)
    world.m.release(world.b, writer.reference)
    world.m.detach(world.eve)
    assert world.m.freeze(world.a, own, [exported.payload]) == [200]
    world.m.release(world.b, again)
    assert world.m.freeze(world.a, own, [exported.payload]) == []
    world.m.release(world.b, reader.reference)
    assert world.all_gone()


def test_an_open_is_not_repeated_with_the_right_to_write(world: World) -> None:
    exported = world.export("x")
    writer = world.m.import_by_name(world.b, "x", MAXIMUM_ALLOWED)
    reader = world.m.import_by_name(world.b, "x", READ_CONTROL)
    writing, reading = (world.m.reference(world.b, one.reference) for one in (writer, reader))
    world.m.release(world.b, writer.reference)
    world.m.freeze(world.a, [exported.reference], [exported.payload])
    assert world.m.import_again(world.b, writing) is None
    assert world.m.import_again(world.b, reading) is not None
    world.m.set_frozen(exported.payload, False)
    assert world.m.import_again(world.b, writing) is not None


def test_a_reference_of_another_process_freezes_nothing(world: World) -> None:
    exported = world.export("x")
    with refused(Status.INVALID_HANDLE):
        world.m.freeze(world.b, [exported.reference], [exported.payload])
    assert not world.m.is_frozen(exported.payload)
    world.m.set_frozen(12345, True)
    assert not world.m.is_frozen(12345)


def test_payloads_with_common_bytes_are_frozen_together(world: World) -> None:
    one, two = world.export("x"), world.export("y")
    writer = world.m.import_by_name(world.b, "y", READ_WRITE)
    both = [one.payload, two.payload]
    assert world.m.freeze(world.a, [one.reference, two.reference], both) == [200]
    assert not world.m.is_frozen(one.payload)
    world.m.release(world.b, writer.reference)
    assert world.m.freeze(world.a, [one.reference, two.reference], both) == []
    assert world.m.is_frozen(one.payload) and world.m.is_frozen(two.payload)
