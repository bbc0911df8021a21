"""Buffers and images of the host and CUDA devices, which have no objects for them: parts of the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from extmem import vk
from extmem.devices.resources import NativeResource
from extmem.errors import DriverError, HandleStateError

if TYPE_CHECKING:
    from extmem.devices.backend import Allocation

__all__ = ["PlacedResource", "bind", "place_of"]


class PlacedResource(NativeResource):
    """A buffer or image of a device without such objects: a part of the memory that it is bound to."""

    allocation: Allocation | None = None
    """The memory, once it is bound."""
    offset: int = 0
    """Where in the memory it begins, in bytes."""

    def destroy(self) -> None:
        """Forget where it is bound."""
        self.allocation = None


def bind(resource: NativeResource, allocation: Allocation, offset: int, reach: int, device: str) -> None:
    """Bind a `PlacedResource`. reach: bytes that it takes of the memory. device: the name, for the error: DriverError.

    A resource of another kind of device is not changed.
    """
    if offset < 0 or offset + reach > allocation.size:
        raise DriverError(
            f"vkBindMemory: {resource.requirements.size} bytes from offset {offset} reach past the allocation of "
            f"{allocation.size} bytes; allocate what the requirements say",
            result=vk.Result.ERROR_UNKNOWN,
            command="vkBindMemory",
            devices=[device],
        )
    if isinstance(resource, PlacedResource):
        resource.allocation, resource.offset, resource.bound = allocation, offset, True


def place_of(resource: NativeResource) -> tuple[Allocation, int]:
    """The memory that a resource is bound to, and its offset there. Errors: HandleStateError for one that is not."""
    if not isinstance(resource, PlacedResource) or resource.allocation is None:
        raise HandleStateError(f"this {resource.kind} is not bound to memory; bind it first")
    return resource.allocation, resource.offset
