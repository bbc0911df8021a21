"""Cases: creating buffers and images, and querying image formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from extmem import rules, vk
from extmem.rules import Violation
from tests.rules.world import GPU, SIZE, T, case, export

FEATURES = (
    "sparseBinding sparseResidencyBuffer sparseResidencyImage2D sparseResidencyImage3D sparseResidency2Samples "
    "sparseResidency4Samples sparseResidency8Samples sparseResidency16Samples sparseResidencyAliased protectedMemory "
    "shaderStorageImageMultisample bufferDeviceAddressCaptureReplay"
)
BARE = replace(
    GPU,
    api_version=1 << 22 | 1 << 12,
    extensions=frozenset(),
    features=frozenset(),
    queue_family_count=3,
    max_framebuffer=(4096, 2048),
)
"""Vulkan 1.1, no extension, no feature."""
RICH = replace(BARE, api_version=1 << 22 | 4 << 12, extensions=None, features=frozenset(FEATURES.split()))
"""Vulkan 1.4 with all features, and extensions that are not known."""
LIMITS = rules.ImageFormatFacts((8192, 8192, 256), 8, 64, 0x1F)
BF, BU = vk.BufferCreateFlagBits, vk.BufferUsageFlagBits
IF, IU = vk.ImageCreateFlagBits, vk.ImageUsageFlagBits
BUFFER, IMAGE, QUERY = "VkBufferCreateInfo", "VkImageCreateInfo", "VkPhysicalDeviceImageFormatInfo2"
ONE_D, TWO_D, THREE_D = vk.ImageType.TYPE_1D, vk.ImageType.TYPE_2D, vk.ImageType.TYPE_3D
LINEAR, DRM = vk.ImageTiling.LINEAR, vk.ImageTiling.DRM_FORMAT_MODIFIER_EXT
NV12, BC1, DEPTH = vk.Format.G8_B8R8_2PLANE_420_UNORM, vk.Format.BC1_RGB_UNORM_BLOCK, vk.Format.D16_UNORM
CONCURRENT = vk.SharingMode.CONCURRENT


def buffer(device: rules.DeviceFacts = BARE, **fields: Any) -> Callable[[], list[Violation]]:
    """Create a transfer buffer, unless `fields` replace that."""
    known: dict[str, Any] = {"size": SIZE, "usage": BU.TRANSFER_DST}
    return lambda: rules.check_create_buffer(vk.BufferCreateInfo(**{**known, **fields}), device, {})


def image(
    device: rules.DeviceFacts = BARE,
    answer: rules.ImageFormatFacts | None = LIMITS,
    size: tuple[int, int, int] = (64, 64, 1),
    **fields: Any,
) -> Callable[[], list[Violation]]:
    """Create a small 2D image, unless `fields` replace that."""
    known: dict[str, Any] = {
        "image_type": TWO_D,
        "format": vk.Format.R8G8B8A8_UNORM,
        "extent": vk.Extent3D(*size),
        "usage": IU.TRANSFER_DST,
    }
    return lambda: rules.check_create_image(vk.ImageCreateInfo(**{**known, **fields}), device, {}, answer)


def query(device: rules.DeviceFacts = BARE, **fields: Any) -> Callable[[], list[Violation]]:
    """Query the properties of such images."""
    known: dict[str, Any] = {"format": vk.Format.R8G8B8A8_UNORM, "type": TWO_D, "usage": IU.TRANSFER_DST}
    asked = vk.PhysicalDeviceImageFormatInfo2(**{**known, **fields})
    return lambda: rules.check_external_image_format_info(asked, device)


case("vkCreateBuffer-pCreateInfo-parameter", lambda: rules.check_create_buffer(export(), BARE, {}), buffer())  # type: ignore[arg-type]  # wrong on purpose
case("vkCreateImage-pCreateInfo-parameter", lambda: rules.check_create_image(export(), BARE, {}), image())  # type: ignore[arg-type]  # wrong on purpose
case(
    "vkGetPhysicalDeviceImageFormatProperties2-pImageFormatInfo-parameter",
    lambda: rules.check_external_image_format_info(export()),  # type: ignore[arg-type]  # wrong on purpose
    query(),
)

# Buffers.
case(f"{BUFFER}-size-00912", buffer(size=0), buffer(size=1))
case(f"{BUFFER}-flags-parameter", buffer(flags=BF.DESCRIPTOR_BUFFER_CAPTURE_REPLAY_EXT), buffer(flags=0))
case(f"{BUFFER}-None-09499", buffer(usage=BU.CONDITIONAL_RENDERING_EXT), buffer(usage=BU.INDIRECT_BUFFER))
case(f"{BUFFER}-None-09500", buffer(usage=0), buffer(RICH, usage=0, p_next=vk.BufferUsageFlags2CreateInfo(1)))
case(f"{BUFFER}-sharingMode-parameter", buffer(sharing_mode=2), buffer(sharing_mode=0))
case(
    f"{BUFFER}-pNext-pNext",
    buffer(p_next=vk.BufferUsageFlags2CreateInfo(1)),
    buffer(RICH, p_next=vk.BufferUsageFlags2CreateInfo(1)),
)
twice = vk.ExternalMemoryBufferCreateInfo(0, vk.ExternalMemoryBufferCreateInfo(0))
case(f"{BUFFER}-sType-unique", buffer(p_next=twice), buffer(p_next=vk.ExternalMemoryBufferCreateInfo(0)))
case(
    f"{BUFFER}-flags-03338",
    buffer(replace(RICH, features=frozenset()), flags=BF.DEVICE_ADDRESS_CAPTURE_REPLAY),
    buffer(RICH, flags=BF.DEVICE_ADDRESS_CAPTURE_REPLAY),
)

# Buffers and images.
for struct, make, given, several, exist in (
    (BUFFER, buffer, "00913", "00914", "01419"),
    (IMAGE, image, "00941", "00942", "01420"),
):
    shared = make(sharing_mode=CONCURRENT, queue_family_indices=(0, 2))  # type: ignore[operator]
    empty = make(sharing_mode=CONCURRENT)  # type: ignore[operator]
    single = make(sharing_mode=CONCURRENT, queue_family_indices=(0,))  # type: ignore[operator]
    beyond = make(sharing_mode=CONCURRENT, queue_family_indices=(0, 3))  # type: ignore[operator]
    case(f"{struct}-sharingMode-{given}", empty, shared, f"{struct}-sharingMode-{several}")
    case(f"{struct}-sharingMode-{several}", single, shared)
    case(f"{struct}-sharingMode-{exist}", beyond, shared)

SPARSE, RESIDENT = IF.SPARSE_BINDING, IF.SPARSE_BINDING | IF.SPARSE_RESIDENCY
ALIASED = IF.SPARSE_BINDING | IF.SPARSE_ALIASED


def without(feature: str) -> rules.DeviceFacts:
    return replace(RICH, features=RICH.features - {feature})  # type: ignore[operator]  # not None


for struct, make, numbers in (
    (BUFFER, buffer, ("00915", "00917", "01887", "00918", "01888")),
    (IMAGE, image, ("00969", "01924", "01890", "00987", "01891")),
):
    binding, aliasing, protecting, needs, both = numbers
    protected = BF.PROTECTED if struct == BUFFER else IF.PROTECTED
    off, on = without("sparseBinding"), RICH
    case(f"{struct}-flags-{binding}", make(off, flags=SPARSE), make(on, flags=SPARSE))  # type: ignore[operator]
    off = without("sparseResidencyAliased")
    case(f"{struct}-flags-{aliasing}", make(off, flags=ALIASED), make(on, flags=ALIASED))  # type: ignore[operator]
    off = without("protectedMemory")
    case(f"{struct}-flags-{protecting}", make(off, flags=protected), make(on, flags=protected))  # type: ignore[operator]
    case(f"{struct}-flags-{needs}", make(on, flags=IF.SPARSE_ALIASED), make(on, flags=ALIASED))  # type: ignore[operator]
    case(f"{struct}-None-{both}", make(on, flags=SPARSE | protected), make(on, flags=protected))  # type: ignore[operator]
case(
    f"{BUFFER}-flags-00916",
    buffer(without("sparseResidencyBuffer"), flags=RESIDENT),
    buffer(RICH, flags=RESIDENT),
)
for number, kind, size, samples, feature in (
    ("00971", TWO_D, (64, 64, 1), 1, "sparseResidencyImage2D"),
    ("00972", THREE_D, (64, 64, 4), 1, "sparseResidencyImage3D"),
    ("00973", TWO_D, (64, 64, 1), 2, "sparseResidency2Samples"),
    ("00974", TWO_D, (64, 64, 1), 4, "sparseResidency4Samples"),
    ("00975", TWO_D, (64, 64, 1), 8, "sparseResidency8Samples"),
    ("00976", TWO_D, (64, 64, 1), 16, "sparseResidency16Samples"),
):
    one: dict[str, Any] = {"image_type": kind, "size": size, "samples": samples, "flags": RESIDENT}
    case(f"{IMAGE}-imageType-{number}", image(without(feature), **one), image(RICH, **one))

# Images: their size.
case(
    f"{IMAGE}-imageCreateMaxMipLevels-02251",
    image(answer=rules.ImageFormatFacts(unsupported="no images of this format")),
    image(),
)
case(f"{IMAGE}-extent-00944", image(size=(0, 64, 1)), image(size=(1, 64, 1)))
case(f"{IMAGE}-extent-00945", image(size=(64, 0, 1)), image(size=(64, 1, 1)))
case(
    f"{IMAGE}-extent-00946",
    image(image_type=THREE_D, size=(64, 64, 0)),
    image(image_type=THREE_D, size=(64, 64, 1)),
)
case(f"{IMAGE}-extent-02252", image(size=(8193, 64, 1)), image(size=(8192, 64, 1)))
case(f"{IMAGE}-extent-02253", image(size=(64, 8193, 1)), image(size=(64, 8192, 1)))
case(
    f"{IMAGE}-extent-02254",
    image(image_type=THREE_D, size=(64, 64, 257)),
    image(image_type=THREE_D, size=(64, 64, 256)),
)
case(f"{IMAGE}-imageType-00956", image(image_type=ONE_D), image(image_type=ONE_D, size=(64, 1, 1)))
case(f"{IMAGE}-imageType-00957", image(size=(64, 64, 2)), image())
case(f"{IMAGE}-mipLevels-00947", image(mip_levels=0), image(mip_levels=1))
case(f"{IMAGE}-mipLevels-00958", image(mip_levels=8), image(mip_levels=7))
case(f"{IMAGE}-mipLevels-02255", image(size=(512, 1, 1), mip_levels=9), image(size=(512, 1, 1), mip_levels=8))
case(f"{IMAGE}-arrayLayers-00948", image(array_layers=0), image(array_layers=1))
case(f"{IMAGE}-arrayLayers-02256", image(array_layers=65), image(array_layers=64))
case(f"{IMAGE}-imageType-00961", image(image_type=THREE_D, array_layers=2), image(image_type=THREE_D))
cube = {"flags": IF.CUBE_COMPATIBLE}
case(f"{IMAGE}-imageType-00954", image(array_layers=5, **cube), image(array_layers=6, **cube))
case(f"{IMAGE}-samples-parameter", image(samples=3), image(samples=2))
case(f"{IMAGE}-samples-02258", image(samples=32), image(samples=16))
case(f"{IMAGE}-samples-02257", image(samples=2, mip_levels=2), image(samples=2))
case(
    f"{IMAGE}-usage-00968",
    image(without("shaderStorageImageMultisample"), samples=2, usage=IU.STORAGE),
    image(RICH, samples=2, usage=IU.STORAGE),
)
case(
    f"{IMAGE}-usage-00964",
    image(size=(4097, 64, 1), usage=IU.COLOR_ATTACHMENT),
    image(size=(4096, 64, 1), usage=IU.COLOR_ATTACHMENT),
)
case(
    f"{IMAGE}-usage-00965",
    image(size=(64, 2049, 1), usage=IU.COLOR_ATTACHMENT),
    image(size=(64, 2048, 1), usage=IU.COLOR_ATTACHMENT),
)
case(
    f"{IMAGE}-initialLayout-00993",
    image(initial_layout=vk.ImageLayout.GENERAL),
    image(initial_layout=vk.ImageLayout.PREINITIALIZED),
)
case(
    f"{IMAGE}-initialLayout-parameter", image(initial_layout=9), image(initial_layout=8), f"{IMAGE}-initialLayout-00993"
)
case(f"{IMAGE}-sharingMode-parameter", image(sharing_mode=2), image(sharing_mode=0))
case(
    f"{IMAGE}-pNext-pNext",
    image(p_next=vk.ExternalMemoryImageCreateInfoNV(0)),
    image(RICH, p_next=vk.ExternalMemoryImageCreateInfoNV(0)),
)
both = vk.ExternalMemoryImageCreateInfo(0, vk.ExternalMemoryImageCreateInfo(0))
case(f"{IMAGE}-sType-unique", image(p_next=both), image(p_next=vk.ExternalMemoryImageCreateInfo(0)))
case(
    f"{IMAGE}-pNext-00991",
    image(p_next=vk.ExternalMemoryImageCreateInfoNV(1)),
    image(RICH, p_next=vk.ExternalMemoryImageCreateInfoNV(1)),
    f"{IMAGE}-pNext-pNext",
)

# Images: format, type, tiling, usage and flags.
for struct, make, kind_id, kind_field in ((IMAGE, image, "imageType", "image_type"), (QUERY, query, "type", "type")):
    tail: Any = make
    case(f"{struct}-flags-parameter", tail(flags=IF.SUBSAMPLED_EXT), tail(flags=IF.ALIAS))
    case(f"{struct}-usage-parameter", tail(usage=IU.FRAGMENT_DENSITY_MAP_EXT), tail(usage=IU.SAMPLED))
    case(f"{struct}-usage-requiredbitmask", tail(usage=0), tail(usage=IU.SAMPLED))
    case(f"{struct}-format-parameter", tail(format=vk.Format.PVRTC1_2BPP_UNORM_BLOCK_IMG), tail(format=BC1))
    case(f"{struct}-{kind_id}-parameter", tail(**{kind_field: 3}), tail(**{kind_field: TWO_D}))
    case(f"{struct}-tiling-parameter", tail(tiling=2), tail(tiling=LINEAR))
case(f"{IMAGE}-tiling-02261", image(RICH, tiling=DRM), image(RICH, tiling=LINEAR))
case(f"{QUERY}-tiling-02249", query(RICH, tiling=DRM), query(RICH, tiling=LINEAR))
mutable = {"flags": IF.MUTABLE_FORMAT}
case(
    f"{IMAGE}-tiling-02353",
    image(RICH, tiling=DRM, **mutable),
    image(RICH, tiling=LINEAR, **mutable),
    f"{IMAGE}-tiling-02261",
)
case(
    f"{QUERY}-tiling-02313",
    query(RICH, tiling=DRM, **mutable),
    query(RICH, tiling=LINEAR, **mutable),
    f"{QUERY}-tiling-02249",
)
case(
    f"{QUERY}-pNext-pNext", query(p_next=export()), query(p_next=vk.PhysicalDeviceExternalImageFormatInfo(T.OPAQUE_FD))
)
pair = vk.PhysicalDeviceExternalImageFormatInfo(1, vk.PhysicalDeviceExternalImageFormatInfo(1))
case(f"{QUERY}-sType-unique", query(p_next=pair), query(p_next=vk.PhysicalDeviceExternalImageFormatInfo(1)))
case(f"{IMAGE}-pNext-01975", image(format=0), image())
case(
    f"{IMAGE}-flags-00949",
    image(image_type=THREE_D, **cube),
    image(array_layers=6, **cube),
)
volume = {"image_type": THREE_D, "size": (64, 64, 4)}
for number, bit in (("00950", IF.CREATE_2D_ARRAY_COMPATIBLE), ("07755", IF.CREATE_2D_VIEW_COMPATIBLE_EXT)):
    case(f"{IMAGE}-flags-{number}", image(RICH, flags=bit), image(RICH, flags=bit, **volume))
transient = IU.TRANSIENT_ATTACHMENT
case(
    f"{IMAGE}-usage-00963",
    image(usage=transient | IU.COLOR_ATTACHMENT | IU.SAMPLED),
    image(usage=transient | IU.COLOR_ATTACHMENT),
)
case(f"{IMAGE}-usage-00966", image(usage=transient), image(usage=transient | IU.INPUT_ATTACHMENT))
case(
    f"{IMAGE}-None-01925",
    image(RICH, flags=SPARSE, usage=transient | IU.COLOR_ATTACHMENT),
    image(RICH, flags=SPARSE, usage=IU.COLOR_ATTACHMENT),
)
case(f"{IMAGE}-tiling-04121", image(RICH, flags=RESIDENT, tiling=LINEAR), image(RICH, flags=RESIDENT))
case(
    f"{IMAGE}-imageType-00970",
    image(RICH, flags=RESIDENT, image_type=ONE_D, size=(64, 1, 1)),
    image(RICH, flags=SPARSE, image_type=ONE_D, size=(64, 1, 1)),
)
split = {"flags": IF.SPLIT_INSTANCE_BIND_REGIONS}
group = replace(BARE, device_group=(b"a" * 16, b"b" * 16))
case(f"{IMAGE}-physicalDeviceCount-01421", image(**split), image(group, **split))
case(f"{IMAGE}-flags-02259", image(group, mip_levels=2, **split), image(group, **split))
blocks = IF.BLOCK_TEXEL_VIEW_COMPATIBLE | IF.MUTABLE_FORMAT
case(f"{IMAGE}-flags-01572", image(flags=blocks), image(flags=blocks, format=BC1))
case(
    f"{IMAGE}-flags-01573",
    image(flags=IF.BLOCK_TEXEL_VIEW_COMPATIBLE, format=BC1),
    image(flags=blocks, format=BC1),
)
located = IF.SAMPLE_LOCATIONS_COMPATIBLE_DEPTH_EXT
case(f"{IMAGE}-flags-01533", image(RICH, flags=located), image(RICH, flags=located, format=DEPTH))
case(f"{IMAGE}-format-01577", image(flags=IF.DISJOINT), image(flags=IF.DISJOINT, format=NV12))
case(f"{IMAGE}-format-06410", image(format=NV12, mip_levels=2), image(format=NV12))
case(f"{IMAGE}-format-06411", image(format=NV12, samples=2), image(format=NV12))
case(
    f"{IMAGE}-format-06412",
    image(format=NV12, image_type=THREE_D, size=(64, 64, 4)),
    image(format=NV12),
)
case(f"{IMAGE}-format-04712", image(format=NV12, size=(63, 64, 1)), image(format=NV12))
case(f"{IMAGE}-format-04713", image(format=NV12, size=(64, 63, 1)), image(format=NV12))
