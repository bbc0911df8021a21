"""Cases: querying the memory layout of a part of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from extmem import rules, vk
from extmem.rules import Violation
from tests.rules.cases_create import DRM, LINEAR, NV12
from tests.rules.world import case, export, image_info

A = vk.ImageAspectFlagBits
COMMAND, STRUCT = "vkGetImageSubresourceLayout", "VkImageSubresource"
DEPTH, STENCIL = vk.Format.D16_UNORM, vk.Format.S8_UINT


def layout(aspect: Any = A.COLOR, level: Any = 0, layer: Any = 0, **fields: Any) -> Callable[[], list[Violation]]:
    """Query the layout of a LINEAR image with three levels and two layers, unless `fields` replace that."""
    info = image_info(**{"tiling": LINEAR, "mip_levels": 3, "array_layers": 2, **fields})
    return lambda: rules.check_get_image_subresource_layout(vk.ImageSubresource(aspect, level, layer), info)


case(
    f"{COMMAND}-pSubresource-parameter",
    lambda: rules.check_get_image_subresource_layout(export(), image_info()),  # type: ignore[arg-type]  # wrong on purpose
    layout(),
)
case(f"{COMMAND}-image-07790", layout(tiling=vk.ImageTiling.OPTIMAL), layout())
case(f"{STRUCT}-aspectMask-parameter", layout(1 << 31), layout(), f"{COMMAND}-format-08886")
case(f"{STRUCT}-aspectMask-requiredbitmask", layout(0), layout(), f"{COMMAND}-format-08886")
case(f"{COMMAND}-aspectMask-00997", layout(A.COLOR | A.METADATA), layout(), f"{COMMAND}-format-08886")
case(f"{COMMAND}-mipLevel-01716", layout(level=3), layout(level=2))
case(f"{COMMAND}-arrayLayer-01717", layout(layer=2), layout(layer=1))
case(f"{COMMAND}-format-08886", layout(A.PLANE_0), layout())
case(f"{COMMAND}-format-04462", layout(format=DEPTH), layout(A.DEPTH, format=DEPTH))
case(f"{COMMAND}-format-04463", layout(format=STENCIL), layout(A.STENCIL, format=STENCIL))
case(f"{COMMAND}-format-04464", layout(A.DEPTH), layout(), f"{COMMAND}-format-08886")
case(f"{COMMAND}-tiling-08717", layout(format=NV12), layout(A.PLANE_1, format=NV12))
case(f"{COMMAND}-tiling-09433", layout(tiling=DRM), layout(A.MEMORY_PLANE_0_EXT, tiling=DRM))
