"""Images of the host device: which can be created, and where the texels are."""

from __future__ import annotations

import dataclasses

import pytest

from extmem import vk
from extmem.devices.host.backend import HostBackend
from extmem.errors import UnsupportedError

Usage = vk.ImageUsageFlagBits
Flag = vk.ImageCreateFlagBits
ONE = vk.SampleCountFlagBits.COUNT_1


def image(
    width: int = 100,
    height: int = 50,
    depth: int = 1,
    *,
    kind: vk.ImageType = vk.ImageType.TYPE_2D,
    levels: int = 1,
    layers: int = 1,
    tiling: int = vk.ImageTiling.LINEAR,
    vk_format: int = vk.Format.R8G8B8A8_UNORM,
    usage: int = Usage.TRANSFER_SRC,
) -> vk.ImageCreateInfo:
    extent = vk.Extent3D(width, height, depth)
    return vk.ImageCreateInfo(Flag(0), kind, vk_format, extent, levels, layers, ONE, tiling, Usage(usage))


@pytest.fixture
def backend() -> HostBackend:
    return HostBackend()


def test_linear_rows_begin_at_64_bytes_and_optimal_ones_at_256(backend: HostBackend) -> None:
    linear = backend.image_requirements(image())
    assert (linear.size, linear.alignment, linear.memory_type_bits) == (448 * 50, 64, 0b11)
    optimal = backend.image_requirements(image(tiling=vk.ImageTiling.OPTIMAL))
    assert (optimal.size, optimal.alignment, optimal.memory_type_bits) == (512 * 50, 256, 0b01)


def test_subresources_do_not_overlap_and_fill_the_image(backend: HostBackend) -> None:
    info = image(37, 19, levels=6, layers=3)
    ranges = []
    for layer in range(3):
        for level in range(6):
            found = backend.image_subresource_layout(
                info, vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, level, layer)
            )
            width, height = max(1, 37 >> level), max(1, 19 >> level)
            assert found.row_pitch >= width * 4 and found.row_pitch % 64 == 0
            assert found.size == found.row_pitch * height == found.depth_pitch
            ranges.append((found.offset, found.offset + found.size))
    ranges.sort()
    assert ranges[0][0] == 0
    assert all(end == begin for (_, end), (begin, _) in zip(ranges, ranges[1:], strict=False))
    assert ranges[-1][1] == backend.image_requirements(info).size


def test_slices_of_a_3d_image_follow_each_other(backend: HostBackend) -> None:
    info = image(8, 4, 5, kind=vk.ImageType.TYPE_3D)
    found = backend.image_subresource_layout(info, vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, 0, 0))
    assert (found.row_pitch, found.depth_pitch, found.size) == (64, 256, 1280)


def test_optimal_images_keep_their_layout_to_themselves(backend: HostBackend) -> None:
    subresource = vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, 0, 0)
    with pytest.raises(UnsupportedError, match="LINEAR"):
        backend.image_subresource_layout(image(tiling=vk.ImageTiling.OPTIMAL), subresource)
    assert backend.image_subresource_layout(image(), subresource).offset == 0


@pytest.mark.parametrize(
    "subresource",
    [
        vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, 1, 0),
        vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, 0, 1),
        vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, -1, 0),
        vk.ImageSubresource(vk.ImageAspectFlagBits(0), 0, 0),
        vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR | vk.ImageAspectFlagBits.DEPTH, 0, 0),
    ],
)
def test_a_subresource_that_the_image_lacks_is_an_error(backend: HostBackend, subresource: vk.ImageSubresource) -> None:
    with pytest.raises(ValueError, match="asked for"):
        backend.image_subresource_layout(image(), subresource)


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        (image(vk_format=vk.Format.BC1_RGB_UNORM_BLOCK), "BC1_RGB_UNORM_BLOCK"),
        (image(vk_format=vk.Format.G8_B8R8_2PLANE_420_UNORM), "one plane"),
        (image(vk_format=vk.Format.D32_SFLOAT_S8_UINT, tiling=vk.ImageTiling.OPTIMAL), "D32_SFLOAT_S8_UINT"),
        (image(vk_format=999_999), "999999"),
        (image(vk_format=vk.Format.D16_UNORM), "no LINEAR tiling"),
        (image(usage=Usage.DEPTH_STENCIL_ATTACHMENT), "no depth or stencil"),
        (image(usage=0), "usage"),
        (image(usage=Usage.VIDEO_DECODE_DST_KHR), "usage"),
        (image(tiling=vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT), "tiling"),
        (image(width=0), "extent"),
        (image(width=16385), "extent"),
        (image(depth=2), "extent"),
        (image(levels=8), "mip levels"),
        (image(levels=0), "mip levels"),
        (image(layers=0), "array layers"),
        (image(layers=2049), "array layers"),
        (image(kind=vk.ImageType.TYPE_3D, layers=2), "array layers"),
        (image(height=2, kind=vk.ImageType.TYPE_1D), "extent"),
        (dataclasses.replace(image(), samples=vk.SampleCountFlagBits.COUNT_4), "samples"),
        (dataclasses.replace(image(), flags=Flag.SPARSE_BINDING), "create flags"),
        (dataclasses.replace(image(), flags=Flag.CREATE_2D_ARRAY_COMPATIBLE), "2D-array"),
        (dataclasses.replace(image(kind=vk.ImageType.TYPE_3D), flags=Flag.CUBE_COMPATIBLE), "cube"),
        (dataclasses.replace(image(), image_type=7), "image type"),
        (
            dataclasses.replace(
                image(), p_next=vk.ExternalMemoryImageCreateInfo(vk.ExternalMemoryHandleTypeFlagBits(8))
            ),
            "D3D11_TEXTURE",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(
    backend: HostBackend, info: vk.ImageCreateInfo, problem: str
) -> None:
    with pytest.raises(UnsupportedError, match=f"FORMAT_NOT_SUPPORTED.*{problem}"):
        backend.image_requirements(info)


@pytest.mark.parametrize(
    "info",
    [
        image(levels=7),
        image(16384, 1),
        image(layers=2048, width=1, height=1),
        image(1, 1, kind=vk.ImageType.TYPE_1D),
        image(vk_format=vk.Format.D16_UNORM, tiling=vk.ImageTiling.OPTIMAL, usage=Usage.DEPTH_STENCIL_ATTACHMENT),
        image(vk_format=vk.Format.D24_UNORM_S8_UINT, tiling=vk.ImageTiling.OPTIMAL),
        image(vk_format=vk.Format.R8G8B8_UNORM),
        dataclasses.replace(image(), flags=Flag.MUTABLE_FORMAT | Flag.CUBE_COMPATIBLE),
        dataclasses.replace(image(kind=vk.ImageType.TYPE_3D), flags=Flag.CREATE_2D_ARRAY_COMPATIBLE),
    ],
)
def test_what_can_be_made_is_made(backend: HostBackend, info: vk.ImageCreateInfo) -> None:
    assert backend.image_requirements(info).size > 0


@pytest.mark.parametrize(
    ("kind", "extent", "levels", "layers"),
    [
        (vk.ImageType.TYPE_1D, (16384, 1, 1), 15, 2048),
        (vk.ImageType.TYPE_2D, (16384, 16384, 1), 15, 2048),
        (vk.ImageType.TYPE_3D, (2048, 2048, 2048), 12, 1),
    ],
)
def test_limits_are_told_and_kept(
    backend: HostBackend, kind: vk.ImageType, extent: tuple[int, int, int], levels: int, layers: int
) -> None:
    query = vk.PhysicalDeviceImageFormatInfo2(vk.Format.R8_UNORM, kind, vk.ImageTiling.LINEAR, Usage.SAMPLED)
    found = backend.image_format_properties(query).image_format_properties
    assert found.max_extent == vk.Extent3D(*extent)
    assert (found.max_mip_levels, found.max_array_layers, found.sample_counts) == (levels, layers, ONE)
    assert found.max_resource_size >= 1 << 31
    largest = image(*extent, kind=kind, vk_format=vk.Format.R8_UNORM, levels=levels, layers=layers)
    assert backend.image_requirements(largest).size > 0
