"""Facts of formats, compared with the registry's table: texel blocks, aspects, planes."""

from __future__ import annotations

import pytest
from vulkan_object import get_vulkan_object

from extmem import vk
from extmem.vk.formats import copied_size, format_facts, format_name, is_depth_or_stencil, texel_size


def test_every_format_has_the_size_in_the_registry() -> None:
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
def test_formats_without_a_texel_size(name: str) -> None:
    assert texel_size(vk.Format[name]) is None


def test_unknown_numbers_have_no_texel_size() -> None:
    assert texel_size(999_999) is None
    assert not is_depth_or_stencil(999_999)


A = vk.ImageAspectFlagBits
FULL_HD = (1920, 1080, 1)


@pytest.mark.parametrize(
    ("name", "extent"),
    [
        ("R8G8B8A8_UNORM", (1, 1)),
        ("BC7_UNORM_BLOCK", (1, 1)),
        ("G8B8G8R8_422_UNORM", (2, 1)),
        ("G8_B8_R8_3PLANE_420_UNORM", (2, 2)),
        ("G8_B8R8_2PLANE_422_UNORM", (2, 1)),
        ("G8_B8_R8_3PLANE_444_UNORM", (1, 1)),
        ("R10X6G10X6B10X6A10X6_UNORM_4PACK16", (1, 1)),
    ],
)
def test_texels_of_one_chroma_sample(name: str, extent: tuple[int, int]) -> None:
    facts = format_facts(vk.Format[name])
    assert facts is not None
    assert facts.chroma_extent == extent


@pytest.mark.parametrize(
    ("name", "whole", "copied"),
    [
        ("R8G8B8A8_UNORM", A.COLOR, (A.COLOR,)),
        ("BC7_UNORM_BLOCK", A.COLOR, (A.COLOR,)),
        ("D32_SFLOAT", A.DEPTH, (A.DEPTH,)),
        ("S8_UINT", A.STENCIL, (A.STENCIL,)),
        ("D24_UNORM_S8_UINT", A.DEPTH | A.STENCIL, (A.DEPTH, A.STENCIL)),
        ("G8_B8R8_2PLANE_420_UNORM", A.COLOR, (A.PLANE_0, A.PLANE_1)),
        ("G8_B8_R8_3PLANE_420_UNORM", A.COLOR, (A.PLANE_0, A.PLANE_1, A.PLANE_2)),
    ],
)
def test_aspects(name: str, whole: int, copied: tuple[int, ...]) -> None:
    facts = format_facts(vk.Format[name])
    assert facts is not None
    assert (facts.whole, facts.copied) == (whole, copied)


@pytest.mark.parametrize(
    ("name", "aspect", "extent", "size", "texels", "total"),
    [
        ("R8G8B8A8_UNORM", A.COLOR, FULL_HD, 4, FULL_HD, 1920 * 1080 * 4),
        ("R8G8B8A8_UNORM", A.COLOR, (5, 3, 7), 4, (5, 3, 7), 5 * 3 * 7 * 4),
        ("BC1_RGB_UNORM_BLOCK", A.COLOR, (5, 3, 1), 8, (5, 3, 1), 2 * 1 * 8),
        ("G8B8G8R8_422_UNORM", A.COLOR, (6, 4, 1), 4, (6, 4, 1), 3 * 4 * 4),
        ("D16_UNORM", A.DEPTH, FULL_HD, 2, FULL_HD, 1920 * 1080 * 2),
        ("X8_D24_UNORM_PACK32", A.DEPTH, FULL_HD, 4, FULL_HD, 1920 * 1080 * 4),
        ("D24_UNORM_S8_UINT", A.DEPTH, FULL_HD, 4, FULL_HD, 1920 * 1080 * 4),
        ("D24_UNORM_S8_UINT", A.STENCIL, FULL_HD, 1, FULL_HD, 1920 * 1080),
        ("D32_SFLOAT_S8_UINT", A.DEPTH, FULL_HD, 4, FULL_HD, 1920 * 1080 * 4),
        ("D16_UNORM_S8_UINT", A.DEPTH, FULL_HD, 2, FULL_HD, 1920 * 1080 * 2),
        ("G8_B8R8_2PLANE_420_UNORM", A.PLANE_0, FULL_HD, 1, FULL_HD, 1920 * 1080),
        ("G8_B8R8_2PLANE_420_UNORM", A.PLANE_1, FULL_HD, 2, (960, 540, 1), 960 * 540 * 2),
        ("G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16", A.PLANE_0, FULL_HD, 2, FULL_HD, 1920 * 1080 * 2),
        ("G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16", A.PLANE_1, FULL_HD, 4, (960, 540, 1), 960 * 540 * 4),
        ("G8_B8_R8_3PLANE_422_UNORM", A.PLANE_2, FULL_HD, 1, (960, 1080, 1), 960 * 1080),
    ],
)
def test_what_a_copy_takes_in_a_buffer(
    name: str, aspect: int, extent: tuple[int, int, int], size: int, texels: tuple[int, int, int], total: int
) -> None:
    facts = format_facts(vk.Format[name])
    assert facts is not None
    assert copied_size(facts, aspect, extent) == (size, texels, total)


def test_names() -> None:
    assert format_name(vk.Format.R8_UNORM) == "R8_UNORM"
    assert format_name(999_999) == "format 999999"
    assert format_name(0) == "UNDEFINED"
    assert format_facts(0) is None
