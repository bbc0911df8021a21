"""Comparison of create infos: what is compared, and what is ignored."""

from __future__ import annotations

from extmem import vk
from extmem.rules._compare_create_infos import difference
from tests.rules.world import T, buffer_info, image_info

EXCLUSIVE, CONCURRENT = vk.SharingMode.EXCLUSIVE, vk.SharingMode.CONCURRENT


def test_equal_create_infos_are_identical() -> None:
    assert difference(buffer_info(T.OPAQUE_WIN32), buffer_info(T.OPAQUE_WIN32)) == ""
    assert difference(image_info(), image_info()) == ""


def test_the_order_of_the_chain_does_not_count() -> None:
    a, b = buffer_info(), buffer_info()
    external, usage = vk.ExternalMemoryBufferCreateInfo, vk.BufferUsageFlags2CreateInfo
    a.p_next = external(2, p_next=usage(1))
    b.p_next = usage(1, p_next=external(2))
    assert difference(a, b) == ""


def test_what_is_chained_counts() -> None:
    assert "handle_types is OPAQUE_WIN32 in the importer and OPAQUE_WIN32_KMT in the exporter" in difference(
        buffer_info(T.OPAQUE_WIN32), buffer_info(T.OPAQUE_WIN32_KMT)
    )
    assert "chained only in the importer" in difference(buffer_info(T.OPAQUE_WIN32), buffer_info())
    assert "chained only in the exporter" in difference(buffer_info(), buffer_info(T.OPAQUE_WIN32))


def test_differing_fields_are_named() -> None:
    expected = "extent.width is 1 in the importer and 2 in the exporter"
    assert difference(image_info(width=1), image_info(width=2)) == expected
    assert "size is 1 in the importer" in difference(buffer_info(size=1), buffer_info())
    a, b = image_info(), image_info()
    b.format = vk.Format.R8_UNORM
    assert difference(a, b) == "format is R8G8B8A8_UNORM in the importer and R8_UNORM in the exporter"


def test_queue_families_count_only_when_shared_by_them() -> None:
    def info(mode: vk.SharingMode, *families: int) -> vk.BufferCreateInfo:
        return buffer_info(sharing_mode=mode, queue_family_indices=list(families))

    assert difference(info(EXCLUSIVE, 0, 1), info(EXCLUSIVE)) == ""
    assert difference(info(CONCURRENT, 0, 1), info(CONCURRENT, 1, 0)) == ""
    assert "queue_family_indices" in difference(info(CONCURRENT, 0, 1), info(CONCURRENT, 0, 2))
    assert "sharing_mode" in difference(info(CONCURRENT), info(EXCLUSIVE))


def test_a_buffer_is_not_an_image() -> None:
    assert difference(buffer_info(), image_info()) == "one is a BufferCreateInfo, the other an ImageCreateInfo"


def test_a_chain_that_leads_back_into_itself_ends() -> None:
    a = buffer_info(T.OPAQUE_WIN32)
    assert a.p_next is not None
    a.p_next.p_next = a.p_next
    assert difference(a, buffer_info(T.OPAQUE_WIN32)) == ""
