"""Bits, formats and structs that need a version or an extension, compared with the registry."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from extmem import vk
from extmem.rules import _enabled
from extmem.rules._enabled import Needs, lacking_bits, lacks
from tests.rules.world import GPU

CORE = {"VK_KHR_bind_memory2", "VK_KHR_device_group", "VK_KHR_maintenance1", "VK_KHR_maintenance2"}
CORE |= {"VK_KHR_sampler_ycbcr_conversion"}
"""Extensions that are part of Vulkan 1.1."""
BARE = replace(GPU, api_version=1 << 22 | 1 << 12, extensions=frozenset())
BITS: dict[str, tuple[type, Mapping[int, Needs]]] = {
    "VkBufferCreateFlagBits": (vk.BufferCreateFlagBits, _enabled.BUFFER_FLAGS),
    "VkBufferUsageFlagBits": (vk.BufferUsageFlagBits, _enabled.BUFFER_USAGES),
    "VkImageCreateFlagBits": (vk.ImageCreateFlagBits, _enabled.IMAGE_FLAGS),
    "VkImageUsageFlagBits": (vk.ImageUsageFlagBits, _enabled.IMAGE_USAGES),
}


@pytest.fixture(scope="module")
def registry() -> object:
    return pytest.importorskip("vulkan_object").get_vulkan_object()


@pytest.mark.parametrize("name", BITS)
def test_every_bit_of_an_extension_is_in_the_table(name: str, registry: object) -> None:
    enum, table = BITS[name]
    by_bit = {int(flag.value): set(flag.extensions) for flag in registry.bitmasks[name].flags}  # type: ignore[attr-defined]
    assert set(by_bit) == {int(bit) for bit in enum if int(bit)}  # type: ignore[attr-defined]
    for bit, extensions in by_bit.items():
        if extensions and not extensions & CORE:
            assert set(table[bit].extensions) == extensions, enum(bit)
        else:
            assert bit not in table, enum(bit)


def test_every_format_of_an_extension_is_in_the_table(registry: object) -> None:
    for field in registry.enums["VkFormat"].fields:  # type: ignore[attr-defined]
        if field.value >= 1_000_000_000 and not set(field.extensions) & CORE:
            needs = _enabled.FORMATS[(field.value - 1_000_000_000) // 1000]
            assert set(needs.extensions) == set(field.extensions), field.name


def test_a_version_or_an_extension_enables_it() -> None:
    needs = Needs(2, ("VK_KHR_a", "VK_EXT_a"))
    assert lacks(needs, BARE) and needs.text == "Vulkan 1.2 or VK_KHR_a or VK_EXT_a"
    assert not lacks(needs, replace(BARE, api_version=1 << 22 | 2 << 12))
    assert not lacks(needs, replace(BARE, extensions=frozenset({"VK_EXT_a"})))
    assert lacks(Needs(0, ("VK_EXT_a",)), replace(BARE, api_version=1 << 22 | 9 << 12))


def test_what_is_not_known_is_not_lacking() -> None:
    needs = Needs(0, ("VK_EXT_a",))
    assert not lacks(needs, None) and not lacks(needs, GPU) and not lacks(None, BARE)
    assert not lacks(needs, replace(BARE, extensions=None))
    unversioned = replace(BARE, api_version=None)
    assert lacks(needs, unversioned) and not lacks(Needs(2, ("VK_EXT_a",)), unversioned)


def test_bits_are_named_with_what_they_need() -> None:
    table, enum = _enabled.IMAGE_USAGES, vk.ImageUsageFlagBits
    mask = int(enum.SAMPLED | enum.HOST_TRANSFER | enum.TENSOR_ALIASING_ARM) | 1 << 31
    assert lacking_bits(mask, enum, table, BARE) == (
        "the bits 0x80000000 are not defined; HOST_TRANSFER needs Vulkan 1.4 or VK_EXT_host_image_copy, which is not "
        "enabled; TENSOR_ALIASING_ARM needs VK_ARM_tensors, which is not enabled"
    )
    assert lacking_bits(int(enum.SAMPLED), enum, table, BARE) == ""
