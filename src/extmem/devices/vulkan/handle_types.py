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

__all__ = ["WIN32", "WIN32_IS_NATIVE", "from_driver", "to_driver", "translated"]

WIN32_IS_NATIVE = sys.platform == "win32"
"""Whether drivers of this platform create Win32 handles themselves."""
HandleType = vk.ExternalMemoryHandleTypeFlagBits
FD = int(HandleType.OPAQUE_FD)
WIN32 = int(HandleType.OPAQUE_WIN32 | HandleType.OPAQUE_WIN32_KMT)
_CARRIERS = (
    vk.ExternalMemoryBufferCreateInfo,
    vk.ExternalMemoryImageCreateInfo,
    vk.PhysicalDeviceExternalBufferInfo,
    vk.PhysicalDeviceExternalImageFormatInfo,
)
S = TypeVar("S", bound=vk.ChainStruct)


def to_driver(handle_types: int) -> int:
    """Return the types that the driver gets for these."""
    types = int(handle_types)
    if WIN32_IS_NATIVE:
        return types
    return types & ~WIN32 | (FD if types & WIN32 else 0)


def from_driver(handle_types: int) -> int:
    """Return the types that these types in a driver's answer stand for."""
    types = int(handle_types)
    if WIN32_IS_NATIVE:
        return types
    return types | (WIN32 if types & FD else 0)


def translated(info: S) -> S:
    """Return the struct with its chain as the driver gets it. What differs is copied."""
    if WIN32_IS_NATIVE or not any(_types_of(link) & WIN32 for link in (info, *vk.chain(info))):
        return info
    first = copy.copy(info)
    links: list[vk.ChainStruct] = [first, *(copy.copy(link) for link in vk.chain(info))]
    for link, following in zip(links, [*links[1:], None], strict=True):
        link.p_next = following
        if isinstance(link, (vk.ExternalMemoryBufferCreateInfo, vk.ExternalMemoryImageCreateInfo)):
            link.handle_types = HandleType(to_driver(int(link.handle_types)))
        elif isinstance(link, (vk.PhysicalDeviceExternalBufferInfo, vk.PhysicalDeviceExternalImageFormatInfo)):
            link.handle_type = HandleType(to_driver(int(link.handle_type)))
    return first


def _types_of(link: object) -> int:
    if not isinstance(link, _CARRIERS):
        return 0
    if isinstance(link, (vk.ExternalMemoryBufferCreateInfo, vk.ExternalMemoryImageCreateInfo)):
        return int(link.handle_types)
    return int(link.handle_type)
