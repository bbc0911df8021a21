"""Descriptors of images with DRM format modifiers: which fields may be combined, and what fits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from extmem import vk
from extmem.errors import DescriptorError, UnsupportedError
from extmem.sharing.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
from extmem.sharing.limits import DESCRIPTOR_LIMIT

RGBA, LINEAR, DRM = 37, int(vk.ImageTiling.LINEAR), int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT)
U64, U32, MAX = (1 << 64) - 1, 0xFFFF_FFFF, (1 << 63) - 1
PLACED = vk.ImageCreateInfo(
    extent=vk.Extent3D(8, 8, 1),
    tiling=vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT,
    p_next=vk.ImageDrmFormatModifierExplicitCreateInfoEXT(
        U64, [vk.SubresourceLayout(0, 0, 64), vk.SubresourceLayout(U64, 0, 1, 2, 3)]
    ),
)
"""An image with two memory planes, and the largest modifier."""


def planes(*of: PlaneInfo) -> ImageInfo:
    return ImageInfo(RGBA, (1, 1, 1), DRM, 5, 0, of)


def plain(**fields: Any) -> Descriptor:
    return Descriptor(**{"handle_types": 1, "allocation_size": 4096, **fields})


CASES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"image": planes(PlaneInfo(4000, 97))}, "plane 0 .*beyond the payload", {"image": planes(PlaneInfo(4000, 96))}),
    ({"image": planes(PlaneInfo(0, 0, -1))}, "out of range", {"image": planes(PlaneInfo(0, 0, 1 << 40))}),
    ({"image": planes(*[PlaneInfo(0)] * 5)}, "5 memory planes", {"image": planes(*[PlaneInfo(0)] * 4)}),
    (
        {"image": ImageInfo(RGBA, (1, 1, 1), LINEAR, None, 4, (PlaneInfo(0),))},
        "1 memory planes",
        {"image": ImageInfo(RGBA, (1, 1, 1), LINEAR, None, 4)},
    ),
    (
        {"image": ImageInfo(RGBA, (64, 64, 1), DRM, 0)},
        "takes 16384 bytes",
        {"image": ImageInfo(RGBA, (64, 64, 1), DRM, 1)},
    ),
    (
        {"image": planes(PlaneInfo(0)), "array": ArrayInfo((4,), "int8", (1,))},
        "an array, or an image with memory planes",
        {"image": ImageInfo(RGBA, (1, 1, 1), DRM, 5), "array": ArrayInfo((4,), "int8", (1,))},
    ),
    (
        {"dedicated": dataclasses.replace(PLACED, tiling=vk.ImageTiling.LINEAR)},
        "tiling 1 with modifier .* and 2 memory planes",
        {"dedicated": PLACED},
    ),
    (
        {"dedicated": dataclasses.replace(PLACED, p_next=None)},
        "with modifier None and 0 memory planes",
        {"dedicated": dataclasses.replace(PLACED, p_next=None, tiling=vk.ImageTiling.LINEAR)},
    ),
]


@pytest.mark.parametrize(("bad", "problem", "good"), CASES)
def test_a_lie_is_refused_and_the_nearest_truth_is_not(bad: dict[str, Any], problem: str, good: dict[str, Any]) -> None:
    with pytest.raises(DescriptorError, match=problem):
        plain(**bad)
    descriptor = plain(**good)
    assert Descriptor.parse(descriptor.encode()) == descriptor


def test_a_list_of_modifiers_does_not_travel() -> None:
    """The importer could choose another one."""
    listed = dataclasses.replace(PLACED, p_next=vk.ImageDrmFormatModifierListCreateInfoEXT((0, 1)))
    with pytest.raises(UnsupportedError, match="ImageDrmFormatModifierListCreateInfoEXT"):
        plain(dedicated=listed)


def test_the_largest_one_fits() -> None:
    layouts = [vk.SubresourceLayout(U64, U64, U64, U64, U64)] * 4
    named = vk.ImageDrmFormatModifierExplicitCreateInfoEXT(U64, layouts)
    largest = Descriptor(
        handle_types=U32,
        allocation_size=MAX,
        memory_type_index=31,
        payload_size=MAX // 2,
        payload_offset=MAX // 2,
        memory_property_flags=U32,
        device_uuid=b"d" * 16,
        driver_uuid=b"v" * 16,
        luid=b"l" * 8,
        device_name="\U0001f600" * 256,
        driver_name="\U0001f600" * 256,
        dedicated=vk.ImageCreateInfo(
            *(U32, U32, U32, vk.Extent3D(U32, U32, U32), U32, U32, U32, DRM, U32, U32, (U32,) * 64, U32),
            vk.ExternalMemoryImageCreateInfo(U32, named),
        ),
        usage=U64,
        image=ImageInfo(RGBA, (U32,) * 3, DRM, U64, MAX, (PlaneInfo(0, MAX // 2, MAX, MAX, MAX),) * 4),
        share=3,
        read_only=True,
        owner_pid=U32,
        owner_start_time=U64,
        device_mask=U32,
        device_group=(b"g" * 16,) * 32,
        made_by_vulkan=False,
        memory_type_bits=U32,
    )
    data = largest.encode()
    assert 3000 < len(data) <= DESCRIPTOR_LIMIT
    assert Descriptor.parse(data) == largest
