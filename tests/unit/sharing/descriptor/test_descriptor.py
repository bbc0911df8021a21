"""The descriptor: what it contains, and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from extmem import vk
from extmem.errors import DescriptorError, UnsupportedError
from extmem.rules import PayloadFacts
from extmem.sharing.descriptor import ArrayInfo, Descriptor, ImageInfo
from extmem.sharing.limits import DESCRIPTOR_LIMIT

HandleType = vk.ExternalMemoryHandleTypeFlagBits
MAX = (1 << 63) - 1


def plain(**changes: Any) -> Descriptor:
    values: dict[str, Any] = {
        "handle_types": 3,
        "allocation_size": 4096,
        "memory_type_index": 1,
        "memory_property_flags": 14,
        "device_uuid": b"d" * 16,
        "driver_uuid": b"v" * 16,
        "device_name": "extmem host memory",
        "driver_name": "extmem",
        "owner_pid": 4321,
        "owner_start_time": 98765,
    }
    return Descriptor(**{**values, **changes})


BUFFER = vk.BufferCreateInfo(
    vk.BufferCreateFlagBits(0),
    1024,
    vk.BufferUsageFlagBits.TRANSFER_SRC | vk.BufferUsageFlagBits.TRANSFER_DST,
    vk.SharingMode.CONCURRENT,
    (0, 1),
    vk.ExternalMemoryBufferCreateInfo(HandleType.OPAQUE_WIN32),
)
IMAGE = vk.ImageCreateInfo(
    vk.ImageCreateFlagBits.MUTABLE_FORMAT,
    vk.ImageType.TYPE_2D,
    vk.Format.R8G8B8A8_UNORM,
    vk.Extent3D(64, 32, 1),
    3,
    2,
    vk.SampleCountFlagBits.COUNT_1,
    vk.ImageTiling.OPTIMAL,
    vk.ImageUsageFlagBits.TRANSFER_SRC | vk.ImageUsageFlagBits.COLOR_ATTACHMENT,
    vk.SharingMode.EXCLUSIVE,
    (),
    vk.ImageLayout.PREINITIALIZED,
    vk.ExternalMemoryImageCreateInfo(HandleType.OPAQUE_WIN32),
)

FULL = {
    "payload_size": 2048,
    "payload_offset": 1024,
    "luid": b"l" * 8,
    "usage": 0x23,
    "share": 3,
    "read_only": True,
    "device_mask": 3,
    "device_group": (b"1" * 16, b"2" * 16),
    "made_by_vulkan": False,
    "memory_type_bits": 5,
    "pages": (1, 2),
    "array": ArrayInfo((4, 8), "float32", (32, 4)),
    "image": ImageInfo(int(vk.Format.R8G8B8A8_UNORM), (8, 4, 1), int(vk.ImageTiling.LINEAR), None, 64),
}


@pytest.mark.parametrize(
    "changes",
    [{}, FULL, {"dedicated": BUFFER}, {"dedicated": IMAGE}, {"device_uuid": None, "driver_uuid": None, "luid": None}],
)
def test_what_is_written_is_read(changes: dict[str, Any]) -> None:
    descriptor = plain(**changes)
    data = descriptor.encode()
    assert len(data) <= DESCRIPTOR_LIMIT
    for form in (data, bytearray(data), memoryview(data)):
        read = Descriptor.parse(form)
        assert read == descriptor
        assert read.encode() == data


def test_it_is_a_value() -> None:
    descriptor = plain()
    with pytest.raises(AttributeError):
        descriptor.allocation_size = 1  # type: ignore[misc]  # the test is that it fails
    assert plain() == descriptor != plain(owner_pid=1)


def test_a_payload_size_of_nothing_is_the_rest_of_the_allocation() -> None:
    assert plain().payload_size == 4096
    assert plain(payload_offset=4000).payload_size == 96


# Dedicated resources.


def test_B96_an_importer_gets_the_identical_create_info() -> None:
    for info, kind in ((BUFFER, "buffer"), (IMAGE, "image")):
        read = Descriptor.parse(plain(dedicated=info).encode())
        assert read.dedicated == info
        assert read.dedicated_kind == kind
        assert type(read.dedicated) is type(info)
    assert isinstance(Descriptor.parse(plain(dedicated=IMAGE).encode()).dedicated, vk.ImageCreateInfo)
    assert plain().dedicated_kind == "none"


def test_every_field_of_a_create_info_arrives() -> None:
    for info in (BUFFER, IMAGE):
        for field in dataclasses.fields(info):
            if field.name == "p_next":
                changed = dataclasses.replace(info, p_next=None)
            elif field.name == "extent":
                changed = dataclasses.replace(IMAGE, extent=vk.Extent3D(5, 6, 7))
            elif field.name == "queue_family_indices":
                changed = dataclasses.replace(info, queue_family_indices=(7,))
            else:
                changed = dataclasses.replace(info, **{field.name: 1 + int(getattr(info, field.name))})
            read = Descriptor.parse(plain(dedicated=changed).encode()).dedicated
            assert read == changed != info, field.name


def test_wide_buffer_usage_arrives() -> None:
    chain = vk.ExternalMemoryBufferCreateInfo(
        HandleType.OPAQUE_FD, vk.BufferUsageFlags2CreateInfo(vk.BufferUsageFlagBits2(1 << 40))
    )
    info = vk.BufferCreateInfo(size=64, p_next=chain)
    assert Descriptor.parse(plain(dedicated=info).encode()).dedicated == info


def test_the_create_info_is_a_copy() -> None:
    info = dataclasses.replace(BUFFER)
    descriptor = plain(dedicated=info)
    info.size = 4000
    assert descriptor.dedicated is not info and descriptor.dedicated == BUFFER


def test_a_chain_that_cannot_travel_is_refused_and_one_that_can_is_not() -> None:
    strange = vk.ImageCreateInfo(extent=vk.Extent3D(1, 1, 1), mip_levels=1, array_layers=1)
    assert plain(dedicated=strange).dedicated == strange
    strange.p_next = vk.ExternalMemoryImageCreateInfoNV()
    with pytest.raises(UnsupportedError, match="ExternalMemoryImageCreateInfoNV"):
        plain(dedicated=strange)


def test_numbers_that_this_registry_does_not_name_stay_numbers() -> None:
    info = dataclasses.replace(IMAGE, format=1_999_999_999)
    assert Descriptor.parse(plain(dedicated=info).encode()).dedicated == info


# What is refused, and the nearest valid descriptor.

REFUSED: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"allocation_size": 0}, "allocation_size is 0", {"allocation_size": 1}),
    ({"allocation_size": -5}, "allocation_size is -5", {"allocation_size": 5}),
    ({"allocation_size": MAX + 1}, "outside 1 to", {"allocation_size": MAX}),
    ({"payload_size": 4097}, "4097 bytes from offset 0", {"payload_size": 4096}),
    ({"payload_size": -1}, "payload of -1 bytes", {"payload_size": 1}),
    ({"payload_size": 1, "payload_offset": 4096}, "inside the allocation", {"payload_size": 1, "payload_offset": 4095}),
    ({"payload_size": 1, "payload_offset": -1}, "offset -1", {"payload_size": 1, "payload_offset": 0}),
    ({"payload_offset": 4096}, "payload of 0 bytes", {"payload_offset": 4095}),
    ({"memory_type_index": 32}, "memory_type_index is 32", {"memory_type_index": 31}),
    ({"memory_type_index": -1}, "memory_type_index is -1", {"memory_type_index": 0}),
    ({"handle_types": 1 << 32}, "handle_types", {"handle_types": (1 << 32) - 1}),
    ({"handle_types": -1}, "handle_types", {"handle_types": 0}),
    ({"memory_property_flags": 1 << 32}, "memory_property_flags", {"memory_property_flags": 7}),
    ({"usage": 1 << 64}, "usage", {"usage": (1 << 64) - 1}),
    ({"share": 4}, "share is 4", {"share": 3}),
    ({"owner_pid": -1}, "owner_pid", {"owner_pid": 0}),
    ({"owner_start_time": 1 << 64}, "owner_start_time", {"owner_start_time": 1 << 63}),
    ({"device_mask": 1 << 32}, "device_mask", {"device_mask": 1}),
    ({"memory_type_bits": 1 << 32}, "memory_type_bits", {"memory_type_bits": 0}),
    ({"memory_type_bits": -1}, "memory_type_bits", {"memory_type_bits": None}),
    ({"pages": (1, 1)}, "companion pages", {"pages": (1, 2)}),
    ({"pages": (9,)}, "companion pages", {"pages": (2,)}),
    ({"device_uuid": b"d" * 15}, "device_uuid has 15", {"device_uuid": b"e" * 16}),
    ({"driver_uuid": b""}, "driver_uuid has 0", {"driver_uuid": None}),
    ({"luid": b"l" * 16}, "luid has 16", {"luid": b"l" * 8}),
    ({"device_group": (b"x",)}, "device_group", {"device_group": (b"x" * 16,)}),
    ({"device_group": (b"x" * 16,) * 33}, "device_group", {"device_group": (b"x" * 16,) * 32}),
    ({"device_name": "\x1b[2J"}, "printable", {"device_name": "Café 9000"}),
    ({"driver_name": "a\nb"}, "printable", {"driver_name": "a b"}),
    ({"device_name": "n" * 257}, "256 characters", {"device_name": "n" * 256}),
]
ARRAYS: list[tuple[ArrayInfo, str, ArrayInfo]] = [
    (ArrayInfo((4097,), "uint8", (1,)), "takes 4097 bytes", ArrayInfo((4096,), "uint8", (1,))),
    (ArrayInfo((1025,), "float32", (4,)), "takes 4100 bytes", ArrayInfo((1024,), "float32", (4,))),
    (ArrayInfo((2,), "int64", (4089,)), "to 4097", ArrayInfo((2,), "int64", (4088,))),
    (ArrayInfo((2,), "int8", (-1,)), "from byte -1", ArrayInfo((1,), "int8", (-1,))),
    (ArrayInfo((2, 2), "int8", (MAX, 1)), "reaches", ArrayInfo((1, 2), "int8", (MAX, 1))),
    (ArrayInfo((2,), "int8", (MAX + 1,)), "out of range", ArrayInfo((1,), "int8", (MAX,))),
    (ArrayInfo((-1,), "int8", (1,)), "out of range", ArrayInfo((0,), "int8", (1,))),
    (ArrayInfo((1 << 32, 1 << 32), "int8", (0, 0)), "bytes and the payload", ArrayInfo((64, 64), "int8", (0, 0))),
    (ArrayInfo((0, 1 << 62, 4), "int8", (1, 1, 1)), "takes", ArrayInfo((0, 1 << 62), "int8", (1, 1))),
    (ArrayInfo((1,), "O", (8,)), "'O' is not the text of an element type", ArrayInfo((1,), "complex128", (16,))),
    (ArrayInfo((1,), "U8", (8,)), "not the text of", ArrayInfo((1,), "bool", (1,))),
    (ArrayInfo((1,), "f4,f4", (8,)), "not the text of", ArrayInfo((1,), "float16", (2,))),
    (ArrayInfo((1, 1), "int8", (1,)), "2 axes and 1 strides", ArrayInfo((), "int8", ())),
    (ArrayInfo((1,) * 65, "int8", (1,) * 65), "65 axes", ArrayInfo((1,) * 64, "int8", (1,) * 64)),
]
RGBA, BC1, LINEAR, DRM = (
    int(vk.Format.R8G8B8A8_UNORM),
    int(vk.Format.BC1_RGB_UNORM_BLOCK),
    int(vk.ImageTiling.LINEAR),
    int(vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT),
)
IMAGES: list[tuple[ImageInfo, str, ImageInfo]] = [
    (ImageInfo(RGBA, (32, 33, 1)), "takes 4224 bytes", ImageInfo(RGBA, (32, 32, 1))),
    (ImageInfo(RGBA, (0, 1, 1)), "extent", ImageInfo(RGBA, (1, 1, 1))),
    (ImageInfo(RGBA, (1 << 32, 1, 1)), "extent", ImageInfo(BC1, ((1 << 32) - 1, 1, 1))),
    (ImageInfo(RGBA, (8, 2, 1), LINEAR, None, 31), "shorter than a row of 32", ImageInfo(RGBA, (8, 2, 1), 1, None, 32)),
    (ImageInfo(RGBA, (8, 2, 2), LINEAR, None, 2048), "takes 6176", ImageInfo(RGBA, (8, 2, 1), 1, None, 2048)),
    (ImageInfo(RGBA, (8, 2, 1), LINEAR, None, -1), "out of range", ImageInfo(RGBA, (8, 2, 1), LINEAR)),
    (ImageInfo(-1, (1, 1, 1)), "out of range", ImageInfo(0, (1, 1, 1))),
    (ImageInfo(RGBA, (1, 1, 1), 2), "no VkImageTiling", ImageInfo(RGBA, (1, 1, 1), 1)),
    (ImageInfo(RGBA, (1, 1, 1), 0, 5), "modifier 5", ImageInfo(RGBA, (1, 1, 1), DRM, 5)),
    (ImageInfo(RGBA, (1, 1, 1), DRM), "modifier None", ImageInfo(RGBA, (1, 1, 1), DRM, 0)),
    (ImageInfo(RGBA, (1, 1, 1), DRM, 1 << 64), "modifier", ImageInfo(RGBA, (1, 1, 1), DRM, (1 << 64) - 1)),
]
DEDICATED: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"size": 4097}, "buffer of 4097 bytes and its allocation has 4096", {"size": 4096}),
    ({"size": 0}, "buffer of 0 bytes", {"size": 1}),
    ({"usage": 1 << 32}, "dedicated usage", {"usage": (1 << 32) - 1}),
    ({"flags": 1 << 32}, "dedicated flags", {"flags": 1}),
    ({"queue_family_indices": (1 << 32,)}, "dedicated queue_family_indices", {"queue_family_indices": (5,)}),
]
CASES = (
    REFUSED
    + [({"array": bad}, problem, {"array": good}) for bad, problem, good in ARRAYS]
    + [({"image": bad}, problem, {"image": good}) for bad, problem, good in IMAGES]
    + [
        ({"dedicated": dataclasses.replace(BUFFER, **bad)}, why, {"dedicated": dataclasses.replace(BUFFER, **good)})
        for bad, why, good in DEDICATED
    ]
    + [
        (
            {"dedicated": dataclasses.replace(IMAGE, mip_levels=0)},
            "0 levels",
            {"dedicated": dataclasses.replace(IMAGE, mip_levels=1)},
        ),
        (
            {"dedicated": dataclasses.replace(BUFFER, size=5000)},
            "5000",
            {"dedicated": dataclasses.replace(BUFFER, size=5000), "made_by_vulkan": False},
        ),
    ]
)


@pytest.mark.parametrize(("bad", "problem", "good"), CASES)
def test_a_lie_is_refused_and_the_nearest_truth_is_not(bad: dict[str, Any], problem: str, good: dict[str, Any]) -> None:
    with pytest.raises(DescriptorError, match=problem):
        plain(**bad)
    descriptor = plain(**good)
    assert Descriptor.parse(descriptor.encode()) == descriptor


def test_the_largest_descriptor_fits() -> None:
    most = (1 << 64) - 1
    largest = Descriptor(
        handle_types=0xFFFFFFFF,
        allocation_size=MAX,
        memory_type_index=31,
        payload_size=MAX // 2,
        payload_offset=MAX // 2,
        memory_property_flags=0xFFFFFFFF,
        device_uuid=b"d" * 16,
        driver_uuid=b"v" * 16,
        luid=b"l" * 8,
        # Four bytes a character is the most that text can take.
        device_name="\U0001f600" * 256,
        driver_name="\U0001f600" * 256,
        dedicated=vk.BufferCreateInfo(
            0xFFFFFFFF,
            MAX,
            0xFFFFFFFF,
            0xFFFFFFFF,
            (0xFFFFFFFF,) * 64,
            vk.ExternalMemoryBufferCreateInfo(0xFFFFFFFF, vk.BufferUsageFlags2CreateInfo(most)),
        ),
        usage=most,
        array=ArrayInfo((1 << 16, 1 << 16) + (1,) * 62, "complex128", (0, 0) + (MAX,) * 62),
        image=ImageInfo(BC1, (0xFFFFFFFF,) * 3, DRM, most, MAX),
        share=3,
        read_only=True,
        owner_pid=0xFFFFFFFF,
        owner_start_time=most,
        device_mask=0xFFFFFFFF,
        device_group=(b"g" * 16,) * 32,
        made_by_vulkan=False,
        memory_type_bits=0xFFFFFFFF,
        pages=(1, 2),
    )
    data = largest.encode()
    assert 3800 < len(data) <= DESCRIPTOR_LIMIT
    assert Descriptor.parse(data) == largest


@pytest.mark.parametrize(
    "changes",
    [{"read_only": 1}, {"allocation_size": 4096.0}, {"owner_pid": True}, {"array": ArrayInfo([4], "int8", [1])}],  # type: ignore[arg-type]  # wrong on purpose
)
def test_wrong_types_from_the_caller_never_leave(changes: dict[str, Any]) -> None:
    descriptor = plain(**changes)
    if "array" in changes:
        assert Descriptor.parse(descriptor.encode()).array == ArrayInfo((4,), "int8", (1,))
        return
    with pytest.raises(DescriptorError, match="cannot be written"):
        descriptor.encode()


# Descriptors of other programs.


def test_the_rules_get_their_facts() -> None:
    facts = plain(dedicated=BUFFER, device_mask=1, device_group=(b"g" * 16,)).payload_facts()
    assert facts == PayloadFacts(
        handle_types=3,
        allocation_size=4096,
        memory_type_index=1,
        device_uuid=b"d" * 16,
        driver_uuid=b"v" * 16,
        dedicated="buffer",
        dedicated_info=BUFFER,
        device_mask=1,
        device_group=(b"g" * 16,),
        device_name="extmem host memory",
    )
    assert plain().payload_facts().dedicated == "none"


def test_a_foreign_payload_has_no_exporters_memory_type() -> None:
    facts = plain(made_by_vulkan=False, memory_type_bits=3).payload_facts()
    assert (facts.memory_type_index, facts.dedicated, facts.memory_type_bits) == (None, None, 3)
    assert not facts.made_by_vulkan


@pytest.mark.parametrize(
    ("array", "order"),
    [
        (ArrayInfo((2, 3), "int32", (12, 4)), "C"),
        (ArrayInfo((2, 3), "int32", (4, 8)), "F"),
        (ArrayInfo((2, 3), "int32", (16, 4)), "strided"),
        (ArrayInfo((5,), "int8", (1,)), "C"),
        (ArrayInfo((), "int8", ()), "C"),
        (ArrayInfo((1, 3), "int32", (999, 4)), "C"),
    ],
)
def test_order_follows_from_the_strides(array: ArrayInfo, order: str) -> None:
    assert array.order == order
