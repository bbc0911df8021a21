"""KMT numbers (B51–B62, B99, G7)."""

from __future__ import annotations

import pytest

from extmem.objects import ObjectKind, Share, Status
from extmem.objects.entities import Payload
from extmem.objects.kmt import KmtTable
from tests.unit.objects.world import World, refused


def payload() -> Payload:
    return Payload(
        1, ((1, 1),), b"", Share.KMT, object_kind=ObjectKind.MEMORY, uid=1000, writable=True, strict_kmt=False
    )


def test_B51_global_numbers_have_their_shape(world: World) -> None:
    for _ in range(100):
        _, number = world.export_kmt()
        assert number & 0x3F == 0b000010
        assert number & 0xC000_0000
        assert number < 1 << 32


def test_B54_a_number_owns_nothing(world: World) -> None:
    exported, number = world.export_kmt()
    world.m.release(world.a, exported.reference)
    assert world.m.take_released() == [exported.payload]
    assert not world.m.kmt_alive(number)


def test_B55_it_works_from_every_process(world: World) -> None:
    exported, number = world.export_kmt()
    for process in (world.a, world.b, world.eve):
        imported = world.m.import_by_kmt(process, number)
        assert (imported.payload, imported.kmt, imported.object, imported.name) == (
            exported.payload,
            number,
            None,
            None,
        )
        assert imported.granted == 0x20001


def test_B56_exporting_again_gives_the_same_number(world: World) -> None:
    identity = world.identity()
    first, number = world.export_kmt(identity=identity)
    again, same = world.export_kmt(identity=identity, by=world.b)
    assert (same, again.payload) == (number, first.payload)
    assert again.reference is not None


def test_B57_every_import_is_its_own_and_ends_alone(world: World) -> None:
    _, number = world.export_kmt()
    first, second = (world.m.import_by_kmt(world.b, number) for _ in range(2))
    assert first.reference != second.reference
    world.m.release(world.b, first.reference)
    assert world.m.kmt_alive(number)


def test_B58_the_number_lives_until_the_last_memory_object(world: World) -> None:
    exported, number = world.export_kmt()
    imported = world.m.import_by_kmt(world.b, number)
    world.m.release(world.a, exported.reference)
    late = world.m.import_by_kmt(world.eve, number)  # G7: still openable
    world.m.release(world.b, imported.reference)
    assert world.m.kmt_alive(number)
    world.m.release(world.eve, late.reference)
    with refused(Status.INVALID_PARAMETER, "dead"):
        world.m.import_by_kmt(world.b, number)


def test_B58_strict_numbers_end_with_the_exporter(world: World) -> None:
    exported, number = world.export_kmt(strict_kmt=True)
    imported = world.m.import_by_kmt(world.b, number)
    world.m.release(world.a, exported.reference)
    with refused(Status.INVALID_PARAMETER, "dead"):
        world.m.import_by_kmt(world.eve, number)
    assert world.m.take_released() == []  # the importer keeps the memory all the same
    world.m.release(world.b, imported.reference)
    assert world.m.take_released() == [exported.payload]


def test_B58_a_strict_number_outlives_the_first_of_two_exporters(world: World) -> None:
    identity = world.identity()
    first, number = world.export_kmt(identity=identity, strict_kmt=True)
    second, _ = world.export_kmt(identity=identity, by=world.b)
    world.m.release(world.a, first.reference)
    assert world.m.kmt_alive(number)
    world.m.release(world.b, second.reference)
    assert not world.m.kmt_alive(number)


def test_B58_sharing_again_after_a_strict_number_died_gives_a_new_one(world: World) -> None:
    identity = world.identity()
    exported, number = world.export_kmt(identity=identity, strict_kmt=True)
    world.m.import_by_kmt(world.b, number)
    world.m.release(world.a, exported.reference)
    again, other = world.export_kmt(identity=identity, by=world.b)
    assert again.payload == exported.payload
    assert other != number


def test_B58_process_death_counts_as_destruction(world: World) -> None:
    _, number = world.export_kmt()
    world.m.import_by_kmt(world.b, number)
    world.m.detach(world.a)
    assert world.m.kmt_alive(number)
    world.m.detach(world.b)
    assert not world.m.kmt_alive(number)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "NULL"),
        (0x1EADBEED, "shape of an NT handle"),
        (4, "shape of an NT handle"),
        (0x4000_0040, "local"),
        (0xC000_0041, "000010"),
        (0x4000_0002, "dead"),
        (0xC000_0002, "dead"),
        (1 << 32 | 0x4000_0002, "32 bits"),
        (-2, "32 bits"),
    ],
)
def test_B59_B99_bad_numbers_are_invalid_parameters(number: int, words: str) -> None:
    world = World()
    _, good = world.export_kmt()
    if good == number:  # not with this seed
        raise AssertionError("the test's number is alive")
    for call in (lambda: world.m.import_by_kmt(world.a, number), lambda: world.m.offer(world.a, kmt=number)):
        with refused(Status.INVALID_PARAMETER, words):
            call()
    assert world.m.import_by_kmt(world.a, good)


def test_B61_nt_and_kmt_exclude_each_other_at_once(world: World) -> None:
    for share in (Share.NT | Share.KMT, Share(0)):
        with refused(Status.INVALID_PARAMETER, "exactly one"):
            world.export(share=share)
    assert world.export(share=Share.NT).kmt is None
    assert world.export(share=Share.KMT).object is None


@pytest.mark.parametrize(("first", "second"), [(Share.NT, Share.KMT), (Share.KMT, Share.NT)])
def test_B61_and_over_the_life_of_the_payload(world: World, first: Share, second: Share) -> None:
    identity = world.identity()
    exported = world.export(share=first, identity=identity)
    with refused(Status.INVALID_PARAMETER, str(first.name), str(second.name)):
        world.export(share=second, identity=identity)
    world.m.release(world.a, exported.reference)
    assert world.export(share=second, identity=identity)


def test_B28_memory_shared_by_number_cannot_be_named(world: World) -> None:
    with refused(Status.INVALID_PARAMETER, "'frames'"):
        world.export("frames", share=Share.KMT)
    assert world.m.counts()["payloads"] == 0


def test_B62_numbers_walk_forward_before_one_is_used_again(world: World) -> None:
    seen = set()
    for _ in range(200):
        exported, number = world.export_kmt()
        assert number not in seen
        seen.add(number)
        world.m.release(world.a, exported.reference)


def test_B62_the_walk_starts_at_random_and_wraps_over_living_numbers() -> None:
    last = KmtTable(lambda n: n - 1)
    assert [last.assign(payload()) for _ in range(2)] == [0x7FFF_FFC2, 0x4000_0002]
    again = KmtTable(lambda n: 0)
    again.restore(0x4000_0002, payload())
    assert again.assign(payload()) == 0x4000_0042
    assert len(again) == 2


def test_numbers_that_this_table_never_gives_are_not_restored() -> None:
    table = KmtTable(lambda n: 0)
    assert table.available(0x4000_0002)
    for number in (0, 0x8000_0002, 0x4000_0000, 1 << 32 | 0x4000_0002):
        with refused(Status.INVALID_PARAMETER):
            table.available(number)


def test_a_number_of_memory_that_its_exporter_can_only_read_gives_read_access(world: World) -> None:
    identity = world.identity()
    _, number = world.export_kmt(identity=identity, writable=False)
    assert world.m.import_by_kmt(world.b, number).granted == 0x20000
    world.export_kmt(identity=identity, writable=True)
    assert world.m.import_by_kmt(world.b, number).granted == 0x20001


def test_all_numbers_in_use_is_told_and_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extmem.objects.kmt.SLOTS", 1)
    world.m._kmt._next = 0
    first, _ = world.export_kmt()
    with refused(Status.INSUFFICIENT_RESOURCES, "All 1 KMT numbers"):
        world.export_kmt()
    assert world.m.counts()["payloads"] == 1
    world.m.release(world.a, first.reference)
    assert world.export_kmt()
    assert world.m.take_released() == [first.payload]


def test_all_numbers_in_use_leaves_a_payload_that_lost_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extmem.objects.kmt.SLOTS", 1)
    world.m._kmt._next = 0
    identity = world.identity()
    strict, number = world.export_kmt(identity=identity, strict_kmt=True)
    world.m.import_by_kmt(world.b, number)
    world.m.release(world.a, strict.reference)
    other, _ = world.export_kmt()
    with refused(Status.INSUFFICIENT_RESOURCES, "All 1 KMT numbers"):
        world.export_kmt(identity=identity)
    world.m.release(world.a, other.reference)
    assert world.export_kmt(identity=identity)[0].payload == strict.payload
