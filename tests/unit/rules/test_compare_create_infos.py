"""Created alike: what counts and what does not."""

from __future__ import annotations

from extmem import vk
from extmem.rules._compare_create_infos import difference
from tests.rules.world import T, buffer_info, image_info

EXCLUSIVE, CONCURRENT = vk.SharingMode.EXCLUSIVE, vk.SharingMode.CONCURRENT


def test_two_of_a_kind_are_alike() -> None:
    assert difference(buffer_info(T.OPAQUE_WIN32), buffer_info(T.OPAQUE_WIN32)) == ""
    assert difference(image_info(), image_info()) == ""


def test_the_order_of_the_chain_does_not_count() -> None:
    a, b = buffer_info(), buffer_info()
    external, usage = vk.ExternalMemoryBufferCreateInfo, vk.BufferUsageFlags2CreateInfo
    a.p_next = external(2, p_next=usage(1))
    b.p_next = usage(1, p_next=external(2))
    assert difference(a, b) == ""


def test_what_is_chained_counts() -> None:
    assert "handle_types is OPAQUE_WIN32 here and OPAQUE_WIN32_KMT there" in difference(
        buffer_info(T.OPAQUE_WIN32), buffer_info(T.OPAQUE_WIN32_KMT)
    )
    assert "chained only here" in difference(buffer_info(T.OPAQUE_WIN32), buffer_info())
    assert "chained only there" in difference(buffer_info(), buffer_info(T.OPAQUE_WIN32))


def test_fields_are_told_by_name() -> None:
    assert difference(image_info(width=1), image_info(width=2)) == "extent.width is 1 here and 2 there"
    assert "size is 1 here" in difference(buffer_info(size=1), buffer_info())
    a, b = image_info(), image_info()
    b.format = vk.Format.R8_UNORM
    assert difference(a, b) == "format is R8G8B8A8_UNORM here and R8_UNORM there"


def test_queue_families_count_only_when_shared_by_them() -> None:
    def info(mode: vk.SharingMode, *families: int) -> vk.BufferCreateInfo:
        return buffer_info(sharing_mode=mode, queue_family_indices=list(families))

    assert difference(info(EXCLUSIVE, 0, 1), info(EXCLUSIVE)) == ""
    assert difference(info(CONCURRENT, 0, 1), info(CONCURRENT, 1, 0)) == ""
    assert "queue_family_indices" in difference(info(CONCURRENT, 0, 1), info(CONCURRENT, 0, 2))
    assert "sharing_mode" in difference(info(CONCURRENT), info(EXCLUSIVE))


def test_a_buffer_is_no_image() -> None:
    assert difference(buffer_info(), image_info()) == "one is a BufferCreateInfo, the other a ImageCreateInfo"


def test_a_chain_that_bites_its_tail_ends() -> None:
    a = buffer_info(T.OPAQUE_WIN32)
    assert a.p_next is not None
    a.p_next.p_next = a.p_next
    assert difference(a, buffer_info(T.OPAQUE_WIN32)) == ""
