"""The registry's table of formats, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FormatModel", "read"]


@dataclass(frozen=True)
class FormatModel:
    """One format. Sizes in bytes; depth and stencil are counted as a copy to a buffer packs them, 0 for none."""

    c_name: str
    value: int
    block_size: int
    block_extent: tuple[int, int, int]
    depth_size: int
    stencil_size: int
    planes: tuple[tuple[int, int, int], ...]
    """The compatible format, width and height divisor of each; empty for formats in one plane."""
    compressed: bool
    chroma: bool
    """Whether it takes a sampler Y'CbCr conversion to look at it."""


def read(vk: Any) -> tuple[FormatModel, ...]:
    """All formats, by their numbers."""
    values = {entry.name: int(entry.value) for entry in vk.enums["VkFormat"].fields}
    found = []
    for raw in vk.formats.values():
        bits = {part.type: part.bits for part in raw.components}
        # A copy packs depth to whole powers of two: 24 bits take four bytes.
        depth = 2 if bits.get("D") == "16" else 4 if "D" in bits else 0
        width, height, slices = (int(length) for length in raw.blockExtent or (1, 1, 1))
        found.append(
            FormatModel(
                raw.name,
                values[raw.name],
                int(raw.blockSize),
                (width, height, slices),
                depth,
                int(bits["S"]) // 8 if "S" in bits else 0,
                tuple((values[p.compatible], int(p.widthDivisor), int(p.heightDivisor)) for p in raw.planes),
                bool(raw.compressed),
                bool(raw.chroma),
            )
        )
    return tuple(sorted(found, key=lambda one: one.value))
