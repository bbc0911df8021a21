"""Tickets: references in flight."""

from __future__ import annotations

import pytest

from extmem.objects import GENERIC_ALL, Status
from tests.unit.objects.world import World, refused, small


def test_a_ticket_for_memory_gives_the_claimer_memory(world: World) -> None:
    exported = world.export("frames", access=0x8000_0000)
    claimed = world.m.claim(world.b, world.m.offer(world.a, memory=exported.memory)).imported
    assert claimed is not None
    assert (claimed.payload, claimed.object, claimed.granted) == (exported.payload, exported.object, 0x20000)
    world.m.free_memory(world.a, exported.memory)
    assert world.m.import_by_name(world.b, "frames")  # the claimed memory holds it


def test_a_ticket_for_imported_memory_passes_on_its_rights(world: World) -> None:
    world.export("frames", sddl="D:(A;;GR;;;WD)")
    imported = world.m.import_by_name(world.eve, "frames")
    claimed = world.m.claim(world.root, world.m.offer(world.eve, memory=imported.memory)).imported
    assert claimed is not None and claimed.granted == imported.granted == 0x20000


def test_a_ticket_for_a_handle_gives_a_handle_with_the_same_rights_and_no_flags(world: World) -> None:
    handle = world.handle(access=0x1, inherit=True)
    claimed = world.m.claim(world.b, world.m.offer(world.a, handle=handle)).handle
    assert claimed == 4
    info = world.m.handle_info(world.b, claimed)
    assert (info.granted, info.inherit, info.protect, info.handle_count) == (0x1, False, False, 2)


def test_a_ticket_for_kmt_memory_gives_memory(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.a, memory=exported.memory)
    world.m.free_memory(world.a, exported.memory)
    claimed = world.m.claim(world.b, ticket).imported
    assert claimed is not None and (claimed.payload, claimed.kmt) == (exported.payload, number)


def test_a_ticket_for_a_number_gives_the_number_and_keeps_it_alive_so_far(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.b, kmt=number)
    world.m.free_memory(world.a, exported.memory)
    assert world.m.kmt_alive(number)
    assert world.m.claim(world.b, ticket).kmt == number
    assert not world.m.kmt_alive(number)
    assert world.m.take_released() == [exported.payload]


def test_a_strict_number_can_die_on_its_way_and_the_memory_with_it_cannot(world: World) -> None:
    exported, number = world.export_kmt(strict_kmt=True)
    by_number = world.m.offer(world.a, kmt=number)
    by_memory = world.m.offer(world.a, memory=exported.memory)
    world.m.free_memory(world.a, exported.memory)
    with refused(Status.INVALID_HANDLE, "strict_kmt"):
        world.m.claim(world.b, by_number)
    claimed = world.m.claim(world.b, by_memory).imported
    assert claimed is not None and claimed.kmt is None


def test_a_ticket_keeps_the_object_and_its_name_until_claimed(world: World) -> None:
    exported = world.export("frames")
    ticket = world.m.offer(world.a, memory=exported.memory)
    world.m.free_memory(world.a, exported.memory)
    assert world.m.open_handle(world.b, "frames", GENERIC_ALL)
    world.m.close_handle(world.b, 4)
    assert world.m.take_released() == []
    assert world.m.claim(world.b, ticket).imported


def test_a_ticket_is_claimed_once(world: World) -> None:
    exported = world.export()
    ticket = world.m.offer(world.a, memory=exported.memory)
    world.m.claim(world.b, ticket)
    with refused(Status.INVALID_HANDLE, "claimed before", "once"):
        world.m.claim(world.b, ticket)


def test_another_user_cannot_claim_and_the_ticket_stays_and_uid_0_can(world: World) -> None:
    ticket = world.m.offer(world.a, memory=world.export().memory)
    with refused(Status.ACCESS_DENIED, "User 2000", "user 1000"):
        world.m.claim(world.eve, ticket)
    assert world.m.claim(world.root, ticket).imported


def test_a_withdrawn_ticket_is_gone(world: World) -> None:
    exported = world.export()
    ticket = world.m.offer(world.a, memory=exported.memory)
    with refused(Status.ACCESS_DENIED, "process 100"):
        world.m.withdraw(world.b, ticket)
    world.m.free_memory(world.a, exported.memory)
    assert world.m.withdraw(world.a, ticket) is True
    assert world.m.take_released() == [exported.payload]
    assert world.m.withdraw(world.a, ticket) is False
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, ticket)


def test_tickets_end_with_their_sender(world: World) -> None:
    world.export("frames", sddl="D:NO_ACCESS_CONTROL")
    imported = world.m.import_by_name(world.b, "frames")
    strong, weak = (world.m.offer(world.b, memory=imported.memory) for _ in range(2))
    world.m.demote(weak)
    world.m.detach(world.b)
    for ticket in (strong, weak):
        with refused(Status.INVALID_HANDLE, "sender"):
            world.m.claim(world.a, ticket)


def test_a_demoted_ticket_can_be_claimed_while_the_object_lives(world: World) -> None:
    exported = world.export()
    first, second = (world.m.offer(world.a, memory=exported.memory) for _ in range(2))
    assert world.m.demote(first) and world.m.demote(first) and world.m.demote(second)
    assert world.m.claim(world.b, first).imported
    world.m.free_memory(world.a, exported.memory)
    assert world.m.counts()["tickets"] == 1  # b's memory keeps the object
    world.m.free_memory(world.b, 1)
    assert world.m.counts()["tickets"] == 0
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, second)


def test_demoting_the_last_reference_ends_object_and_ticket(world: World) -> None:
    exported = world.export("frames")
    ticket = world.m.offer(world.a, memory=exported.memory)
    world.m.free_memory(world.a, exported.memory)
    assert world.m.demote(ticket) is False
    assert world.m.take_released() == [exported.payload]
    assert world.m.demote(ticket) is False


def test_a_demoted_ticket_for_a_number_ends_with_the_payload(world: World) -> None:
    exported, number = world.export_kmt()
    ticket = world.m.offer(world.a, kmt=number)
    world.m.demote(ticket)
    world.m.free_memory(world.a, exported.memory)
    with refused(Status.INVALID_HANDLE):
        world.m.claim(world.b, ticket)
    assert world.m.counts()["tickets"] == 0


def test_a_ticket_stands_for_exactly_one_thing(world: World) -> None:
    exported = world.export()
    handle = world.m.get_handle(world.a, exported.memory)
    with refused(Status.INVALID_PARAMETER, "exactly one"):
        world.m.offer(world.a)
    with refused(Status.INVALID_PARAMETER, "exactly one"):
        world.m.offer(world.a, memory=exported.memory, handle=handle)
    assert world.m.offer(world.a, handle=handle)


def test_what_one_does_not_hold_cannot_be_offered(world: World) -> None:
    exported = world.export(access=0x1)
    with refused(Status.INVALID_HANDLE):
        world.m.offer(world.b, memory=exported.memory)
    with refused(Status.INVALID_HANDLE):
        world.m.offer(world.b, handle=4)
    with refused(Status.ACCESS_DENIED, "READ_CONTROL"):
        world.m.offer(world.a, memory=exported.memory)


def test_the_ticket_quota_refuses_the_next() -> None:
    world = small(tickets=1)
    exported = world.export()
    ticket = world.m.offer(world.a, memory=exported.memory)
    with refused(Status.QUOTA_EXCEEDED, "1 objects"):
        world.m.offer(world.a, memory=exported.memory)
    world.m.claim(world.b, ticket)
    assert world.m.offer(world.a, memory=exported.memory)


@pytest.mark.parametrize("what", ["memory", "handle"])
def test_a_claimer_at_its_limit_leaves_the_ticket(what: str) -> None:
    world = small(memories=1, handles=1)
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.memory)
    ticket = world.m.offer(world.a, **{what: exported.memory if what == "memory" else handle})
    world.m.import_by_name(world.b, "frames")
    world.m.open_handle(world.b, "frames", GENERIC_ALL)
    with refused(Status.QUOTA_EXCEEDED):
        world.m.claim(world.b, ticket)
    world.m.free_memory(world.b, 1)
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
    assert [world.m.offer(world.a, memory=exported.memory) for _ in range(2)] == [7, 8]
    assert set(asked) == {1 << 128}
