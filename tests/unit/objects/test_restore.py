"""Announcements to the next object manager after one was killed, and the snapshots that list them (B78)."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec.structs import replace

from extmem.objects import (
    GENERIC_ALL,
    HandleRecord,
    ObjectRecord,
    PayloadRecord,
    ReferenceRecord,
    Share,
    Status,
    TicketRecord,
)
from tests.described_manager import Held
from tests.unit.objects.world import World, refused, small

SDDL = "O:S-1-22-1-1000G:S-1-22-2-1000D:(A;;GA;;;S-1-22-1-1000)"
NAME = "\\Sessions\\1\\BaseNamedObjects\\frames"


def payload_record(number: int = 11, **changes: object) -> PayloadRecord:
    record = PayloadRecord(number, ((9, number),), b"d", Share.NT, True)
    return replace(record, **changes)  # type: ignore[arg-type]  # the changes are fields


def object_record(number: int = 21, payload: int = 11, name: str | None = NAME, **changes: object) -> ObjectRecord:
    return replace(ObjectRecord(number, payload, name, 1000, SDDL, True), **changes)  # type: ignore[arg-type]  # fields


def held(*, name: str | None = NAME) -> Held:
    return Held((payload_record(),), (object_record(name=name),), (ReferenceRecord(3, 11, 21, True, 0xF0001),))


def test_everything_comes_back_under_its_own_values(world: World) -> None:
    exported = world.export("Frames", inherit=True)
    handle = world.m.get_handle(world.a, exported.reference)
    world.m.set_handle_flags(world.a, handle, 2, 2)
    ticket = world.m.offer(world.a, handle=handle)
    _, number = world.export_kmt()
    new = World()
    outcome = new.m.restore(new.a, world.m.describe(world.a))
    assert outcome.nameless == ()
    assert new.m.snapshot() == world.m.snapshot()
    assert new.m.handle_info(new.a, handle) == world.m.handle_info(world.a, handle)
    assert new.m.import_by_name(new.b, "FRAMES").object == exported.object
    assert new.m.import_by_kmt(new.b, number)
    assert new.m.claim(new.b, ticket).handle == 4
    assert new.m.handle_info(new.a, new.m.get_handle(new.a, exported.reference)).inherit
    assert new.export().reference == 3  # ids of memory go on where they were


def test_several_clients_announce_one_object_and_it_is_one(world: World) -> None:
    world.export("frames")
    world.m.open_handle(world.b, "frames", GENERIC_ALL)
    new = World()
    new.m.restore(new.b, world.m.describe(world.b))
    new.m.restore(new.a, world.m.describe(world.a))
    assert new.m.snapshot() == world.m.snapshot()


def test_two_objects_on_one_payload_come_back_as_two(world: World) -> None:
    identity = world.identity()
    world.export("one", identity=identity)
    world.export("two", identity=identity, by=world.b)
    new = World()
    for process in (new.a, new.b):
        new.m.restore(process, world.m.describe(process))
    assert new.m.snapshot() == world.m.snapshot()
    assert new.m.snapshot()[0].names == tuple(
        row.name for row in world.m.snapshot()[0].objects
    )  # both, in the order of their ids


def test_a_name_taken_meanwhile_is_lost_to_the_later_one(world: World) -> None:
    other = world.export("FRAMES", by=world.b)
    outcome = world.m.restore(world.a, held())
    assert outcome.nameless == (21,)
    assert world.m.import_by_name(world.a, "frames").object == other.object
    assert world.m.snapshot()[0].name is None or world.m.snapshot()[1].name is None
    assert world.m.get_handle(world.a, 3)  # it lives on without its name


def test_an_unnamed_object_has_no_name_to_lose(world: World) -> None:
    assert world.m.restore(world.a, held(name=None)).nameless == ()


def test_the_same_memory_under_two_payload_ids_is_one_payload(world: World) -> None:
    exported = world.export("again", identity=((9, 11),))
    outcome = world.m.restore(world.a, held())
    assert [restored.payload for restored in outcome.payloads] == [exported.payload]
    assert world.m.import_by_name(world.b, "frames").payload == exported.payload
    assert world.m.counts()["payloads"] == 1


def test_a_number_taken_meanwhile_is_lost(world: World) -> None:
    exported, number = world.export_kmt()
    record = payload_record(share=Share.KMT, kmt=number)
    outcome = world.m.restore(world.b, Held((record,), (), (ReferenceRecord(1, 11, None, True, 0),)))
    assert outcome.payloads[0].kmt is None
    assert world.m.import_by_kmt(world.b, number).payload == exported.payload


def test_a_strict_number_waits_for_its_exporter_and_dies_without_it(world: World) -> None:
    exported, number = world.export_kmt(strict_kmt=True)
    world.m.import_by_kmt(world.b, number)
    importer, exporter = world.m.describe(world.b), world.m.describe(world.a)
    new = World()
    new.m.restore_payload(new.b, importer.payloads[0])
    new.m.restore_reference(new.b, importer.references[0])
    assert new.m.kmt_alive(number)
    new.m.restore_done(new.b)
    assert not new.m.kmt_alive(number)
    assert new.m.restore(new.a, exporter).payloads[0].kmt == number
    assert new.m.kmt_alive(number)
    assert new.m.snapshot() == world.m.snapshot()
    new.m.release(new.a, exported.reference)
    assert not new.m.kmt_alive(number)


def test_what_nobody_turns_out_to_hold_ends_when_the_announcement_does(world: World) -> None:
    world.m.restore_payload(world.a, payload_record())
    world.m.restore_object(world.a, object_record())
    assert world.m.import_by_name(world.b, "frames")
    world.m.release(world.b, 1)
    assert world.m.take_released() == []
    world.m.restore_done(world.a)
    assert world.m.take_released() == [11]
    assert world.m.counts()["objects"] == 0


def test_a_client_that_dies_while_announcing_leaves_nothing(world: World) -> None:
    world.m.restore_payload(world.a, payload_record())
    world.m.restore_object(world.a, object_record())
    world.m.restore_reference(world.a, ReferenceRecord(1, 11, 21, True, 0))
    world.m.detach(world.a)
    assert world.m.take_released() == [11]


def test_announcing_twice_changes_nothing(world: World) -> None:
    for _ in range(2):
        assert world.m.restore_payload(world.a, payload_record()).payload == 11
        assert world.m.restore_object(world.a, object_record())
    world.m.restore_reference(world.a, ReferenceRecord(1, 11, 21, False, 0x20000))
    world.m.restore_done(world.a)
    world.m.release(world.a, 1)
    assert world.m.take_released() == [11]


def test_write_access_comes_back_only_as_far_as_the_object_gives_it(world: World) -> None:
    world.m.restore_payload(world.a, payload_record(writable=False))
    world.m.restore_object(world.a, object_record(writable=False))
    world.m.restore_handle(world.a, HandleRecord(8, 21, 0xFFFF_FFFF, False, True))
    info = world.m.handle_info(world.a, 8)
    assert (info.granted, info.protect) == (0x1F0000, True)


def test_what_another_user_holds_comes_back_whoever_announces_it_first(world: World) -> None:
    """That a process held what it announces is for the caller to prove; the owner need not come first."""
    sddl = SDDL + "(A;;GR;;;WD)"
    world.m.restore_payload(world.eve, payload_record(uid=1000))
    assert world.m.restore_object(world.eve, object_record(sddl=sddl))
    world.m.restore_payload(world.a, payload_record(uid=1000))
    assert world.m.restore_object(world.a, object_record(sddl=sddl))
    assert world.m.import_by_name(world.b, "frames").granted == 0xF0001
    assert world.m.payload_record(11).uid == 1000
    with refused(Status.ACCESS_DENIED):
        world.m.open_handle(world.eve, "frames", 1)


@pytest.mark.parametrize("order", [(21, 22), (22, 21)])
def test_a_name_that_two_objects_had_is_the_later_ones(world: World, order: tuple[int, int]) -> None:
    """Both cannot have lived at once: whoever kept a record of the first one does not get the name by coming first."""
    born = {21: 5, 22: 9}
    kept = {}
    for number in order:
        process = world.a if number == 21 else world.b
        world.m.restore_payload(process, payload_record(number))
        kept[number] = world.m.restore_object(process, object_record(number, number, born=born[number]))
    assert kept[22] and kept[21] is (order[0] == 21)
    assert world.m.import_by_name(world.b, "frames").object == 22
    assert world.m.object_record(21).name is None


def test_a_name_that_was_taken_meanwhile_is_not_given_up(world: World) -> None:
    new = World()
    taken = new.export("frames")
    new.m.restore_payload(new.b, payload_record())
    assert not new.m.restore_object(new.b, object_record(born=0))
    assert new.m.import_by_name(new.b, "frames").object == taken.object


def test_the_owner_must_be_whom_the_security_says(world: World) -> None:
    world.m.restore_payload(world.root, payload_record())
    with refused(Status.INVALID_PARAMETER, "S-1-22-1-1000"):
        world.m.restore_object(world.root, object_record(owner=0))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (payload_record(0), "id of a payload"),
        (payload_record(1 << 63), "id of a payload"),
        (payload_record(kmt=0x4000_0042), "KMT number 0x40000042"),
        (payload_record(share=Share.KMT, kmt=0x8000_0042), "dead"),
        (payload_record(share=Share(3)), "exactly one"),
        (payload_record(descriptor=b"x" * 5000), "5000"),
        (payload_record(12, identity=((9, 12),), share=Share.KMT, kmt=4), "NT handle"),
    ],
)
def test_bad_payload_records_are_refused_and_leave_nothing(world: World, record: PayloadRecord, words: str) -> None:
    with refused(Status.INVALID_PARAMETER, words):
        world.m.restore_payload(world.a, record)
    assert world.m.counts()["payloads"] == 0


def test_contradictory_payloads_are_refused(world: World) -> None:
    world.m.restore_payload(world.a, payload_record())
    for process, record in (
        (world.a, payload_record(identity=((1, 1),))),
        (world.b, payload_record(identity=((1, 1),))),
        (world.b, payload_record(share=Share.KMT)),
    ):
        with refused(Status.INVALID_PARAMETER, "contradictory"):
            world.m.restore_payload(process, record)
    assert world.m.restore_payload(world.b, payload_record(77, identity=((9, 11),))).payload == 11


@pytest.mark.parametrize(
    ("record", "status", "words"),
    [
        (object_record(payload=12), Status.INVALID_PARAMETER, "payload 12"),
        (object_record(0), Status.INVALID_PARAMETER, "id of a object"),
        (object_record(payload=13), Status.INVALID_PARAMETER, "shared by KMT"),
        (object_record(sddl="D:(A"), Status.INVALID_SECURITY_DESCR, "position"),
        (object_record(name="frames"), Status.OBJECT_PATH_SYNTAX_BAD, "full path"),
        (object_record(name=NAME + "\0"), Status.OBJECT_NAME_INVALID, "NUL"),
        (object_record(22, payload=14), Status.INVALID_PARAMETER, "another payload or security"),
        (object_record(22, sddl=SDDL.replace("GA", "GR")), Status.INVALID_PARAMETER, "another payload or security"),
        (object_record(22, writable=False), Status.INVALID_PARAMETER, "another payload or security"),
    ],
)
def test_bad_object_records_are_refused(world: World, record: ObjectRecord, status: Status, words: str) -> None:
    world.m.restore_payload(world.a, payload_record())
    world.m.restore_payload(world.a, payload_record(13, share=Share.KMT))
    world.m.restore_payload(world.a, payload_record(14))
    world.m.restore_object(world.a, object_record(22, name=None))
    before = world.m.counts()
    with refused(status, words):
        world.m.restore_object(world.a, record)
    assert world.m.counts() == before


def test_an_id_that_belongs_to_an_object_of_another_type_is_refused(world: World) -> None:
    other = world.m.insert_foreign("event", "Event")
    world.m.restore_payload(world.a, payload_record())
    with refused(Status.INVALID_PARAMETER, "another payload or security"):
        world.m.restore_object(world.a, object_record(other))
    with pytest.raises(KeyError):
        world.m.object_record(other)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (ReferenceRecord(0, 11, 21, False, 0), "id of a reference"),
        (ReferenceRecord(1 << 53, 11, 21, False, 0), "id of a reference"),
        (ReferenceRecord(5, 11, 21, False, 0), "exists in process"),
        (ReferenceRecord(1, 12, 21, False, 0), "payload 12"),
        (ReferenceRecord(1, 11, 22, False, 0), "shared object 22"),
        (ReferenceRecord(1, 11, None, False, 0), "not on payload 11"),
        (ReferenceRecord(1, 14, 21, False, 0), "not on payload 14"),
        (ReferenceRecord(1, 13, 21, False, 0), "not on payload 13"),
    ],
)
def test_bad_memory_records_are_refused(world: World, record: ReferenceRecord, words: str) -> None:
    announce(world)
    with refused(Status.INVALID_PARAMETER, words):
        world.m.restore_reference(world.a, record)
    world.m.restore_reference(world.a, ReferenceRecord(1, 13, None, False, 0))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (HandleRecord(8, 22, 0, False, False), "shared object 22"),
        (HandleRecord(8, 21, 0, False, False), "in use"),
        (HandleRecord(7, 21, 0, False, False), "not a handle value"),
        (HandleRecord(4 * 65536 + 4, 21, 0, False, False), "not a handle value"),
    ],
)
def test_bad_handle_records_are_refused(world: World, record: HandleRecord, words: str) -> None:
    announce(world)
    world.m.restore_handle(world.a, HandleRecord(8, 21, 0, False, False))
    with refused(Status.INVALID_PARAMETER, words):
        world.m.restore_handle(world.a, record)
    world.m.restore_handle(world.a, HandleRecord(4 * 65536, 21, 0, False, False))
    assert world.m.open_handle(world.a, "frames", GENERIC_ALL) == 4


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (TicketRecord(0, "reference", 11, 21, 0), "id of a ticket"),
        (TicketRecord(1 << 128, "reference", 11, 21, 0), "id of a ticket"),
        (TicketRecord(5, "reference", 11, 21, 0), "in flight already"),
        (TicketRecord(6, "fd", 11, 21, 0), "'fd'"),
        (TicketRecord(6, "kmt", 11, 21, 0), "'kmt'"),
        (TicketRecord(6, "handle", 13, None, 0), "'handle'"),
    ],
)
def test_bad_ticket_records_are_refused(world: World, record: TicketRecord, words: str) -> None:
    announce(world)
    world.m.restore_ticket(world.a, TicketRecord(5, "reference", 11, 21, 0x20000))
    with refused(Status.INVALID_PARAMETER, words):
        world.m.restore_ticket(world.a, record)
    world.m.restore_ticket(world.a, TicketRecord(6, "kmt", 13, None, 0))
    assert world.m.claim(world.b, 6).kmt == 0x4000_0042
    assert world.m.claim(world.b, 5).imported


def announce(world: World) -> None:
    """Payload 11 with object 21 and memory 5; payload 13 by KMT number; payload 14 with nothing."""
    world.m.restore_payload(world.a, payload_record())
    world.m.restore_payload(world.a, payload_record(13, share=Share.KMT, kmt=0x4000_0042))
    world.m.restore_payload(world.a, payload_record(14))
    world.m.restore_object(world.a, object_record())
    world.m.restore_reference(world.a, ReferenceRecord(5, 11, 21, True, 0))


def test_demoted_tickets_end_with_the_manager(world: World) -> None:
    exported = world.export()
    ticket = world.m.offer(world.a, reference=exported.reference)
    world.m.expire(ticket)
    new = World()
    new.m.restore(new.a, world.m.describe(world.a))
    with refused(Status.INVALID_HANDLE):
        new.m.claim(new.b, ticket)
    new.m.release(new.a, exported.reference)
    assert new.m.take_released() == [exported.payload]
    assert new.m.counts()["tickets"] == 0


@pytest.mark.parametrize("sender_first", [True, False])
def test_tickets_of_what_another_process_holds_come_back_alike_in_any_order(world: World, sender_first: bool) -> None:
    exported = world.export("frames")
    imported = world.m.import_by_name(world.b, "frames")
    demoted = world.m.offer(world.a, reference=exported.reference)
    ticket = world.m.offer(world.a, reference=exported.reference)
    world.m.expire(demoted)
    world.m.release(world.a, exported.reference)
    new = World()
    said = [(new.a, world.m.describe(world.a)), (new.b, world.m.describe(world.b))]
    for process, held in said if sender_first else reversed(said):
        new.m.restore(process, held)
    assert new.m.counts()["tickets"] == 1
    with refused(Status.INVALID_HANDLE):
        new.m.claim(new.b, demoted)
    assert new.m.claim(new.b, ticket).imported
    new.m.release(new.b, imported.reference)
    assert new.m.counts()["payloads"] == 1


def test_quotas_hold_while_announcing() -> None:
    world = small(references=1, objects=1, handles=1, tickets=1)
    for number in (11, 12, 13):
        world.m.restore_payload(world.a, payload_record(number))
    with refused(Status.QUOTA_EXCEEDED, "3 payloads"):
        world.m.restore_payload(world.a, payload_record(14))
    world.m.restore_object(world.a, object_record())
    with refused(Status.QUOTA_EXCEEDED):
        world.m.restore_object(world.a, object_record(22, 12, None))
    world.m.restore_reference(world.a, ReferenceRecord(1, 11, 21, True, 0))
    with refused(Status.QUOTA_EXCEEDED):
        world.m.restore_reference(world.a, ReferenceRecord(2, 11, 21, True, 0))
    world.m.restore_handle(world.a, HandleRecord(4, 21, 0, False, False))
    with refused(Status.QUOTA_EXCEEDED):
        world.m.restore_handle(world.a, HandleRecord(8, 21, 0, False, False))
    world.m.restore_ticket(world.a, TicketRecord(1, "reference", 11, 21, 0))
    with refused(Status.QUOTA_EXCEEDED):
        world.m.restore_ticket(world.a, TicketRecord(2, "reference", 11, 21, 0))


def test_a_refused_record_ends_the_announcement_and_keeps_what_came_before(world: World) -> None:
    bad = dataclasses.replace(held(), handles=(HandleRecord(7, 21, 0, False, False),))
    with refused(Status.INVALID_PARAMETER, "not a handle value"):
        world.m.restore(world.a, bad)
    assert world.m.import_by_name(world.b, "frames").payload == 11
    world.m.detach(world.a)
    world.m.detach(world.b)
    assert world.m.take_released() == [11]


def test_names_in_the_global_directory_need_a_manager_that_serves_them() -> None:
    record = dataclasses.replace(held(), objects=(object_record(name="\\BaseNamedObjects\\frames"),))
    with refused(Status.ACCESS_DENIED):
        World(global_names=False).m.restore(1, record)
    assert World().m.restore(1, record).nameless == ()


def test_records_tell_what_a_client_must_remember(world: World) -> None:
    exported = world.export("Frames", sddl="D:(A;;GR;;;WD)")
    assert exported.object is not None
    record = world.m.object_record(exported.object)
    assert record == ObjectRecord(
        exported.object,
        exported.payload,
        "\\Sessions\\1\\BaseNamedObjects\\Frames",
        1000,
        "O:S-1-22-1-1000G:S-1-22-2-1000D:(A;;GR;;;WD)",
        True,
        1,
        (100, 0),
    )
    with pytest.raises(KeyError):
        world.m.payload_record(exported.payload + 1)


def test_the_snapshot_tells_who_holds_what(world: World) -> None:
    exported = world.export("Frames")
    handle = world.m.get_handle(world.a, exported.reference)
    world.m.import_by_name(world.b, "frames")
    world.m.offer(world.b, reference=1)
    world.m.open_foreign(world.a, world.m.insert_foreign("event", "Event"), 0)
    (row,) = world.m.snapshot()
    assert (row.payload, row.share, row.kmt, row.descriptor) == (exported.payload, Share.NT, None, b"descriptor")
    assert row.name == "\\Sessions\\1\\BaseNamedObjects\\Frames" and row.names == (row.name,)
    assert [(h.pid, h.references, [(x.value, x.granted) for x in h.handles], h.tickets) for h in row.holders] == [
        (100, 1, [(handle, 0xF0001)], 0),
        (200, 1, [], 1),
    ]
    assert (row.objects[0].handle_count, row.objects[0].pointer_count) == (1, 4)
    assert world.m.describe(world.a).handles == (HandleRecord(handle, row.objects[0].object, 0xF0001, False, False),)
    assert world.m.counts()["handles"] == 2


def test_a_payload_without_names_tells_none(world: World) -> None:
    world.export()
    assert world.m.snapshot()[0].name is None
