"""Exporting, importing, freeing, and who keeps what alive (B13, B64–B67, B73–B78, B93, quotas)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extmem.objects import (
    GENERIC_ALL,
    KEEPS,
    MAXIMUM_ALLOWED,
    Holder,
    Limits,
    ObjectKind,
    Refused,
    Share,
    Status,
)
from tests.unit.objects.world import READ_WRITE, World, refused, small


def test_B13_the_name_is_there_from_the_export_on(world: World) -> None:
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    assert (imported.payload, imported.object) == (exported.payload, exported.object)
    assert world.m.counts()["handles"] == 0


def test_B24_G4_import_by_handle_needs_read_control(world: World) -> None:
    exported = world.export(access=0x1)
    with refused(Status.ACCESS_DENIED, "READ_CONTROL", "RESOURCE_WRITE (0x00000001)"):
        world.m.import_by_handle(world.a, world.m.get_handle(world.a, exported.reference))
    assert world.m.counts()["references"] == 1
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
    handle = world.m.get_handle(world.a, exported.reference)
    world.m.release(world.a, exported.reference)
    assert world.m.import_by_name(world.b, "frames").payload == exported.payload
    assert world.m.import_by_handle(world.a, handle).object == exported.object


def test_B66_B67_sharing_a_payload_again_makes_an_independent_object(world: World) -> None:
    identity = world.identity()
    first = world.export("one", identity=identity)
    second = world.export("two", by=world.b, identity=identity, sddl="D:NO_ACCESS_CONTROL")
    assert first.payload == second.payload and first.object != second.object
    world.m.release(world.a, first.reference)
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
    handle = world.m.get_handle(world.a, exported.reference)
    if way == "name":
        imported = world.m.import_by_name(world.a, "frames")
    else:
        imported = world.m.import_by_handle(world.a, handle)
    world.m.release(world.a, exported.reference)
    world.m.close_handle(world.a, handle)
    assert world.m.open_handle(world.b, "FRAMES", GENERIC_ALL)
    world.m.close_handle(world.b, 4)
    world.m.release(world.a, imported.reference)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.open_handle(world.b, "frames", GENERIC_ALL)


def test_B75_the_last_free_ends_payload_and_name(world: World) -> None:
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    world.m.release(world.a, exported.reference)
    assert world.m.take_released() == []
    world.m.release(world.b, imported.reference)
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
    handle = world.m.get_handle(world.a, exported.reference)
    world.m.release(world.a, exported.reference)
    world.m.close_handle(world.a, handle)
    assert world.m.take_released() == [exported.payload]


def test_B78_process_death_closes_all_even_protected_handles(world: World) -> None:
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.reference)
    world.m.set_handle_flags(world.a, handle, 2, 2)
    world.m.import_by_name(world.b, "frames")
    world.m.detach(world.a)
    assert world.m.import_by_name(world.b, "frames")
    world.m.detach(world.b)
    assert world.m.take_released() == [exported.payload]
    with refused(Status.INVALID_CID, f"Process {world.a} "):
        world.m.release(world.a, exported.reference)


def test_B93_importing_twice_gives_two_memory_objects(world: World) -> None:
    handle = world.handle()
    first, second = (world.m.import_by_handle(world.a, handle) for _ in range(2))
    assert first.reference != second.reference
    world.m.release(world.a, first.reference)
    world.m.release(world.a, second.reference)


def test_B93_4096_imports_and_frees_leave_nothing(world: World) -> None:
    world.export("frames")
    before = world.m.counts()
    for _ in range(4096):
        world.m.release(world.b, world.m.import_by_name(world.b, "frames").reference)
    assert world.m.counts() == before


def test_memory_is_freed_once_and_by_its_own_process(world: World) -> None:
    exported = world.export()
    with refused(Status.INVALID_HANDLE, "process 200"):
        world.m.release(world.b, exported.reference)
    world.m.release(world.a, exported.reference)
    with refused(Status.INVALID_HANDLE, "released"):
        world.m.release(world.a, exported.reference)


def test_an_over_long_descriptor_is_refused(world: World) -> None:
    assert world.export(descriptor=b"x" * 4096)
    with refused(Status.INVALID_PARAMETER, "4097"):
        world.export(descriptor=b"x" * 4097)


def test_the_memory_quota_refuses_the_next_and_keeps_the_rest() -> None:
    world = small(references=2)
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.reference)
    _, number = world.export_kmt()
    calls: list[Callable[[], object]] = [
        world.export,
        world.export_kmt,
        lambda: world.m.import_by_name(world.a, "frames"),
        lambda: world.m.import_by_handle(world.a, handle),
        lambda: world.m.import_by_kmt(world.a, number),
    ]
    for call in calls:
        with refused(Status.QUOTA_EXCEEDED, "2 references"):
            call()
    world.m.release(world.a, exported.reference)
    assert world.m.import_by_name(world.a, "frames")


def test_the_object_quota_counts_what_lives(world: World) -> None:
    world = small(objects=1)
    exported = world.export()
    with refused(Status.QUOTA_EXCEEDED, "1 shared objects"):
        world.export()
    assert world.export(by=world.b)
    world.m.release(world.a, exported.reference)
    assert world.export()


def test_objects_are_counted_until_they_die_although_their_maker_has_freed_them() -> None:
    world = small(objects=1)
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    world.m.release(world.a, exported.reference)
    with refused(Status.QUOTA_EXCEEDED):
        world.export()
    world.m.release(world.b, imported.reference)
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
        world.m.release(world.a, exported.reference)
        return alive(exported.payload, "held", None)

    def kmt(hold: Callable[[int], object]) -> Living:
        exported, number = world.export_kmt()
        hold(number)
        world.m.release(world.a, exported.reference)
        return alive(exported.payload, None, number)

    def exporting() -> Living:
        named, (numbered, number) = world.export("held", sddl="D:NO_ACCESS_CONTROL"), world.export_kmt()
        payload, shared, name, _ = alive(named.payload, "held", None)
        return payload and alive(numbered.payload, None, None)[0], shared, name, world.m.kmt_alive(number)

    def orphan() -> None:
        """A process imports, sends what it has, and ends."""
        imported = world.m.import_by_name(world.b, "held")
        world.m.offer(world.b, reference=imported.reference)
        world.m.detach(world.b)

    return {
        Holder.EXPORTER: exporting,
        Holder.NT_HANDLE: lambda: nt(lambda: world.m.open_handle(world.b, "held", GENERIC_ALL)),
        Holder.IMPORTED_NT: lambda: nt(lambda: world.m.import_by_name(world.b, "held")),
        Holder.IMPORTED_KMT: lambda: kmt(lambda number: world.m.import_by_kmt(world.b, number)),
        Holder.NAME: lambda: nt(lambda: None),
        Holder.KMT_NUMBER: lambda: kmt(lambda number: None),
        Holder.NT_TICKET: lambda: nt(lambda: world.m.offer(world.a, reference=1)),
        Holder.KMT_TICKET: lambda: kmt(lambda number: world.m.offer(world.a, kmt=number)),
        Holder.DEMOTED_TICKET: lambda: nt(lambda: world.m.expire(world.m.offer(world.a, reference=1))),
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


# -- kinds of objects -------------------------------------------------------------------------------------------------

SEMAPHORE, FENCE = ObjectKind.SEMAPHORE, ObjectKind.FENCE


@pytest.mark.parametrize("kind", [SEMAPHORE, FENCE])
def test_S23_semaphores_and_fences_have_rights_of_their_own(world: World, kind: ObjectKind) -> None:
    exported = world.export("signal", object_kind=kind, access=0x8000_0002)
    info = world.m.handle_info(world.a, world.m.get_handle(world.a, exported.reference))
    assert (info.type_name, info.granted) == ("DxgkSharedSyncObject", 0x2_0003)
    for desired, granted in (
        (0x8000_0000, 0x2_0001),
        (0x4000_0000, 0x2_0002),
        (0x8000_0001, 0x2_0001),  # read and write of memory: wait without signal
        (0x1000_0000, 0x1F_0003),
        (MAXIMUM_ALLOWED, 0x1F_0003),
    ):
        imported = world.m.import_by_name(world.b, "signal", desired, kind)
        assert (imported.granted, imported.object_kind) == (granted, kind)
    handle = world.m.open_handle(world.b, "signal", 0x2000_0000)
    assert world.m.handle_info(world.b, handle).granted == 0x12_0000
    with refused(Status.ACCESS_DENIED, "does not have (0x00000004)", "SYNC_OBJECT_SIGNAL (0x2)"):
        world.m.open_handle(world.b, "signal", 0x8000_0004)
    with refused(Status.ACCESS_DENIED):
        world.m.open_handle(world.b, "signal", 0)
    world.export("letters", object_kind=kind, sddl="D:(A;;RCDC;;;WD)")
    assert world.m.import_by_name(world.eve, "letters", MAXIMUM_ALLOWED, kind).granted == 0x2_0002


def test_S26_an_object_is_imported_as_the_kind_that_it_is(world: World) -> None:
    world.export("signal", object_kind=SEMAPHORE)
    world.export("frames")
    world.export("done", object_kind=FENCE)
    with refused(
        Status.OBJECT_TYPE_MISMATCH, "'signal'", "DxgkSharedSyncObject, not DxgkSharedResource", "extmem.open_timeline"
    ):
        world.m.import_by_name(world.b, "signal")
    for name, both in (("frames", "0x80000001 to write"), ("signal", "0x80000002 to write or signal")):
        with refused(Status.ACCESS_DENIED, "requests no access", both):
            world.m.open_handle(world.b, name, 0)
    with refused(
        Status.OBJECT_TYPE_MISMATCH, "'frames'", "DxgkSharedResource, not DxgkSharedSyncObject", "(extmem.open)"
    ):
        world.m.import_by_name(world.b, "frames", object_kind=SEMAPHORE)
    with refused(Status.OBJECT_TYPE_MISMATCH, "'done'", "a shared fence, not a shared semaphore"):
        world.m.import_by_name(world.b, "done", object_kind=SEMAPHORE)
    with refused(Status.OBJECT_TYPE_MISMATCH, "'signal'", "a shared semaphore, not a shared fence"):
        world.m.import_by_name(world.b, "signal", object_kind=FENCE)
    handle = world.m.open_handle(world.b, "signal", MAXIMUM_ALLOWED)
    for kind, words in ((ObjectKind.MEMORY, "not DxgkSharedResource"), (FENCE, "not a shared fence")):
        with refused(Status.OBJECT_TYPE_MISMATCH, f"{handle:#x}", words):
            world.m.import_by_handle(world.b, handle, kind)
    _, number = world.export_kmt(object_kind=SEMAPHORE)
    with refused(Status.INVALID_PARAMETER, f"{number:#x}", "a shared semaphore, not of shared memory"):
        world.m.import_by_kmt(world.b, number)
    with refused(Status.INVALID_PARAMETER, f"{number:#x}", "a shared semaphore, not of a shared fence"):
        world.m.import_by_kmt(world.b, number, FENCE)
    assert world.m.import_by_handle(world.b, handle, SEMAPHORE).granted == 0x1F_0003
    assert world.m.import_by_kmt(world.b, number, SEMAPHORE).granted == 0x2_0003
    assert world.m.import_by_name(world.b, "done", object_kind=FENCE)
    world.export("camera", object_kind=ObjectKind.CHANNEL)
    with refused(Status.OBJECT_TYPE_MISMATCH, "'camera'", "a channel, not shared memory", "(extmem.open_channel)"):
        world.m.import_by_name(world.b, "camera")
    with refused(Status.OBJECT_TYPE_MISMATCH, "'frames'", "shared memory, not a channel", "(extmem.open)"):
        world.m.import_by_name(world.b, "frames", object_kind=ObjectKind.CHANNEL)
    assert world.m.import_by_name(world.b, "camera", object_kind=ObjectKind.CHANNEL)
    assert {row.object_kind for row in world.m.snapshot()} == set(ObjectKind)


def test_one_payload_is_of_one_kind(world: World) -> None:
    identity = world.identity()
    world.export("frames", identity=identity)
    with refused(Status.INVALID_PARAMETER, "shared memory already", "as a shared semaphore"):
        world.export("signal", identity=identity, object_kind=SEMAPHORE)
    assert world.export("again", identity=identity)


def test_a_kind_that_is_not_in_the_table_is_refused(world: World) -> None:
    with refused(Status.INVALID_PARAMETER, "object kind 5", "1 (shared memory)", "4 (a channel)"):
        world.export("signal", object_kind=5)
    world.export("frames")
    with refused(Status.INVALID_PARAMETER, "object kind 5"):
        world.m.import_by_name(world.b, "frames", object_kind=5)


def test_a_payload_is_its_list_of_handles(world: World) -> None:
    three = world.identity(3)
    exported = world.export("three", identity=three)
    assert world.export("again", identity=three).payload == exported.payload
    assert world.export("two", identity=three[:2]).payload != exported.payload
    assert world.export("other order", identity=three[::-1]).payload != exported.payload
    rows = {row.payload: row for row in world.m.snapshot()}
    assert rows[exported.payload].handle_count == 3
    assert world.m.find_payload(three) == exported.payload and world.m.find_payload(three[:1]) is None


def test_a_payload_has_at_least_one_handle_and_at_most_as_many_as_the_limit_allows() -> None:
    world = small(payload_handles=3)
    assert world.export(identity=world.identity(3))
    with refused(Status.INVALID_PARAMETER, "1 to 3 handles, this one has 4"):
        world.export(identity=world.identity(4))
    with refused(Status.INVALID_PARAMETER, "this one has 0"):
        world.m.export(world.a, (), b"", share=Share.NT, name=None, access=0, sddl=None, inherit=False)
    assert Limits().payload_handles == 4_096
