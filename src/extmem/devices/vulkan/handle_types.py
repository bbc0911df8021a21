"""Translation of handle types for a driver and back, alone and in structs.

A driver of Linux has no Win32 handles. There an NT or KMT handle is a reference in the object manager to the driver's
opaque fd, so what the driver answers for OPAQUE_FD holds for OPAQUE_WIN32 and OPAQUE_WIN32_KMT, and a resource that is
external as one of these is external as OPAQUE_FD to the driver.
"""

from __future__ import annotations

import copy
import sys
from typing import TypeVar

from extmem import vk
from extmem.vk.handle_types import NO_TYPES, OPAQUE_FD, OPAQUE_WIN32_TYPES, MemoryHandleType, union

__all__ = ["WIN32_IS_NATIVE", "from_driver", "to_driver", "translated"]

WIN32_IS_NATIVE = sys.platform == "win32"
"""Whether drivers of this platform create Win32 handles themselves."""
HandleType = vk.ExternalMemoryHandleTypeFlagBits
_FIELDS: dict[type, str] = {
    vk.ExternalMemoryBufferCreateInfo: "handle_types",
    vk.ExternalMemoryImageCreateInfo: "handle_types",
    vk.PhysicalDeviceExternalBufferInfo: "handle_type",
    vk.PhysicalDeviceExternalImageFormatInfo: "handle_type",
}
"""The structs with handle types, and the field of each."""
S = TypeVar("S", bound=vk.ChainStruct)


def to_driver(handle_types: MemoryHandleType) -> MemoryHandleType:
    """Return the types that the driver gets for these."""
    if WIN32_IS_NATIVE or not handle_types & OPAQUE_WIN32_TYPES:
        return handle_types
    return MemoryHandleType(handle_types & ~OPAQUE_WIN32_TYPES | OPAQUE_FD)


def from_driver(handle_types: MemoryHandleType) -> MemoryHandleType:
    """Return the types that these types in a driver's answer stand for."""
    if WIN32_IS_NATIVE or not handle_types & OPAQUE_FD:
        return handle_types
    return union(handle_types, OPAQUE_WIN32_TYPES)


def translated(info: S) -> S:
    """Return the struct with its chain as the driver gets it. What differs is copied."""
    if WIN32_IS_NATIVE or not any(_types_of(link) & OPAQUE_WIN32_TYPES for link in (info, *vk.chain(info))):
        return info
    first = copy.copy(info)
    links: list[vk.ChainStruct] = [first, *(copy.copy(link) for link in vk.chain(info))]
    for link, following in zip(links, [*links[1:], None], strict=True):
        link.p_next = following
        if type(link) in _FIELDS:
            setattr(link, _FIELDS[type(link)], HandleType(to_driver(_types_of(link))))
    return first


def _types_of(link: object) -> MemoryHandleType:
    field = _FIELDS.get(type(link))
    return MemoryHandleType(int(getattr(link, field))) if field is not None else NO_TYPES
