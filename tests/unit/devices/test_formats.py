"""Texel sizes against the registry's own table of formats."""

from __future__ import annotations

import pytest
from vulkan_object import get_vulkan_object

from extmem import vk
from extmem.devices.formats import is_depth_or_stencil, texel_size


def test_every_format_of_the_registry_has_the_size_that_the_registry_says() -> None:
    table = get_vulkan_object().formats
    for entry in table.values():
        value = vk.Format[entry.name.removeprefix("VK_FORMAT_")]
        # Chroma "444" is not subsampled: those formats are plain, four components in one plane.
        plain = not entry.compressed and not entry.planes and entry.chroma in (None, "444")
        assert texel_size(value) == (entry.blockSize if plain else None), entry.name
        deep = any(component.type in ("D", "S") for component in entry.components)
        assert is_depth_or_stencil(value) == deep, entry.name
    assert len(table) > 250


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("R8_UNORM", 1),
        ("R8G8B8A8_UNORM", 4),
        ("B8G8R8A8_SRGB", 4),
        ("R16G16B16_SFLOAT", 6),
        ("R64G64B64A64_UINT", 32),
        ("A2B10G10R10_UNORM_PACK32", 4),
        ("E5B9G9R9_UFLOAT_PACK32", 4),
        ("X8_D24_UNORM_PACK32", 4),
        ("D16_UNORM", 2),
        ("D32_SFLOAT", 4),
        ("D24_UNORM_S8_UINT", 4),
        ("D32_SFLOAT_S8_UINT", 5),
    ],
)
def test_size_follows_from_the_name(name: str, size: int) -> None:
    assert texel_size(vk.Format[name]) == size


@pytest.mark.parametrize("name", ["UNDEFINED", "BC7_UNORM_BLOCK", "G8_B8R8_2PLANE_420_UNORM", "G8B8G8R8_422_UNORM"])
def test_what_has_no_texel_size_has_none(name: str) -> None:
    assert texel_size(vk.Format[name]) is None


def test_unknown_numbers_have_no_texel_size() -> None:
    assert texel_size(999_999) is None
    assert not is_depth_or_stencil(999_999)
