"""The bits, formats and structs that a device has only with a later version of Vulkan or with an extension.

Everything that is not listed here is part of Vulkan 1.1, which external memory needs.
`tests/unit/rules/test_enabled.py` compares the tables with the registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from functools import cache

import msgspec

from extmem import vk
from extmem.rules._text import bits_of, flags_text
from extmem.rules.facts import DeviceFacts
from extmem.vk.modifiers import EXTENSION as MODIFIERS

__all__ = [
    "BUFFER_FLAGS",
    "BUFFER_USAGES",
    "CHAINED",
    "FORMATS",
    "IMAGE_FLAGS",
    "IMAGE_USAGES",
    "Needs",
    "lacking_bits",
    "lacks",
]


class Needs(msgspec.Struct, frozen=True):
    """What enables a bit, format or struct: a version of Vulkan, or one of several extensions."""

    version: int
    """Minor version of Vulkan 1 that contains it; 0 if no version does."""
    extensions: tuple[str, ...]

    @property
    def text(self) -> str:
        """The requirement as text for a message."""
        names = [f"Vulkan 1.{self.version}"] if self.version else []
        return " or ".join([*names, *self.extensions])


def _table(enum: type[IntFlag], requirements: Mapping[str, str]) -> dict[int, Needs]:
    """Build a table by bit. `requirements`: names of bits, separated by spaces → `1.2`, extensions, or both."""
    table = {}
    for names, needs in requirements.items():
        words = needs.split()
        version = int(words[0].removeprefix("1.")) if words[0].startswith("1.") else 0
        for name in names.split():
            table[int(enum[name])] = Needs(version, tuple(f"VK_{w}" for w in words if not w.startswith("1.")))
    return table


BUFFER_FLAGS = _table(
    vk.BufferCreateFlagBits,
    {
        "DEVICE_ADDRESS_CAPTURE_REPLAY": "1.2 KHR_buffer_device_address EXT_buffer_device_address",
        "DESCRIPTOR_BUFFER_CAPTURE_REPLAY_EXT": "EXT_descriptor_buffer",
        "VIDEO_PROFILE_INDEPENDENT_KHR": "KHR_video_maintenance1",
    },
)
BUFFER_USAGES = _table(
    vk.BufferUsageFlagBits,
    {
        "SHADER_DEVICE_ADDRESS": "1.2 KHR_buffer_device_address EXT_buffer_device_address",
        "CONDITIONAL_RENDERING_EXT": "EXT_conditional_rendering",
        "SHADER_BINDING_TABLE_KHR": "NV_ray_tracing KHR_ray_tracing_pipeline",
        "TRANSFORM_FEEDBACK_BUFFER_EXT TRANSFORM_FEEDBACK_COUNTER_BUFFER_EXT": "EXT_transform_feedback",
        "VIDEO_DECODE_SRC_KHR VIDEO_DECODE_DST_KHR": "KHR_video_decode_queue",
        "VIDEO_ENCODE_SRC_KHR VIDEO_ENCODE_DST_KHR": "KHR_video_encode_queue",
        "ACCELERATION_STRUCTURE_BUILD_INPUT_READ_ONLY_KHR ACCELERATION_STRUCTURE_STORAGE_KHR": (
            "KHR_acceleration_structure"
        ),
        "SAMPLER_DESCRIPTOR_BUFFER_EXT RESOURCE_DESCRIPTOR_BUFFER_EXT PUSH_DESCRIPTORS_DESCRIPTOR_BUFFER_EXT": (
            "EXT_descriptor_buffer"
        ),
        "MICROMAP_BUILD_INPUT_READ_ONLY_EXT MICROMAP_STORAGE_EXT": "EXT_opacity_micromap",
        "EXECUTION_GRAPH_SCRATCH_AMDX": "AMDX_shader_enqueue",
        "TILE_MEMORY_QCOM": "QCOM_tile_memory_heap",
        "DESCRIPTOR_HEAP_EXT": "EXT_descriptor_heap",
    },
)
IMAGE_FLAGS = _table(
    vk.ImageCreateFlagBits,
    {
        "SAMPLE_LOCATIONS_COMPATIBLE_DEPTH_EXT": "EXT_sample_locations",
        "CORNER_SAMPLED_NV": "NV_corner_sampled_image",
        "SUBSAMPLED_EXT": "EXT_fragment_density_map",
        "FRAGMENT_DENSITY_MAP_OFFSET_EXT": "QCOM_fragment_density_map_offset EXT_fragment_density_map_offset",
        "DESCRIPTOR_HEAP_CAPTURE_REPLAY_EXT": "EXT_descriptor_heap EXT_descriptor_buffer",
        "CREATE_2D_VIEW_COMPATIBLE_EXT": "EXT_image_2d_view_of_3d",
        "MULTISAMPLED_RENDER_TO_SINGLE_SAMPLED_EXT": "EXT_multisampled_render_to_single_sampled",
        "VIDEO_PROFILE_INDEPENDENT_KHR": "KHR_video_maintenance1",
        "ALIAS_SINGLE_LAYER_DESCRIPTOR_KHR": "KHR_maintenance11",
    },
)
IMAGE_USAGES = _table(
    vk.ImageUsageFlagBits,
    {
        "FRAGMENT_SHADING_RATE_ATTACHMENT_KHR": "KHR_fragment_shading_rate NV_shading_rate_image",
        "FRAGMENT_DENSITY_MAP_EXT": "EXT_fragment_density_map",
        "VIDEO_DECODE_DST_KHR VIDEO_DECODE_SRC_KHR VIDEO_DECODE_DPB_KHR": "KHR_video_decode_queue",
        "VIDEO_ENCODE_DST_KHR VIDEO_ENCODE_SRC_KHR VIDEO_ENCODE_DPB_KHR": "KHR_video_encode_queue",
        "INVOCATION_MASK_HUAWEI": "HUAWEI_invocation_mask",
        "ATTACHMENT_FEEDBACK_LOOP_EXT": "EXT_attachment_feedback_loop_layout",
        "SAMPLE_WEIGHT_QCOM SAMPLE_BLOCK_MATCH_QCOM": "QCOM_image_processing",
        "HOST_TRANSFER": "1.4 EXT_host_image_copy",
        "TENSOR_ALIASING_ARM": "ARM_tensors",
        "VIDEO_ENCODE_QUANTIZATION_DELTA_MAP_KHR VIDEO_ENCODE_EMPHASIS_MAP_KHR": "KHR_video_encode_quantization_map",
        "TILE_MEMORY_QCOM": "QCOM_tile_memory_heap",
    },
)
FORMATS = {
    54: Needs(0, ("VK_IMG_format_pvrtc",)),
    66: Needs(3, ("VK_EXT_texture_compression_astc_hdr",)),
    288: Needs(0, ("VK_EXT_texture_compression_astc_3d",)),
    330: Needs(3, ("VK_EXT_ycbcr_2plane_444_formats",)),
    340: Needs(3, ("VK_EXT_4444_formats",)),
    460: Needs(0, ("VK_ARM_tensors",)),
    464: Needs(0, ("VK_NV_optical_flow",)),
    470: Needs(4, ("VK_KHR_maintenance5",)),
    609: Needs(0, ("VK_ARM_format_pack",)),
}
"""Requirements by (format - 1,000,000,000) // 1000, which is the number of the extension that introduced the format."""
CHAINED: dict[type[vk.ChainStruct], Needs] = {
    vk.BufferUsageFlags2CreateInfo: Needs(4, ("VK_KHR_maintenance5",)),
    vk.ExternalMemoryImageCreateInfoNV: Needs(0, ("VK_NV_external_memory",)),
    vk.ExportMemoryAllocateInfoNV: Needs(0, ("VK_NV_external_memory",)),
    vk.ExportMemoryWin32HandleInfoNV: Needs(0, ("VK_NV_external_memory_win32",)),
    vk.ImportMemoryWin32HandleInfoNV: Needs(0, ("VK_NV_external_memory_win32",)),
    vk.DedicatedAllocationMemoryAllocateInfoNV: Needs(0, ("VK_NV_dedicated_allocation",)),
    vk.MemoryOpaqueCaptureAddressAllocateInfo: Needs(2, ("VK_KHR_buffer_device_address",)),
    vk.MemoryPriorityAllocateInfoEXT: Needs(0, ("VK_EXT_memory_priority",)),
    vk.ImageDrmFormatModifierListCreateInfoEXT: Needs(0, (MODIFIERS,)),
    vk.ImageDrmFormatModifierExplicitCreateInfoEXT: Needs(0, (MODIFIERS,)),
    vk.PhysicalDeviceImageDrmFormatModifierInfoEXT: Needs(0, (MODIFIERS,)),
}
"""Structs that extend a create info or an allocation only if their requirement is enabled."""


def lacks(needs: Needs | None, device: DeviceFacts | None) -> bool:
    """Return whether the device is known to have neither the version nor any of the extensions."""
    if needs is None or device is None or device.extensions is None:
        return False
    if needs.version and (device.api_version is None or device.api_version >= 1 << 22 | needs.version << 12):
        return False
    return device.extensions.isdisjoint(needs.extensions)


def lacking_bits(mask: int, enum: type[IntFlag], table: Mapping[int, Needs], device: DeviceFacts | None) -> str:
    """Return which of these bits are invalid for the device, and why, as text; empty if all of them are valid."""
    unknown = mask & ~_defined(enum)
    problems = [f"the bits {unknown:#x} are not defined"] if unknown else []
    without: dict[str, int] = {}
    for bit in bits_of(mask & ~unknown):
        if bit in table and lacks(table[bit], device):
            without[table[bit].text] = without.get(table[bit].text, 0) | bit
    problems += [f"{flags_text(bits, enum)} needs {needs}, which is not enabled" for needs, bits in without.items()]
    return "; ".join(problems)


@cache
def _defined(enum: type[IntFlag]) -> int:
    return sum(int(member) for member in enum)
