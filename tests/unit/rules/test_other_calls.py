"""Binding, creating, queries and barriers: tests besides the case table."""

from __future__ import annotations

import pytest

from extmem import rules, vk
from tests.rules.cases_win32 import mutex
from tests.rules.world import (
    BAD_HANDLE,
    DEDICATED_ONLY,
    EXPORTABLE,
    GPU,
    IMPORTABLE,
    SIZE,
    T,
    ask_buffer,
    ask_fd,
    ask_host,
    ask_win32,
    buffer,
    buffer_info,
    can,
    get_fd,
    get_win32,
    image,
    image_info,
    memory,
    on_whole,
)


def short(found: list[rules.Violation]) -> set[str]:
    return {v.vuid.rsplit("-", 1)[1] for v in found}


def bind(resource: rules.ResourceFacts, mem: rules.MemoryFacts, offset: int = 0) -> set[str]:
    return short(rules.check_bind_buffer_memory(vk.BindBufferMemoryInfo(1, 2, offset), resource, mem))


@pytest.mark.parametrize(
    ("kind", "vuid"),
    [(T.OPAQUE_WIN32, "09861"), (T.DMA_BUF, "09862"), (T.OPAQUE_FD, "09862"), (T.HOST_ALLOCATION, "01747")],
)
def test_importing_is_judged_again_when_a_resource_is_bound(kind: T, vuid: str) -> None:
    """The rule is that of the import struct, whatever the type."""
    imported = memory(import_handle_type=int(kind))
    no, yes = can(EXPORTABLE, 0, 0, kind), can(IMPORTABLE, 0, 0, kind)
    assert bind(buffer(buffer_info(kind), capabilities=no), imported) == {vuid}
    assert bind(buffer(buffer_info(kind), capabilities=yes), imported) == set()


def test_exporting_is_judged_again_when_a_resource_is_bound() -> None:
    exported = memory(export_handle_types=int(T.OPAQUE_WIN32))
    shared = buffer_info(T.OPAQUE_WIN32)
    assert bind(buffer(shared, capabilities=can(IMPORTABLE)), exported) == {"09860"}
    assert bind(buffer(shared, capabilities=can(EXPORTABLE)), exported) == set()
    only = can(EXPORTABLE | DEDICATED_ONLY)
    assert bind(buffer(shared, capabilities=only), exported) == {"00639"}
    own = memory(export_handle_types=int(T.OPAQUE_WIN32), dedicated=buffer())
    assert bind(buffer(shared, capabilities=only), own) == set()


def test_memory_imported_with_handle_type_0_was_not_imported() -> None:
    assert bind(buffer(), memory(import_handle_type=0)) == set()


def test_dedicated_memory_is_bound_at_its_beginning() -> None:
    own = memory(size=2 * SIZE, dedicated=buffer())
    assert bind(buffer(), own, 256) == {"01508"}
    assert bind(buffer(), own) == set()


def test_sizes_of_direct3d_textures_do_not_count() -> None:
    texture = memory(size=0, import_handle_type=int(T.D3D12_RESOURCE))
    assert bind(buffer(buffer_info(T.D3D12_RESOURCE)), texture) == set()


def test_a_resource_that_allows_no_memory_type() -> None:
    (v,) = rules.check_bind_image_memory(vk.BindImageMemoryInfo(1, 2), image(memory_type_bits=0), memory())
    assert v.problem.endswith("allows none")


@pytest.mark.parametrize(("form", "prefix"), [(1, "vkBindBufferMemory"), (2, "VkBindBufferMemoryInfo")])
def test_a_malformed_binding_is_told_in_both_forms(form: rules.bind_memory.Form, prefix: str) -> None:
    (v,) = rules.check_bind_buffer_memory(vk.BindBufferMemoryInfo(1, 2, -1), buffer(), memory(), form=form)
    assert v.vuid == f"VUID-{prefix}-memoryOffset-01031"
    (v,) = rules.check_bind_buffer_memory("bind", buffer(), memory(), form=form)  # type: ignore[arg-type]  # wrong
    assert v.vuid == f"VUID-{prefix}-memoryOffset-01031"
    (v,) = rules.check_bind_image_memory(vk.BindImageMemoryInfo(1, 2, -1), image(), memory(), form=form)
    assert v.vuid.endswith("memoryOffset-01046")


def test_an_image_query_is_judged_by_what_is_chained() -> None:
    query = vk.PhysicalDeviceImageFormatInfo2(vk.Format.R8G8B8A8_UNORM, usage=1)
    assert rules.check_external_image_format_info(query) == []
    query.p_next = vk.PhysicalDeviceExternalImageFormatInfo(3)
    (v,) = rules.check_external_image_format_info(query)
    assert v.where == "PhysicalDeviceImageFormatInfo2.pNext<PhysicalDeviceExternalImageFormatInfo>.handle_type"
    assert len(rules.check_external_image_format_info(None)) == 1  # type: ignore[arg-type]  # wrong on purpose


def test_unsupported_and_incompatible_types_are_told_apart() -> None:
    both = T.OPAQUE_WIN32 | T.OPAQUE_FD
    answers = can(0, 0, 0, T.OPAQUE_FD) | can(6, 0, 0, T.OPAQUE_WIN32)
    (v,) = rules.check_create_buffer(buffer_info(both), GPU, answers)
    assert "OPAQUE_FD is not supported" in v.problem and "OPAQUE_WIN32 is not compatible with OPAQUE_FD" in v.problem
    unsupported = {1: rules.ExternalMemoryFacts(0, 0, 0)}
    assert short(rules.check_create_image(image_info(1), GPU, unsupported)) == {"00990"}


def test_an_nv_image_starts_undefined_too() -> None:
    info = image_info(initial_layout=8)
    info.p_next = vk.ExternalMemoryImageCreateInfoNV(1)
    assert short(rules.check_create_image(info, GPU, {})) == {"01443"}


def test_malformed_external_structs_are_told_before_anything_else() -> None:
    assert short(rules.check_create_buffer(buffer_info("all"), GPU, {})) == {"parameter"}  # type: ignore[arg-type]  # wrong
    assert short(ask_buffer(usage="all", handle_type=None)) == {"09499", "parameter"}
    assert len(get_win32("nt")) == len(get_fd("fd")) == 1


def test_B101_opaque_types_have_no_properties_on_any_system() -> None:
    assert short(ask_win32(T.OPAQUE_FD)) == {"00666"}
    assert short(ask_fd(T.OPAQUE_WIN32_KMT)) == {"00674"}


def test_B101_a_type_of_another_system_has_no_valid_handle_here() -> None:
    assert short(ask_win32(T.DMA_BUF)) == {"00665"}
    assert short(ask_fd(T.D3D12_HEAP)) == {"00673"}


def test_B101_refused_and_closed_handles() -> None:
    assert short(ask_win32(refusal=BAD_HANDLE)) == {"00665"}
    assert short(ask_fd(fd_is_valid=False)) == {"00673"}


def test_B101_handles_of_the_wrong_kind() -> None:
    assert short(ask_win32("D3D12", "0x1c")) == {"parameter", "00665"}
    assert short(ask_fd(handle_type_misfit := None, "7")) == {"parameter", "00673"}
    assert handle_type_misfit is None
    assert short(ask_host(None, None)) == {"parameter"}


def test_B80_memory_without_export_info_gives_no_handle() -> None:
    (v,) = get_win32(export_handle_types=0)
    assert "allocated not for export" in v.problem


def test_B81_fd_types_are_no_win32_handles() -> None:
    assert short(get_win32(T.OPAQUE_FD)) == {"00662", "00664"}


def test_B82_kmt_numbers_may_be_asked_for_again() -> None:
    kmt = int(T.OPAQUE_WIN32_KMT)
    assert get_win32(kmt, export_handle_types=kmt, exported_nt_types=int(T.OPAQUE_WIN32)) == []


def test_barriers_of_both_versions_are_held_to_the_layouts() -> None:
    texture = image(image_info(T.D3D11_TEXTURE_KMT))
    ours, theirs = 0, vk.QUEUE_FAMILY_EXTERNAL
    for struct in (vk.ImageMemoryBarrier, vk.ImageMemoryBarrier2):
        info = on_whole(struct, old_layout=7, new_layout=7, src_queue_family_index=ours, dst_queue_family_index=theirs)
        assert short(rules.check_image_memory_barrier(info, texture, GPU)) == {"12331"}
        info = on_whole(struct, old_layout=7, new_layout=7, src_queue_family_index=theirs, dst_queue_family_index=ours)
        assert short(rules.check_image_memory_barrier(info, texture, GPU)) == {"12332"}
        assert rules.check_image_memory_barrier(info, image(image_info(T.OPAQUE_WIN32)), GPU) == []
    info = on_whole(vk.ImageMemoryBarrier, old_layout=7, src_queue_family_index=theirs, dst_queue_family_index=theirs)
    assert rules.check_image_memory_barrier(info, texture, GPU) == []
    assert len(rules.check_image_memory_barrier(7, texture, GPU)) == 1  # type: ignore[arg-type]  # wrong on purpose


def test_keyed_mutexes_of_unknown_memory_are_not_judged() -> None:
    assert rules.check_keyed_mutex(mutex(), [None, None]) == []
    assert len(rules.check_keyed_mutex(None, [])) == 1  # type: ignore[arg-type]  # wrong on purpose
    assert short(rules.check_keyed_mutex(mutex(acquire_keys="all", release_syncs=[None]), [])) == {"parameter"}
    (v,) = rules.check_keyed_mutex(mutex(), [memory(), None])
    assert "was not imported" in v.problem


def test_mapping_of_what_is_no_struct() -> None:
    assert len(rules.check_map_memory(None, memory())) == 1  # type: ignore[arg-type]  # wrong on purpose
    assert len(rules.check_unmap_memory(None, memory())) == 1  # type: ignore[arg-type]  # wrong on purpose
    assert len(rules.check_map_memory(vk.MemoryMapInfo(flags=None), memory())) == 1  # type: ignore[arg-type]  # wrong
