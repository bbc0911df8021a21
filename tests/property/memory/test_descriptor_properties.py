"""Any descriptor is equal after encoding and parsing; any bytes are a consistent descriptor or a DescriptorError."""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extmem import vk
from extmem.errors import DescriptorError
from extmem.sharing.descriptor import ArrayInfo, Descriptor, ImageInfo

U32, U64 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
u32, u64 = st.integers(0, U32), st.integers(0, U64)
uuids = st.binary(min_size=16, max_size=16)
names = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)
indices = st.lists(u32, max_size=3).map(tuple)


@st.composite
def buffers(draw: st.DrawFn, size: int) -> vk.BufferCreateInfo:
    chain: vk.ChainStruct | None = None
    if draw(st.booleans()):
        chain = vk.BufferUsageFlags2CreateInfo(draw(u64))
    if draw(st.booleans()):
        chain = vk.ExternalMemoryBufferCreateInfo(draw(u32), chain)
    return vk.BufferCreateInfo(draw(u32), draw(st.integers(1, size)), draw(u32), draw(u32), draw(indices), chain)


@st.composite
def images(draw: st.DrawFn) -> vk.ImageCreateInfo:
    some = st.integers(1, U32)
    chain = vk.ExternalMemoryImageCreateInfo(draw(u32)) if draw(st.booleans()) else None
    extent = vk.Extent3D(draw(some), draw(some), draw(some))
    counts = (draw(some), draw(some), draw(u32))
    rest = (draw(u32), draw(u32), draw(u32), draw(indices), draw(u32))
    return vk.ImageCreateInfo(draw(u32), draw(u32), draw(u32), extent, *counts, *rest, chain)


@st.composite
def arrays(draw: st.DrawFn, room: int) -> ArrayInfo:
    dtype = draw(st.sampled_from(["uint8", "float16", "float32", "complex128", "bool"]))
    item = numpy.dtype(dtype).itemsize
    shape: list[int] = []
    for _ in range(draw(st.integers(0, 4))):
        shape.append(draw(st.integers(0, max(0, room // item // prod(max(1, n) for n in shape)))))
    order = draw(st.permutations(range(len(shape))))
    strides = [0] * len(shape)
    step = item
    for axis in order:
        strides[axis] = step
        step *= max(1, shape[axis])
    return ArrayInfo(tuple(shape), dtype, tuple(strides))


@st.composite
def descriptors(draw: st.DrawFn) -> Descriptor:
    allocation = draw(st.one_of(st.integers(16, 1 << 20), st.integers(16, (1 << 63) - 1)))
    offset = draw(st.integers(0, allocation - 16))
    size = draw(st.integers(16, allocation - offset))
    return Descriptor(
        handle_types=draw(u32),
        allocation_size=allocation,
        memory_type_index=draw(st.integers(0, 31)),
        payload_size=size,
        payload_offset=offset,
        memory_property_flags=draw(u32),
        device_uuid=draw(st.none() | uuids),
        driver_uuid=draw(st.none() | uuids),
        luid=draw(st.none() | st.binary(min_size=8, max_size=8)),
        device_name=draw(names),
        driver_name=draw(names),
        dedicated=draw(st.one_of(st.none(), buffers(allocation), images())),
        usage=draw(u64),
        array=draw(st.none() | arrays(size)),
        image=draw(st.none() | st.just(ImageInfo(int(vk.Format.R8G8B8A8_UNORM), (2, 2, 1)))),
        share=draw(st.integers(0, 3)),
        read_only=draw(st.booleans()),
        owner_pid=draw(u32),
        owner_start_time=draw(u64),
        device_mask=draw(u32),
        device_group=draw(st.lists(uuids, max_size=3).map(tuple)),
        made_by_vulkan=draw(st.booleans()),
        memory_type_bits=draw(st.none() | u32),
        pages=draw(st.sampled_from([(), (1,), (2,), (2, 1)])),
    )


def assert_self_consistent(descriptor: Descriptor) -> None:
    assert 0 < descriptor.payload_size
    assert 0 <= descriptor.payload_offset
    assert descriptor.payload_offset + descriptor.payload_size <= descriptor.allocation_size < 1 << 63
    array = descriptor.array
    if array is not None:
        # NumPy accepts the array, so every element is inside the memory.
        room = min(descriptor.payload_size, 1 << 16)
        if prod(array.shape) and room == descriptor.payload_size:
            numpy.ndarray(array.shape, array.dtype, bytearray(room), 0, array.strides)


@settings(deadline=None)
@given(descriptors())
def test_any_descriptor_survives_its_bytes(descriptor: Descriptor) -> None:
    data = descriptor.encode()
    read = Descriptor.parse(data)
    assert read == descriptor
    assert read.encode() == data
    assert read.payload_facts() == descriptor.payload_facts()
    assert_self_consistent(read)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_descriptor_or_refused(data: bytes) -> None:
    try:
        descriptor = Descriptor.parse(data)
    except DescriptorError:
        return
    assert_self_consistent(descriptor)


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), U64)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(descriptors(), st.data())
def test_any_wrong_element_is_refused_or_makes_sense(descriptor: Descriptor, data: st.DataObject) -> None:
    elements: list[Any] = msgspec.msgpack.decode(descriptor.encode())
    place = data.draw(st.integers(0, len(elements) - 1))
    if isinstance(elements[place], list) and elements[place] and data.draw(st.booleans()):
        elements[place][data.draw(st.integers(0, len(elements[place]) - 1))] = data.draw(hostile)
    else:
        elements[place] = data.draw(hostile)
    try:
        spoilt = Descriptor.parse(msgspec.msgpack.encode(elements))
    except DescriptorError:
        return
    assert_self_consistent(spoilt)
    assert Descriptor.parse(spoilt.encode()) == spoilt


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 20), max_size=4),
    st.lists(st.integers(-100, 100), max_size=4),
    st.sampled_from(["uint8", "int16", "float64"]),
    st.integers(1, 4096),
)
def test_arrays_are_taken_exactly_where_numpy_takes_them(
    shape: list[int], strides: list[int], dtype: str, size: int
) -> None:
    strides = (strides + [8] * 4)[: len(shape)]
    array = ArrayInfo(tuple(shape), dtype, tuple(strides))
    try:
        numpy.ndarray(shape, dtype, bytearray(size), 0, strides)
        fits = prod(shape) * numpy.dtype(dtype).itemsize <= size
    except ValueError:
        fits = False
    if not prod(shape):
        return  # NumPy checks strides of empty arrays, which are never used
    if fits:
        Descriptor(handle_types=1, allocation_size=size, array=array)
    else:
        with pytest.raises(DescriptorError):
            Descriptor(handle_types=1, allocation_size=size, array=array)
