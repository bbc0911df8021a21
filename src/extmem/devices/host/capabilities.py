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

__all__ = ["OPAQUE", "SUPPORTED", "buffer_properties", "image_needs_dedicated", "image_properties"]

HandleType = vk.ExternalMemoryHandleTypeFlagBits
Feature = vk.ExternalMemoryFeatureFlagBits

OPAQUE = HandleType.OPAQUE_WIN32 | HandleType.OPAQUE_WIN32_KMT
if HAS_FDS:
    OPAQUE |= HandleType.OPAQUE_FD
SUPPORTED = OPAQUE | HandleType.HOST_ALLOCATION

_NOTHING = HandleType(0)
_FD = HandleType.OPAQUE_FD if HAS_FDS else _NOTHING
_COMPATIBLE = {
    **({HandleType.OPAQUE_FD: OPAQUE} if HAS_FDS else {}),
    HandleType.OPAQUE_WIN32: HandleType.OPAQUE_WIN32 | _FD,
    HandleType.OPAQUE_WIN32_KMT: HandleType.OPAQUE_WIN32_KMT | _FD,
    HandleType.HOST_ALLOCATION: HandleType.HOST_ALLOCATION,
}
_EXPORT_FROM_IMPORTED = {
    kind: types if HAS_FDS and kind != HandleType.HOST_ALLOCATION else _NOTHING for kind, types in _COMPATIBLE.items()
}
_ATTACHMENT = vk.ImageUsageFlagBits.COLOR_ATTACHMENT | vk.ImageUsageFlagBits.DEPTH_STENCIL_ATTACHMENT


def buffer_properties(handle_type: int, flags: int) -> vk.ExternalMemoryProperties:
    """The properties of a buffer with these create flags. No feature bits if unsupported; the type stays listed."""
    kind = _supported(handle_type)
    if kind is None or flags:
        # Types of other systems; sparse, protected and captured buffers.
        return vk.ExternalMemoryProperties(Feature(0), HandleType(0), HandleType(handle_type))
    return vk.ExternalMemoryProperties(_features(kind), _EXPORT_FROM_IMPORTED[kind], _COMPATIBLE[kind])


def image_properties(handle_type: int, usage: int) -> vk.ExternalMemoryProperties | None:
    """The properties of an image with this usage; None if no such image can be external of this type."""
    kind = _supported(handle_type)
    if kind is None:
        return None
    features = _features(kind)
    if image_needs_dedicated(handle_type, usage):
        features |= Feature.DEDICATED_ONLY
    return vk.ExternalMemoryProperties(features, _EXPORT_FROM_IMPORTED[kind], kind)


def image_needs_dedicated(handle_types: int, usage: int) -> bool:
    """Whether an image with this usage and these external types needs a dedicated allocation.

    Never for host pointers: VK_EXT_external_memory_host forbids it.
    """
    return bool(usage & _ATTACHMENT and handle_types & OPAQUE)


def _supported(handle_type: int) -> vk.ExternalMemoryHandleTypeFlagBits | None:
    """The type, if it is a single one that the host device has."""
    return next((kind for kind in _COMPATIBLE if kind == handle_type), None)


def _features(kind: vk.ExternalMemoryHandleTypeFlagBits) -> vk.ExternalMemoryFeatureFlagBits:
    if kind == HandleType.HOST_ALLOCATION:
        return Feature.IMPORTABLE
    return Feature.EXPORTABLE | Feature.IMPORTABLE
