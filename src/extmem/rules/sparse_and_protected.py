"""Create flags of sparse and protected buffers and images."""

from __future__ import annotations

from extmem import vk
from extmem.rules._conditions import all_of, equals, has_bits
from extmem.rules._creation import BOTH, CREATE_BUFFER, CREATE_IMAGE, Create, Traits, flag_needs_feature
from extmem.rules._engine import Demand, demand
from extmem.rules._text import flags_text

__all__: list[str] = []

# The bits of buffers and images have the same values, except PROTECTED.
_Buffer, _Image = vk.BufferCreateFlagBits, vk.ImageCreateFlagBits
_BINDING, _RESIDENCY, _ALIASED = int(_Image.SPARSE_BINDING), int(_Image.SPARSE_RESIDENCY), int(_Image.SPARSE_ALIASED)
_SPARSE = _BINDING | _RESIDENCY | _ALIASED


def _sparse(call: Create) -> str:
    """Return the sparse flags, as text."""
    flags = int(call.info.flags) & _SPARSE
    return flags_text(flags, _Image) if flags else ""


def _protected(vuid: str, flag: vk.BufferCreateFlagBits | vk.ImageCreateFlagBits) -> Demand:
    return Demand(
        vuid,
        all_of(has_bits("info.flags", flag), _sparse),
        "{call.struct}.flags",
        "{found} is given with PROTECTED",
        "Keep one of the two.",
        needs=Traits.FLAGS,
    )


def _residency(number: str, samples: int, feature: str) -> Demand:
    return flag_needs_feature(
        f"VkImageCreateInfo-imageType-{number}",
        _Image.SPARSE_RESIDENCY,
        feature,
        equals("info.samples", samples),
        needs=Traits.TYPE_2D,
    )


demand(
    BOTH,
    flag_needs_feature(
        ("VkBufferCreateInfo-flags-00915", "VkImageCreateInfo-flags-00969"), _Image.SPARSE_BINDING, "sparseBinding"
    ),
    flag_needs_feature(
        ("VkBufferCreateInfo-flags-00917", "VkImageCreateInfo-flags-01924"),
        _Image.SPARSE_ALIASED,
        "sparseResidencyAliased",
    ),
)
demand(
    CREATE_BUFFER,
    flag_needs_feature("VkBufferCreateInfo-flags-00916", _Image.SPARSE_RESIDENCY, "sparseResidencyBuffer"),
    flag_needs_feature("VkBufferCreateInfo-flags-01887", _Buffer.PROTECTED, "protectedMemory"),
)
demand(CREATE_IMAGE, flag_needs_feature("VkImageCreateInfo-flags-01890", _Image.PROTECTED, "protectedMemory"))
demand(
    BOTH,
    Demand(
        ("VkBufferCreateInfo-flags-00918", "VkImageCreateInfo-flags-00987"),
        all_of(has_bits("info.flags", _RESIDENCY | _ALIASED, without=_BINDING), _sparse),
        "{call.struct}.flags",
        "{found} is given without SPARSE_BINDING",
        "Add SPARSE_BINDING, or omit {found}.",
        needs=Traits.FLAGS,
    ),
)
demand(CREATE_BUFFER, _protected("VkBufferCreateInfo-None-01888", _Buffer.PROTECTED))
demand(
    CREATE_IMAGE,
    _protected("VkImageCreateInfo-None-01891", _Image.PROTECTED),
    Demand(
        "VkImageCreateInfo-None-01925",
        all_of(has_bits("info.usage", vk.ImageUsageFlagBits.TRANSIENT_ATTACHMENT), _sparse),
        "ImageCreateInfo.usage",
        "TRANSIENT_ATTACHMENT is given, and flags has {found}",
        "Keep one of the two.",
        needs=Traits.FLAGS,
    ),
    Demand(
        "VkImageCreateInfo-tiling-04121",
        all_of(equals("info.tiling", vk.ImageTiling.LINEAR), has_bits("info.flags", _RESIDENCY)),
        "ImageCreateInfo.tiling",
        "it is LINEAR, and flags has SPARSE_RESIDENCY",
        "Use ImageTiling.OPTIMAL.",
        needs=Traits.FLAGS,
    ),
    Demand(
        "VkImageCreateInfo-imageType-00970",
        has_bits("info.flags", _RESIDENCY),
        "ImageCreateInfo.image_type",
        "it is TYPE_1D, and flags has SPARSE_RESIDENCY",
        "Omit SPARSE_RESIDENCY.",
        needs=Traits.TYPE_1D | Traits.FLAGS,
    ),
    flag_needs_feature(
        "VkImageCreateInfo-imageType-00971", _Image.SPARSE_RESIDENCY, "sparseResidencyImage2D", needs=Traits.TYPE_2D
    ),
    flag_needs_feature(
        "VkImageCreateInfo-imageType-00972", _Image.SPARSE_RESIDENCY, "sparseResidencyImage3D", needs=Traits.TYPE_3D
    ),
    _residency("00973", 2, "sparseResidency2Samples"),
    _residency("00974", 4, "sparseResidency4Samples"),
    _residency("00975", 8, "sparseResidency8Samples"),
    _residency("00976", 16, "sparseResidency16Samples"),
)
