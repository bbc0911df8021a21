"""Buffers and images of the host device: parts of the memory that they are bound to. No object is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices import placed_resources
from extmem.devices.host import capabilities, image_layouts
from extmem.devices.host.physical import host_identity
from extmem.devices.placed_resources import PlacedResource
from extmem.devices.resources import NativeResource, Requirements
from extmem.errors import UnsupportedError
from extmem.vk.value_text import bits_of, flags_text, types_text

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation

__all__ = ["bind", "buffer_requirements", "create_buffer", "create_image"]

_BUFFER_ALIGNMENT = 64
_ALL_TYPES = 0b11


def buffer_requirements(info: vk.BufferCreateInfo) -> Requirements:
    """Its size rounded up to 64 bytes, in either memory type. UnsupportedError for sparse and protected buffers."""
    if info.flags:
        raise UnsupportedError(
            f"buffers with create flags {flags_text(info.flags, vk.BufferCreateFlagBits)} are not supported: the host "
            "device has no sparse, protected or captured buffers; create it with flags 0",
            requires_one_of=["flags 0"],
        )
    external = vk.find(info, vk.ExternalMemoryBufferCreateInfo)
    types = int(external.handle_types) if external is not None else 0
    if types & ~capabilities.SUPPORTED:
        raise UnsupportedError(
            f"buffers cannot be external as {types_text(types)} on the host device; "
            f"it has {types_text(capabilities.SUPPORTED)}",
            requires_one_of=[types_text(bit) for bit in bits_of(capabilities.SUPPORTED)],
        )
    if info.size <= 0:
        raise UnsupportedError(f"a buffer of {info.size} bytes cannot be made; its size must be at least 1")
    size = -(-info.size // _BUFFER_ALIGNMENT) * _BUFFER_ALIGNMENT
    return Requirements(size, _BUFFER_ALIGNMENT, _ALL_TYPES)


def create_buffer(info: vk.BufferCreateInfo) -> PlacedResource:
    """See `Backend`."""
    return PlacedResource("buffer", buffer_requirements(info), size=int(info.size), create_info=info)


def create_image(info: vk.ImageCreateInfo) -> PlacedResource:
    """See `Backend`."""
    return PlacedResource("image", image_layouts.requirements(info), create_info=info)


def bind(allocation: Allocation, offset: int, resource: NativeResource) -> None:
    """See `Backend`. The resource keeps where it is."""
    placed_resources.bind(resource, allocation, offset, resource.requirements.size, host_identity().device_name)
