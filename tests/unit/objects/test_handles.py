"""Handles: values, flags, duplicating, closing, comparing (B15, B29–B31, B36–B49, B68, B69)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from extmem.objects import FLAG_INHERIT, FLAG_PROTECT, GENERIC_ALL, MEMORY, Share, Status
from extmem.objects.kernel_object import KernelObject
from extmem.objects.object_types import foreign_type
from extmem.objects.table import Entry, HandleTable
from tests.unit.objects.world import READ_WRITE, World, refused, small


def test_B15_every_open_is_a_handle_of_its_own(world: World) -> None:
    world.export("frames")
    first = world.m.open_handle(world.b, "frames", GENERIC_ALL)
    second = world.m.open_handle(world.b, "frames", 0x8000_0000)
    assert first != second
    assert (world.granted(world.b, first), world.granted(world.b, second)) == (0xF0001, 0x20000)
    world.m.close_handle(world.b, first)
    assert world.m.handle_info(world.b, second).handle_count == 1


def test_B25_handles_tell_type_name_object_and_counts(world: World) -> None:
    exported = world.export("Frames")
    handle = world.m.get_handle(world.a, exported.reference)
    info = world.m.handle_info(world.a, handle)
    assert (info.type_name, info.object) == (MEMORY.name, exported.object)
    assert (info.handle_count, info.pointer_count) == (1, 2)  # the handle; and the exporting memory
    assert world.m.handle_info(world.a, world.handle()).name == ""  # B64


def test_B29_the_inherit_flag_of_the_export_is_on_handles_got_later(world: World) -> None:
    yes, no = world.export(inherit=True), world.export(inherit=False)
    for exported, inherit in ((yes, True), (no, False)):
        for _ in range(2):
            handle = world.m.get_handle(world.a, exported.reference)
            assert world.m.handle_info(world.a, handle).inherit is inherit


def test_B31_opens_are_inheritable_only_when_asked(world: World) -> None:
    world.export("frames", inherit=True)
    assert not world.m.handle_info(world.b, world.m.open_handle(world.b, "frames", GENERIC_ALL)).inherit
    assert world.m.handle_info(world.b, world.m.open_handle(world.b, "frames", GENERIC_ALL, True)).inherit


def test_B36_same_access_and_only_the_argument_decides_inheritance(world: World) -> None:
    source = world.handle(access=READ_WRITE, inherit=True)
    copy = world.m.duplicate(world.a, source, desired=None)
    info = world.m.handle_info(world.a, copy)
    assert copy != source
    assert (info.granted, info.inherit) == (0x20001, False)
    assert world.m.handle_info(world.a, world.m.duplicate(world.a, source, desired=None, inherit=True)).inherit


def test_B36_same_attributes_copies_both_flags(world: World) -> None:
    source = world.handle()
    world.m.set_handle_flags(world.a, source, 3, FLAG_PROTECT)
    copy = world.m.duplicate(world.a, source, desired=None, inherit=True, same_attributes=True)
    info = world.m.handle_info(world.a, copy)
    assert (info.inherit, info.protect) == (False, True)


def test_B37_reduced_access_is_exactly_the_mapped_request(world: World) -> None:
    copy = world.m.duplicate(world.a, world.handle(), desired=0x8000_0000)
    assert world.granted(world.a, copy) == 0x20000


def test_B38_more_access_needs_the_objects_permission(world: World) -> None:
    source = world.m.duplicate(world.a, world.handle(), desired=0)
    assert world.granted(world.a, world.m.duplicate(world.a, source, desired=READ_WRITE)) == 0x20001
    closed = world.m.duplicate(world.a, world.handle(sddl="D:"), desired=0x20000)
    with refused(Status.ACCESS_DENIED, "RESOURCE_WRITE"):
        world.m.duplicate(world.a, closed, desired=READ_WRITE)


def test_B38_what_the_source_has_is_not_checked(world: World) -> None:
    source = world.handle(sddl="D:(D;;GA;;;WD)(A;;0;;;OW)")
    assert world.granted(world.a, world.m.duplicate(world.a, source, desired=0x1)) == 0x1


def test_B38_the_targets_token_must_be_allowed_too(world: World) -> None:
    world.export("frames", sddl="D:(A;;GA;;;S-1-22-1-0)(A;;GR;;;S-1-22-1-1000)")
    source = world.m.open_handle(world.root, "frames", 0x8000_0000)
    assert world.m.duplicate(world.root, source, desired=READ_WRITE)
    with refused(Status.ACCESS_DENIED, "User 1000"):
        world.m.duplicate(world.root, source, target=world.b, desired=READ_WRITE)
    into = world.m.duplicate(world.root, source, target=world.b, desired=None)
    assert world.granted(world.b, into) == 0x20000


def test_B38_maximum_allowed_adds_what_both_may_to_what_the_source_has(world: World) -> None:
    source = world.handle(sddl="D:(A;;GR;;;WD)", access=0x1)
    assert world.granted(world.a, world.m.duplicate(world.a, source, desired=0x0200_0000)) == 0x60001


def test_B39_close_source_with_same_access_gives_the_same_value_back(world: World) -> None:
    source = world.handle()
    world.handle()
    assert world.m.duplicate(world.a, source, desired=None, inherit=True, close_source=True) == source
    assert world.m.handle_info(world.a, source).inherit
    assert world.m.counts()["handles"] == 2


def test_B39_a_protected_source_stays_open_and_a_new_value_comes(world: World) -> None:
    source = world.handle()
    world.m.set_handle_flags(world.a, source, FLAG_PROTECT, FLAG_PROTECT)
    copy = world.m.duplicate(world.a, source, desired=None, close_source=True)
    assert copy != source
    assert world.m.handle_info(world.a, source).protect
    assert not world.m.handle_info(world.a, copy).protect


def test_B39_with_another_access_the_source_closes_and_a_new_value_comes(world: World) -> None:
    source = world.handle()
    copy = world.m.duplicate(world.a, source, desired=0x20000, close_source=True)
    assert copy != source
    with refused(Status.INVALID_HANDLE):
        world.m.handle_info(world.a, source)
    assert world.granted(world.a, copy) == 0x20000


def test_B40_close_source_closes_even_if_the_duplication_fails(world: World) -> None:
    source = world.handle()
    with refused(Status.ACCESS_DENIED):
        world.m.duplicate(world.a, source, desired=0xFFFF_FFFF, close_source=True)
    with refused(Status.INVALID_HANDLE):
        world.m.handle_info(world.a, source)
    kept = world.handle()
    with refused(Status.ACCESS_DENIED):
        world.m.duplicate(world.a, kept, desired=0xFFFF_FFFF)
    assert world.m.handle_info(world.a, kept)


def test_B40_the_last_handle_closed_so_ends_its_object(world: World) -> None:
    exported = world.export("frames")
    source = world.m.get_handle(world.a, exported.reference)
    world.m.release(world.a, exported.reference)
    with refused(Status.ACCESS_DENIED):
        world.m.duplicate(world.a, source, target=world.eve, desired=None, close_source=True)
    assert world.m.take_released() == [exported.payload]


def test_B41_the_lowest_free_value_is_used_first(world: World) -> None:
    values = [world.handle() for _ in range(5)]
    assert values == [4, 8, 12, 16, 20]
    for value in (16, 8):
        world.m.close_handle(world.a, value)
    assert [world.handle() for _ in range(3)] == [8, 16, 24]


def test_B42_an_invalid_source_is_an_invalid_handle(world: World) -> None:
    for close_source in (False, True):
        with refused(Status.INVALID_HANDLE, "0x4"):
            world.m.duplicate(world.a, 4, desired=None, close_source=close_source)


def test_B43_into_another_process_of_the_same_user(world: World) -> None:
    world.handle()
    source = world.handle("frames")
    into = world.m.duplicate(world.a, source, target=world.b, desired=None)
    assert into == 4  # meaningful in b only
    assert world.m.handle_info(world.b, into).object == world.m.handle_info(world.a, source).object
    moved = world.m.duplicate(world.a, source, target=world.b, desired=None, close_source=True)
    assert moved == 8
    with refused(Status.INVALID_HANDLE):
        world.m.close_handle(world.a, source)


def test_B43_into_a_process_of_another_user_takes_uid_0(world: World) -> None:
    source = world.handle("frames", sddl="D:NO_ACCESS_CONTROL")
    with refused(Status.ACCESS_DENIED, "process 300", "user 2000"):
        world.m.duplicate(world.a, source, target=world.eve, desired=None)
    mine = world.m.open_handle(world.root, "frames", GENERIC_ALL)
    assert world.m.duplicate(world.root, mine, target=world.eve, desired=None)


def test_B43_into_a_process_that_is_gone(world: World) -> None:
    source = world.handle()
    world.m.detach(world.b)
    with refused(Status.INVALID_CID, "is not attached", "attached"):
        world.m.duplicate(world.a, source, target=world.b, desired=None)
    assert world.m.duplicate(world.a, source, target=world.a, desired=None)


def test_B44_handles_are_compared_by_object(world: World) -> None:
    identity = world.identity()
    source = world.handle("frames", identity=identity)
    copy = world.m.duplicate(world.a, source, desired=0)
    opened = world.m.open_handle(world.a, "frames", GENERIC_ALL)
    other = world.handle("frames2", identity=identity)
    assert world.m.same_object(world.a, source, copy)
    assert world.m.same_object(world.a, source, opened)
    assert not world.m.same_object(world.a, source, other)
    with refused(Status.INVALID_HANDLE):
        world.m.same_object(world.a, source, 0x400)


def test_B45_flags_start_at_0_and_change_by_mask(world: World) -> None:
    handle = world.handle()

    def flags() -> tuple[bool, bool]:
        info = world.m.handle_info(world.a, handle)
        return info.inherit, info.protect

    assert flags() == (False, False)
    world.m.set_handle_flags(world.a, handle, FLAG_INHERIT, 3)
    assert flags() == (True, False)
    world.m.set_handle_flags(world.a, handle, FLAG_PROTECT, 3)
    assert flags() == (True, True)
    world.m.set_handle_flags(world.a, handle, FLAG_INHERIT, 0)
    assert flags() == (False, True)
    with refused(Status.INVALID_PARAMETER, "0x5"):
        world.m.set_handle_flags(world.a, handle, 5, 5)


def test_B46_a_protected_handle_does_not_close_and_stays_valid(world: World) -> None:
    handle = world.handle()
    world.m.set_handle_flags(world.a, handle, FLAG_PROTECT, FLAG_PROTECT)
    with refused(Status.HANDLE_NOT_CLOSABLE, "HANDLE_FLAG_PROTECT_FROM_CLOSE"):
        world.m.close_handle(world.a, handle)
    assert world.m.import_by_handle(world.a, handle)
    world.m.set_handle_flags(world.a, handle, FLAG_PROTECT, 0)
    world.m.close_handle(world.a, handle)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "NULL"),
        (0x1EADBEE0, "not open"),
        (-4, "not open"),
        (1 << 40, "not open"),
        (3, "not open"),
        (0x4000_0042, "KMT number"),
    ],
)
def test_B47_B49_garbage_and_kmt_numbers_are_invalid_handles(world: World, value: int, words: str) -> None:
    handle = world.handle()
    for call in (world.m.close_handle, world.m.handle_info, world.m.import_by_handle):
        with refused(Status.INVALID_HANDLE, words):
            call(world.a, value)
    assert world.m.handle_info(world.a, handle)


def test_B47_a_closed_handle_does_not_close_again(world: World) -> None:
    handle = world.handle()
    world.m.close_handle(world.a, handle)
    with refused(Status.INVALID_HANDLE, "closed"):
        world.m.close_handle(world.a, handle)


def test_B48_values_are_small_multiples_of_4_and_the_low_bits_are_ignored(world: World) -> None:
    handle = world.handle()
    assert handle > 0 and handle % 4 == 0 and not handle & 0xC000_0000
    for low in range(4):
        assert world.m.handle_info(world.a, handle | low) == world.m.handle_info(world.a, handle)
    world.m.close_handle(world.a, handle | 3)
    assert world.handle() == handle


def test_B49_a_kmt_number_is_in_no_handle_table(world: World) -> None:
    _, number = world.export_kmt()
    with refused(Status.INVALID_HANDLE, "KMT number"):
        world.m.duplicate(world.a, number, desired=None)
    with refused(Status.INVALID_HANDLE, "KMT number"):
        world.m.close_handle(world.a, number)
    assert world.m.kmt_alive(number)


def test_B49_B52_numbers_beyond_32_bits_are_no_handles_of_any_kind(world: World) -> None:
    with refused(Status.INVALID_HANDLE, "not open"):
        world.m.handle_info(world.a, 1 << 32 | 0xC000_0004)


def test_B68_import_through_a_null_or_closed_handle(world: World) -> None:
    handle = world.handle()
    assert world.m.import_by_handle(world.a, handle)
    world.m.close_handle(world.a, handle)
    for value in (0, handle):
        with refused(Status.INVALID_HANDLE):
            world.m.import_by_handle(world.a, value)


def test_B69_B98_a_handle_to_another_type_is_a_type_mismatch(world: World) -> None:
    event = world.m.open_foreign(world.a, world.m.insert_foreign("event", "Event"), 0x1F0003)
    with refused(Status.OBJECT_TYPE_MISMATCH, "Event"):
        world.m.import_by_handle(world.a, event)
    with refused(Status.OBJECT_TYPE_MISMATCH, "Event"):
        world.m.offer(world.a, handle=event)
    assert world.m.handle_info(world.a, event).type_name == "Event"


def test_handles_of_other_types_duplicate_compare_and_close_alike(world: World) -> None:
    other = world.m.insert_foreign("event", "Event")
    event = world.m.open_foreign(world.a, other, 0x20000)
    copy = world.m.duplicate(world.a, event, desired=0x20001)
    assert world.m.same_object(world.a, event, copy)
    world.m.remove_foreign(other)
    assert world.m.handle_info(world.a, copy).handle_count == 2
    world.m.close_handle(world.a, event)
    assert world.all_gone()


def test_a_handle_of_memory_that_has_none_to_give(world: World) -> None:
    kmt, _ = world.export_kmt()
    with refused(Status.INVALID_PARAMETER, "KMT"):
        world.m.get_handle(world.a, kmt.reference)
    world.export("frames")
    imported = world.m.import_by_name(world.a, "frames")
    with refused(Status.INVALID_PARAMETER, "imported"):
        world.m.get_handle(world.a, imported.reference)
    with refused(Status.INVALID_HANDLE, "reference 99"):
        world.m.get_handle(world.a, 99)


def test_the_handle_quota_refuses_the_next_and_keeps_the_rest() -> None:
    world = small(handles=2)
    exported = world.export("frames")
    first, _ = (world.m.get_handle(world.a, exported.reference) for _ in range(2))
    calls: list[Callable[[], int]] = [
        lambda: world.m.get_handle(world.a, exported.reference),
        lambda: world.m.open_handle(world.a, "frames", GENERIC_ALL),
        lambda: world.m.duplicate(world.a, first, desired=None),
    ]
    for call in calls:
        with refused(Status.QUOTA_EXCEEDED, "2 handles"):
            call()
    assert world.m.handle_info(world.a, first).handle_count == 2
    assert world.m.duplicate(world.a, first, target=world.b, desired=None)
    world.m.close_handle(world.a, first)
    assert world.m.get_handle(world.a, exported.reference) == first


def test_a_value_put_back_leaves_the_lower_ones_free() -> None:
    table = HandleTable(8)
    entry = Entry(KernelObject(1, foreign_type("Event"), None), 0, 0)
    table.put(12, entry)
    assert [table.add(entry) for _ in range(3)] == [4, 8, 16]
    table.remove(8)
    table.put(8, entry)
    assert table.add(entry) == 20
    invalid = "not a handle value"
    for value, words in ((8, "in use"), (6, invalid), (36, invalid), (0, invalid)):
        with refused(Status.INVALID_PARAMETER, words):
            table.put(value, entry)
    assert [value for value, _ in table] == [4, 8, 12, 16, 20]


def test_share_flags_are_the_two_kinds() -> None:
    assert [share.name for share in Share] == ["NT", "KMT"]
