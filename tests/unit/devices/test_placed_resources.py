"""Buffers and images that are parts of the memory that they are bound to."""

from __future__ import annotations

import pytest

from extmem.devices import placed_resources
from extmem.devices.host.memory import PointerAllocation
from extmem.devices.placed_resources import PlacedResource, place_of
from extmem.devices.resources import NativeResource, Requirements
from extmem.errors import DriverError, HandleStateError

MEMORY = PointerAllocation(0x1000, 256, 0)


def test_a_bound_resource_has_its_place_until_it_is_destroyed() -> None:
    buffer = PlacedResource("buffer", Requirements(128, 64, 1), size=100)
    placed_resources.bind(buffer, MEMORY, 128, 128, "device")
    assert buffer.bound and place_of(buffer) == (MEMORY, 128)
    buffer.destroy()
    with pytest.raises(HandleStateError, match="not bound to memory"):
        place_of(buffer)


@pytest.mark.parametrize("offset", [-1, 129])
def test_a_resource_that_would_reach_past_the_memory_is_not_bound(offset: int) -> None:
    buffer = PlacedResource("buffer", Requirements(128, 64, 1), size=100)
    with pytest.raises(DriverError, match=rf"128 bytes from offset {offset} .* of 256 bytes.*requirements"):
        placed_resources.bind(buffer, MEMORY, offset, 128, "device")
    assert not buffer.bound


def test_a_resource_of_another_kind_of_device_has_no_place() -> None:
    image = NativeResource("image", Requirements(128, 64, 1), raw=7)
    placed_resources.bind(image, MEMORY, 0, 128, "device")
    with pytest.raises(HandleStateError, match="this image is not bound to memory"):
        place_of(image)
