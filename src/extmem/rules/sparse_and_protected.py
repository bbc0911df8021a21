"""Create flags of sparse and protected buffers and images."""

from __future__ import annotations

from extmem import vk
from extmem.rules._creation import BOTH, CREATE_BUFFER, CREATE_IMAGE, Create, lacking_features
from extmem.rules._engine import Check, Finding, rule
from extmem.rules._text import flags_text

__all__: list[str] = []

# The bits of buffers and images have the same values, except PROTECTED.
_Buffer, _Image = vk.BufferCreateFlagBits, vk.ImageCreateFlagBits
_BINDING, _RESIDENCY, _ALIASED = int(_Image.SPARSE_BINDING), int(_Image.SPARSE_RESIDENCY), int(_Image.SPARSE_ALIASED)
_SPARSE = _BINDING | _RESIDENCY | _ALIASED
_LINEAR = int(vk.ImageTiling.LINEAR)
_TRANSIENT = int(vk.ImageUsageFlagBits.TRANSIENT_ATTACHMENT)


def _protected(call: Create) -> int:
    return int(_Image.PROTECTED if isinstance(call.info, vk.ImageCreateInfo) else _Buffer.PROTECTED)


def _path(call: Create) -> str:
    return f"{type(call.info).__name__}.flags"


def _off(call: Create, bit: int, *features: str) -> Finding | None:
    lacking = lacking_features(call, features) if int(call.info.flags) & bit else []
    if not lacking:
        return None
    enum = _Image if isinstance(call.info, vk.ImageCreateInfo) else _Buffer
    name = flags_text(bit, enum)
    return (
        _path(call),
        f"{name} needs the feature {', '.join(lacking)}, which is not enabled",
        f"Omit {name}.",
    )


@rule("VkBufferCreateInfo-flags-00915", "VkImageCreateInfo-flags-00969", on=BOTH)
def sparse_binding_is_enabled(call: Create) -> Finding | None:
    """SPARSE_BINDING needs a feature."""
    return _off(call, _BINDING, "sparseBinding")


@rule("VkBufferCreateInfo-flags-00917", "VkImageCreateInfo-flags-01924", on=BOTH)
def sparse_aliasing_is_enabled(call: Create) -> Finding | None:
    """SPARSE_ALIASED needs a feature."""
    return _off(call, _ALIASED, "sparseResidencyAliased")


@rule("VkBufferCreateInfo-flags-00916", on=CREATE_BUFFER)
def sparse_residency_is_enabled(call: Create) -> Finding | None:
    """SPARSE_RESIDENCY needs a feature."""
    return _off(call, _RESIDENCY, "sparseResidencyBuffer")


@rule("VkBufferCreateInfo-flags-01887", "VkImageCreateInfo-flags-01890", on=BOTH)
def protected_memory_is_enabled(call: Create) -> Finding | None:
    """PROTECTED needs a feature."""
    return _off(call, _protected(call), "protectedMemory")


@rule("VkBufferCreateInfo-flags-00918", "VkImageCreateInfo-flags-00987", on=BOTH)
def sparse_needs_binding(call: Create) -> Finding | None:
    """SPARSE_RESIDENCY and SPARSE_ALIASED need SPARSE_BINDING."""
    flags = int(call.info.flags)
    if not flags & (_RESIDENCY | _ALIASED) or flags & _BINDING:
        return None
    return (
        _path(call),
        f"{flags_text(flags & _SPARSE, _Image)} is given without SPARSE_BINDING",
        f"Add SPARSE_BINDING, or omit {flags_text(flags & _SPARSE, _Image)}.",
    )


@rule("VkBufferCreateInfo-None-01888", "VkImageCreateInfo-None-01891", on=BOTH)
def sparse_or_protected(call: Create) -> Finding | None:
    """A sparse resource is not protected."""
    flags = int(call.info.flags)
    if not flags & _SPARSE or not flags & _protected(call):
        return None
    return _path(call), f"{flags_text(flags & _SPARSE, _Image)} is given with PROTECTED", "Keep one of the two."


@rule("VkImageCreateInfo-None-01925", on=CREATE_IMAGE)
def sparse_or_transient(call: Create) -> Finding | None:
    """A transient attachment is not sparse."""
    sparse = int(call.info.flags) & _SPARSE
    if not sparse or not int(call.info.usage) & _TRANSIENT:
        return None
    return (
        "ImageCreateInfo.usage",
        f"TRANSIENT_ATTACHMENT is given, and flags has {flags_text(sparse, _Image)}",
        "Keep one of the two.",
    )


@rule("VkImageCreateInfo-tiling-04121", on=CREATE_IMAGE)
def linear_is_not_sparse(call: Create) -> Finding | None:
    """Images of LINEAR tiling have no sparse residency."""
    if int(call.info.tiling) != _LINEAR or not int(call.info.flags) & _RESIDENCY:
        return None
    return "ImageCreateInfo.tiling", "it is LINEAR, and flags has SPARSE_RESIDENCY", "Use ImageTiling.OPTIMAL."


@rule("VkImageCreateInfo-imageType-00970", on=CREATE_IMAGE)
def one_dimension_is_not_sparse(call: Create) -> Finding | None:
    """1D images have no sparse residency."""
    if int(call.info.image_type) != int(vk.ImageType.TYPE_1D) or not int(call.info.flags) & _RESIDENCY:
        return None
    return "ImageCreateInfo.image_type", "it is TYPE_1D, and flags has SPARSE_RESIDENCY", "Omit SPARSE_RESIDENCY."


def _residency(image_type: vk.ImageType, samples: int, feature: str) -> Check[Create]:
    """Make the check that SPARSE_RESIDENCY of images of this type, and these samples unless 0, has its feature."""

    def check(call: Create) -> Finding | None:
        if int(call.info.image_type) != int(image_type) or (samples and int(call.info.samples) != samples):
            return None
        return _off(call, _RESIDENCY, feature)

    return check


for _number, _image_type, _samples, _feature in (
    ("00971", vk.ImageType.TYPE_2D, 0, "sparseResidencyImage2D"),
    ("00972", vk.ImageType.TYPE_3D, 0, "sparseResidencyImage3D"),
    ("00973", vk.ImageType.TYPE_2D, 2, "sparseResidency2Samples"),
    ("00974", vk.ImageType.TYPE_2D, 4, "sparseResidency4Samples"),
    ("00975", vk.ImageType.TYPE_2D, 8, "sparseResidency8Samples"),
    ("00976", vk.ImageType.TYPE_2D, 16, "sparseResidency16Samples"),
):
    rule(f"VkImageCreateInfo-imageType-{_number}", on=CREATE_IMAGE)(_residency(_image_type, _samples, _feature))
