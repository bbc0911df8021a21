"""Access masks (B16–B23)."""

from __future__ import annotations

import pytest

from extmem.objects import MAXIMUM_ALLOWED, MEMORY, Status
from tests.unit.objects.world import READ_WRITE, World, refused


@pytest.mark.parametrize(
    ("asked", "mapped"),
    [
        (0x8000_0000, 0x20000),
        (0x4000_0000, 0x20001),
        (0x2000_0000, 0x20000),
        (0x1000_0000, 0xF0001),
        (0x8000_0001, 0x20001),
        (0xF000_0000, 0xF0001),
        (0, 0),
        (0x1F0001, 0x1F0001),
    ],
)
def test_B16_B17_generic_bits_are_mapped_and_dropped(asked: int, mapped: int) -> None:
    assert MEMORY.map_generic(asked) == MEMORY.requested(asked) == mapped


def test_B16_granted_access_of_a_handle_shows_no_generic_bits(world: World) -> None:
    assert world.granted(world.a, world.handle(access=READ_WRITE)) == 0x20001


def test_B17_the_usual_value_of_vulkan_programs_reads_and_writes(world: World) -> None:
    world.export("frames")
    assert world.m.import_by_name(world.b, "frames", READ_WRITE).granted == 0x20001


def test_B18_open_with_access_0_is_denied_even_to_the_owner(world: World) -> None:
    world.export("frames")
    with refused(Status.ACCESS_DENIED, "(0)"):
        world.m.open_handle(world.a, "frames", 0)
    with refused(Status.ACCESS_DENIED, "(0)"):
        world.m.import_by_name(world.a, "frames", 0)
    assert world.m.open_handle(world.a, "frames", 0x20000)


def test_B18_access_0_is_looked_at_after_the_name(world: World) -> None:
    with refused(Status.OBJECT_NAME_NOT_FOUND, "frames"):
        world.m.open_handle(world.a, "frames", 0)


def test_B19_create_with_access_0_gives_a_handle_without_rights(world: World) -> None:
    handle = world.handle("frames", access=0)
    assert world.granted(world.a, handle) == 0
    with refused(Status.ACCESS_DENIED, "no rights (0x00000000)"):
        world.m.import_by_handle(world.a, handle)
    assert world.m.import_by_name(world.a, "frames", MAXIMUM_ALLOWED)


def test_B20_duplicate_with_access_0_succeeds_with_no_rights(world: World) -> None:
    copy = world.m.duplicate(world.a, world.handle(), desired=0)
    assert world.granted(world.a, copy) == 0


@pytest.mark.parametrize("share_access", [0x20000, 0x10000])
@pytest.mark.parametrize("desired", [0x8000_0000, 0x4000_0000, 0x1000_0000])
def test_B21_access_at_share_time_does_not_cap_later_opens(world: World, share_access: int, desired: int) -> None:
    handle = world.handle("frames", access=share_access)
    assert world.granted(world.a, handle) == share_access
    assert world.granted(world.b, world.m.open_handle(world.b, "frames", desired)) == MEMORY.map_generic(desired)


@pytest.mark.parametrize("mask", [0xFFFF_FFFF, 0x2, 0x20003, 0x0100_0000])
def test_B23_unknown_bits_are_denied_everywhere(world: World, mask: int) -> None:
    handle = world.handle("frames")
    with refused(Status.ACCESS_DENIED, f"0x{mask:08X}"):
        world.m.duplicate(world.a, handle, desired=mask)
    with refused(Status.ACCESS_DENIED):
        world.m.open_handle(world.a, "frames", mask)
    with refused(Status.ACCESS_DENIED):
        world.export("other", access=mask)
    assert world.m.duplicate(world.a, handle, desired=0x1F0001 & 0xF0001)


@pytest.mark.parametrize("mask", [-1, 1 << 32])
def test_B23_what_is_no_32_bit_mask_is_an_invalid_parameter(world: World, mask: int) -> None:
    with refused(Status.INVALID_PARAMETER, "32 bits"):
        world.export("frames", access=mask)


def test_B23_maximum_allowed_is_all_that_the_security_permits(world: World) -> None:
    world.export("frames", sddl="D:(A;;GR;;;WD)")
    assert world.granted(world.eve, world.m.open_handle(world.eve, "frames", MAXIMUM_ALLOWED)) == 0x20000
    owner = world.granted(world.a, world.m.open_handle(world.a, "frames", MAXIMUM_ALLOWED))
    assert owner == 0x60000  # READ_CONTROL by the ACE, WRITE_DAC as the owner


def test_B23_maximum_allowed_of_nothing_is_denied(world: World) -> None:
    world.export("frames", sddl="D:")
    with refused(Status.ACCESS_DENIED, "no right at all"):
        world.m.open_handle(world.eve, "frames", MAXIMUM_ALLOWED)


def test_B23_maximum_allowed_at_creation_is_everything(world: World) -> None:
    assert world.granted(world.a, world.handle(access=MAXIMUM_ALLOWED)) == 0xF0001


def test_describe_says_masks_in_words() -> None:
    assert MEMORY.describe(0x20001) == "READ_CONTROL | RESOURCE_WRITE (0x00020001)"
    assert MEMORY.describe(0) == "no rights (0x00000000)"
    assert MEMORY.describe(0x8000_0006) == "GENERIC_READ | 0x6 (0x80000006)"
