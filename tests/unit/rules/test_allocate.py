"""vkAllocateMemory: behaviours by number, decisions on contradictions of the specification, and unknown facts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from extmem import vk
from extmem.rules import AllocateFacts, Violation, check_allocate_memory
from extmem.rules._allocation import LONGEST_CHAIN
from tests.rules.world import (
    BAD_HANDLE,
    DEDICATED_ONLY,
    EXPORTABLE,
    GPU,
    GROUP,
    IMPORTABLE,
    NOT_FOUND,
    OTHER_GPU,
    OTHER_UUID,
    SIZE,
    T,
    alloc,
    buffer,
    buffer_info,
    can,
    export,
    fd,
    for_buffer,
    for_image,
    foreign,
    host,
    image,
    payload,
    win32,
)


def short(found: list[Violation]) -> set[str]:
    """The last parts of the ids."""
    return {v.vuid.rsplit("-", 1)[1] for v in found}


# Behaviours.


def test_B83_handle_types_0_is_a_plain_allocation() -> None:
    assert alloc(export(0)) == []
    assert short(alloc(export(0), size=0)) == {"07897"}


def test_B84_dedicated_is_mandatory_on_export_where_the_device_says_so() -> None:
    only = can(EXPORTABLE | DEDICATED_ONLY)
    assert short(alloc(export(), capabilities=only)) == {"00639"}
    assert alloc(export(), vk.DedicatedAllocationMemoryAllocateInfoNV(buffer=1), capabilities=only) == []


@pytest.mark.parametrize("kind", [T.D3D11_TEXTURE, T.D3D11_TEXTURE_KMT, T.D3D12_RESOURCE])
def test_B84_direct3d_textures_are_dedicated_without_asking(kind: T) -> None:
    assert short(alloc(export(kind))) == {"00639"}
    assert alloc(export(kind), for_image(), dedicated=image()) == []


def test_B85_export_from_imported_memory_only_where_the_device_allows_it() -> None:
    never = can(EXPORTABLE | IMPORTABLE)
    again = can(EXPORTABLE | IMPORTABLE, 0, int(T.OPAQUE_WIN32))
    chain = (win32(name="frames"), export())
    assert short(alloc(*chain, payload=payload(), capabilities=never)) == {"09860"}
    assert alloc(*chain, payload=payload(), capabilities=again) == []


def test_B86_types_that_the_device_cannot_export_together() -> None:
    apart = can(EXPORTABLE, 0, 0, T.OPAQUE_WIN32) | can(EXPORTABLE, 0, 0, T.OPAQUE_WIN32_KMT)
    assert short(alloc(export(T.OPAQUE_WIN32 | T.OPAQUE_WIN32_KMT), capabilities=apart)) == {"09860"}
    assert alloc(export(T.OPAQUE_WIN32_KMT), capabilities=apart) == []
    assert short(alloc(export(), capabilities=can(IMPORTABLE))) == {"09860"}


def test_B88_neither_handle_nor_name_breaks_both_rules() -> None:
    assert short(alloc(win32())) == {"01440", "00661"}
    assert short(alloc(win32(handle=0))) == {"01440", "00661"}


def test_B88_both_handle_and_name_break_one_rule() -> None:
    assert short(alloc(win32(handle=0x1C, name="frames"), refusal=NOT_FOUND)) == {"01441"}


@pytest.mark.parametrize("handle", [-1, 2**64 - 1, 2**32 - 1])
def test_B88_invalid_handle_value_is_no_handle(handle: int) -> None:
    (v,) = alloc(win32(handle=handle))
    assert v.vuid.endswith("00661") and "INVALID_HANDLE_VALUE" in v.problem


@pytest.mark.parametrize("kind", list(T))
def test_B89_names_are_for_nt_types_only(kind: T) -> None:
    nt = kind in (T.OPAQUE_WIN32, T.D3D11_TEXTURE, T.D3D12_HEAP, T.D3D12_RESOURCE)
    assert ("01439" in short(alloc(win32(kind, None, "frames")))) is not nt


def test_B90_handle_type_0_is_no_import() -> None:
    assert alloc(win32(0, 0x1C)) == []
    assert alloc(fd(0, -1)) == []
    assert alloc(host(0, 1)) == []
    assert short(alloc(win32(0, 0x1C), size=0)) == {"07897"}


def test_B90_a_name_with_handle_type_0_is_told() -> None:
    (v,) = alloc(win32(0, None, "frames"))
    assert v.vuid.endswith("01439") and "nothing would be imported" in v.problem


def test_B93_importing_the_same_payload_twice_is_fine() -> None:
    assert alloc(win32(name="frames"), payload=payload(), live_allocations=1, max_allocations=4096) == []


def test_B94_size_and_memory_type_are_the_exporters() -> None:
    assert short(alloc(win32(name="frames"), size=1, payload=payload())) == {"01743"}
    assert short(alloc(win32(name="frames"), index=0, payload=payload())) == {"01743"}
    assert short(alloc(fd(), size=1, payload=payload(T.OPAQUE_FD))) == {"01742"}
    assert (
        alloc(win32(name="frames"), size=1, index=0, payload=payload(allocation_size=None, memory_type_index=None))
        == []
    )


@pytest.mark.parametrize("kind", [T.D3D11_TEXTURE, T.D3D12_RESOURCE])
def test_B94_size_of_a_texture_import_is_ignored(kind: T) -> None:
    assert alloc(win32(kind, 0x1C), size=0, payload=foreign(kind)) == []
    assert alloc(win32(kind, 0x1C), size=2**40, payload=foreign(kind)) == []
    small = image(size=2**30)
    assert alloc(win32(kind, 0x1C), for_image(), size=0, payload=foreign(kind), dedicated=small) == []


def test_B95_another_device_on_the_same_gpu_is_fine() -> None:
    assert alloc(win32(name="frames"), device=replace(GPU, identity=99), payload=payload()) == []


def test_B95_another_gpu_or_driver_is_not() -> None:
    found = short(alloc(win32(handle=4), device=OTHER_GPU, payload=payload()))
    assert found == {"00659", "01518", "00644"}
    assert short(alloc(win32(name="x"), payload=payload(driver_uuid=b"x"))) == {"01519"}


def test_B95_device_masks_and_groups_match() -> None:
    group = payload(device_group=GROUP.device_group)
    assert alloc(fd(), device=GROUP, payload=replace(group, handle_types=1)) == []
    half = vk.MemoryAllocateFlagsInfo(vk.MemoryAllocateFlagBits.DEVICE_MASK, 0b10)
    assert short(alloc(fd(), half, device=GROUP, payload=replace(group, handle_types=1))) == {"00643"}
    assert short(alloc(win32(name="x"), device=GROUP, payload=payload())) == {"00643", "00644"}


def test_B96_dedicated_must_match_kind_and_creation() -> None:
    info = buffer_info(T.OPAQUE_WIN32)
    ours = buffer(buffer_info(T.OPAQUE_WIN32))
    chain = (win32(name="frames"), for_buffer())
    assert alloc(*chain, dedicated=ours, payload=payload(dedicated="buffer", dedicated_info=info)) == []
    assert alloc(*chain, dedicated=ours, payload=payload(dedicated="buffer")) == []
    assert alloc(*chain, dedicated=ours, payload=payload(dedicated=None)) == []
    assert short(alloc(*chain, dedicated=ours, payload=payload(dedicated="image"))) == {"01877"}
    other = payload(dedicated="buffer", dedicated_info=buffer_info(T.OPAQUE_WIN32, size=1))
    assert short(alloc(*chain, dedicated=ours, payload=other)) == {"01877"}


@pytest.mark.parametrize(("kind", "vuid"), [("image", "01876"), ("buffer", "01877")])
def test_B84_a_dedicated_payload_is_imported_dedicated(kind: str, vuid: str) -> None:
    (v,) = alloc(win32(name="frames"), payload=payload(dedicated=kind))
    assert v.vuid.endswith(vuid) and v.where == "MemoryAllocateInfo.pNext" and "not dedicated" in v.problem
    nv = vk.DedicatedAllocationMemoryAllocateInfoNV(buffer=1)
    assert alloc(win32(name="frames"), nv, payload=payload(dedicated=kind)) == []


@pytest.mark.parametrize(("kind", "vuid"), [("image", "01878"), ("buffer", "01879")])
def test_B84_the_same_for_fds(kind: str, vuid: str) -> None:
    assert short(alloc(fd(), payload=payload(T.OPAQUE_FD, dedicated=kind))) == {vuid}
    assert alloc(fd(T.DMA_BUF), payload=payload(T.DMA_BUF, dedicated=kind)) == []
    assert alloc(fd(), payload=foreign(T.OPAQUE_FD)) == []


def test_B97_a_refused_handle_is_told_in_the_object_managers_words() -> None:
    (v,) = alloc(win32(T.OPAQUE_WIN32_KMT, 0x40000002), refusal=BAD_HANDLE)
    assert v.vuid.endswith("00661") and "STATUS_INVALID_HANDLE" in v.problem and "0x40000002" in v.problem


def test_B99_a_payload_exported_as_another_type_is_told() -> None:
    (v,) = alloc(win32(handle=4), payload=payload(T.OPAQUE_WIN32_KMT))
    assert v.vuid.endswith("00661") and "exported as OPAQUE_WIN32_KMT" in v.problem
    (v,) = alloc(win32(name="x"), payload=payload(T.OPAQUE_WIN32_KMT))
    assert v.vuid.endswith("01440")
    (v,) = alloc(fd(T.DMA_BUF), payload=payload(T.OPAQUE_FD))
    assert v.vuid.endswith("00670")


def test_B92_foreign_payloads_may_be_imported_as_more_than_they_say() -> None:
    assert alloc(win32(T.D3D11_TEXTURE_KMT, 0x40000002), payload=foreign(T.OPAQUE_WIN32_KMT)) == []
    assert alloc(fd(T.DMA_BUF), payload=foreign(T.OPAQUE_FD)) == []


# Decisions on contradictions.


def test_dma_bufs_may_come_from_any_device() -> None:
    elsewhere = payload(T.DMA_BUF, device_uuid=OTHER_UUID, driver_uuid=b"x", device_mask=0b11)
    assert alloc(fd(T.DMA_BUF), payload=elsewhere) == []


def test_attributes_without_any_export_are_refused_not_ignored() -> None:
    (v,) = alloc(vk.ExportMemoryWin32HandleInfoKHR(None, 1, "frames"))
    assert v.vuid.endswith("00657") and "there is no ExportMemoryAllocateInfo" in v.problem


def test_no_dedicated_allocation_is_demanded_of_an_import() -> None:
    only = can(IMPORTABLE | DEDICATED_ONLY)
    assert alloc(win32(name="frames"), payload=payload(), capabilities=only) == []


def test_texture_types_are_judged_when_the_resource_is_known() -> None:
    no = can(0, 0, 0, T.D3D11_TEXTURE)
    chain = lambda: (win32(T.D3D11_TEXTURE, 4),)  # noqa: E731  # a fresh chain each time
    assert alloc(*chain(), payload=foreign(T.D3D11_TEXTURE), capabilities=no) == []
    found = alloc(*chain(), for_image(), payload=foreign(T.D3D11_TEXTURE), capabilities=no, dedicated=image())
    assert short(found) == {"09861"} and "for this image" in found[0].problem
    assert short(alloc(export(T.D3D11_TEXTURE), capabilities=no)) == {"00639"}


def test_the_presence_of_both_import_structs_counts_whatever_they_hold() -> None:
    nv = vk.ImportMemoryWin32HandleInfoNV(0, None)
    assert short(alloc(win32(0), nv)) == {"00641"}


def test_no_size_is_no_plain_allocation_when_it_is_an_import() -> None:
    assert alloc(fd(), size=0) == []


# Other corners.


def test_a_remedy_names_types_that_would_do() -> None:
    known = can(EXPORTABLE, 0, 0, T.OPAQUE_WIN32) | can(IMPORTABLE, 0, 0, T.OPAQUE_WIN32_KMT)
    (v,) = alloc(win32(name="frames"), capabilities=known)
    assert v.remedy == "Use a type that it can import: OPAQUE_WIN32_KMT."


def test_a_memory_type_beyond_32_is_in_no_set() -> None:
    many = replace(GPU, memory_types=GPU.memory_types * 20)
    assert short(alloc(host(), index=40, device=many, host_memory_type_bits=2**32 - 1)) == {"01744"}
    (v,) = alloc(host(), host_memory_type_bits=0)
    assert v.remedy == "Use another device; this one cannot import it."


def test_an_unknown_memory_type_has_no_heap_to_exceed() -> None:
    assert short(alloc(size=2**60, index=200)) == {"01714"}


def test_a_resource_of_another_logical_device_of_the_same_gpu() -> None:
    (v,) = alloc(for_buffer(), dedicated=buffer(device_identity=77))
    assert v.vuid.endswith("commonparent") and "another logical device" in v.problem
    assert alloc(for_buffer(), dedicated=buffer(device_identity=0, device_uuid=b"")) == []


def test_the_named_kind_and_the_known_kind_must_be_one() -> None:
    """Facts about a buffer do not apply to an image."""
    assert alloc(for_image(), size=1, dedicated=buffer()) == []


def test_an_nv_export_is_an_export() -> None:
    assert short(alloc(vk.ExportMemoryAllocateInfoNV(1), size=0)) == {"07899"}
    assert short(alloc(export(), vk.ExportMemoryWin32HandleInfoNV())) == {"00640"}


def test_three_imports_at_once() -> None:
    (v,) = [v for v in alloc(win32(name="x"), fd(), host()) if v.vuid.endswith("06657")]
    assert "3 payloads" in v.problem


def test_fd_refused() -> None:
    (v,) = alloc(fd(), refusal=BAD_HANDLE)
    assert v.vuid.endswith("00670") and "STATUS_INVALID_HANDLE" in v.problem
    assert short(alloc(fd(number=-1))) == {"00670"}


def test_a_chain_that_leads_back_into_itself_ends() -> None:
    first, second = export(), vk.MemoryAllocateFlagsInfo()
    first.p_next, second.p_next = second, first
    found = check_allocate_memory(vk.MemoryAllocateInfo(SIZE, 1, first), AllocateFacts(GPU))
    assert [v.vuid.rsplit("-", 1)[1] for v in found] == ["unique"]
    assert "ExportMemoryAllocateInfo, MemoryAllocateFlagsInfo" in found[0].problem


def test_a_chain_of_structs_that_extend_nothing_ends() -> None:
    info = buffer_info()
    info.p_next = info
    (v,) = check_allocate_memory(vk.MemoryAllocateInfo(SIZE, 1, info), AllocateFacts(GPU))
    assert v.vuid.endswith("pNext-pNext")
    assert LONGEST_CHAIN == 64


def test_an_object_that_is_not_a_struct_is_reported() -> None:
    (v,) = check_allocate_memory({"size": 1}, AllocateFacts(GPU))  # type: ignore[arg-type]  # wrong on purpose
    assert v.vuid == "VUID-vkAllocateMemory-pAllocateInfo-parameter" and "dict" in v.problem


def test_all_fields_of_the_wrong_type_are_reported_at_once() -> None:
    found = alloc(win32("OPAQUE_WIN32", "0x1c", 7), size=2**64, index=-1)
    assert [v.where.rsplit(".", 1)[1] for v in found] == [
        "allocation_size", "memory_type_index", "handle_type", "handle", "name",
    ]  # fmt: skip
    assert "the int 18446744073709551616" in found[0].problem
    assert "an integer of 90 bits" in alloc(size=2**89)[0].problem
    assert "NoneType" not in alloc(size=None)[0].problem and "None" in alloc(size=None)[0].problem
    assert "..." in alloc(size="x" * 100)[0].problem


def test_handle_objects_are_shown_by_their_repr() -> None:
    class Handle:
        def __repr__(self) -> str:
            return "NtHandle(0x1c, open)"

    (v,) = alloc(win32(handle=Handle()), refusal=BAD_HANDLE)
    assert "NtHandle(0x1c, open)" in v.problem
    assert alloc(fd(number=Handle()), fd_is_valid=True) == []
