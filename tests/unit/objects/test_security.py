"""Who may do what (B26, B32, B33, B35, B38)."""

from __future__ import annotations

import pytest

from extmem.objects import (
    GENERIC_ALL,
    MEMORY,
    ObjectType,
    SecurityDescriptor,
    Status,
    Token,
    default_descriptor,
    parse_sddl,
)
from extmem.objects.security import allowed, grant
from tests.unit.objects.world import ALICE, EVE, READ_WRITE, ROOT, World, refused

ALL = 0x1F0001
READ = 0x8000_0000


def rights(text: str, token: Token = EVE) -> int:
    return allowed(parse_sddl(text, ALICE, MEMORY), token, MEMORY)


def test_B26_by_default_the_owner_alone_has_everything(world: World) -> None:
    world.export("frames", sddl=None)
    assert world.granted(world.b, world.m.open_handle(world.b, "frames", GENERIC_ALL)) == 0xF0001
    with refused(Status.ACCESS_DENIED, "User 2000", "no rights"):
        world.m.open_handle(world.eve, "frames", READ)
    assert not world.m.handle_info(world.b, 4).inherit


def test_B26_there_is_no_bypass_for_uid_0(world: World) -> None:
    world.export("frames")
    with refused(Status.ACCESS_DENIED, "User 0"):
        world.m.import_by_name(world.root, "frames", READ)
    world.export("open", sddl="D:(A;;GA;;;S-1-22-1-0)")
    assert world.m.import_by_name(world.root, "open", READ)


@pytest.mark.parametrize("sddl", ["O:S-1-22-1-1000", "D:NO_ACCESS_CONTROL", "D:", "D:(D;;GA;;;WD)"])
def test_B32_the_creators_first_handle_is_not_checked(world: World, sddl: str) -> None:
    assert world.granted(world.a, world.handle("frames", sddl=sddl)) == 0xF0001


@pytest.mark.parametrize("sddl", ["D:", "D:(D;;GA;;;WD)"])
def test_B32_later_opens_by_name_are_checked(world: World, sddl: str) -> None:
    handle = world.handle("frames", sddl=sddl)
    with refused(Status.ACCESS_DENIED, "RESOURCE_WRITE"):
        world.m.open_handle(world.a, "frames", READ_WRITE)
    assert world.m.import_by_handle(world.a, handle).granted == 0xF0001


@pytest.mark.parametrize("sddl", ["O:S-1-22-1-1000", "D:NO_ACCESS_CONTROL"])
def test_B33_no_dacl_lets_everybody(sddl: str) -> None:
    assert rights(sddl) == rights(sddl, ROOT) == ALL


def test_B33_an_empty_dacl_lets_nobody_and_leaves_the_owner_its_own() -> None:
    assert rights("D:") == 0
    assert rights("D:", ALICE) == 0x60000  # READ_CONTROL | WRITE_DAC


def test_B33_an_owner_rights_ace_replaces_what_the_owner_has_by_itself() -> None:
    assert rights("D:(A;;0;;;OW)", ALICE) == 0
    assert rights("D:(A;;GR;;;OW)", ALICE) == 0x20000
    assert rights("D:(D;;GA;;;OW)(A;;GA;;;WD)", ALICE) == 0
    assert rights("D:(D;;GA;;;OW)(A;;GA;;;WD)") == 0xF0001
    assert rights("D:(A;IO;GA;;;OW)", ALICE) == 0x60000  # inherit-only: not for this object


def test_B33_aces_are_read_in_order() -> None:
    assert rights("D:(D;;CC;;;S-1-22-1-2000)(A;;GA;;;WD)") == 0xF0000
    assert rights("D:(A;;GA;;;WD)(D;;CC;;;S-1-22-1-2000)") == 0xF0001


def test_B33_inherit_only_aces_say_nothing_about_the_object() -> None:
    assert rights("D:(A;OICIIO;GA;;;WD)") == 0
    assert rights("D:(A;OICI;GA;;;WD)") == 0xF0001


def test_B33_groups_and_users_are_meant_by_their_sids() -> None:
    assert rights("D:(A;;GR;;;S-1-22-2-27)", ALICE) & 0x20000
    assert rights("D:(A;;CC;;;S-1-22-2-1000)", ALICE) & 1
    assert rights("D:(A;;GR;;;S-1-22-2-27)") == 0
    assert rights("D:(A;;GR;;;S-1-22-1-2000)") == 0x20000


def test_B35_the_recipe_of_common_programs_opens_to_everyone(world: World) -> None:
    world.export("frames", sddl="D:(A;OICI;0x1FFFFF;;;WD)", inherit=True, access=READ_WRITE)
    assert world.m.import_by_name(world.eve, "frames", READ_WRITE).granted == 0x20001


def granted(sd: SecurityDescriptor, token: Token, desired: int, object_type: ObjectType) -> int:
    """The access check of an open, of an object that can give all rights."""
    rights = allowed(sd, token, object_type)
    return grant(rights, desired, object_type, user=token.uid, ceiling=object_type.valid)


def test_granted_is_all_or_nothing() -> None:
    sd = parse_sddl("D:(A;;GR;;;WD)", ALICE, MEMORY)
    assert granted(sd, EVE, READ, MEMORY) == 0x20000
    with refused(
        Status.ACCESS_DENIED, "User 2000 requests READ_CONTROL | RESOURCE_WRITE", "RESOURCE_WRITE (0x00000001) is"
    ):
        granted(sd, EVE, READ_WRITE, MEMORY)
    assert granted(default_descriptor(EVE), EVE, GENERIC_ALL, MEMORY) == 0xF0001


def test_memory_that_its_exporter_can_only_read_gives_nobody_write_access(world: World) -> None:
    exported = world.export("frames", writable=False, sddl="D:NO_ACCESS_CONTROL")
    handle = world.m.get_handle(world.a, exported.reference)
    assert world.granted(world.a, handle) == 0xF0000
    with refused(Status.ACCESS_DENIED, "shared read-only"):
        world.m.open_handle(world.b, "frames", READ_WRITE)
    with refused(Status.ACCESS_DENIED, "shared read-only"):
        world.m.duplicate(world.a, handle, desired=0x20001)
    assert world.m.import_by_name(world.b, "frames").granted == 0x1F0000


def test_sharing_again_from_a_read_only_import_does_not_widen_the_first_share(world: World) -> None:
    identity = world.identity()
    world.export("frames", identity=identity)
    again = world.export("again", by=world.b, identity=identity, writable=False, sddl="D:NO_ACCESS_CONTROL")
    assert world.m.import_by_name(world.eve, "again").granted == 0x1F0000
    assert world.m.import_by_name(world.b, "frames", READ_WRITE).payload == again.payload


def test_rights_are_not_mixed_up_between_users_of_one_object(world: World) -> None:
    world.export("frames", sddl="D:(A;;GR;;;S-1-22-1-2000)")
    for _ in range(3):
        assert world.m.import_by_name(world.eve, "frames").granted == 0x20000
        assert world.m.import_by_name(world.b, "frames").granted == 0x60000
