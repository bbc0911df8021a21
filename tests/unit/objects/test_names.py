"""Names and the object directory (B1–B12)."""

from __future__ import annotations

import pytest

from extmem.objects import GENERIC_ALL, MEMORY, Status, resolve_name
from extmem.objects.names import parse_path
from tests.unit.objects.world import World, refused


def test_B1_an_unqualified_name_lands_in_the_session_directory(world: World) -> None:
    handle = world.handle("Frames")
    assert world.m.handle_info(world.a, handle).name == "\\Sessions\\1\\BaseNamedObjects\\Frames"


def test_B2_one_directory_for_every_type(world: World) -> None:
    world.m.insert_foreign("frames", "Event")
    with refused(Status.OBJECT_TYPE_MISMATCH, "Event"):
        world.export("frames")
    assert world.export("frames2")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("X", "\\Sessions\\3\\BaseNamedObjects\\X"),
        ("Local\\X", "\\Sessions\\3\\BaseNamedObjects\\X"),
        ("Local\\Local\\X", "\\Sessions\\3\\BaseNamedObjects\\X"),
        ("Session\\3\\X", "\\Sessions\\3\\BaseNamedObjects\\X"),
        ("Global\\X", "\\BaseNamedObjects\\X"),
        ("Local\\Global\\X", "\\BaseNamedObjects\\X"),
        ("Session\\0\\X", "\\BaseNamedObjects\\X"),
        ("Global\\Session\\3\\X", "\\Sessions\\3\\BaseNamedObjects\\X"),
        ("Global\\Local\\X", "\\BaseNamedObjects\\X"),
    ],
)
def test_B3_prefixes_are_links_in_the_directories(name: str, path: str) -> None:
    resolved = resolve_name(name, 3)
    assert resolved.display == path
    assert resolved.is_global is path.startswith("\\BaseNamedObjects")


def test_B3_in_session_0_the_session_directory_is_the_global_one() -> None:
    assert resolve_name("X", 0) == resolve_name("Global\\X", 0) == resolve_name("Local\\X", 0)
    assert resolve_name("X", 0) == resolve_name("Global\\X", 1) != resolve_name("X", 1)


def test_B3_another_session_is_a_path_that_does_not_exist() -> None:
    for name in ("Session\\7\\X", "Session\\X", "Session\\01\\X"):
        with refused(Status.OBJECT_PATH_NOT_FOUND, "Session"):
            resolve_name(name, 1)
    assert resolve_name("Session\\1\\X", 1)


def test_B3_a_manager_without_global_names_denies_them() -> None:
    world = World(global_names=False)
    with refused(Status.ACCESS_DENIED, "Global\\"):
        world.export("Global\\frames")
    with refused(Status.ACCESS_DENIED, "Global\\"):
        world.m.open_handle(world.a, "Global\\frames", GENERIC_ALL)
    assert world.export("Local\\frames")
    assert World(global_names=False, session=0).export("Global\\frames")


def test_B4_B5_prefixes_and_names_are_case_insensitive_and_keep_their_case(world: World) -> None:
    world.export("Global\\Frames-Ä")
    found = world.m.import_by_name(world.b, "gLOBAL\\fRAMES-ä", GENERIC_ALL)
    assert found.name == "\\BaseNamedObjects\\Frames-Ä"
    assert resolve_name("Straße", 1).key != resolve_name("STRASSE", 1).key  # no character becomes two
    assert resolve_name("ſ", 1).key != resolve_name("s", 1).key  # nothing folds into ASCII
    assert resolve_name("𐐨", 1).key != resolve_name("𐐀", 1).key  # folding is per UTF-16 unit


def test_B6_names_of_other_types_are_case_sensitive(world: World) -> None:
    world.m.insert_foreign("Frames", "Mutant")
    world.m.insert_foreign("frames", "Mutant")
    with refused(Status.OBJECT_NAME_COLLISION, "Mutant"):
        world.m.insert_foreign("frames", "Mutant")
    with refused(Status.OBJECT_TYPE_MISMATCH, "Mutant"):
        world.m.insert_foreign("frames", "Event")


def test_B6_opening_memory_looks_at_all_types_whatever_the_case(world: World) -> None:
    other = world.m.insert_foreign("X", "Mutant")
    with refused(Status.OBJECT_TYPE_MISMATCH, "Mutant"):
        world.m.open_handle(world.a, "x", GENERIC_ALL)
    world.m.remove_foreign(other)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.open_handle(world.a, "x", GENERIC_ALL)


@pytest.mark.parametrize("name", ["x" * 260, "Local\\" + "x" * 254, "𝔵" * 130, "é" * 260])
def test_B7_260_utf16_units_are_allowed(name: str) -> None:
    assert resolve_name(name, 1)


@pytest.mark.parametrize("name", ["x" * 261, "Local\\" + "x" * 255, "𝔵" * 131, "𝔵" * 130 + "y"])
def test_B7_more_units_are_refused(name: str) -> None:
    with refused(Status.OBJECT_NAME_INVALID, "260"):
        resolve_name(name, 1)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("", "empty"),
        ("\\X", "starts with"),
        ("X\\", "ends with"),
        ("Local\\\\X", "doubles"),
        ("\\", "starts with"),
        ("a\0b", "NUL"),
        ("\0", "index 0"),
        ("half \ud800", "surrogate"),
    ],
)
def test_B8_malformed_names_are_invalid(world: World, name: str, word: str) -> None:
    with refused(Status.OBJECT_NAME_INVALID, word):
        world.export(name)
    with refused(Status.OBJECT_NAME_INVALID, word):
        world.m.import_by_name(world.a, name)


@pytest.mark.parametrize("name", ["a\\b", "Global\\a\\b", "Lokal\\X", "Session\\1\\a\\X"])
def test_B8_unknown_directories_are_paths_that_do_not_exist(name: str) -> None:
    with refused(Status.OBJECT_PATH_NOT_FOUND, "directory"):
        resolve_name(name, 1)


@pytest.mark.parametrize("name", ["a b", "..", "a/b", "C:", "*?<>|", "名前", ".", "Global", "💾"])
def test_B8_every_other_character_is_fine(world: World, name: str) -> None:
    exported = world.export(name)
    assert world.m.import_by_name(world.b, name).object == exported.object


def test_B9_open_of_an_unknown_name(world: World) -> None:
    with refused(Status.OBJECT_NAME_NOT_FOUND, "'\\\\Sessions\\\\1\\\\BaseNamedObjects\\\\frames'"):
        world.m.open_handle(world.a, "frames", GENERIC_ALL)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.import_by_name(world.a, "frames")


def test_B10_a_live_name_collides_and_nothing_is_made(world: World) -> None:
    world.export("frames")
    before = world.m.counts()
    for name in ("frames", "FRAMES", "Local\\frames"):
        with refused(Status.OBJECT_NAME_COLLISION, name[-6:]):
            world.export(name, by=world.b)
    assert world.m.counts() == before
    assert world.m.take_released() == []


def test_B10_another_type_of_that_name_is_a_type_mismatch(world: World) -> None:
    world.m.insert_foreign("Frames", "Section")
    before = world.m.counts()
    with refused(Status.OBJECT_TYPE_MISMATCH, "Section"):
        world.export("frames")
    assert world.m.counts() == before


def test_B10_the_other_type_finds_memory_only_by_the_exact_name(world: World) -> None:
    world.export("Frames")
    with refused(Status.OBJECT_TYPE_MISMATCH, MEMORY.name):
        world.m.insert_foreign("Frames", "Event")
    assert world.m.insert_foreign("frames", "Event")
    assert world.m.import_by_name(world.b, "frames")  # memory is found first


def test_B11_open_of_a_name_of_another_type(world: World) -> None:
    world.m.insert_foreign("frames", "Event")
    with refused(Status.OBJECT_TYPE_MISMATCH, "Event", MEMORY.name):
        world.m.open_handle(world.a, "frames", GENERIC_ALL)
    with refused(Status.OBJECT_TYPE_MISMATCH):
        world.m.import_by_name(world.a, "frames")


def test_B12_a_name_is_free_at_once_when_its_last_holder_goes_and_reusable(world: World) -> None:
    exported = world.export("frames")
    handle = world.m.get_handle(world.a, exported.reference)
    world.m.release(world.a, exported.reference)
    assert world.m.import_by_name(world.b, "frames").object == exported.object  # the handle holds it
    world.m.close_handle(world.a, handle)
    (memory,) = world.m.describe(world.b).references
    world.m.release(world.b, memory.reference)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.import_by_name(world.b, "frames")
    assert world.export("frames").object != exported.object


def test_B12_the_name_ends_although_the_payload_lives_on(world: World) -> None:
    identity = world.identity()
    first = world.export("frames", identity=identity)
    second = world.export(None, identity=identity)
    assert first.payload == second.payload
    world.m.release(world.a, first.reference)
    with refused(Status.OBJECT_NAME_NOT_FOUND):
        world.m.open_handle(world.a, "frames", GENERIC_ALL)
    assert world.m.take_released() == []
    assert world.export("frames", identity=identity).payload == first.payload


@pytest.mark.parametrize("name", ["X", "Global\\Ä b", "Session\\1\\q"])
def test_full_paths_lead_back_to_their_keys(name: str) -> None:
    resolved = resolve_name(name, 1)
    assert parse_path(resolved.display, 1) == resolved


@pytest.mark.parametrize(
    "path", ["X", "\\Sessions\\2\\BaseNamedObjects\\X", "\\BaseNamedObjects\\a\\b", "\\Sessions\\1\\X", ""]
)
def test_what_is_no_full_path_of_this_session_is_bad_syntax(path: str) -> None:
    with refused(Status.OBJECT_PATH_SYNTAX_BAD, "not a full path"):
        parse_path(path, 1)
