"""Barriers: tests besides the case table."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from extmem import rules, vk
from tests.rules.cases_barriers import (
    EXTERNAL,
    FOREIGN,
    IGNORED,
    OURS_BUFFER,
    OURS_IMAGE,
    SHARED_BUFFER,
    SHARED_IMAGE,
    buffer_barrier,
    image_barrier,
    record,
    record2,
)
from tests.rules.world import GPU, MODERN, PLAIN, T, image, image_info, on_whole

BUFFERS = (vk.BufferMemoryBarrier, vk.BufferMemoryBarrier2)
IMAGES = (vk.ImageMemoryBarrier, vk.ImageMemoryBarrier2)
MOVES = [*map(buffer_barrier, BUFFERS), *map(image_barrier, IMAGES)]
OLD = replace(MODERN, synchronization2=False)


def short(found: list[rules.Violation]) -> list[str]:
    return [v.vuid.rsplit("-", 1)[1] for v in found]


@pytest.mark.parametrize("move", MOVES)
def test_what_is_not_known_is_not_judged(move: Any) -> None:
    """GPU has no facts of queue families, versions, extensions and features."""
    for src, dst in [(0, 1), (99, 0), (EXTERNAL, 0), (0, FOREIGN), (0, 0), (IGNORED, IGNORED)]:
        assert move(src, dst, GPU) == []
    assert move(99, 0, MODERN, None) == []
    assert move(EXTERNAL, 0, replace(PLAIN, api_version=None)) == []
    assert move(EXTERNAL, 0, replace(PLAIN, extensions=None)) == []


@pytest.mark.parametrize("move", MOVES)
def test_special_families_are_judged_without_the_resource(move: Any) -> None:
    assert short(move(EXTERNAL, FOREIGN, PLAIN, None)) == ["09097", "09100"]


@pytest.mark.parametrize("move", MOVES)
def test_ignored_owns_nothing_whatever_the_device_has(move: Any) -> None:
    (v,) = move(IGNORED, 0, GPU)
    assert v.where.endswith(".src_queue_family_index") and "QUEUE_FAMILY_IGNORED to queue family 0" in v.problem
    assert len(move(IGNORED, 99, MODERN)) == 2


@pytest.mark.parametrize("move", MOVES)
def test_a_barrier_that_moves_nothing_may_name_any_family(move: Any) -> None:
    for family in (0, 2, 3, 99, IGNORED, EXTERNAL, FOREIGN):
        assert move(family, family) == []


@pytest.mark.parametrize("move", MOVES)
def test_the_last_queue_family_is_one_and_the_next_is_not(move: Any) -> None:
    single = replace(MODERN, queue_family_count=1)
    assert move(0, 2) == []
    assert "the device has 3 queue families" in move(0, 3)[0].problem
    assert "the device has 1 queue family," in move(0, 3, single)[0].problem


@pytest.mark.parametrize("move", MOVES)
def test_a_family_without_a_queue_of_the_logical_device_neither_releases_nor_acquires(move: Any) -> None:
    created = replace(MODERN, queue_families=frozenset({0}))
    assert "this logical device has no queue of family 2, but of 0" in move(2, EXTERNAL, created)[0].problem
    assert len(move(EXTERNAL, 2, created)) == 1
    assert move(0, EXTERNAL, created) == move(EXTERNAL, 0, created) == move(2, 2, created) == []
    assert move(0, 2, replace(MODERN, queue_families=frozenset({0, 2}))) == move(0, 2) == []


def test_the_version_of_the_instance_or_the_extension_will_do_for_external() -> None:
    move = MOVES[0]
    for version, broken in [(0, True), (1 << 22, True), (1 << 22 | 1 << 12, False), (1 << 22 | 4 << 12, False)]:
        assert bool(move(EXTERNAL, 0, replace(PLAIN, api_version=version))) is broken
    assert move(EXTERNAL, 0, replace(PLAIN, extensions=frozenset({"VK_KHR_external_memory"}))) == []


def test_no_version_makes_up_for_the_extension_of_foreign() -> None:
    assert short(MOVES[0](0, FOREIGN, replace(MODERN, extensions=frozenset()))) == ["09100"]


@pytest.mark.parametrize(("move", "of"), [(MOVES[0], SHARED_BUFFER), (MOVES[2], SHARED_IMAGE)])
def test_concurrent_resources_belong_to_no_family(move: Any, of: rules.ResourceFacts) -> None:
    """All three rules are reported at once if a family is named on both sides, also if it is the same one."""
    for dst in (0, 1):
        assert len(move(0, dst, OLD, of)) == 3
        assert move(0, dst, MODERN, of) == []
        assert move(0, dst, replace(OLD, synchronization2=None), of) == []
    assert move(IGNORED, IGNORED, OLD, of) == []


@pytest.mark.parametrize(("move", "of"), [(MOVES[1], SHARED_BUFFER), (MOVES[3], SHARED_IMAGE)])
def test_the_second_version_asks_nothing_of_concurrent_resources(move: Any, of: rules.ResourceFacts) -> None:
    assert move(0, 1, OLD, of) == []


@pytest.mark.parametrize("put", [record, record2])
def test_a_transfer_is_recorded_by_one_of_its_sides(put: Any) -> None:
    assert [bool(put(0, 1, family)) for family in (0, 1, 2, None)] == [False, False, True, False]
    assert [bool(put(EXTERNAL, 1, family)) for family in (0, 1)] == [True, False]
    assert put(1, 1, 0) == []


@pytest.mark.parametrize(("put", "shared"), [(record, SHARED_BUFFER), (record2, SHARED_IMAGE)])
def test_concurrent_resources_are_transferred_over_the_border_only(put: Any, shared: rules.ResourceFacts) -> None:
    """IGNORED stands for all families that share it, the recording one among them."""
    for of in (shared, None):
        assert put(0, 1, 2, of) == []
        assert put(IGNORED, EXTERNAL, 2, of) == []
        assert len(put(0, EXTERNAL, 2, of)) == 1
        assert len(put(EXTERNAL, FOREIGN, 0, of)) == 1


def test_a_command_tells_what_each_barrier_breaks() -> None:
    """Facts of resources are in the order of the barriers; those missing at the end are unknown."""
    fields = {"src_queue_family_index": 0, "dst_queue_family_index": 9}
    old = [on_whole(vk.BufferMemoryBarrier, **fields) for _ in range(3)], [on_whole(vk.ImageMemoryBarrier, **fields)]
    known: Any = {"buffers": [OURS_BUFFER, None], "images": [OURS_IMAGE], "recording_family": 1}
    found = rules.check_pipeline_barrier(*old, MODERN, **known)
    assert [(v.vuid.rsplit("-", 1)[1], v.where) for v in found] == [
        ("09096", "vkCmdPipelineBarrier.buffer_memory_barriers[0].dst_queue_family_index"),
        ("10388", "vkCmdPipelineBarrier.buffer_memory_barriers[0]"),
        ("09118", "vkCmdPipelineBarrier.image_memory_barriers[0].dst_queue_family_index"),
        ("10388", "vkCmdPipelineBarrier.image_memory_barriers[0]"),
    ]
    new = vk.DependencyInfo(0, (), [vk.BufferMemoryBarrier2(**fields)], [vk.ImageMemoryBarrier2(**fields)])
    found = rules.check_pipeline_barrier2(new, MODERN, **known)
    assert short(found) == ["09096", "10387", "09118", "10387"]
    assert found[3].where == "DependencyInfo.image_memory_barriers[0]"
    assert rules.check_pipeline_barrier([], [], MODERN) == rules.check_pipeline_barrier2(vk.DependencyInfo(), MODERN)


def test_a_command_takes_barriers_of_its_own_version() -> None:
    (v,) = rules.check_pipeline_barrier([vk.BufferMemoryBarrier2()], [], MODERN)  # type: ignore[list-item]  # wrong
    assert v.remedy == "Give a vk.BufferMemoryBarrier."
    (v,) = rules.check_pipeline_barrier2(vk.DependencyInfo(image_memory_barriers=[7]), MODERN)  # type: ignore[list-item]  # wrong
    assert v.where == "DependencyInfo.image_memory_barriers[0]"


def test_malformed_barriers_are_told_before_anything_else() -> None:
    for struct in BUFFERS:
        info = struct(src_queue_family_index=-1, dst_queue_family_index="EXTERNAL")  # type: ignore[arg-type]  # wrong
        assert short(rules.check_buffer_memory_barrier(info, OURS_BUFFER, MODERN)) == ["09095", "09096"]
    for struct in IMAGES:
        info = struct(src_queue_family_index=None, dst_queue_family_index=1 << 32)  # type: ignore[arg-type]  # wrong
        assert short(rules.check_image_memory_barrier(info, OURS_IMAGE, MODERN)) == ["09117", "09118"]
    wrong: Any = None
    assert short(rules.check_buffer_memory_barrier(wrong, OURS_BUFFER, MODERN)) == ["09095"]
    assert short(rules.check_image_memory_barrier(wrong, OURS_IMAGE, MODERN)) == ["09117"]
    assert short(rules.check_pipeline_barrier(wrong, "no", MODERN)) == ["10388", "10388"]
    assert short(rules.check_pipeline_barrier2(wrong, MODERN)) == ["10387"]
    assert short(rules.check_pipeline_barrier2(vk.DependencyInfo(0, (), wrong, wrong), MODERN)) == ["10387", "10387"]


def test_a_path_of_ones_own_is_told() -> None:
    info = on_whole(vk.BufferMemoryBarrier, src_queue_family_index=IGNORED)
    (v,) = rules.check_buffer_memory_barrier(info, OURS_BUFFER, MODERN, where="frame.barriers[2]")
    assert v.where == "frame.barriers[2].src_queue_family_index"


def test_layouts_and_families_are_told_together() -> None:
    texture = image(image_info(T.D3D11_TEXTURE))
    info = vk.ImageMemoryBarrier2(new_layout=7, src_queue_family_index=99, dst_queue_family_index=EXTERNAL)
    assert short(rules.check_image_memory_barrier(info, texture, MODERN)) == ["09117", "12331"]
