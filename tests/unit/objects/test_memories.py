"""Exporting, importing, freeing, and who keeps what alive (B13, B64–B67, B73–B78, B93, quotas)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extmem.objects import GENERIC_ALL, KEEPS, Holder, Refused, Share, Status
from tests.unit.objects.world import READ_WRITE, World, refused, small


def test_B13_the_name_is_there_from_the_export_on(world: World) -> None:
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    assert (imported.payload, imported.object) == (exported.payload, exported.object)
    assert world.m.counts()["handles"] == 0


def test_B24_G4_import_by_handle_needs_read_control(world: World) -> None:
    exported = world.export(access=0x1)
    with refused(Status.ACCESS_DENIED, "READ_CONTROL", "RESOURCE_WRITE (0x00000001)"):
        world.m.import_by_handle(world.a, world.m.get_handle(world.a, exported.memory))
    assert world.m.counts()["memories"] == 1
    readable = world.handle(access=0x8000_0000)
    assert world.m.import_by_handle(world.a, readable).granted == 0x20000


def test_B24_G4_import_by_name_for_writing_alone_is_denied(world: World) -> None:
    world.export("frames")
    with refused(Status.ACCESS_DENIED, "READ_CONTROL"):
        world.m.import_by_name(world.b, "frames", 0x1)
    assert world.m.import_by_name(world.b, "frames", READ_WRITE).granted == 0x20001


def test_B64_unnamed_exports_have_handles_but_no_name(world: World) -> None:
    handle = world.handle(None)
    imported = world.m.import_by_handle(world.a, handle)
    assert imported.name is None
    assert world.m.counts()["names"] == 0


def test_B65_a_handle_keeps_payload_and_object(world: World) -> None:
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.memory)
    world.m.free_memory(world.a, exported.memory)
    assert world.m.import_by_name(world.b, "frames").payload == exported.payload
    assert world.m.import_by_handle(world.a, handle).object == exported.object


def test_B66_B67_sharing_a_payload_again_makes_an_independent_object(world: World) -> None:
    identity = world.identity()
    first = world.export("one", identity=identity)
    second = world.export("two", by=world.b, identity=identity, sddl="D:NO_ACCESS_CONTROL")
    assert first.payload == second.payload and first.object != second.object
    world.m.free_memory(world.a, first.memory)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.import_by_name(world.eve, "one")
    assert world.m.import_by_name(world.eve, "two").payload == first.payload
    assert world.m.take_released() == []


def test_B66_the_descriptor_of_the_first_share_stays(world: World) -> None:
    identity = world.identity()
    exported = world.export(identity=identity, descriptor=b"first")
    world.export(identity=identity, descriptor=b"second")
    assert world.m.payload_record(exported.payload).descriptor == b"first"


@pytest.mark.parametrize("way", ["name", "handle"])
def test_B73_G9_imported_memory_keeps_object_and_name(world: World, way: str) -> None:
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.memory)
    if way == "name":
        imported = world.m.import_by_name(world.a, "frames")
    else:
        imported = world.m.import_by_handle(world.a, handle)
    world.m.free_memory(world.a, exported.memory)
    world.m.close_handle(world.a, handle)
    assert world.m.open_handle(world.b, "FRAMES", GENERIC_ALL)
    world.m.close_handle(world.b, 4)
    world.m.free_memory(world.a, imported.memory)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.open_handle(world.b, "frames", GENERIC_ALL)


def test_B75_the_last_free_ends_payload_and_name(world: World) -> None:
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    world.m.free_memory(world.a, exported.memory)
    assert world.m.take_released() == []
    world.m.free_memory(world.b, imported.memory)
    assert world.m.take_released() == [exported.payload]
    assert world.m.take_released() == []
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.import_by_name(world.b, "frames")


def test_B76_import_does_not_take_the_handle(world: World) -> None:
    handle = world.handle()
    world.m.import_by_handle(world.a, handle)
    assert world.m.handle_info(world.a, handle).handle_count == 1
    world.m.close_handle(world.a, handle)


def test_B77_freeing_the_exporter_leaves_its_handles(world: World) -> None:
    exported = world.export()
    handle = world.m.get_handle(world.a, exported.memory)
    world.m.free_memory(world.a, exported.memory)
    world.m.close_handle(world.a, handle)
    assert world.m.take_released() == [exported.payload]


def test_B78_process_death_closes_all_even_protected_handles(world: World) -> None:
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.memory)
    world.m.set_handle_flags(world.a, handle, 2, 2)
    world.m.import_by_name(world.b, "frames")
    world.m.detach(world.a)
    assert world.m.import_by_name(world.b, "frames")
    world.m.detach(world.b)
    assert world.m.take_released() == [exported.payload]
    with refused(Status.INVALID_CID, f"process {world.a} "):
        world.m.free_memory(world.a, exported.memory)


def test_B93_importing_twice_gives_two_memory_objects(world: World) -> None:
    handle = world.handle()
    first, second = (world.m.import_by_handle(world.a, handle) for _ in range(2))
    assert first.memory != second.memory
    world.m.free_memory(world.a, first.memory)
    world.m.free_memory(world.a, second.memory)


def test_B93_4096_imports_and_frees_leave_nothing(world: World) -> None:
    world.export("frames")
    before = world.m.counts()
    for _ in range(4096):
        world.m.free_memory(world.b, world.m.import_by_name(world.b, "frames").memory)
    assert world.m.counts() == before


def test_memory_is_freed_once_and_by_its_own_process(world: World) -> None:
    exported = world.export()
    with refused(Status.INVALID_HANDLE, "process 200"):
        world.m.free_memory(world.b, exported.memory)
    world.m.free_memory(world.a, exported.memory)
    with refused(Status.INVALID_HANDLE, "freed"):
        world.m.free_memory(world.a, exported.memory)


def test_an_over_long_descriptor_is_refused(world: World) -> None:
    assert world.export(descriptor=b"x" * 4096)
    with refused(Status.INVALID_PARAMETER, "4097"):
        world.export(descriptor=b"x" * 4097)


def test_the_memory_quota_refuses_the_next_and_keeps_the_rest() -> None:
    world = small(memories=2)
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.memory)
    _, number = world.export_kmt()
    calls: list[Callable[[], object]] = [
        world.export,
        world.export_kmt,
        lambda: world.m.import_by_name(world.a, "frames"),
        lambda: world.m.import_by_handle(world.a, handle),
        lambda: world.m.import_by_kmt(world.a, number),
    ]
    for call in calls:
        with refused(Status.QUOTA_EXCEEDED, "2 shared memory objects"):
            call()
    world.m.free_memory(world.a, exported.memory)
    assert world.m.import_by_name(world.a, "frames")


def test_the_object_quota_counts_what_lives(world: World) -> None:
    world = small(objects=1)
    exported = world.export()
    with refused(Status.QUOTA_EXCEEDED, "1 shared objects"):
        world.export()
    assert world.export(by=world.b)
    world.m.free_memory(world.a, exported.memory)
    assert world.export()


def test_objects_are_counted_until_they_die_although_their_maker_has_freed_them() -> None:
    world = small(objects=1)
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    world.m.free_memory(world.a, exported.memory)
    with refused(Status.QUOTA_EXCEEDED):
        world.export()
    world.m.free_memory(world.b, imported.memory)
    assert world.export()


def test_ids_are_fresh_even_when_the_random_numbers_repeat() -> None:
    world = World()
    numbers = iter([5, 6, 0, 5, 6, 6, 9])
    world.m._random = lambda n: next(numbers)
    first = world.export()
    second = world.export()
    assert (first.payload, first.object, second.payload, second.object) == (5, 6, 6, 9)


# -- the lifetime table, holder by holder ----------------------------------------------------------------------------


Living = tuple[bool, bool, bool, bool]


def _holders(world: World) -> dict[Holder, Callable[[], Living]]:
    """For each holder: make one thing that is held by nothing else, and tell whether payload, object, name and number
    live.
    """

    def alive(payload: int, name: str | None, number: int | None) -> Living:
        named = False
        if name is not None:
            try:
                world.m.close_handle(world.root, world.m.open_handle(world.root, name, GENERIC_ALL))
                named = True
            except Refused as refusal:
                assert refusal.status is Status.OBJECT_NAME_NOT_FOUND
        rows = [row for row in world.m.snapshot() if row.payload == payload]
        shared = any(row.objects for row in rows)
        return bool(rows), shared, named, number is not None and world.m.kmt_alive(number)

    def nt(hold: Callable[[], object]) -> Living:
        exported = world.export("held", sddl="D:NO_ACCESS_CONTROL")
        hold()
        world.m.free_memory(world.a, exported.memory)
        return alive(exported.payload, "held", None)

    def kmt(hold: Callable[[int], object]) -> Living:
        exported, number = world.export_kmt()
        hold(number)
        world.m.free_memory(world.a, exported.memory)
        return alive(exported.payload, None, number)

    def exporting() -> Living:
        named, (numbered, number) = world.export("held", sddl="D:NO_ACCESS_CONTROL"), world.export_kmt()
        payload, shared, name, _ = alive(named.payload, "held", None)
        return payload and alive(numbered.payload, None, None)[0], shared, name, world.m.kmt_alive(number)

    def orphan() -> None:
        """A process imports, sends what it has, and ends."""
        imported = world.m.import_by_name(world.b, "held")
        world.m.offer(world.b, memory=imported.memory)
        world.m.detach(world.b)

    return {
        Holder.EXPORTING_MEMORY: exporting,
        Holder.NT_HANDLE: lambda: nt(lambda: world.m.open_handle(world.b, "held", GENERIC_ALL)),
        Holder.IMPORTED_NT: lambda: nt(lambda: world.m.import_by_name(world.b, "held")),
        Holder.IMPORTED_KMT: lambda: kmt(lambda number: world.m.import_by_kmt(world.b, number)),
        Holder.NAME: lambda: nt(lambda: None),
        Holder.KMT_NUMBER: lambda: kmt(lambda number: None),
        Holder.NT_TICKET: lambda: nt(lambda: world.m.offer(world.a, memory=1)),
        Holder.KMT_TICKET: lambda: kmt(lambda number: world.m.offer(world.a, kmt=number)),
        Holder.DEMOTED_TICKET: lambda: nt(lambda: world.m.expire(world.m.offer(world.a, memory=1))),
        Holder.ORPHANED_TICKET: lambda: nt(orphan),
    }


@pytest.mark.parametrize("holder", list(_holders(World())))
def test_the_lifetime_table_is_what_happens(holder: Holder) -> None:
    assert _holders(World())[holder]() == tuple(bool(kept) for kept in KEEPS[holder])


def test_the_lifetime_table_has_every_holder_and_objects_imply_payloads() -> None:
    assert set(KEEPS) == set(Holder)
    assert all(keeps.payload >= keeps.object >= keeps.name and keeps.payload >= keeps.kmt for keeps in KEEPS.values())
    assert KEEPS[Holder.FD_HANDLE] == (1, 0, 0, 0)  # the kernel's doing; the model never sees one


def test_share_from_the_wire_may_be_a_plain_number(world: World) -> None:
    assert world.export(share=Share(1)).object
    assert world.export(share=1).object
