"""Capabilities of the host device: which external handle types a buffer or image can have. Pure.

A buffer can have every type together with every other one that the specification's tables allow: an NT handle and a KMT
number for one payload would need two kinds of share, so those two do not list each other. An image lists only its own
type, as real drivers do (B86), and one that can be an attachment must be dedicated.

On Windows there are no file descriptors, and what was imported cannot be exported again: a section has one name for
its whole life.
"""

from __future__ import annotations

from extmem import vk
from extmem.devices.host.handle_types import HAS_FDS
from extmem.vk.handle_types import (
    HOST_ALLOCATION,
    NO_TYPES,
    OPAQUE_FD,
    OPAQUE_WIN32,
    OPAQUE_WIN32_KMT,
    OPAQUE_WIN32_TYPES,
    MemoryHandleType,
    union,
)

__all__ = ["OPAQUE", "SUPPORTED", "buffer_properties", "image_needs_dedicated", "image_properties"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
Feature = vk.ExternalMemoryFeatureFlagBits

_FD = OPAQUE_FD if HAS_FDS else NO_TYPES
OPAQUE = union(OPAQUE_WIN32_TYPES, _FD)
SUPPORTED = union(OPAQUE, HOST_ALLOCATION)

_NOTHING = HandleType(0)
_COMPATIBLE = {
    **({OPAQUE_FD: HandleType(OPAQUE)} if HAS_FDS else {}),
    OPAQUE_WIN32: HandleType(OPAQUE_WIN32 | _FD),
    OPAQUE_WIN32_KMT: HandleType(OPAQUE_WIN32_KMT | _FD),
    HOST_ALLOCATION: HandleType.HOST_ALLOCATION,
}
_EXPORT_FROM_IMPORTED = {
    bit: types if HAS_FDS and bit != HOST_ALLOCATION else _NOTHING for bit, types in _COMPATIBLE.items()
}
_ATTACHMENT = vk.ImageUsageFlagBits.COLOR_ATTACHMENT | vk.ImageUsageFlagBits.DEPTH_STENCIL_ATTACHMENT


def buffer_properties(handle_type: MemoryHandleType, flags: int) -> vk.ExternalMemoryProperties:
    """The properties of a buffer with these create flags. No feature bits if unsupported; the type stays listed."""
    if handle_type not in _COMPATIBLE or flags:
        # Types of other systems; sparse, protected and captured buffers.
        return vk.ExternalMemoryProperties(Feature(0), _NOTHING, HandleType(handle_type))
    exported, compatible = _EXPORT_FROM_IMPORTED[handle_type], _COMPATIBLE[handle_type]
    return vk.ExternalMemoryProperties(_features(handle_type), exported, compatible)


def image_properties(handle_type: MemoryHandleType, usage: int) -> vk.ExternalMemoryProperties | None:
    """The properties of an image with this usage; None if no such image can be external of this type."""
    if handle_type not in _COMPATIBLE:
        return None
    features = _features(handle_type)
    if image_needs_dedicated(handle_type, usage):
        features |= Feature.DEDICATED_ONLY
    return vk.ExternalMemoryProperties(features, _EXPORT_FROM_IMPORTED[handle_type], HandleType(handle_type))


def image_needs_dedicated(handle_types: MemoryHandleType, usage: int) -> bool:
    """Whether an image with this usage and these external types needs a dedicated allocation.

    Never for host pointers: VK_EXT_external_memory_host forbids it.
    """
    return bool(usage & _ATTACHMENT and handle_types & OPAQUE)


def _features(handle_type: MemoryHandleType) -> vk.ExternalMemoryFeatureFlagBits:
    if handle_type == HOST_ALLOCATION:
        return Feature.IMPORTABLE
    return Feature.EXPORTABLE | Feature.IMPORTABLE
