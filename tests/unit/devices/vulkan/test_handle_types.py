"""Handle types on their way to a driver and back."""

from __future__ import annotations

import copy

import pytest

from extmem import vk
from extmem.devices.vulkan import handle_types
from extmem.devices.vulkan.handle_types import from_driver, to_driver, translated
from tests.unit.devices.vulkan.steps import DMA_BUF, FD, HOST, KMT, W32, HandleType

D3D = HandleType.D3D12_RESOURCE


@pytest.mark.linux_only("drivers of Windows support its handle types")
@pytest.mark.parametrize(
    ("stated", "translation"),
    [
        (0, 0),
        (FD, FD),
        (W32, FD),
        (KMT, FD),
        (W32 | FD, FD),
        (W32 | DMA_BUF, FD | DMA_BUF),
        (DMA_BUF, DMA_BUF),
        (HOST, HOST),
        (D3D, D3D),
    ],
)
def test_a_driver_of_linux_gets_types_of_fds(stated: int, translation: int) -> None:
    assert to_driver(int(stated)) == int(translation)


@pytest.mark.linux_only("drivers of Windows support its handle types")
@pytest.mark.parametrize(
    ("answered", "possible"),
    [(0, 0), (FD, FD | W32 | KMT), (FD | DMA_BUF, FD | W32 | KMT | DMA_BUF), (DMA_BUF, DMA_BUF), (HOST, HOST)],
)
def test_where_there_are_fds_there_are_the_object_managers_types(answered: int, possible: int) -> None:
    assert from_driver(int(answered)) == int(possible)


def test_a_driver_of_windows_gets_the_stated_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle_types, "WIN32_IS_NATIVE", True)
    info = vk.BufferCreateInfo(size=1, p_next=vk.ExternalMemoryBufferCreateInfo(W32))
    for kinds in (W32, KMT, FD, W32 | D3D):
        assert to_driver(int(kinds)) == from_driver(int(kinds)) == int(kinds)
    assert translated(info) is info


@pytest.mark.linux_only("drivers of Windows support its handle types")
@pytest.mark.parametrize(
    ("first", "link", "field"),
    [
        (vk.BufferCreateInfo, vk.ExternalMemoryBufferCreateInfo, "handle_types"),
        (vk.ImageCreateInfo, vk.ExternalMemoryImageCreateInfo, "handle_types"),
        (vk.PhysicalDeviceImageFormatInfo2, vk.PhysicalDeviceExternalImageFormatInfo, "handle_type"),
    ],
)
def test_chains_are_copied_and_never_changed(
    first: type[vk.ChainStruct], link: type[vk.ChainStruct], field: str
) -> None:
    chained = link()
    setattr(chained, field, W32)
    info = first()
    info.p_next = chained
    before = copy.deepcopy(info)
    translation = translated(info)
    assert getattr(vk.find(translation, link), field) == FD
    assert translation is not info and vk.find(translation, link) is not chained
    assert info == before and info.p_next is chained


def test_what_follows_in_a_chain_is_kept() -> None:
    last = vk.MemoryDedicatedAllocateInfo()
    info = vk.BufferCreateInfo(size=1, p_next=vk.ExternalMemoryBufferCreateInfo(KMT, last))
    translation = translated(info)
    assert [type(part) for part in vk.chain(translation)] == [
        vk.ExternalMemoryBufferCreateInfo,
        vk.MemoryDedicatedAllocateInfo,
    ]
    assert vk.find(info, vk.ExternalMemoryBufferCreateInfo).handle_types == KMT  # type: ignore[union-attr]  # it is there


@pytest.mark.linux_only("drivers of Windows support its handle types")
def test_a_query_about_buffers_is_translated_itself() -> None:
    asked = vk.PhysicalDeviceExternalBufferInfo(handle_type=KMT)
    assert translated(asked).handle_type == FD and asked.handle_type == KMT


@pytest.mark.parametrize("kinds", [0, FD, DMA_BUF, HOST])
def test_what_the_driver_knows_already_goes_as_it_is(kinds: int) -> None:
    info = vk.BufferCreateInfo(size=1, p_next=vk.ExternalMemoryBufferCreateInfo(HandleType(kinds)))
    assert translated(info) is info
