"""Imported images: a Vulkan image's memory as a CUDA mipmapped array of the same format, extent, levels and layers.

Sources: CUDA driver API, cuExternalMemoryGetMappedMipmappedArray and cuMipmappedArrayCreate; Vulkan specification,
"Format Definition".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from extmem import vk
from extmem.devices.cuda.owners import take
from extmem.errors import UnsupportedError

if TYPE_CHECKING:
    from extmem.devices.cuda.logical import LogicalDevice
    from extmem.devices.cuda.owners import Undo

__all__ = ["element", "map_array"]

_LAYERED, _SURFACE, _CUBEMAP, _COLOR_ATTACHMENT = 0x01, 0x02, 0x04, 0x20
_Usage = vk.ImageUsageFlagBits
_COMPONENTS = re.compile(r"^(?:R(\d+))?(?:G(\d+))?(?:B(\d+))?(?:A(\d+))?_([A-Z]+)$")
_KINDS = {
    ("UINT", 8): 0x01,
    ("UINT", 16): 0x02,
    ("UINT", 32): 0x03,
    ("SINT", 8): 0x08,
    ("SINT", 16): 0x09,
    ("SINT", 32): 0x0A,
    ("SFLOAT", 16): 0x10,
    ("SFLOAT", 32): 0x20,
    ("UNORM", 8): 0x01,
    ("UNORM", 16): 0x02,
    ("SRGB", 8): 0x01,
    ("SNORM", 8): 0x08,
    ("SNORM", 16): 0x09,
}
"""CUarray_format by the numeric format and the bits of a component. Normalized ones are read as integers here."""


def element(vk_format: int) -> tuple[int, int]:
    """Return CUarray_format and the number of channels of a VkFormat. UnsupportedError if CUDA has no such array."""
    name = next((candidate.name for candidate in vk.Format if int(candidate) == vk_format), f"format {vk_format}")
    parts = _COMPONENTS.match(name or "")
    sizes = [int(bits) for bits in parts.groups()[:4] if bits] if parts else []
    kind = _KINDS.get((parts.group(5), sizes[0])) if parts and sizes else None
    if kind is None or len(set(sizes)) != 1 or len(sizes) not in (1, 2, 4):
        raise UnsupportedError(
            f"CUDA has no array of {name}: it has 1, 2 or 4 channels of 8, 16 or 32 bits each; copy the image to a "
            "buffer on its Vulkan device",
            requires_one_of=["a format such as R8G8B8A8_UNORM or R32_SFLOAT", "a buffer"],
        )
    return kind, len(sizes)


def map_array(
    device: LogicalDevice, memory: Any, image: vk.ImageCreateInfo, devices: tuple[str, ...], undo: Undo
) -> Any:
    """Return the CUmipmappedArray of an imported image's memory. Errors: UnsupportedError for its format; DriverError.

    devices: names of other devices, for errors.
    """
    cu = device.module
    kind, channels = element(int(image.format))
    description = cu.CUDA_EXTERNAL_MEMORY_MIPMAPPED_ARRAY_DESC()
    description.numLevels = int(image.mip_levels)
    shape = description.arrayDesc
    shape.Width, shape.Height = int(image.extent.width), int(image.extent.height)
    flat = image.image_type != vk.ImageType.TYPE_3D
    layers = int(image.array_layers)
    shape.Depth = (layers if layers > 1 else 0) if flat else int(image.extent.depth)
    if image.image_type == vk.ImageType.TYPE_1D:
        shape.Height = 0
    shape.Format, shape.NumChannels = cu.CUarray_format(kind), channels
    usage = int(image.usage)
    shape.Flags = (
        (_LAYERED if flat and layers > 1 else 0)
        | (_SURFACE if usage & _Usage.STORAGE else 0)
        | (_CUBEMAP if int(image.flags) & vk.ImageCreateFlagBits.CUBE_COMPATIBLE else 0)
        | (_COLOR_ATTACHMENT if usage & _Usage.COLOR_ATTACHMENT else 0)
    )
    step = (cu.cuMipmappedArrayDestroy, ...)
    answer = take(undo, step, cu.cuExternalMemoryGetMappedMipmappedArray, memory, description)
    return device.value_of(answer, "cuExternalMemoryGetMappedMipmappedArray", others=devices)
