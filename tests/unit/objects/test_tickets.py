"""Tickets: references in flight."""

from __future__ import annotations

import pytest

from extmem.objects import GENERIC_ALL, Status
from tests.unit.objects.world import World, refused, small


def test_a_ticket_for_memory_gives_the_claimer_memory(world: World) -> None:
    exported = world.export("frames", access=0x8000_0000)
    claimed = world.m.claim(world.b, world.m.offer(world.a, reference=exported.reference)).imported
    assert claimed is not None
    assert (claimed.payload, claimed.object, claimed.granted) == (exported.payload, exported.object, 0x20000)
    world.m.release(world.a, exported.reference)
    assert world.m.import_by_name(world.b, "frames")  # the claimed memory holds it


def test_a_ticket_for_imported_memory_passes_on_its_rights(world: World) -> None:
    world.export("frames", sddl="D:(A;;GR;;;WD)")
    imported = world.m.import_by_name(world.eve, "frames")
    claimed = world.m.claim(world.root, world.m.offer(world.eve, reference=imported.reference)).imported
    assert claimed is not None and claimed.granted == imported.granted == 0x20000


def test_a_ticket_for_a_handle_gives_a_handle_with_the_same_rights_and_no_flags(world: World) -> None:
    handle = world.handle(access=0x1, inherit=True)
    claimed = world.m.claim(world.b, world.m.offer(world.a, handle=handle)).handle
    assert claimed == 4
    info = world.m.handle_info(world.b, claimed)
    assert (info.granted, info.inherit, info.protect, info.handle_count) == (0x1, False, False, 2)


def test_a_ticket_for_kmt_memory_gives_memory(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.a, reference=exported.reference)
    world.m.release(world.a, exported.reference)
    claimed = world.m.claim(world.b, ticket).imported
    assert claimed is not None and (claimed.payload, claimed.kmt) == (exported.payload, number)


def test_a_ticket_for_a_number_gives_the_number_and_keeps_it_alive_so_far(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.b, kmt=number)
    world.m.release(world.a, exported.reference)
    assert world.m.kmt_alive(number)
    assert world.m.claim(world.b, ticket).kmt == number
    assert not world.m.kmt_alive(number)
    assert world.m.take_released() == [exported.payload]


def test_a_strict_number_can_die_on_its_way_and_the_memory_with_it_cannot(world: World) -> None:
    exported, number = world.export_kmt(strict_kmt=True)
    by_number = world.m.offer(world.a, kmt=number)
    by_memory = world.m.offer(world.a, reference=exported.reference)
    world.m.release(world.a, exported.reference)
    with refused(Status.INVALID_HANDLE, "strict_kmt"):
        world.m.claim(world.b, by_number)
    claimed = world.m.claim(world.b, by_memory).imported
    assert claimed is not None and claimed.kmt is None


def test_a_ticket_keeps_the_object_and_its_name_until_claimed(world: World) -> None:
    exported = world.export("frames")
    ticket = world.m.offer(world.a, reference=exported.reference)
    world.m.release(world.a, exported.reference)
    assert world.m.open_handle(world.b, "frames", GENERIC_ALL)
    world.m.close_handle(world.b, 4)
    assert world.m.take_released() == []
    assert world.m.claim(world.b, ticket).imported


def test_a_ticket_is_claimed_once(world: World) -> None:
    exported = world.export()
    ticket = world.m.offer(world.a, reference=exported.reference)
    world.m.claim(world.b, ticket)
    with refused(Status.INVALID_HANDLE, "claimed before", "once"):
        world.m.claim(world.b, ticket)


def test_another_user_cannot_claim_and_the_ticket_stays_and_uid_0_can(world: World) -> None:
    ticket = world.m.offer(world.a, reference=world.export().reference)
    with refused(Status.ACCESS_DENIED, "User 2000", "user 1000"):
        world.m.claim(world.eve, ticket)
    assert world.m.claim(world.root, ticket).imported


def test_a_withdrawn_ticket_is_gone(world: World) -> None:
    exported = world.export()
    ticket = world.m.offer(world.a, reference=exported.reference)
    with refused(Status.ACCESS_DENIED, "process 100"):
        world.m.withdraw(world.b, ticket)
    world.m.release(world.a, exported.reference)
    assert world.m.withdraw(world.a, ticket) is True
    assert world.m.take_released() == [exported.payload]
    assert world.m.withdraw(world.a, ticket) is False
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, ticket)


def test_a_ticket_outlives_its_sender_and_keeps_payload_and_rights(world: World) -> None:
    exported = world.export("frames", sddl="D:(A;;GR;;;OW)", by=world.b)
    ticket = world.m.offer(world.b, reference=exported.reference)
    handle = world.m.get_handle(world.b, exported.reference)
    sent = world.m.offer(world.b, handle=handle)
    world.m.detach(world.b)
    assert world.m.snapshot()[0].in_flight == 2 and world.m.snapshot()[0].holders == ()
    claimed = world.m.claim(world.a, ticket).imported
    assert claimed is not None and (claimed.payload, claimed.object) == (exported.payload, exported.object)
    value = world.m.claim(world.a, sent).handle
    assert value is not None and world.granted(world.a, value) == 0xF0001
    assert world.m.take_released() == []


def test_the_name_belongs_to_living_processes_and_does_not_come_back(world: World) -> None:
    exported = world.export("frames", by=world.b)
    ticket = world.m.offer(world.b, reference=exported.reference)
    world.m.detach(world.b)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.import_by_name(world.a, "frames")
    other = world.export("Frames")
    claimed = world.m.claim(world.a, ticket).imported
    assert claimed is not None and claimed.name is None
    assert world.m.import_by_name(world.a, "frames").object == other.object
    assert claimed.object is not None and world.m.object_record(claimed.object).name is None


def test_a_name_that_another_process_keeps_stays(world: World) -> None:
    exported = world.export("frames", by=world.b)
    kept = world.m.import_by_name(world.a, "frames")
    ticket = world.m.offer(world.b, reference=exported.reference)
    world.m.detach(world.b)
    assert world.m.import_by_name(world.a, "frames").object == exported.object
    assert world.m.claim(world.a, ticket).imported
    world.m.release(world.a, kept.reference)
    assert world.m.import_by_name(world.a, "frames").object == exported.object


def test_a_number_does_not_outlive_the_sender_and_the_memory_does(world: World) -> None:
    exported, number = world.export_kmt(by=world.b)
    by_memory = world.m.offer(world.b, reference=exported.reference)
    by_number = world.m.offer(world.b, kmt=number)
    world.m.detach(world.b)
    assert not world.m.kmt_alive(number)
    with refused(Status.INVALID_HANDLE, "KMT number"):
        world.m.claim(world.a, by_number)
    claimed = world.m.claim(world.a, by_memory).imported
    assert claimed is not None and (claimed.payload, claimed.kmt) == (exported.payload, None)


def test_what_nobody_claims_in_time_ends_with_or_without_its_sender(world: World) -> None:
    exported = world.export(by=world.b)
    orphan, late = (world.m.offer(world.b, reference=exported.reference) for _ in range(2))
    assert world.m.expire(late)
    world.m.detach(world.b)
    assert world.m.counts()["tickets"] == 1, "one whose time was over ends with its sender"
    assert not world.m.expire(orphan)
    assert world.m.take_released() == [exported.payload]
    for ticket in (orphan, late):
        with refused(Status.INVALID_HANDLE, "in time"):
            world.m.claim(world.a, ticket)


def test_only_the_same_user_claims_what_a_dead_process_sent(world: World) -> None:
    exported = world.export(by=world.b)
    first, second = (world.m.offer(world.b, reference=exported.reference) for _ in range(2))
    world.m.detach(world.b)
    with refused(Status.ACCESS_DENIED, "User 2000", "user 1000"):
        world.m.claim(world.eve, first)
    assert world.m.claim(world.root, first).imported and world.m.claim(world.a, second).imported


def test_nobody_withdraws_what_a_dead_process_sent_and_its_end_can_be_ordered(world: World) -> None:
    exported = world.export(by=world.b)
    ticket = world.m.offer(world.b, reference=exported.reference)
    world.m.detach(world.b)
    with refused(Status.ACCESS_DENIED, "has ended"):
        world.m.withdraw(world.a, ticket)
    world.m.cancel(ticket)
    world.m.cancel(ticket)
    assert world.m.take_released() == [exported.payload]


def test_a_claim_that_is_undone_puts_the_ticket_back(world: World) -> None:
    """Whether the sender lives, has ended before the claim, or meanwhile."""
    for ends in ("never", "before", "meanwhile"):
        sender = world.m.attach(world.m._process(world.a).token, 500)
        exported = world.export(by=sender)
        ticket = world.m.offer(sender, reference=exported.reference)
        if ends == "before":
            world.m.detach(sender)
        claimed = world.m.claim(world.b, ticket)
        if ends == "meanwhile":
            world.m.detach(sender)
        back = world.m.put_back(world.b, claimed)
        assert back is not None and (back.sender is None) is (ends != "never")
        assert world.m.put_back(world.b, world.m.claim(world.b, ticket)) is not None
        assert world.m.claim(world.b, ticket).imported
        assert world.m.counts()["tickets"] == 0


def test_a_claim_of_a_number_is_not_undone_when_its_payload_has_ended(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.a, kmt=number)
    claimed = world.m.claim(world.b, ticket)
    world.m.release(world.a, exported.reference)
    assert world.m.put_back(world.b, claimed) is None
    assert not world.m.expire(ticket) and world.m.counts()["tickets"] == 0


def test_a_claim_of_a_number_is_undone_while_its_payload_lives(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.a, kmt=number)
    assert world.m.put_back(world.b, world.m.claim(world.b, ticket)) is not None
    world.m.release(world.a, exported.reference)
    assert world.m.claim(world.b, ticket).kmt == number


@pytest.mark.parametrize("demoted", ["none", "one", "both"])
@pytest.mark.parametrize("kind", ["NT", "KMT"])
def test_a_sender_of_two_tickets_of_one_payload_ends(world: World, kind: str, demoted: str) -> None:
    exported = world.export() if kind == "NT" else world.export_kmt()[0]
    first, second = (world.m.offer(world.a, reference=exported.reference) for _ in range(2))
    if demoted != "none":
        world.m.expire(second)
    if demoted == "both":
        world.m.expire(first)
    world.m.release(world.a, exported.reference)
    world.m.detach(world.a)
    left = {"none": 2, "one": 1, "both": 0}[demoted]
    assert world.m.counts()["tickets"] == left
    for ticket in (first, second):
        world.m.expire(ticket)
    assert world.m.take_released() == [exported.payload]
    assert world.m.counts()["payloads"] == world.m.counts()["tickets"] == 0


def test_a_demoted_ticket_can_be_claimed_while_the_object_lives(world: World) -> None:
    exported = world.export()
    first, second = (world.m.offer(world.a, reference=exported.reference) for _ in range(2))
    assert world.m.expire(first) and world.m.expire(first) and world.m.expire(second)
    assert world.m.claim(world.b, first).imported
    world.m.release(world.a, exported.reference)
    assert world.m.counts()["tickets"] == 1  # b's memory keeps the object
    world.m.release(world.b, 1)
    assert world.m.counts()["tickets"] == 0
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, second)


def test_demoting_the_last_reference_ends_object_and_ticket(world: World) -> None:
    exported = world.export("frames")
    ticket = world.m.offer(world.a, reference=exported.reference)
    world.m.release(world.a, exported.reference)
    assert world.m.expire(ticket) is False
    assert world.m.take_released() == [exported.payload]
    assert world.m.expire(ticket) is False


def test_a_demoted_ticket_for_a_number_ends_with_the_payload(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.a, kmt=number)
    world.m.expire(ticket)
    world.m.release(world.a, exported.reference)
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, ticket)
    assert world.m.counts()["tickets"] == 0


def test_a_ticket_stands_for_exactly_one_thing(world: World) -> None:
    exported = world.export()
    handle = world.m.get_handle(world.a, exported.reference)
    with refused(Status.INVALID_PARAMETER, "exactly one"):
        world.m.offer(world.a)
    with refused(Status.INVALID_PARAMETER, "exactly one"):
        world.m.offer(world.a, reference=exported.reference, handle=handle)
    assert world.m.offer(world.a, handle=handle)


def test_what_one_does_not_hold_cannot_be_offered(world: World) -> None:
    exported = world.export(access=0x1)
    with refused(Status.INVALID_HANDLE):
        world.m.offer(world.b, reference=exported.reference)
    with refused(Status.INVALID_HANDLE):
        world.m.offer(world.b, handle=4)
    with refused(Status.ACCESS_DENIED, "READ_CONTROL"):
        world.m.offer(world.a, reference=exported.reference)


def test_the_ticket_quota_refuses_the_next() -> None:
    world = small(tickets=1)
    exported = world.export("frames")
    ticket = world.m.offer(world.a, reference=exported.reference)
    with refused(Status.QUOTA_EXCEEDED, "1 objects", "user 1000"):
        world.m.offer(world.b, handle=world.m.open_handle(world.b, "frames", GENERIC_ALL))
    world.m.claim(world.b, ticket)
    assert world.m.offer(world.a, reference=exported.reference)


def test_what_nobody_took_in_time_makes_room_the_oldest_first() -> None:
    world = small(tickets=3)
    exported = world.export()
    tickets = [world.m.offer(world.a, reference=exported.reference) for _ in range(3)]
    for ticket in (tickets[1], tickets[0]):
        assert world.m.expire(ticket)
    tickets.append(world.m.offer(world.a, reference=exported.reference))
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, tickets[1])
    tickets.append(world.m.offer(world.a, reference=exported.reference))
    with refused(Status.QUOTA_EXCEEDED):
        world.m.offer(world.a, reference=exported.reference)
    for ticket in (tickets[2], tickets[3], tickets[4]):
        assert world.m.claim(world.b, ticket)


def test_the_quota_is_of_a_user_and_what_its_dead_processes_sent_is_in_it() -> None:
    world = small(tickets=2)
    exported = world.export(by=world.b, sddl="D:NO_ACCESS_CONTROL")
    for _ in range(2):
        world.m.offer(world.b, reference=exported.reference)
    world.m.detach(world.b)
    with refused(Status.QUOTA_EXCEEDED, "2 objects"):
        world.m.offer(world.a, reference=world.export().reference)
    assert world.m.offer(world.eve, reference=world.export(by=world.eve).reference)


@pytest.mark.parametrize("what", ["reference", "handle"])
def test_a_claimer_at_its_limit_leaves_the_ticket(what: str) -> None:
    world = small(references=1, handles=1)
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.reference)
    ticket = world.m.offer(world.a, **{what: exported.reference if what == "reference" else handle})
    world.m.import_by_name(world.b, "frames")
    world.m.open_handle(world.b, "frames", GENERIC_ALL)
    with refused(Status.QUOTA_EXCEEDED):
        world.m.claim(world.b, ticket)
    world.m.release(world.b, 1)
    world.m.close_handle(world.b, 4)
    assert world.m.claim(world.b, ticket)


def test_tickets_are_128_random_bits_never_0_and_never_twice(world: World) -> None:
    asked: list[int] = []
    numbers = iter([0, 7, 7, 8])

    def random(n: int) -> int:
        asked.append(n)
        return next(numbers)

    exported = world.export()
    world.m._random = random
    assert [world.m.offer(world.a, reference=exported.reference) for _ in range(2)] == [7, 8]
    assert set(asked) == {1 << 128}
