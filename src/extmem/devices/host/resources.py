"""Buffers and images of the host device: parts of the memory that they are bound to. No object is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.host import capabilities, image_layouts
from extmem.devices.host.physical import host_identity
from extmem.devices.resources import NativeResource, Requirements
from extmem.errors import DriverError, HandleStateError, UnsupportedError
from extmem.vk.value_text import flags_text, types_text

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation

__all__ = ["HostResource", "bind", "buffer_requirements", "create_buffer", "create_image", "place_of"]

_BUFFER_ALIGNMENT = 64
_ALL_TYPES = 0b11


class HostResource(NativeResource):
    """A buffer or image, and where it is."""

    allocation: Allocation | None = None
    offset: int = 0

    def destroy(self) -> None:
        """Forget where it is bound."""
        self.allocation = None


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
    if types & ~int(capabilities.SUPPORTED):
        raise UnsupportedError(
            f"buffers cannot be external as {types_text(types)} on the host device; "
            f"it has {types_text(capabilities.SUPPORTED)}",
            requires_one_of=[kind.name or "" for kind in capabilities.SUPPORTED],
        )
    if info.size <= 0:
        raise UnsupportedError(f"a buffer of {info.size} bytes cannot be made; its size must be at least 1")
    size = -(-info.size // _BUFFER_ALIGNMENT) * _BUFFER_ALIGNMENT
    return Requirements(size, _BUFFER_ALIGNMENT, _ALL_TYPES)


def create_buffer(info: vk.BufferCreateInfo) -> HostResource:
    """See `Backend`."""
    return HostResource("buffer", buffer_requirements(info), size=int(info.size), create_info=info)


def create_image(info: vk.ImageCreateInfo) -> HostResource:
    """See `Backend`."""
    return HostResource("image", image_layouts.requirements(info), create_info=info)


def bind(allocation: Allocation, offset: int, resource: NativeResource) -> None:
    """See `Backend`. The resource keeps where it is."""
    size = resource.requirements.size
    if offset < 0 or offset + size > allocation.size:
        raise DriverError(
            f"vkBindMemory: {size} bytes from offset {offset} reach past the allocation of {allocation.size} bytes; "
            "allocate what the requirements say",
            result=vk.Result.ERROR_UNKNOWN,
            command="vkBindMemory",
            devices=[host_identity().device_name],
        )
    if isinstance(resource, HostResource):
        resource.allocation, resource.offset, resource.bound = allocation, offset, True


def place_of(resource: NativeResource) -> tuple[Allocation, int]:
    """The memory that a buffer is bound to, and its offset there. Errors: HandleStateError for one that is not."""
    if not isinstance(resource, HostResource) or resource.allocation is None:
        raise HandleStateError(f"this {resource.kind} is not bound to memory; bind it first")
    return resource.allocation, resource.offset
